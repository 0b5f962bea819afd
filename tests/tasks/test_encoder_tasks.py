"""Losses of an encoder's jobs: by hand, in parts, and of rows that do not count."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import AnyMethod, noisy_parameters
from tests.data.words import WORDS
from transformer.composition import with_fields
from transformer.data.order import Batches, InOrder
from transformer.data.rows import RowSource
from transformer.data.source import Visit
from transformer.data.text.documents import SentencePairs, tokenize_documents
from transformer.data.text.masking import Masking
from transformer.data.tokenizers.choosing import TokenizerChoice
from transformer.errors import ConfigError, DataError
from transformer.models.bert import BERT
from transformer.ops.losses import IGNORED
from transformer.tasks.masked_lm import MaskedLM
from transformer.tasks.parts.abilities import NamesOutputs
from transformer.tasks.question_answering import QuestionAnswering
from transformer.tasks.tagging import Tagging
from transformer.tasks.text_classification import TextClassification
from transformer.training.sections import build, section

SIZE = {"max_length": 12, "batch_size": 4, "tokenizer": TokenizerChoice("wordpiece", 60)}
ROWS = [("a red cat", "x"), ("a blue cat", "x"), ("a red dog", "y"), ("one cat", "x")] * 5


@pytest.fixture(scope="module")
def model():
    return BERT(vocab_size=60, num_outputs=3, num_layers=1, num_heads=2, width=8, context=12)


@pytest.fixture(scope="module")
def params(model):
    def everything(module, tokens):
        module.pretrain(tokens, tokens, jnp.ones(1, int), tokens)
        return module.classify(tokens)

    return noisy_parameters(AnyMethod(model, everything), jnp.zeros((1, 12), int))


@pytest.fixture(scope="module")
def losses(model, params):
    """Losses of a task, compiled once for each shape of batch."""

    @functools.partial(jax.jit, static_argnums=0)
    def of(task, batch):
        return task.losses(model, params, batch, {})

    return of


def batch(**arrays):
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 60, (4, 12)).astype(np.int32)
    inputs = {
        "tokens": tokens,
        "token_types": np.zeros_like(tokens),
        "lengths": np.array([12, 7, 9, 12], np.int32),
        "valid": np.array([1, 1, 1, 0], np.int32),
    }
    return inputs | arrays


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@functools.partial(jax.jit, static_argnums=0, static_argnames="method")
def applied(model, params, *inputs, method):
    return model.apply({"params": params}, *inputs, method=method)


def outputs(model, params, rows, method):
    inputs = (jnp.asarray(rows[name]) for name in ("tokens", "token_types", "lengths"))
    return np.asarray(applied(model, params, *inputs, method=method), np.float64)


def test_classification_by_hand(model, params, losses):
    rows = batch(
        label=np.array([2, 0, 1, 1], np.int32), weight=np.array([1, 3, 0.5, 7], np.float32)
    )
    found = losses(with_fields(TextClassification(), **SIZE), rows)
    nll = -log_softmax(outputs(model, params, rows, "classify"))[np.arange(4), rows["label"]]
    assert float(found.weight) == 4.5
    np.testing.assert_allclose(found.objective, nll[:3] @ rows["weight"][:3], rtol=1e-5)
    np.testing.assert_allclose(found.means()["loss"], nll[:3].mean(), rtol=1e-5)


def test_regression_by_hand(model, params, losses):
    rows = batch(label=np.array([2.0, 0.5, -1.0, 9.0], np.float32), weight=np.ones(4, np.float32))
    found = losses(with_fields(TextClassification(), **SIZE, train="a.csv", regression=True), rows)
    values = outputs(model, params, rows, "classify")[:, 0]
    expected = np.square(values - rows["label"])[:3]
    np.testing.assert_allclose(found.means()["loss"], expected.mean(), rtol=1e-5)
    np.testing.assert_allclose(found.objective, expected.sum(), rtol=1e-5)


def test_question_answering_by_hand(model, params, losses):
    rows = batch(starts=np.array([3, 0, 2, 5], np.int32), ends=np.array([4, 0, 8, 6], np.int32))
    found = losses(with_fields(QuestionAnswering(), **SIZE), rows)
    logits = outputs(model, params, rows, "tag")
    expected = []
    for row, length in enumerate(rows["lengths"][:3]):
        start, end = (log_softmax(logits[row, :length, place]) for place in (0, 1))
        expected.append(-(start[rows["starts"][row]] + end[rows["ends"][row]]) / 2)
    np.testing.assert_allclose(found.means()["loss"], np.mean(expected), rtol=1e-5)


def test_tagging_by_hand(model, params, losses):
    labels = np.full((4, 12), IGNORED, np.int32)
    labels[0, 1:5], labels[1, 2], labels[3, 1] = [0, 1, 2, 0], 1, 2
    rows = batch(labels=labels)
    found = losses(with_fields(Tagging(), **SIZE), rows)
    scores = log_softmax(outputs(model, params, rows, "tag"))
    counted = np.argwhere(labels[:3] >= 0)
    expected = [-scores[row, place, labels[row, place]] for row, place in counted]
    assert float(found.weight) == 5
    np.testing.assert_allclose(found.means()["loss"], np.mean(expected), rtol=1e-5)


@pytest.fixture(scope="module")
def masked():
    """Rows with two, one and no predictions."""
    labels = np.full((4, 2), IGNORED, np.int32)
    labels[0], labels[1, 0], labels[2, 0] = [7, 8], 9, 11
    positions = np.array([[1, 3], [2, 0], [4, 0], [0, 0]], np.int32)
    is_next = np.array([1, 0, 1, IGNORED], np.int32)
    return batch(labels=labels, positions=positions, is_next=is_next)


def test_masked_tokens_by_hand(model, params, losses, masked):
    found = losses(with_fields(MaskedLM(), **SIZE), masked)
    inputs = (
        jnp.asarray(masked[name]) for name in ("tokens", "token_types", "lengths", "positions")
    )
    logits, follows = applied(model, params, *inputs, method="pretrain")
    scores = log_softmax(np.asarray(logits, np.float64))
    tokens = [-scores[0, 0, 7], -scores[0, 1, 8], -scores[1, 0, 9], -scores[2, 0, 11]]
    # The first of both scores is that of following.
    pairs = -log_softmax(np.asarray(follows, np.float64))[[0, 1, 2], [0, 1, 0]]
    means = found.means()
    np.testing.assert_allclose(means["loss"], np.mean(tokens), rtol=1e-5)
    np.testing.assert_allclose(means["next_sentence_loss"], np.mean(pairs), rtol=1e-5)
    np.testing.assert_allclose(found.objective, np.sum(tokens) + 2 * np.sum(pairs), rtol=1e-5)


def test_halves_of_a_batch_add_up_to_the_whole(losses, masked):
    task = with_fields(MaskedLM(), **SIZE)
    parts = (
        losses(task, {name: array[half] for name, array in masked.items()})
        for half in (slice(0, 2), slice(2, 4))
    )
    together = jax.tree.map(lambda *both: sum(both), *parts)
    for one, other in zip(
        jax.tree.leaves(together), jax.tree.leaves(losses(task, masked)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_chunks_of_the_vocabulary_give_the_same_loss(losses, masked):
    whole, chunked = (
        losses(with_fields(MaskedLM(), **SIZE, vocab_chunk=chunk), masked) for chunk in (0, 13)
    )
    np.testing.assert_allclose(whole.objective, chunked.objective, rtol=1e-5)


RANDOM, FIRST = np.random.default_rng(1), Visit(0)
WEIGHTS = RANDOM.random(4).astype(np.float32)


@pytest.mark.parametrize(
    ("task", "rows"),
    [
        (
            with_fields(TextClassification(), **SIZE),
            {"label": np.array([2, 0, 1, 1]), "weight": WEIGHTS},
        ),
        (
            with_fields(TextClassification(), **SIZE, train="a.csv", regression=True),
            {"label": np.array([2.0, 0.5, -1.0, 9.0], np.float32), "weight": WEIGHTS},
        ),
        (with_fields(Tagging(), **SIZE), {"labels": RANDOM.integers(0, 3, (4, 12))}),
        (
            with_fields(QuestionAnswering(), **SIZE),
            {"starts": np.array([3, 0, 2, 5]), "ends": np.arange(4, 8)},
        ),
        (with_fields(MaskedLM(), **SIZE), None),
    ],
    ids=["classes", "numbers", "tags", "answers", "masks"],
)
def test_rows_that_fill_up_a_batch_count_for_nothing(losses, masked, task, rows):
    if rows is None:
        few = {name: masked[name][:3] for name in masked if name != "valid"}
        documents = tokenize_documents(WORDS, [["5 6", "7 8"], ["9", "10"]])
        padding = SentencePairs(documents, WORDS, 12, Masking(), next_sentence=True).padding(FIRST)
        filled = {name: np.concatenate([few[name], array]) for name, array in padding.items()}
    else:
        some = {name: array[:3] for name, array in batch(**rows).items() if name != "valid"}
        batches = Batches(RowSource(some), InOrder(3, 3))
        few, filled = batches[0], batches.of_host(0, 1, multiple=4)[0]
    assert {len(array) for array in filled.values()} == {4}
    for one, other in zip(
        jax.tree.leaves(losses(task, filled)), jax.tree.leaves(losses(task, few)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5)


# ------------------------------------------------------------------------------------ data


def write(path, rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    return str(path)


def test_balanced_classes_count_alike(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"text": t, "label": label} for t, label in ROWS])
    task = with_fields(TextClassification(), **SIZE, train=path, class_weights="balanced")
    data = task.load(None)
    assert data.labels == ("x", "y")
    totals = np.bincount(data.train["label"], data.train["weight"])
    np.testing.assert_allclose(totals, totals.mean(), rtol=1e-6)
    np.testing.assert_allclose(data.train["weight"].mean(), 1, rtol=1e-6)
    np.testing.assert_array_equal(data.validation["weight"], 1)


def test_fewer_examples(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"text": t, "label": label} for t, label in ROWS])
    data = with_fields(TextClassification(), **SIZE, train=path, max_examples=7).load(None)
    assert len(data.train["label"]) == 7
    assert data.labels == ("x", "y")


def test_pairs_of_texts(tmp_path):
    rows = [{"a": t, "b": "red", "label": label} for t, label in ROWS]
    path = write(tmp_path / "a.jsonl", rows)
    data = with_fields(TextClassification(), **SIZE, train=path, text="a", second="b").load(None)
    ends = np.sum(data.train["tokens"] == data.tokenizer.separator, axis=1)
    np.testing.assert_array_equal(ends, 2)
    assert data.train["token_types"].max() == 1


def test_a_label_that_only_validation_has(tmp_path):
    train = write(tmp_path / "a.jsonl", [{"text": t, "label": label} for t, label in ROWS])
    other = write(tmp_path / "b.jsonl", [{"text": "a cat", "label": "minerals"}])
    with pytest.raises(DataError, match="minerals"):
        with_fields(TextClassification(), **SIZE, train=train, validation=other).load(None)


@pytest.mark.parametrize("name", ["text_classification", "tagging", "question_answering"])
def test_models_with_too_few_positions(name):
    task = build("task", section("task", name, max_length=64))
    with pytest.raises(ConfigError, match=r"max_length \(64\).*context \(16\)"):
        task.check_model(BERT(vocab_size=9, context=16))


def test_only_labels_are_names_of_outputs(tmp_path):
    """A run that continues another asks whether the outputs have the same names."""
    (tmp_path / "a.conll").write_text("a O\nred N\n")
    path = str(tmp_path / "a.conll")
    assert isinstance(
        with_fields(Tagging(), **SIZE, train=path, validation=path).load(None), NamesOutputs
    )
    (tmp_path / "a.txt").write_text("a red cat\na blue cat\n")
    path = str(tmp_path / "a.txt")
    assert not isinstance(
        with_fields(MaskedLM(), **SIZE, path=path, validation_path=path).load(None), NamesOutputs
    )
