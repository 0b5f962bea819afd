"""Completion: rows, what counts in the loss, answers, and files."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import noisy_parameters
from transformer.composition import with_fields
from transformer.data.pairs.completions import completion_rows
from transformer.data.tokenizers.choosing import TokenizerChoice
from transformer.errors import ConfigError, DataError
from transformer.models.llama import Llama
from transformer.ops.losses import IGNORED
from transformer.tasks.completion import Completion
from transformer.training.sections import build, section

WORDS = ["abc", "cab", "ba", "bca", "acb", "cb", "aabb", "ccab"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Words, turned round."""
    file = tmp_path_factory.mktemp("pairs") / "turn.jsonl"
    rows = [{"source": word, "target": word[::-1]} for word in WORDS]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


@pytest.fixture(scope="module")
def task(path):
    return with_fields(
        Completion(),
        train=path,
        prefix="turn: ",
        suffix="\n>",
        tokenizer=TokenizerChoice("character"),
        validation_fraction=0.25,
        max_length=16,
        max_target_length=6,
        batch_size=2,
    )


@pytest.fixture(scope="module")
def data(task):
    return task.load(None)


@pytest.fixture(scope="module")
def model(data):
    sizes = {"num_layers": 1, "num_heads": 2, "width": 8, "feed_forward_width": 8, "context": 32}
    return Llama(vocab_size=data.tokenizer.vocab_size, **sizes)


@pytest.fixture(scope="module")
def params(model):
    return noisy_parameters(model, jnp.zeros((1, 4), int))


def test_only_the_target_is_predicted(data):
    rows = data.train
    decode = data.tokenizer.decode
    for row, word in enumerate(WORDS[:6]):
        size = rows["lengths"][row]
        label = rows["labels"][row]
        assert decode(label[label != IGNORED]) == f" {word[::-1]}\n"
        text = f"turn: {word}\n> {word[::-1]}"
        assert decode(rows["tokens"][row, :size]) == text
        # A label stands below the token before it.
        assert decode(rows["tokens"][row, : np.flatnonzero(label != IGNORED)[0] + 1]) == (
            f"turn: {word}\n>"
        )
    assert data.validation_text == (["turn: aabb", "turn: ccab"], ["bbaa", "bacc"])


def test_what_is_too_long():
    ids = [np.arange(10, 30), np.arange(10, 12)]
    targets = [np.array([1, 2, 3]), np.array([1, 2, 3, 4])]
    options = {"max_length": 8, "max_target_length": 3}
    rows, cut, left_out = completion_rows(ids, np.array([5]), targets, training=True, **options)
    assert (cut, left_out) == (1, 1)
    assert rows["tokens"].tolist() == [[10, 11, 12, 13, 14, 5, 1, 2]]
    assert rows["labels"][0, 5:].tolist() == [1, 2, 3]
    rows, _, left_out = completion_rows(ids, np.array([5]), targets, training=False, **options)
    assert (len(rows["tokens"]), left_out) == (2, 0)
    assert rows["labels"][1, 2:5].tolist() == [1, 2, 3]


def test_the_loss_is_that_of_the_target(task, data, model, params):
    """By hand, and whatever stands behind the row's end."""
    batch = data.validation_batches()[0]
    losses = jax.jit(lambda batch: task.losses(model, params, batch, {}))
    found = losses(batch)
    logits = np.asarray(model.apply({"params": params}, jnp.asarray(batch["tokens"]))[0])
    log_probs = jax.nn.log_softmax(logits)
    places = np.nonzero(batch["labels"] != IGNORED)
    expected = -log_probs[(*places, batch["labels"][places])].sum()
    np.testing.assert_allclose(found.metrics["loss"], expected, rtol=1e-5)
    assert found.weight == len(places[0])
    without = losses({**batch, "valid": np.zeros(2, np.int32)})
    assert without.weight == without.metrics["loss"] == 0


def test_answers_are_the_most_probable_tokens(task, data, model, params, tmp_path):
    """With the cache as without, up to the end of a line."""
    data.save(tmp_path)
    (answer,) = list(task.predict(model, params, tmp_path, ["abc"]))
    ids = data.tokenizer.encode("turn: abc\n>").tolist()
    begun = len(ids)
    apply = jax.jit(lambda tokens: model.apply({"params": params}, tokens)[0])
    for _ in range(task.max_target_length):
        row = np.zeros((1, 32), np.int32)
        row[0, : len(ids)] = ids
        ids.append(int(apply(row)[0, len(ids) - 1].argmax()))
    expected = data.tokenizer.decode(ids[begun:]).partition("\n")[0].strip()
    assert answer.text == answer.details["answer"] == expected
    shown = task.show(model, params, data, tmp_path)
    assert shown.scores.keys() == {"rouge1", "rouge2", "rougeL", "rougeLsum", "exact_match"}
    rows = (tmp_path / "outputs.tsv").read_text().splitlines()
    assert [row.split("\t")[:2] for row in rows[1:]] == [
        ["turn: aabb", "bbaa"],
        ["turn: ccab", "bacc"],
    ]


def test_other_files_to_validate_on(task, data, path, tmp_path):
    data.save(tmp_path)
    found = task.load_validation([path], tmp_path)
    assert found.validation_text.target == [word[::-1] for word in WORDS]


def test_pairs_that_need_no_file(task, monkeypatch):
    pairs = (["abc"], ["cba"]), (["ba"], ["ab"])
    monkeypatch.setattr(
        "transformer.tasks.completion.read_embedded_pairs",
        lambda name, fraction: tuple(map(_pairs, pairs)),
    )
    found = with_fields(task, train="").load(None)
    assert found.validation_text == (["turn: ba"], ["ab"])


def _pairs(columns):
    from transformer.data.pairs.files import Pairs

    return Pairs(*columns)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_target_length": 128}, "max_target_length.*less than.*max_length"),
        ({"validation": "a.jsonl"}, "validation needs config.task.train"),
        ({"embedded": "news"}, "embedded"),
    ],
    ids=str,
)
def test_impossible_values(values, message):
    with pytest.raises(ConfigError, match=message):
        build("task", section("task", "completion", **values))


def test_no_target_fits(task):
    with pytest.raises(DataError, match="raise max_target_length"):
        with_fields(task, max_target_length=2).load(None)
