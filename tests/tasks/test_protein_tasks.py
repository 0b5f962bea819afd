"""The jobs of texts on proteins: rows of residues, their labels and numbers."""

import numpy as np
import pytest

from transformer.composition import with_fields
from transformer.data.tokenizers.choosing import TokenizerChoice
from transformer.ops.losses import IGNORED
from transformer.tasks.masked_lm import MaskedLM
from transformer.tasks.tagging import Tagging
from transformer.tasks.text_classification import TextClassification

RESIDUES = {"tokenizer": TokenizerChoice("residues"), "max_length": 8}


def test_a_label_for_each_residue(tmp_path):
    path = tmp_path / "train.fasta"
    path.write_text(">a\nMKT\nHHC\n>b\nGAVLIMFWP\nEEEEEEEEC\n>c\nMK\nHC\n")
    data = with_fields(Tagging(), train=str(path), validation_fraction=0.34, **RESIDUES).load(None)
    assert data.labels == ("C", "E", "H")
    h, c, none = 2, 0, IGNORED
    np.testing.assert_array_equal(data.train["labels"][0], [none, h, h, c] + [none] * 4)
    # Longer proteins go on in another row.
    assert data.train["lengths"].tolist() == [5, 8, 5]
    assert data.examples.sentences.words == [["M", "K"]]


def test_a_number_for_each_protein(tmp_path):
    path = tmp_path / "measured.csv"
    path.write_text("text,label\n" + "".join(f"MK{'A' * n},{n / 2}\n" for n in range(4)))
    task = with_fields(
        TextClassification(), train=str(path), regression=True, validation_fraction=0.25, **RESIDUES
    )
    data = task.load(None)
    assert sorted([*data.train["label"], *data.validation["label"]]) == [0.0, 0.5, 1.0, 1.5]
    assert set(data.train["tokens"][:, 0]) == {0}


def test_as_much_is_hidden_to_validate_on_as_is_asked(tmp_path):
    path = tmp_path / "a.fasta"
    path.write_text("".join(f">{name}\n{'MKTAYIAKQRQISFVKSHFS' * 2}\n" for name in "abcd"))
    fields = {"path": str(path), "validation_path": str(path), "next_sentence": False}
    sizes = RESIDUES | {"max_length": 42, "batch_size": 2}
    task = with_fields(MaskedLM(), **fields, **sizes, masking_rate=0.5, validation_masking_rate=0.1)
    data = task.load(None)
    trained = data.train_batches(seed=0, num_steps=1)[0]
    assert np.count_nonzero(trained["labels"] != IGNORED) == 2 * 20
    held_out = data.validation_batches()[0]
    assert np.count_nonzero(held_out["labels"] != IGNORED) == 2 * 4
    # Nothing said: as in training.
    alike = with_fields(task, validation_masking_rate=0.0).load(None).validation_batches()[0]
    assert np.count_nonzero(alike["labels"] != IGNORED) == 2 * 20


def test_peptides_need_no_file():
    pytest.importorskip("modlamp", reason="its table has the peptides")
    data = with_fields(
        TextClassification(), embedded="peptides", **RESIDUES | {"max_length": 200}
    ).load(None)
    assert data.labels == ("AMP", "UniProt")
    assert len(data.train["label"]) == 3665
    assert not any("unknown" in note or "longer" in note for note in data.notes)
    masked = with_fields(
        MaskedLM(), embedded="peptides", next_sentence=False, **RESIDUES | {"max_length": 64}
    )
    assert len(masked.load(None).train.data.documents) - 1 == 3665
