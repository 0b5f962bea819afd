"""Which models a task can train: every pair of the two either works or is refused by name."""

import dataclasses
import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.common import noisy_parameters
from transformer.data.audio.features import LogMel
from transformer.errors import ConfigError
from transformer.models.sound_codec import SoundCodec
from transformer.tasks.parts.codec import Codec
from transformer.training.experiment import prepare
from transformer.training.sections import choices, owner, section
from transformer.training.shared import Shared

TEXT = "".join(f"the cat no {n} sat on the mat\n" + "\n" * (n % 3 == 2) for n in range(60))
QUESTION = {
    "id": "1",
    "question": "who sat?",
    "answers": [{"text": "the cat", "answer_start": 0}],
}
DECODER = {"num_layers": 1, "num_heads": 2, "width": 8, "context": 64}
PAIR = {"num_encoder_layers": 1, "num_decoder_layers": 1, "num_heads": 2, "width": 8}
MODELS = {
    "bert": DECODER,
    "board_transformer": {"num_layers": 1, "num_heads": 2, "width": 8},
    "decision_transformer": {"num_layers": 1, "num_heads": 2, "width": 8},
    "esm": {**DECODER, "context": 64, "token_dropout": False},
    "gemma": DECODER,
    "gpt": DECODER,
    "llama": DECODER,
    "mixtral": DECODER,
    "modern_bert": {**DECODER, "feed_forward_width": 8},
    "sound_codec": {"num_layers": 1, "num_heads": 2, "width": 8},
    "speech": PAIR,
    "speech_encoder": {"num_layers": 1, "num_heads": 2, "width": 8},
    "t5": PAIR,
    "vaswani": PAIR,
    "vit": {"num_layers": 1, "num_heads": 2, "width": 8, "image_size": 8, "patch_size": 4},
    "whisper": {**PAIR, "num_features": 3},
}
DECODERS, SEQUENCES = {"gemma", "gpt", "llama", "mixtral"}, {"t5", "vaswani"}
FITTING = {
    "audio_tokens": {"sound_codec"},
    "chess_moves": DECODERS,
    "completion": DECODERS,
    "denoising": SEQUENCES,
    "image_classification": {"vit"},
    "key_to_door": {"decision_transformer"},
    "language_modeling": DECODERS,
    "masked_images": {"vit"},
    "masked_lm": {"bert"},
    "othello_moves": DECODERS,
    "question_answering": {"bert", "esm", "modern_bert"},
    "self_play": {"board_transformer"},
    "solved_game": {"board_transformer"},
    "speaking": DECODERS,
    "tagging": {"bert", "esm", "modern_bert"},
    "text_classification": {"bert", "esm", "modern_bert"},
    "text_to_text": SEQUENCES,
    "transcription": {"speech", "speech_encoder", "whisper"},
    "translation": SEQUENCES,
}


ENCODER = {"max_length": 64, "tokenizer": {"size": 60}}
IMAGES = {"preparation": {"image_size": 8}}
SOUND = LogMel(sampling_rate=1000, num_mels=3, window=64, hop=32, scaling="whisper")
SETTINGS = {
    "audio_tokens": {"train": "sounds.npz", "features": dataclasses.asdict(SOUND)},
    "chess_moves": {"train": "a.pgn", "max_moves": 8},
    "completion": {
        "train": "pairs.jsonl",
        "tokenizer": {"kind": "character"},
        "max_length": 48,
        "max_target_length": 16,
    },
    "denoising": {"path": "a.txt", "tokenizer": {"kind": "character"}, "length": 16},
    "image_classification": IMAGES,
    "key_to_door": {"episodes": 8, "validation_episodes": 8},
    "language_modeling": {"path": "a.txt", "context": 8},
    "masked_images": IMAGES,
    "masked_lm": {**ENCODER, "path": "a.txt", "validation_fraction": 0.3},
    "othello_moves": {},
    "question_answering": {**ENCODER, "train": "squad", "validation": "squad", "stride": 8},
    "self_play": {},
    "solved_game": {},
    "speaking": {"train": "sounds.npz", "codec": ".", "context": 64},
    "tagging": {**ENCODER, "train": "a.conll"},
    "text_classification": {**ENCODER, "train": "labels.jsonl"},
    "text_to_text": {"train": "pairs.jsonl", "tokenizer": {"kind": "character"}},
    "transcription": {"train": "a.npz", "ctc_weight": 0.0, "decoding": "attention"},
    "translation": {"train": "a.en,a.de", "tokenizer": {"kind": "character"}},
}


# Settings of a task for one model.
OF_PAIRS = {("transcription", "speech_encoder"): {"ctc_weight": 1.0, "decoding": "ctc"}}


def lines(values):
    return "".join(json.dumps(value) + "\n" for value in values)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Hardly any data, in the format of each task."""
    folder = tmp_path_factory.mktemp("data")
    numbers = range(40)
    paragraphs = [
        {"context": f"the cat sat {n}", "qas": [{**QUESTION, "id": str(n)}]} for n in numbers
    ]
    files = {
        "a.txt": TEXT,
        "a.pgn": "1. e4 e5 * 1. d4 d5 2. c4 *",
        "a.en": "".join(f"{n}\n" for n in numbers),
        "a.de": "".join(f"no {n}\n" for n in numbers),
        "a.conll": "The O\ncat B-X\nsat O\n\n" * 40,
        "labels.jsonl": lines({"text": f"cat {n}", "label": str(n % 2)} for n in numbers),
        "pairs.jsonl": lines({"source": str(n), "target": f"no {n}"} for n in numbers),
        "squad": json.dumps({"data": [{"title": "cats", "paragraphs": paragraphs}]}),
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    frames = {"x": np.zeros((40, 3), np.float32), "n": np.full(4, 10), "t": np.array(["no"] * 4)}
    np.savez(folder / "a.npz", **{f"train_{name}": values for name, values in frames.items()})
    sounds = frames | {"x": np.zeros(400, np.int16), "n": np.full(4, 100)}
    values = {f"train_{name}": values for name, values in sounds.items()}
    np.savez(folder / "sounds.npz", **values, sampling_rate=1000)
    codec = SoundCodec(num_features=3, levels=(3, 3), **MODELS["sound_codec"])
    Codec(codec, noisy_parameters(codec, np.zeros((1, 2, 3), np.float32)), SOUND).save(folder)
    return folder


def test_all_are_here():
    assert set(choices("task")) == set(FITTING)
    assert set(choices("model")) == set(MODELS)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("task", FITTING)
def test_a_model_works_or_is_refused(task, folder, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.chdir(folder)
    shared = Shared()
    for model, fields in MODELS.items():
        config = ConfigDict()
        config.model = section("model", model, **fields)
        settings = SETTINGS[task] | OF_PAIRS.get((task, model), {})
        config.task = section("task", task, **settings)
        config.optimizer = section("optimizer", warmup="0 steps")
        config.train = section("train", duration="1 steps")
        config.mesh = section("mesh")
        if model in FITTING[task]:
            assert type(prepare(config, shared=shared).model) is owner("model", model)
            continue
        with pytest.raises(ConfigError) as caught:
            prepare(config, shared=shared)
        assert str(caught.value) == (
            f"config.model.name is {model}, which the task {task} cannot train: choose from "
            f"{', '.join(sorted(FITTING[task]))}."
        )
