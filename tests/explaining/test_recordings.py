"""Recordings, boards and proteins: the trace is the model's, and the page the trace's."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.explaining.test_page import check_page, shown
from tests.explaining.tiny import made
from tests.interop.whispers import MARKS
from tests.interop.whispers import tokenizer as whisper_tokenizer
from tests.tokenizers import make_sentence_tokenizer
from transformer import explaining
from transformer.composition import with_fields
from transformer.data.audio.features import LogMel
from transformer.data.audio.prompts import Prompt
from transformer.data.audio.windows import Windows
from transformer.data.tokenizers.choosing import TokenizerChoice
from transformer.data.tokenizers.pieces import EncoderTokenizer
from transformer.data.tokenizers.sentences import LibrarySentenceTokenizer
from transformer.decoding.ctc import align
from transformer.decoding.recognize import encoded
from transformer.errors import ConfigError, DataError
from transformer.explaining import Ablate, Patch
from transformer.explaining.pictures import board_pixels
from transformer.explaining.pooling import Pools, pools_of
from transformer.explaining.prompts import read
from transformer.explaining.server import Explainer
from transformer.explaining.sounds import spectrogram
from transformer.models.board_transformer import BoardTransformer
from transformer.models.esm import ESM
from transformer.models.speech import Speech
from transformer.models.speech_encoder import SpeechEncoder
from transformer.models.whisper import Whisper
from transformer.tasks.masked_lm import MaskedLM
from transformer.tasks.parts.transcribing import Asked
from transformer.tasks.solved_game import SolvedGame
from transformer.tasks.transcription import Transcription

soundfile = pytest.importorskip("soundfile", reason="reads recordings")
RATE, SECONDS = 2000, 0.7
FEATURES = {"sampling_rate": RATE, "num_mels": 8, "window": 64, "hop": 32}
SIZES = {"num_heads": 2, "width": 8, "feed_forward_width": 16, "num_features": 8}


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("sounds") / "a.wav"
    times = np.arange(int(RATE * SECONDS)) / RATE
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * (100 + 300 * times) * times), RATE)
    return path


def frames(count=4):
    return jnp.zeros((1, count, 8))


def speech(folder, kind=Speech, **fields):
    tokenizer = make_sentence_tokenizer("character", ["ab c"], 20)
    ctc = 0.5 if kind is Speech else 1.0
    task = with_fields(
        Transcription(),
        features=LogMel(**FEATURES),
        max_seconds=2.0,
        max_length=8,
        beam_size=2,
        ctc_weight=ctc,
        decoding="joint" if kind is Speech else "ctc",
    )
    model = kind(vocab_size=tokenizer.vocab_size, **SIZES, **fields)
    inputs = (frames(), jnp.zeros((1, 1), int))[: 2 if kind is Speech else 1]
    name = "speech" if kind is Speech else "speech_encoder"
    return made(folder, name, task, model, "__call__", *inputs, tokenizer=tokenizer)


def whisper(folder):
    tokenizer = LibrarySentenceTokenizer(whisper_tokenizer())
    task = with_fields(
        Transcription(),
        features=LogMel(**FEATURES, pad_seconds=1.28, scaling="whisper"),
        prompt=Prompt(multilingual=True),
        windows=Windows(temperatures=(0.0,), no_speech_limit=None),
        decoding="windows",
        ctc_weight=0.0,
        max_length=15,
    )
    model = Whisper(
        vocab_size=tokenizer.vocab_size,
        num_encoder_layers=1,
        num_decoder_layers=2,
        source_context=40,
        context=16,
        begin_id=MARKS["startoftranscript"],
        **SIZES,
    )
    inputs = frames(80), jnp.zeros((1, 1), int)
    return made(folder, "whisper", task, model, "__call__", *inputs, tokenizer=tokenizer)


MAKERS = {
    "speech": functools.partial(speech, num_encoder_layers=1, num_decoder_layers=1),
    "speech_encoder": functools.partial(speech, kind=SpeechEncoder, num_layers=2),
    "whisper": whisper,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return functools.cache(lambda name: MAKERS[name](folder / name))


@pytest.fixture(scope="module")
def traces(runs, recording):
    return functools.cache(
        lambda name, most=None: explaining.trace(runs(name), str(recording), most=most)
    )


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", MAKERS)
def test_every_number_of_a_page_is_the_traces(name, traces):
    trace = traces(name)
    if name != "whisper":
        # Seconds of the recording, at four frames of 16 ms a token.
        assert len(trace.stacks[0].tokens) == 11
    assert {token.kind for token in trace.stacks[0].tokens} == {"frame"}
    assert trace.reading.written
    check_page(trace, 0)
    check_page(trace, 2)
    check_sound(trace)


def check_sound(trace):
    """The recording of a page: times of tokens, and what CTC hears."""
    page = shown(trace)
    stacks = page.header["traces"][0]["stacks"]
    told = stacks[0]["sound"]
    assert all(stack["sound"] is None for stack in stacks[1:])
    count = len(trace.stacks[0].tokens)
    assert len(told["edges"]) == count + 1
    assert np.all(np.diff(told["edges"]) > 0)
    names = [token.text for token in trace.stacks[0].tokens]
    for name, edge in zip(names[: count - told["silent"]], told["edges"], strict=False):
        assert name == f"{edge:.2f} s"
    run, heard = trace.run, trace.reading.inputs[0]
    if run.config.model.name == "whisper":
        assert told["ctc"] is None
        return
    log_probs = np.asarray(encoded(run.model, run.params, heard, jnp.array([heard.shape[1]]))[1][0])
    ids = list(trace.reading.sound.ids)
    rows = list(dict.fromkeys(ids))
    expected = np.exp(log_probs[:, [*rows, log_probs.shape[1] - 1]]).T
    assert page.is_close(told["ctc"]["probabilities"], expected)
    assert told["ctc"]["names"][-1] == "none"
    spans = align(log_probs.astype(float), ids, log_probs.shape[1] - 1) or []
    second = trace.reading.sound.second
    times = [(each["begin"], each["end"]) for each in told["ctc"]["spans"]]
    assert times == [(span.begin * second, span.end * second) for span in spans]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", MAKERS)
def test_the_trace_is_the_models(name, runs, traces, recording):
    run, trace = runs(name), traces(name)
    heard, *target = trace.reading.inputs

    def said(method, *inputs):
        return jax.jit(functools.partial(run.model.apply, method=method))(
            {"params": run.params}, *inputs
        )

    memory = said("encode", heard)
    np.testing.assert_allclose(trace.stack("encoder")["final"], memory[0], atol=1e-5)
    (written,) = run.task.transcribe(
        run.model, run.params, run.workdir, [recording], Asked(), lambda done: None
    )
    assert written.segments
    ids = [token for segment in written.segments for token in segment.tokens]
    shown_ids = list(trace.reading.sound.ids)
    # Of a transcript that is as long as may be its end counts, of a window's it does not.
    assert ids[: len(shown_ids)] == shown_ids
    assert len(ids) - len(shown_ids) <= (name == "whisper")
    if name == "speech_encoder":
        logits = said("aligned", memory)
        expected = jax.nn.log_softmax(logits)[0]
        assert trace.reading.names[-1] == "none"
    else:
        text = target[0][:, : len(trace.tokens)]
        expected = said("__call__", heard, text)[0]
    np.testing.assert_allclose(trace.outputs, expected, atol=2e-5)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name, most", [("speech", 4), ("speech_encoder", 4), ("whisper", 9)])
def test_pooled_vectors_are_means_and_their_weights_are_sums(name, most, traces):
    whole, few = traces(name), traces(name, most)
    pools = few.reading.pools
    assert len(few.stacks[0].tokens) <= most
    encoder, pooled = whole.stack("encoder"), few.stack("encoder")
    groups = [np.flatnonzero(pools.tokens == i) for i in range(pools.tokens[-1] + 1)]

    def means(x, axis):
        return np.stack([np.take(x, group, axis).mean(axis) for group in groups], axis)

    def sums(x, axis):
        return np.stack([np.take(x, group, axis).sum(axis) for group in groups], axis)

    for layer in range(len(encoder.layers)):
        at = encoder.layers[layer]
        found = pooled.layers[layer]
        assert found.keys() == at.keys()
        for part in ("residual_after", "feed_forward_hidden"):
            np.testing.assert_allclose(found[part], means(at[part], 0), atol=1e-5)
        np.testing.assert_allclose(
            found["attention_value"], means(at["attention_value"], 1), atol=1e-5
        )
        weights = sums(means(at["attention_weights"], 1), 2)
        np.testing.assert_allclose(found["attention_weights"], weights, atol=1e-5)
        np.testing.assert_allclose(found["attention_weights"].sum(-1), 1.0, atol=1e-5)
    np.testing.assert_allclose(pooled["final"], means(encoder["final"], 0), atol=1e-5)
    if name == "speech_encoder":
        np.testing.assert_allclose(np.exp(few.outputs), means(np.exp(whole.outputs), 0), atol=1e-5)
    else:
        np.testing.assert_allclose(few.outputs, whole.outputs[: len(few.tokens)], atol=1e-5)
        weights = sums(whole["cross_attention_weights", 0], 2)[:, : len(few.tokens)]
        np.testing.assert_allclose(few["cross_attention_weights", 0], weights, atol=1e-5)
    check_sound(few)
    page = shown(few)
    told = page.header["traces"][0]["stacks"]
    assert any("stands for up to" in note for note in page.header["notes"])
    assert told[0]["sound"]["silent"] == (name == "whisper")
    for stack, shown_ in zip(few.stacks, told, strict=True):
        for layer, about in zip(stack.layers, shown_["layers"], strict=True):
            for part in ("attention", "cross_attention"):
                if about[part] is None:
                    continue
                assert page.is_close(about[part]["weights"], layer[f"{part}_weights"])
                kept = stack.name == "decoder" and part == "attention"
                assert (about[part]["scores"] is not None) == kept


def test_vectors_share_tokens_evenly_and_silence_is_one():
    for count, spoken, most in itertools.product((1, 7, 40), (1, 5, 40), (2, 3, 8)):
        heard = min(spoken, count)
        pools, size = pools_of(count, heard, most)
        if count <= most:
            assert pools is None
            continue
        assert len(pools.starts()) <= most
        np.testing.assert_array_equal(np.diff(pools.tokens) >= 0, True)
        assert np.bincount(pools.tokens[:heard]).max() == size
        if heard < count:
            assert len(set(pools.tokens[heard:])) == 1
            assert pools.tokens[heard] not in pools.tokens[:heard]
    assert pools_of(1000, 10, None) == (None, 1)
    x = np.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(Pools(np.array([0, 0, 1])).means(x), [[1, 2], [4, 5]])


def test_positions_of_recordings(traces):
    def positions(name, most=None):
        trace = traces(name, most)
        page = shown(trace)
        return page, [stack["positions"] for stack in page.header["traces"][0]["stacks"]]

    page, both = positions("whisper")
    assert [each["kind"] for each in both] == ["sinusoidal", "learned"]
    assert page(both[0]["table"]).shape == (40, 8)
    assert positions("whisper", 9)[1][0]["table"] is None
    page, both = positions("speech")
    assert [each["kind"] for each in both] == ["rotary", "rotary"]
    whole = page(both[0]["angles"])
    page, both = positions("speech", 4)
    np.testing.assert_allclose(page(both[0]["angles"])[0], whole[:3].mean(0), atol=1e-6)


def test_heads_are_switched_off(runs, traces, recording):
    edits = [Ablate(0, head=1)]
    off = explaining.trace(runs("speech_encoder"), str(recording), most=4, edits=edits)
    assert np.abs(off["attention_mixed", 0][1]).max() == 0.0
    assert np.abs(off.outputs - traces("speech_encoder", 4).outputs).max() > 1e-4
    patch = Patch(traces("speech"), "residual_after", 0, position=1, stack="encoder")
    found = explaining.trace(runs("speech"), str(recording), edits=[patch])
    np.testing.assert_allclose(found.outputs, traces("speech").outputs, atol=1e-6)
    with pytest.raises(ConfigError, match="share a token"):
        explaining.trace(runs("speech"), str(recording), most=4, edits=[patch])


def test_a_given_transcript_and_what_cannot_be_read(runs, recording, tmp_path):
    run = runs("speech")
    trace = explaining.trace(run, str(recording), "ab c")
    assert not trace.reading.written
    assert [token.text for token in trace.tokens[1:]] == ["a", "b", "▁", "c"]
    with pytest.raises(ConfigError, match="leave the target out"):
        explaining.trace(runs("speech_encoder"), str(recording), "ab")
    with pytest.raises(DataError, match="does not exist"):
        explaining.trace(run, "nowhere.wav")
    soundfile.write(tmp_path / "long.wav", np.full(3 * RATE, 0.1), RATE)
    long = read(run, str(tmp_path / "long.wav"), "ab c", most=3)
    assert "The recording is longer than 2 seconds: its beginning is shown." in long.notes
    assert "The target was cut to its first 2 tokens." in long.notes


def test_a_served_page_stays_at_its_recording(runs, recording):
    explainer = Explainer([runs("speech")], "a run", str(recording))
    answer = explainer.answer({"prompt": "/etc/passwd", "ablate": [{"layer": 0, "head": 1}]})
    assert "error" not in answer, answer
    assert [each["prompt"] for each in answer["header"]["traces"]] == [str(recording)] * 2
    patch = {"prompt": "x", "layer": 0, "part": "residual_after", "position": 0}
    assert "shows one file" in explainer.answer({"prompt": "x", "patch": patch})["error"]


def test_a_spectrogram_has_low_bands_below():
    heard = np.zeros((4, 3), np.float32)
    heard[1, 0] = 1.0
    pixels = spectrogram(heard)
    assert pixels.shape == (6, 4, 3)
    bright = pixels.astype(int).sum(-1) > 300
    assert bright.sum() == 2
    assert bright[-2:, 1].all()


# ------------------------------------------------------------------------- boards, proteins


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    model = BoardTransformer(num_squares=9, num_layers=2, num_heads=2, width=8)
    folder = tmp_path_factory.mktemp("board") / "run"
    squares = jnp.zeros((1, 9), int)
    return made(folder, "board_transformer", SolvedGame(), model, "evaluate", squares)


def test_a_board_is_shown_as_one(board):
    trace = explaining.trace(board, "x.. .o. ...")
    check_page(trace, 0)
    (stack,) = shown(trace).header["traces"][0]["stacks"]
    image = stack["image"]
    assert (image["rows"], image["columns"], image["front"]) == (3, 3, 1)
    assert image["kind"] == "board"
    assert [token["kind"] for token in stack["tokens"]] == ["special", *["patch"] * 9]
    patched = explaining.trace(
        board, "... .x. ..o", edits=[Patch(trace, "residual_before", 0, position=1)]
    )
    np.testing.assert_allclose(
        patched["residual_before", 0][1], trace["residual_before", 0][1], atol=1e-6
    )


def test_stones_lie_on_their_squares():
    pixels = board_pixels(np.array([1, 0, 0, 2, 0, 0]), 2, 3)
    assert pixels.shape == (80, 120, 3)
    middles = pixels[20::40, 20::40].astype(int).sum(-1)
    assert middles[0, 0] < 200
    assert middles[1, 0] > 680
    assert 500 < middles[0, 1] < 640


def test_residues_are_tokens(tmp_path):
    tokenizer = TokenizerChoice("residues").make(EncoderTokenizer, [])
    sizes = {"num_layers": 2, "num_heads": 2, "width": 8, "context": 32}
    model = ESM(vocab_size=tokenizer.vocab_size, **sizes)
    tokens, lengths = jnp.zeros((1, 8), int), jnp.full(1, 8)
    inputs = tokens, tokens, lengths, jnp.zeros((1, 2), int)
    task = with_fields(MaskedLM(), max_length=32, next_sentence=False)
    run = made(tmp_path / "esm", "esm", task, model, "fill", *inputs, tokenizer=tokenizer)
    trace = explaining.trace(run, "MKT<mask>AY")
    texts = [token.text for token in trace.tokens]
    assert texts == ["<cls>", "M", "K", "T", "<mask>", "A", "Y", "<eos>"]
    assert trace.reading.positions == (4,)
    check_page(trace, 0)
