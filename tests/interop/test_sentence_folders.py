"""Folders of T5s and Marians with something of their own in every file: read, used, written."""

import json

import numpy as np
import pytest

from tests.end_to_end.conftest import call
from transformer.runs.exporting import export_run
from transformer.runs.importing import import_published, read_run
from transformer.training.notes import read_notes, sealed

for name in ("safetensors", "sentencepiece", "torch", "transformers"):
    pytest.importorskip(name, reason="transformers makes the folders")
sentence_folders = pytest.importorskip("tests.interop.sentence_folders")

SENTINELS = ["<extra_id_0>", "<extra_id_1>"]
SEARCH = {"num_beams": 3, "length_penalty": 1.7, "no_repeat_ngram_size": 3, "max_length": 15}
T5 = {"likely": 2.0, "layer_norm_epsilon": 1e-3, "generation": {**SEARCH, "early_stopping": True}}
NEW = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "likely": 1.0}


def untied(folder):
    """As `transformers` writes a fresh model that says it is not tied."""
    sentence_folders.write_t5(folder, likely=2.0, feed_forward_proj="gated-gelu")
    config = json.loads((folder / "config.json").read_text())
    config["scale_decoder_outputs"] = False
    (folder / "config.json").write_text(json.dumps(config))
    return folder


FOLDERS = {
    "t5 1.0, spiece.model": lambda folder: sentence_folders.write_t5(
        folder,
        settings={
            "additional_special_tokens": [*SENTINELS, "<sep>"],
            "added_tokens_decoder": {
                "90": {"content": "<new>", "lstrip": True, "normalized": False, "special": False}
            },
            "clean_up_tokenization_spaces": True,
            "model_max_length": 14,
        },
        **T5,
    ),
    "t5 1.1, tokenizer.json": lambda folder: sentence_folders.write_t5(
        folder,
        library=True,
        settings={"cls_token": "<new>"},
        generation={
            "num_beams": 2,
            "early_stopping": "never",
            "eos_token_id": [1, 36],
            "repetition_penalty": 1.2,
            "bad_words_ids": [[7, 30], [8]],
            "min_new_tokens": 2,
            "max_new_tokens": 12,
        },
        num_layers=2,
        num_decoder_layers=1,
        **NEW,
    ),
    "t5, tied without scale": untied,
    "marian": lambda folder: sentence_folders.write_marian(
        folder,
        settings={"additional_special_tokens": ["<sep>", "<new>"], "model_max_length": 12},
        generation={**SEARCH, "bad_words_ids": [[52], [14, 51]], "forced_bos_token_id": 7},
        likely=-1.0,
        scale_embedding=False,
    ),
    "marian, one beam": lambda folder: sentence_folders.write_marian(
        folder,
        settings={"source_lang": "eng", "target_lang": "deu"},
        generation={"suppress_tokens": [13], "begin_suppress_tokens": [50], "min_length": 4},
        likely=2.0,
        activation_function="relu",
    ),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_used_as_its_publisher_does_and_written_again(name, tmp_path):
    folder = FOLDERS[name](tmp_path / "theirs")
    expected = sentence_folders.theirs(folder)
    read = read_run(folder)
    same(sentence_folders.ours(read), expected)
    for file, used in read.published.files.used().items():
        assert not used.unused, f"{file} reports {used.unused}"
    import_published(folder, tmp_path / "run")
    assert export_run(tmp_path / "run", tmp_path / "out")["notes"] == []
    same(sentence_folders.theirs(tmp_path / "out"), expected)
    same(sentence_folders.ours(read_run(tmp_path / "out")), expected)
    assert len({tuple(row) for row in expected["outputs"]}) > 1


def same(found, expected):
    for what, array in expected.items():
        tolerance = {"atol": 2e-4, "rtol": 1e-4}
        np.testing.assert_allclose(found[what], array, err_msg=what, **tolerance)


def test_what_a_run_does_otherwise_is_said(tmp_path):
    """The penalty of Wu et al. 2016 has no name elsewhere; neither have outputs by their source."""
    folder = sentence_folders.write_marian(tmp_path / "theirs", generation={"num_beams": 2})
    import_published(folder, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    # As runs were before, and as those that were trained here are.
    del config["task"]["search"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    notes = read_notes(tmp_path / "run" / "checkpoints" / "0")
    del notes.metadata["config"]["task"]["search"]
    resealed = sealed(0, notes.data, notes.metadata)
    (tmp_path / "run/checkpoints/0/metadata/metadata").write_text(json.dumps(resealed))
    flags = [f"--workdir={tmp_path}/run", f"--target={tmp_path}/out"]
    found = call("export_hf.py", *flags)
    assert found.returncode == 0, found.stderr
    assert "config.task.length_penalty is 1.0" in found.stdout
    assert "tokens longer than their source" in found.stdout
    written = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert written["forced_eos_token_id"] == 0
    assert written["bad_words_ids"] == [[written["decoder_start_token_id"]]]
