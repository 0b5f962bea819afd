"""Every key of the side files of Whisper: another value, or none.

What comes of it is what comes of it in `transformers`, or the import names the key.
"""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from tests.interop import whispers
from tests.interop.keys import DELETED, Subject, is_tried, outcome
from tests.interop.test_whisper import PLAIN, written_by_ours
from transformer.interop.families import whisper
from transformer.training.sections import build
from transformer.training.selection import from_paths

pytest.importorskip("safetensors", reason="weights are read from its files")
torch = pytest.importorskip("torch", reason="torch makes the checkpoints")
transformers = pytest.importorskip("transformers", reason="transformers makes the checkpoints")
pytestmark = pytest.mark.filterwarnings("ignore")

CONFIG, GENERATION, SETTINGS = "config.json", "generation_config.json", "tokenizer_config.json"
PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
LETTER, MARKS = 5, whispers.MARKS
SMALL = {"encoder_layers": 1, "decoder_layers": 1, "d_model": 16, "max_target_positions": 24}
SOUND = {"feature_size": 20, "chunk_length": 1}
VALUES = {
    CONFIG: {
        "_name_or_path": ["elsewhere"],
        "activation_dropout": [0.3],
        "activation_function": ["relu", "gelu_new", "quick_gelu"],
        "alignment_heads": [[[0, 1]]],
        "apply_spec_augment": [True],
        "architectures": [["WhisperModel"]],
        "attention_dropout": [0.3],
        "begin_suppress_tokens": [[LETTER]],
        "bos_token_id": [LETTER],
        "chunk_size_feed_forward": [2],
        "classifier_proj_size": [7],
        "d_model": [32],
        "decoder_attention_heads": [4],
        "decoder_ffn_dim": [24],
        "decoder_layerdrop": [0.5],
        "decoder_layers": [2],
        "decoder_start_token_id": [LETTER],
        "dropout": [0.3],
        "dtype": ["float16"],
        "encoder_attention_heads": [4],
        "encoder_ffn_dim": [24],
        "encoder_layerdrop": [0.5],
        "encoder_layers": [2],
        "eos_token_id": [LETTER],
        "forced_decoder_ids": [[[1, MARKS["fr"]], [2, MARKS["translate"]]]],
        "id2label": [{"0": "cat"}],
        "init_std": [0.5],
        "is_encoder_decoder": [False],
        "label2id": [{"cat": 0}],
        "mask_feature_length": [3],
        "mask_feature_min_masks": [1],
        "mask_feature_prob": [0.5],
        "mask_time_length": [3],
        "mask_time_min_masks": [1],
        "mask_time_prob": [0.5],
        "max_source_positions": [25],
        "max_target_positions": [20],
        "median_filter_width": [3],
        "model_type": ["swin"],
        "num_hidden_layers": [3],
        "num_mel_bins": [10],
        "output_attentions": [True],
        "output_hidden_states": [True],
        "pad_token_id": [LETTER],
        "problem_type": ["regression"],
        "return_dict": [True],
        "scale_embedding": [True],
        "suppress_tokens": [[LETTER]],
        "tie_word_embeddings": [False],
        "transformers_version": ["4.0.0"],
        "use_cache": [False],
        "use_weighted_layer_sum": [True],
        "vocab_size": [50],
    },
    PREPROCESSOR: {
        "chunk_length": [2],
        "device": ["cpu"],
        "dither": [0.1],
        "do_normalize": [True],
        "feature_extractor_type": ["WhisperFeatureExtractor"],
        "feature_size": [10],
        "hop_length": [80],
        "n_fft": [512, 401],
        "n_samples": [8000],
        "nb_max_frames": [50],
        "padding": ["longest"],
        "padding_side": ["left"],
        "padding_value": [0.5],
        "processor_class": ["WhisperProcessor"],
        "return_attention_mask": [True],
        "return_tensors": ["np"],
        "sampling_rate": [8000],
        "truncation": [False],
    },
    PROCESSOR: {
        "feature_extractor": [{**SOUND, "n_fft": 512}],
        "processor_class": ["WhisperProcessor"],
    },
    GENERATION: {
        "_from_model_config": [False],
        "alignment_heads": [[[0, 1]]],
        "bad_words_ids": [[[LETTER]], [[LETTER, 6]]],
        "begin_suppress_tokens": [[LETTER, *range(10, 20)], None],
        "bos_token_id": [LETTER],
        "compression_ratio_threshold": [1.0],
        "condition_on_prev_tokens": [True],
        "decoder_start_token_id": [LETTER],
        "do_sample": [True],
        "early_stopping": [True],
        "encoder_no_repeat_ngram_size": [2],
        "encoder_repetition_penalty": [1.5],
        "eos_token_id": [LETTER, [LETTER, whispers.END]],
        "exponential_decay_length_penalty": [[3, 1.5]],
        "forced_bos_token_id": [LETTER],
        "forced_decoder_ids": [[[1, MARKS["fr"]], [2, MARKS["translate"]]]],
        "forced_eos_token_id": [whispers.END],
        "is_multilingual": [False],
        "lang_to_id": [{"<|de|>": MARKS["en"]}],
        "language": ["fr", "<|en|>", "xx", None],
        "length_penalty": [0.3],
        "max_initial_timestamp_index": [3, None],
        # With less than the model has room for, theirs allows more in each further window.
        "max_length": [448],
        "max_new_tokens": [5],
        "median_filter_width": [3],
        "min_length": [4],
        "min_new_tokens": [4],
        "no_repeat_ngram_size": [2],
        "no_timestamps_token_id": [MARKS["nospeech"]],
        "num_beams": [2],
        "num_return_sequences": [2],
        "output_attentions": [False],
        "output_hidden_states": [False],
        "pad_token_id": [1],
        "prev_sot_token_id": [MARKS["startoflm"]],
        "prompt_condition_type": ["all-segments"],
        "renormalize_logits": [True],
        "repetition_penalty": [1.5],
        "return_timestamps": [True],
        "return_token_timestamps": [True],
        "suppress_tokens": [[1, 2, 16, *range(28, 37)], None],
        "task": ["translate", None],
        "task_to_id": [{"transcribe": LETTER}],
        "temperature": [0.5],
        "top_k": [3],
        "transformers_version": ["4.0.0"],
        "use_cache": [False],
    },
    SETTINGS: {
        "add_prefix_space": [True],
        "additional_special_tokens": [["<new>"]],
        "backend": ["tokenizers"],
        "bos_token": ["<|en|>"],
        "clean_up_tokenization_spaces": [True],
        "dropout": [0.5],
        "eos_token": ["<|en|>"],
        "errors": ["ignore"],
        "extra_special_tokens": [["<new>"]],
        "is_local": [True],
        "language": ["de"],
        "local_files_only": [True],
        "model_max_length": [7],
        "normalizer_file": ["normalizer.json"],
        "predict_timestamps": [True],
        "processor_class": ["WhisperProcessor"],
        "split_special_tokens": [True],
        "task": ["translate"],
        "tokenizer_class": ["WhisperTokenizerFast"],
        "unk_token": ["<|en|>"],
    },
}
# Without these, theirs raises, or takes for granted what such files always say: the end of texts,
# the bands that the model hears. What a window is told and how long its text may be are then as in
# the publisher's own program.
NEEDED = {"is_multilingual", "lang_to_id", "task_to_id", "no_timestamps_token_id", "eos_token_id"}
NEEDED |= {"feature_size", "condition_on_prev_tokens", "max_length", "_from_model_config"}
# What their classes write.
WRITTEN = {
    GENERATION: {
        *("begin_suppress_tokens", "bos_token_id", "decoder_start_token_id", "language", "task"),
        *("max_initial_timestamp_index", "pad_token_id", "prev_sot_token_id", "suppress_tokens"),
        *("return_timestamps", "transformers_version", "use_cache"),
    },
    CONFIG: transformers.WhisperConfig().to_dict().keys(),
    PREPROCESSOR: transformers.WhisperFeatureExtractor().to_dict().keys(),
    PROCESSOR: set(),
    SETTINGS: VALUES[SETTINGS].keys(),
}


def cases(*files):
    found = []
    for file in files:
        for key, values in VALUES[file].items():
            is_left_out = key in WRITTEN[file] and (file == CONFIG or key not in NEEDED)
            # The default of theirs is a row that a small table does not have.
            is_left_out &= (file, key) != (CONFIG, "pad_token_id")
            for value in [*values, *([DELETED] if is_left_out else [])]:
                if is_tried(f"{file} {key} {'DELETED' if value is DELETED else value}"):
                    found.append((file, key, value))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """As `save_pretrained` writes it, with the language that is spoken."""
    place = tmp_path_factory.mktemp("published")
    model = whispers.theirs(transformers, torch, **SMALL)
    said = model.generation_config
    said.language, said.task, said.condition_on_prev_tokens = "<|de|>", "transcribe", False
    whispers.publish(transformers, model, place)
    transformers.WhisperTokenizer.from_pretrained(place).save_pretrained(place)
    whispers.tokenizer().save(str(place / "tokenizer.json"))
    return place


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """What is the same for most values is found out once."""
    original = whisper.parameter_shapes

    def cached(model, *arguments, **options):
        if model not in SHAPES:
            SHAPES[model] = original(model, *arguments, **options)
        return SHAPES[model]

    monkeypatch.setattr(whisper, "parameter_shapes", cached)


SHAPES, LOGITS = {}, {}
FRAMES = np.random.default_rng(0).normal(size=(2, 100, 20)).astype(np.float32)
TOKENS = np.random.default_rng(1).integers(0, 80, (2, 9))
SOUNDS = {"short": whispers.sound(1.0, 3), "long": whispers.sound(1.7, 4)}
TEXTS = ["ab cd", " ab", "a  b ", "abä"]


def their_model(folder):
    return transformers.WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)


def their_logits(folder):
    with torch.no_grad():
        heard = torch.tensor(FRAMES.transpose(0, 2, 1))
        found = their_model(folder)(input_features=heard, decoder_input_ids=torch.tensor(TOKENS))
    return {"logits": found.logits.numpy()}


def our_logits(found):
    model = found.published.family.model(**found.published.model)
    if model not in LOGITS:
        params = {"params": from_paths(found.published.params)}
        # Not compiled as a whole: what models have in common is not compiled again.
        LOGITS[model] = np.asarray(model.apply(params, jnp.asarray(FRAMES), jnp.asarray(TOKENS)))
    return {"logits": LOGITS[model]}


@pytest.mark.parametrize(("file", "key", "value"), cases(CONFIG))
def test_a_key_of_the_model(file, key, value, folder, tmp_path):
    assert outcome(Subject(folder, their_logits, our_logits), tmp_path, file, key, value)


def their_features(folder):
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder)
    sound = SOUNDS["long"][:11_111]
    return {"features": extractor(sound, sampling_rate=16_000).input_features[0].T}


def our_features(found):
    sound = SOUNDS["long"][None, :11_111]
    features = build("task", found.config.task).features
    return {"features": np.asarray(features(sound, np.array([11_111]))[0][0])}


@pytest.mark.parametrize(("file", "key", "value"), cases(PREPROCESSOR, PROCESSOR))
def test_a_key_of_the_sound(file, key, value, folder, tmp_path):
    assert outcome(Subject(folder, their_features, our_features), tmp_path, file, key, value)


def flat(segments):
    return np.array([number for start, end, ids in segments for number in (start, end, *ids)])


def their_texts(folder):
    model, found = their_model(folder), {}
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder)
    for name, sound in SOUNDS.items():
        padding = "max_length" if name == "short" else "longest"
        heard = extractor(
            sound, sampling_rate=16_000, return_tensors="pt", truncation=False, padding=padding
        )
        # Theirs refuses what is longer than a window if no times are asked for.
        timed = bool(getattr(model.generation_config, "return_timestamps", False))
        asked = {} if name == "short" or timed else {"return_timestamps": True}
        parts = model.generate(heard.input_features, return_segments=True, **asked)["segments"][0]
        texts = [[t for t in part["tokens"].tolist() if t < whispers.END] for part in parts]
        times = [(round(float(p["start"]), 3), round(float(p["end"]), 3)) for p in parts]
        pairs = zip(times, texts, strict=True)
        found[name] = flat([(*when, text) for when, text in pairs if {*text} - {26}])
    return found


def our_texts(found):
    task = build("task", found.config.task)
    plain = {key: PLAIN[key] for key in ("temperatures", "compression_limit")}
    segments = written_by_ours(
        found.published.family.model(**found.published.model),
        from_paths(found.published.params),
        found.run.tokenizer,
        dataclasses.replace(task, windows=dataclasses.replace(task.windows, **plain)),
        SOUNDS.values(),
    )
    return {name: flat(parts) for name, parts in zip(SOUNDS, segments, strict=True)}


@pytest.mark.parametrize(("file", "key", "value"), cases(GENERATION))
def test_a_key_of_what_is_written(file, key, value, folder, tmp_path):
    assert outcome(Subject(folder, their_texts, our_texts), tmp_path, file, key, value)


def their_tokens(folder):
    tokenizer = transformers.WhisperTokenizer.from_pretrained(folder)
    found = {
        text: np.array(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in TEXTS
    }
    return found | {"end": np.array(tokenizer.eos_token_id)}


def our_tokens(found):
    tokenizer = found.run.tokenizer
    return {text: tokenizer.encode(text) for text in TEXTS} | {"end": np.array(tokenizer.end)}


@pytest.mark.parametrize(("file", "key", "value"), cases(SETTINGS))
def test_a_key_of_the_tokenizer(file, key, value, folder, tmp_path):
    assert outcome(Subject(folder, their_tokens, our_tokens), tmp_path, file, key, value)


def test_no_key_is_left_out(folder):
    """What they write, and what their classes know."""
    known = {
        file: set(json.loads((folder / file).read_text()))
        for file in (CONFIG, PREPROCESSOR, GENERATION, SETTINGS)
    }
    known[CONFIG] |= transformers.WhisperConfig().to_dict().keys()
    for file, written in known.items():
        assert written <= VALUES[file].keys(), file
