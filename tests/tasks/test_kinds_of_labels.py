"""Texts with several labels or a number between 0 and 1, and tags that are no entities."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from transformer.composition import with_fields
from transformer.data.tokenizers.choosing import TokenizerChoice
from transformer.errors import ConfigError, DataError
from transformer.fields import require_allowed
from transformer.models.bert import BERT
from transformer.scoring.several_labels import label_set_scores
from transformer.tasks.parts.encoder import EncoderInput
from transformer.tasks.parts.labels import labels_prediction, save_labels
from transformer.tasks.tagging import Tagging
from transformer.tasks.text_classification import TextClassification
from transformer.training.sections import build, section

SIZE = {"max_length": 12, "batch_size": 4, "tokenizer": TokenizerChoice("wordpiece", 60)}
OUTPUTS = np.array([[2.0, -1.0, 0.5], [-3.0, 0.0, 4.0], [1.0, 1.0, -9.0]], np.float32)


# Never applied: outputs are given.
MODEL = BERT(context=12)


class Fixed(BERT):
    """A model with outputs that are known."""

    vocab_size: int = 60
    outputs: tuple = ()

    def classify(self, *inputs):
        del inputs
        return jnp.asarray(self.outputs)


def losses(task, outputs, labels, valid=(1, 1, 0)):
    rows = len(outputs)
    batch = {
        "tokens": jnp.zeros((rows, 12), int),
        "token_types": jnp.zeros((rows, 12), int),
        "lengths": jnp.full(rows, 12),
        "valid": jnp.asarray(valid),
        "weight": jnp.ones(rows),
        "label": jnp.asarray(labels),
    }
    return task.losses(Fixed(outputs=tuple(map(tuple, outputs.tolist()))), {}, batch, {})


def by_hand(outputs, truth):
    """Of each output, as PyTorch's BCEWithLogitsLoss."""
    shares = 1 / (1 + np.exp(-outputs.astype(np.float64)))
    return -(truth * np.log(shares) + (1 - truth) * np.log1p(-shares))


def test_the_loss_of_several_labels():
    truth = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 1]], np.int32)
    found = losses(with_fields(TextClassification(), **SIZE, multi_label=True), OUTPUTS, truth)
    expected = by_hand(OUTPUTS, truth)[:2].mean(-1)
    np.testing.assert_allclose(found.means()["loss"], expected.mean(), rtol=1e-5)
    np.testing.assert_allclose(found.objective, expected.sum(), rtol=1e-5)
    # All labels of the first row are right, and not all of the second.
    assert float(found.means()["accuracy"]) == 0.5


def test_the_loss_of_a_number_between_0_and_1():
    task = with_fields(TextClassification(), **SIZE, train="a.csv", regression=True, sigmoid=True)
    labels = np.array([0.25, 1.0, 0.0], np.float32)
    found = losses(task, OUTPUTS[:, :1], labels)
    expected = by_hand(OUTPUTS[:, 0], labels)[:2].mean()
    np.testing.assert_allclose(found.means()["loss"], expected, rtol=1e-5)


ROWS = {
    "texts.jsonl": "\n".join(
        json.dumps({"text": f"a {text} cat", "label": labels})
        for text, labels in (("red", ["x", "y"]), ("blue", "y"), ("wet", []), ("old", None))
    ),
    "texts.csv": 'text,label\na red cat,"x, y"\na blue cat,y\na wet cat,\na old cat,\n',
}


@pytest.mark.parametrize("name", ROWS)
def test_several_labels_are_read_and_kept(name, tmp_path):
    path = tmp_path / name
    path.write_text(ROWS[name])
    values = {**SIZE, "multi_label": True, "train": str(path), "validation": str(path)}
    task = build("task", section("task", "text_classification", **values))
    data = task.load(None)
    assert data.labels == ("x", "y")
    assert data.train["label"].tolist() == [[1, 1], [0, 1], [0, 0], [0, 0]]
    assert data.dimensions()["num_outputs"] == 2
    # A run of published weights has its own labels.
    data.save(tmp_path)
    save_labels(("y", "z", "x"), tmp_path)
    again = task.load_validation([str(path)], tmp_path)
    assert again.train["label"].tolist() == [[1, 0, 1], [1, 0, 0], [0, 0, 0], [0, 0, 0]]
    save_labels(("y", "z"), tmp_path)
    with pytest.raises(DataError, match=r"example 1 is new.*x"):
        task.load_validation([str(path)], tmp_path)


def test_a_label_with_the_separator_in_it(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text(json.dumps({"text": "a cat", "label": ["x,y"]}))
    task = with_fields(
        TextClassification(), **SIZE, multi_label=True, train=str(path), validation=str(path)
    )
    with pytest.raises(DataError, match="label_separator"):
        task.load(None)


def test_scores_of_several_labels():
    predicted = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]], bool)
    truth = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0]], bool)
    found = label_set_scores(predicted, truth)
    assert found == {"accuracy": 2 / 3, "micro_f1": 4 / 5, "macro_f1": (1 + 2 / 3) / 2}
    assert label_set_scores(predicted[:0], truth[:0])["accuracy"] == 0.0


def test_several_labels_of_one_name_are_told_apart():
    answer = labels_prediction(OUTPUTS[0], ("a", "b", "a"))
    assert answer.text == "a (0)\t0.8808\ta (2)\t0.6225"
    assert answer.details["classes"] == [0, 2]
    assert answer.details["probabilities"].keys() == {"a (0)", "b", "a (2)"}
    assert labels_prediction(OUTPUTS[0] - 9, ("a", "b", "c")).text == "none"


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"regression": True, "multi_label": True, "train": "a.csv"}, "choose one"),
        ({"sigmoid": True}, "regression"),
        ({"multi_label": True, "label_separator": " "}, "label_separator"),
        ({"multi_label": True, "class_weights": "balanced"}, "class_weights"),
    ],
    ids=str,
)
def test_what_does_not_go_together(values, part):
    with pytest.raises(ConfigError, match=part):
        require_allowed("task", with_fields(TextClassification(), **SIZE, **values))


def test_numbers_that_a_sigmoid_cannot_give(tmp_path):
    path = tmp_path / "texts.csv"
    path.write_text("text,label\na cat,0.5\na dog,1.5\n")
    values = {"train": str(path), "validation": str(path)}
    with pytest.raises(DataError, match="from 0 to 1"):
        with_fields(TextClassification(), **SIZE, **values, regression=True, sigmoid=True).load(
            None
        )


# ----------------------------------------------------------------------------------------- tags

SENTENCES = "the DET\ncat NOUN\nsat VERB\n\nthe DET\ndog NOUN\n"
SCHEMES = {
    "parts of speech": (SENTENCES, False),
    "types alone": ("the O\ncat PER\nSat PER\n\nin O\nRome LOC\n", True),
    "inside only": ("the O\ncat I-PER\nSat I-PER\n\nin O\nRome I-LOC\n", True),
}


@pytest.mark.parametrize("name", SCHEMES)
def test_tags_of_any_kind_are_learned_scored_and_told(name, tmp_path, monkeypatch):
    text, are_entities = SCHEMES[name]
    path = tmp_path / "words.conll"
    path.write_text(text)
    task = with_fields(Tagging(), **SIZE, train=str(path), validation=str(path))
    data = task.load(None)
    assert set(data.labels) == {line.split()[1] for line in text.split("\n") if line}
    data.save(tmp_path)

    def right(self, model, params, rows, method, *, progress=True):
        """What is sure of the truth, and of the first tag where there is none."""
        labels = np.maximum(rows["labels"], 0)
        return 20.0 * np.eye(len(data.labels), dtype=np.float32)[labels]

    monkeypatch.setattr(EncoderInput, "outputs", right)
    for read in (data, task.load_validation([str(path)], tmp_path)):
        scores = task.scores(MODEL, {}, read)
        assert scores["accuracy"] == 1.0
        assert ("f1" in scores) == are_entities
        assert scores.get("f1", 1.0) == 1.0
    shown = task.show(MODEL, {}, data, tmp_path).text
    written = (tmp_path / "predictions.conll").read_text()
    assert [line.split()[1:] for line in written.split("\n")[:2]] == [
        [tag, tag] for tag in data.examples.sentences.tags[0][:2]
    ]
    (answer,) = task.predict(MODEL, {}, tmp_path, ["the cat"])
    first = data.labels[0]
    assert answer.details["tags"] == [first, first]
    np.testing.assert_allclose(answer.details["probabilities"], 1.0, atol=1e-6)
    if are_entities:
        assert "[PER cat Sat]" in shown
        assert answer.details["entities"] == []
    else:
        assert "the/DET cat/NOUN sat/VERB" in shown
        assert answer.text == f"the/{first} cat/{first}"


def test_tags_of_one_name_are_told_apart(tmp_path, monkeypatch):
    save_labels(("O", "N", "N", "O"), tmp_path)
    path = tmp_path / "words.conll"
    path.write_text(SENTENCES)
    task = with_fields(Tagging(), **SIZE, train=str(path), validation=str(path))
    task.load(None).tokenizer.save(tmp_path)

    def fixed(self, model, params, rows, method, *, progress=True):
        scores = np.zeros((*rows["tokens"].shape, 4), np.float32)
        scores[:, 1], scores[:, 2] = [0, 3, 0, 0], [0, 0, 0, 3]
        return scores

    monkeypatch.setattr(EncoderInput, "outputs", fixed)
    (answer,) = task.predict(MODEL, {}, tmp_path, ["the cat"])
    assert answer.details["tags"] == ["N (1)", "O"]
    path.write_text("the N\n")
    with pytest.raises(DataError, match=r"tag N, .*N \([12]\)"):
        task.load_validation([str(path)], tmp_path)
