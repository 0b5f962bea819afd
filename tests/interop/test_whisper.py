"""Whisper of `transformers`: read, written, the same logits, the same texts and times."""

import collections
import dataclasses
import functools
import json
import shutil
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.interop.round_trips import arrays_of
from tests.interop.whispers import END, MARKS, openers, publish, sound, theirs, tokenizer
from transformer.composition import with_fields
from transformer.data.audio.prompts import require_marks
from transformer.data.audio.windows import parts_of
from transformer.data.tokenizers.sentences import LibrarySentenceTokenizer
from transformer.decoding.dictation import Dictation
from transformer.errors import DataError
from transformer.interop.opening import read_published
from transformer.runs.exporting import export_run
from transformer.runs.importing import import_published
from transformer.runs.opening import open_run
from transformer.training.selection import from_paths

pytest.importorskip("safetensors", reason="weights are read from its files")
torch = pytest.importorskip("torch", reason="torch makes the checkpoints")
transformers = pytest.importorskip("transformers", reason="transformers makes the checkpoints")
pytestmark = pytest.mark.filterwarnings("ignore")
# As the library writes by default: no text is written twice, and none is told to the next window.
PLAIN = {
    "temperatures": (0.0,),
    "compression_limit": None,
    "log_prob_limit": None,
    "no_speech_limit": None,
    "condition": False,
}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A model of theirs, its features, its folder and the run that it becomes."""
    folder, workdir = (tmp_path_factory.mktemp(name) for name in ("published", "run"))
    model = theirs(transformers, torch)
    extractor = publish(transformers, model, folder)
    import_published(folder, workdir)
    return model, extractor, folder, open_run(workdir)


OTHER = {"encoder_layers": 1, "d_model": 24, "encoder_attention_heads": 3, "num_mel_bins": 16}
OTHER |= {"decoder_attention_heads": 3, "activation_function": "relu"}


@pytest.mark.parametrize("changed", [{}, OTHER], ids=["gelu", "relu"])
def test_states_and_logits_are_theirs(changed, tmp_path):
    model = theirs(transformers, torch, **changed)
    extractor = publish(transformers, model, tmp_path)
    read = read_published(tmp_path)
    assert read.unused == []
    ours, params = read.family.model(**read.model), {"params": from_paths(read.params)}
    # Padded with silence.
    sounds = [sound(1.0, 0), sound(0.6, 1), sound(0.25, 2)]
    heard = extractor(sounds, sampling_rate=16_000, return_tensors="pt").input_features
    tokens = torch.randint(0, model.config.vocab_size, (3, 9))
    with torch.no_grad():
        states = model.model.encoder(heard).last_hidden_state.numpy()
        logits = model(input_features=heard, decoder_input_ids=tokens).logits.numpy()
    frames = jnp.asarray(heard.numpy().transpose(0, 2, 1))
    found = jax.jit(functools.partial(ours.apply, method="encode"))(params, frames)
    np.testing.assert_allclose(found, states, atol=2e-5)
    found = jax.jit(ours.apply)(params, frames, tokens.numpy())
    assert np.abs(logits).max() > 3
    np.testing.assert_allclose(found, logits, atol=1e-4)


def test_what_is_exported_is_what_was_imported(published, tmp_path):
    model, _, folder, run = published
    notes = export_run(run.workdir, tmp_path / "out")["notes"]
    assert "temperatures" in notes[0]
    before, after = arrays_of(folder), arrays_of(tmp_path / "out")
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)
    again = transformers.WhisperForConditionalGeneration.from_pretrained(tmp_path / "out")
    for name in ("lang_to_id", "task_to_id", "suppress_tokens", "begin_suppress_tokens"):
        expected = getattr(model.generation_config, name)
        assert getattr(again.generation_config, name) == expected, name
    words = transformers.WhisperTokenizer.from_pretrained(tmp_path / "out")
    assert words.decode([0, 1, END]) == "ab<|endoftext|>"
    import_published(tmp_path / "out", tmp_path / "again")
    first, second = run.task, open_run(tmp_path / "again").task
    for field in ("features", "prompt"):
        assert getattr(first.recordings, field) == getattr(second.recordings, field)
    known = dataclasses.replace(first.windows, temperatures=second.windows.temperatures)
    assert known == second.windows


def transcripts_of_ours(model, params, words, task, sounds):
    heard, marks = task.recordings, require_marks(words)
    how = heard.features, heard.prompt, task.windows
    dictation = Dictation(model, params, words, marks, *how, batch_size=2)
    return list(dictation.transcripts(openers(sounds)))


def written_by_ours(model, params, words, task, sounds):
    """The segments of each sound: start, end and the tokens of the text."""
    found = [[] for _ in sounds]
    for transcript in transcripts_of_ours(model, params, words, task, sounds):
        for part in transcript.segments:
            text = [token for token in part.tokens if token < END]
            found[int(transcript.name)].append((round(part.start, 3), round(part.end, 3), text))
    return found


def asked_of_ours(run, prompt, windows):
    return with_fields(
        run.task,
        prompt=dataclasses.replace(run.task.recordings.prompt, **prompt),
        windows=dataclasses.replace(run.task.windows, **{**PLAIN, **windows}),
    )


def by_ours(run, sounds, prompt, **windows):
    words, task = run.task.load_tokenizer(run.workdir), asked_of_ours(run, prompt, windows)
    return written_by_ours(run.model, run.params, words, task, sounds)


def transcribed_by_ours(run, sounds, prompt, **windows):
    words, task = run.task.load_tokenizer(run.workdir), asked_of_ours(run, prompt, windows)
    return transcripts_of_ours(run.model, run.params, words, task, sounds)


def going_on(**window):
    """Theirs, but that the next window never begins where this one did: it would have no end."""
    model = transformers.WhisperForConditionalGeneration
    parts, offset = model._retrieve_segment(**window)
    left = int(window["seek_num_frames"][window["prev_idx"]])
    return parts, int(offset) if 0 < offset <= left else left


def by_theirs(published, sounds, **asked):
    model, extractor, _, run = published
    is_long = max(map(len, sounds)) > 16_000
    heard = extractor(
        sounds,
        sampling_rate=16_000,
        return_tensors="pt",
        truncation=False,
        padding="longest" if is_long else "max_length",
        return_attention_mask=is_long,
    )
    with mock.patch.object(model, "_retrieve_segment", going_on):
        written = model.generate(**heard, return_segments=True, **asked)["segments"]
    words = run.task.load_tokenizer(run.workdir)
    found = []
    for parts in written:
        texts = [[t for t in part["tokens"].tolist() if t < END] for part in parts]
        found.append(
            [
                (round(float(part["start"]), 3), round(float(part["end"]), 3), text)
                for part, text in zip(parts, texts, strict=True)
                if words.decode(text).strip()
            ]
        )
    return found


SHORT = [1.0, 1.0, 1.0]
LONG = [5.3, 3.1, 7.77]
TIMES = {"return_timestamps": True}
# The lengths of sounds, what is asked of theirs, the prompt and the windows of ours.
CASES = {
    "no times": (SHORT, {"language": "en"}, {"language": "en"}, {}),
    "a language to be found out": (SHORT, {"task": "transcribe"}, {}, {}),
    "beams": (
        SHORT,
        {"language": "de", "num_beams": 3},
        {"language": "de"},
        {"beam_size": 3},
    ),
    "beams and times": (
        SHORT,
        {"language": "en", "num_beams": 3, **TIMES},
        {"language": "en"},
        {"beam_size": 3, "timestamps": True},
    ),
    "several windows": (LONG, {"language": "en", **TIMES}, {"language": "en"}, {}),
    "translated by beams": (
        LONG,
        {"language": "en", "task": "translate", "num_beams": 3, **TIMES},
        {"language": "en", "task": "translate"},
        {"beam_size": 3},
    ),
    "told what was said before": (
        LONG,
        {"language": "en", "condition_on_prev_tokens": True, "temperature": 0.0, **TIMES},
        {"language": "en"},
        {"condition": True},
    ),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("case", CASES)
def test_texts_and_times_are_theirs(published, case):
    lengths, asked, prompt, windows = CASES[case]
    first = 0 if lengths is SHORT else 11
    sounds = [sound(seconds, seed) for seed, seconds in enumerate(lengths, first)]
    expected = by_theirs(published, sounds, **asked)
    assert by_ours(published[-1], sounds, prompt, **windows) == expected
    assert sum(map(len, expected)) > len(sounds)
    assert len({str(parts) for parts in expected}) > 1 or case == "beams and times"


@pytest.mark.sampled(2)
@pytest.mark.parametrize("seed", [0, 1])
def test_many_sounds_have_the_texts_of_theirs(published, seed):
    """Recordings of one window without times, and longer ones of any length."""
    rng = np.random.default_rng(seed)
    short = [sound(1.0, 100 * seed + 20 + number) for number in range(6)]
    expected = by_theirs(published, short, task="transcribe")
    assert by_ours(published[-1], short, {}) == expected
    # Of several in a batch, theirs does not hear the end of the shorter ones as it is.
    long = [sound(rng.uniform(1.1, 3.0), 100 * seed + 50 + number) for number in range(3)]
    asked = {"language": "de", **TIMES}
    expected = [by_theirs(published, [samples], **asked)[0] for samples in long]
    assert by_ours(published[-1], long, {"language": "de"}) == expected
    assert len({str(parts) for parts in expected}) == len(long)


HEADS = [[0, 1], [1, 0], [1, 1]]


@pytest.mark.parametrize("more", [{}, {"num_beams": 2}, TIMES], ids=["greedy", "beams", "times"])
def test_words_have_the_times_of_theirs(published, more, monkeypatch):
    model, extractor, _, run = published
    monkeypatch.setattr(model.generation_config, "alignment_heads", HEADS, raising=False)
    windows = {"word_times": True, "alignment_heads": tuple(map(tuple, HEADS))}
    windows |= {"timestamps": "return_timestamps" in more, "beam_size": more.get("num_beams", 1)}
    sounds = [sound(1.0, 3), sound(1.0, 4)]
    if windows["timestamps"]:
        sounds.append(sound(2.4, 5))
    for samples in sounds:
        is_long = len(samples) > 16_000
        heard = extractor(
            [samples],
            sampling_rate=16_000,
            return_tensors="pt",
            return_attention_mask=True,
            truncation=False,
            padding="longest" if is_long else "max_length",
        )
        asked = {"language": "en", "return_token_timestamps": True, "return_segments": True}
        with mock.patch.object(model, "_retrieve_segment", going_on):
            parts = model.generate(**heard, **asked, **more)["segments"][0]
        expected = {}
        for part in parts:
            # A token begins where the one before it ends; the first one of a window at its begin.
            first = part["idxs"][0]
            window = float(part["token_timestamps"][0]) - float(
                part["result"]["token_timestamps"][first]
            )
            ends = window + part["result"]["token_timestamps"].double().numpy()
            for place, token in enumerate(part["tokens"].tolist(), first):
                key = round(float(ends[place - 1]), 2), round(float(ends[place]), 2), token
                expected[key] = expected.get(key, 0) + (token < END)
        segments = transcribed_by_ours(run, [samples], {"language": "en"}, **windows)[0].segments
        words = [word for segment in segments for word in segment.words]
        assert words
        starts = [(start, token) for start, _, token in expected]
        stops = [(end, token) for _, end, token in expected]
        for word in words:
            assert (round(word.start, 2), word.tokens[0]) in starts
            assert (round(word.end, 2), word.tokens[-1]) in stops


def drawn(rng):
    """Tokens of a window: letters, marks and times, often side by side, in no order."""
    times = MARKS["notimestamps"] + 1 + rng.integers(0, 51, 14)
    others = rng.integers(0, MARKS["notimestamps"] + 1, 14)
    return np.where(rng.random(14) < rng.random(), times, others)[: rng.integers(0, 15)].tolist()


def divided_by_theirs(tokens, num_frames):
    """The segments of a window that begins at 0, and where the next one begins."""
    divide = transformers.WhisperForConditionalGeneration._retrieve_segment
    parts, offset = divide(
        torch.tensor(tokens, dtype=torch.int64),
        [None],
        time_offset=torch.zeros(1, dtype=torch.float64),
        timestamp_begin=MARKS["notimestamps"] + 1,
        seek_num_frames=torch.tensor([num_frames]),
        time_precision=0.02,
        time_precision_features=0.01,
        input_stride=2,
        prev_idx=0,
        idx=0,
        return_token_timestamps=False,
        decoder_input_ids=torch.zeros(1, 4),
    )
    found = [(float(p["start"]), float(p["end"]), tuple(p["tokens"].tolist())) for p in parts]
    return found, int(offset)


def test_windows_are_divided_as_by_theirs():
    """Hundreds of texts that no model would write."""
    rng, counts = np.random.default_rng(0), collections.Counter()
    marks = require_marks(LibrarySentenceTokenizer(tokenizer()))
    for _ in range(800):
        tokens, num_frames = drawn(rng), int(rng.integers(1, 101))
        expected, offset = divided_by_theirs(tokens, num_frames)
        parts, place = parts_of(tokens, marks, num_frames, 2)
        told = f"{tokens} {num_frames}"
        if not 0 < offset <= num_frames:
            # With such a text their program has no end, or leaves the recording.
            offset = num_frames
        assert place == offset, told
        is_time = [token >= marks.first_time for token in tokens[-2:]]
        counts[(len(parts) > 1, place == num_frames, *is_time)] += 1
        # They divide by 0.02 in 32 bits, which makes a few whole windows one step shorter.
        lost = num_frames // 2 - int(torch.tensor(num_frames) * 0.01 / 0.02)
        for part, (start, end, ids) in zip(parts, expected, strict=True):
            np.testing.assert_allclose(
                (part.start, part.end), (start, end), atol=1e-9 + 0.02 * lost, err_msg=told
            )
            # Of two times at the end, both are in the last segment of theirs, as a sign.
            assert ids[: len(part.tokens)] == part.tokens, told
            assert len(ids) - len(part.tokens) <= (part is parts[-1]), told
    assert len(counts) > 9
    assert min(counts.values()) > 3


def changed(folder, name, **values):
    path = folder / name
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("config.json", {"decoder_ffn_dim": 64}, "decoder_ffn_dim 64"),
        ("config.json", {"tie_word_embeddings": False}, "tie_word_embeddings"),
        ("preprocessor_config.json", {"chunk_length": 30}, "chunk_length 30"),
        ("preprocessor_config.json", {"sampling_rate": 8000}, "sampling_rate"),
        ("preprocessor_config.json", {"feature_size": 80}, "feature_size"),
        ("generation_config.json", {"no_repeat_ngram_size": 3}, "no_repeat_ngram_size"),
        ("generation_config.json", {"lang_to_id": {"<|en|>": 3}}, "lang_to_id"),
        ("generation_config.json", {"forced_decoder_ids": [[1, 3]]}, "forced_decoder_ids"),
        ("generation_config.json", {"language": "xx"}, "language"),
        ("generation_config.json", {"decoder_start_token_id": 5}, "decoder_start_token_id"),
        ("generation_config.json", {"is_multilingual": False, "task": "translate"}, "task"),
    ],
)
def test_what_cannot_be_read_is_named(published, tmp_path, name, values, message):
    folder = tmp_path / "copy"
    shutil.copytree(published[2], folder)
    changed(folder, name, **values)
    with pytest.raises(DataError, match=message):
        import_published(folder, tmp_path / "run")


def test_settings_of_the_files(published, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(published[2], folder)
    forced = [[1, MARKS["de"]], [2, MARKS["translate"]], [3, MARKS["notimestamps"]]]
    changed(
        folder,
        "generation_config.json",
        forced_decoder_ids=forced,
        max_length=12,
        logprob_threshold=-2.5,
        return_timestamps=True,
        num_beams=2,
        compression_ratio_threshold=1.35,
    )
    found = import_published(folder, tmp_path / "run")
    # Theirs is of token ids, ours of the text.
    used = found.files.used()["generation_config.json"]
    assert used.unused == ("compression_ratio_threshold",)
    task = open_run(tmp_path / "run").task
    assert (task.recordings.prompt.language, task.recordings.prompt.task) == ("de", "translate")
    assert task.windows.timestamps
    assert (task.windows.beam_size, task.windows.max_new_tokens) == (2, 12)
    assert task.windows.log_prob_limit == -2.5
    assert task.windows.suppressed[:2] == (1, 2)
