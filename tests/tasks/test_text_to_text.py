"""Text-to-text: what is read, laid out, trained on, scored and begun from another run."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import noisy_parameters
from transformer.composition import with_fields
from transformer.data.tokenizers.choosing import TokenizerChoice
from transformer.decoding.translate import Output
from transformer.errors import ConfigError, DataError, WorkdirError
from transformer.models.t5 import T5
from transformer.ops.losses import IGNORED
from transformer.tasks import text_to_text
from transformer.tasks.denoising import Denoising
from transformer.tasks.text_to_text import TextToText
from transformer.training.sections import build, section

SIZE = {
    "tokenizer": TokenizerChoice("character"),
    "max_length": 16,
    "max_target_length": 6,
    "batch_tokens": 128,
    "rows_multiple": 4,
    "validation_fraction": 0.25,
    "beam_size": 2,
}
WORDS = ["abc", "cab", "ba", "bca", "acb", "cb", "aabb", "ccab"]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two tasks: the longer one lower-case words turned round, the other in capitals."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [{"source": word, "target": word[::-1]} for word in WORDS]
    lines = [word.upper() for word in WORDS[:4]]
    (folder / "s").write_text("\n".join(word.lower() for word in lines))
    (folder / "t").write_text("\n".join(lines))
    return {
        "turn": write(folder / "turn.jsonl", rows),
        "lines": f"{folder}/s,{folder}/t",
        "long": write(folder / "long.jsonl", [{"source": "a" * 40, "target": "b"}] * 4),
        "wide": write(folder / "wide.jsonl", [{"source": "a", "target": "b" * 9}, *rows]),
    }


@pytest.fixture(scope="module")
def one(files):
    return with_fields(TextToText(), train=files["turn"], prefix="turn: ", **SIZE)


@pytest.fixture(scope="module")
def two(files):
    train = f"{files['turn']};{files['lines']}"
    return with_fields(TextToText(), train=train, prefix="turn: ;up: ", rates=(1.0, 2.0), **SIZE)


@pytest.fixture(scope="module")
def data(one):
    return one.load(None)


@pytest.fixture(scope="module")
def model(data):
    sizes = {"num_encoder_layers": 1, "num_decoder_layers": 1, "width": 8, "num_heads": 2}
    vocab_size = data.tokenizer.vocab_size
    return T5(vocab_size=vocab_size, feed_forward_width=8, dropout_rate=0.0, begin_id=3, **sizes)


@pytest.fixture(scope="module")
def params(model):
    return noisy_parameters(model, *[jnp.zeros((1, 4), int)] * 2)


def test_pairs_have_their_prefix_and_the_last_are_held_out(one, data):
    texts = one.read()
    assert texts.train.source == [f"turn: {word}" for word in WORDS[:6]]
    assert texts.validation == ([f"turn: {word}" for word in WORDS[6:]], ["bbaa", "bacc"])
    assert data.validation_text == texts.validation
    assert [data.tokenizer.decode(ids[:-1]) for ids in data.train.target] == [
        word[::-1] for word in WORDS[:6]
    ]


def test_tasks_are_mixed_by_rates_and_validated_once(two):
    texts = two.read()
    sources = texts.train.source
    assert [sum(x.startswith(p) for x in sources) for p in ("turn: ", "up: ")] == [6, 12]
    assert {sources.count(f"up: {word}") for word in WORDS[:3]} == {4}
    assert texts.groups == ("turn", "turn", "up")
    assert texts.validation.target[-1] == WORDS[3].upper()


@pytest.mark.parametrize("packing", [False, True])
def test_targets_have_a_length_of_their_own(one, packing):
    data = with_fields(one, packing=packing).load(None)
    batches = data.train_batches(seed=0, num_steps=3)
    for step in range(3):
        batch = batches[step]
        assert batch["source"].shape[1] <= 16
        assert batch["target"].shape == batch["labels"].shape
        assert batch["target"].shape[1] == 6
        assert len(batch["source"]) % 4 == 0
    assert "of their tokens are padding" in data.describe()


def test_long_sources_are_cut_and_long_targets_left_out(files):
    task = with_fields(TextToText(), train=files["long"], prefix="", **SIZE)
    found = task.load(None)
    assert found.train.source.lengths.tolist() == [16, 16, 16]
    assert found.notes[0] == "3 training sources are cut to 15 tokens."
    wide = with_fields(TextToText(), train=files["wide"], prefix="", **SIZE).load(None)
    assert len(wide.train.source) == 6
    assert "1 training pairs of more than 15 and 5 tokens are left out." in wide.notes
    refusing = with_fields(task, too_long="refuse")
    with pytest.raises(DataError, match=r"training pair 1 has 40 tokens.*config\.task\.max_length"):
        refusing.load(None)


def test_loss_begins_with_the_token_of_the_model(one, data, model, params):
    """The mean over all tokens of the targets, by hand."""
    batch = data.validation_batches()[0]
    found = jax.jit(lambda params, batch: one.losses(model, params, batch, {}))(params, batch)
    total, count, apply = 0.0, 0, jax.jit(model.apply)
    for source, target in zip(data.validation.source, data.validation.target, strict=True):
        begun = np.array([[3, *target[:-1]]])
        logits = apply({"params": params}, jnp.asarray(source)[None], jnp.asarray(begun))
        log_probs = jax.nn.log_softmax(logits[0])
        total -= log_probs[np.arange(len(target)), target].sum()
        count += len(target)
    assert found.weight == count == (batch["labels"] != IGNORED).sum()
    np.testing.assert_allclose(found.metrics["loss"], total, rtol=1e-5)


def test_scores_and_outputs(one, data, model, params, tmp_path):
    shown = one.show(model, params, data, tmp_path)
    assert shown.scores.keys() == {"rouge1", "rouge2", "rougeL", "rougeLsum", "exact_match"}
    rows = [line.split("\t") for line in (tmp_path / "outputs.tsv").read_text().splitlines()]
    assert rows[0] == ["source", "reference", "output"]
    assert [row[:2] for row in rows[1:]] == [["turn: aabb", "bbaa"], ["turn: ccab", "bacc"]]
    # At most five tokens and the end.
    assert all(len(row[2]) <= 5 for row in rows[1:])
    assert (tmp_path / "alignment.png").stat().st_size > 1000


def test_several_tasks_have_scores_of_their_own(two, model, params, monkeypatch):
    found = two.load(None)
    outputs = [[Output(text, np.zeros(1), 0.0, 0.0)] for text in ("bbaa", "x", "BCA")]
    monkeypatch.setattr("transformer.tasks.parts.writing.translate", lambda *args: outputs)
    scores = two.scores(model, params, found)
    assert scores["exact_match"] == pytest.approx(200 / 3)
    assert scores["exact_match[turn]"] == 50.0
    assert scores["exact_match[up]"] == scores["rouge1[up]"] == 100.0


def test_the_prefix_is_put_before_lines(one, two, data):
    ids, cut = one.encode_sources(data.tokenizer, [" abc ", "turn: abc", ""])
    assert [data.tokenizer.decode(each) for each in ids] == ["turn: abc", "turn: abc", ""]
    assert cut == 0
    # With two of them only the writer of the line knows which.
    assert two.prompt("abc") == "abc"


def test_other_files_to_validate_on(one, data, files, tmp_path):
    data.save(tmp_path)
    found = one.load_validation([files["turn"]], tmp_path)
    assert found.validation_text.source == [f"turn: {word}" for word in WORDS]
    assert len(found.validation.source) == len(WORDS)
    with pytest.raises(ConfigError, match=r"--path.*\.jsonl"):
        one.load_validation([str(tmp_path / "other.txt")], tmp_path)
    with pytest.raises(WorkdirError, match="tokenizer"):
        one.load_validation([files["turn"]], tmp_path / "nothing")


def test_spans_first_and_then_the_task_with_the_same_tokens(data, tmp_path, monkeypatch):
    """The tokens keep their ids, the sentinels come after them and keep theirs."""
    text = tmp_path / "text.txt"
    text.write_text("turn: abcba cab\n" * 40)
    sizes = {"tokenizer": TokenizerChoice("character"), "length": 16}
    spans = with_fields(Denoising(), path=str(text), **sizes)
    streams = spans.load(None)
    streams.save(tmp_path)
    pairs = data.validation_text
    monkeypatch.setattr(text_to_text, "read_embedded_pairs", lambda name, fraction: (pairs, pairs))
    task = with_fields(TextToText(), **SIZE, embedded="summaries", prefix="turn: ")
    later = task.load(tmp_path)
    assert later.tokenizer.identity() == streams.tokenizer.identity()
    assert later.dimensions()["vocab_size"] == streams.tokenizer.first_sentinel
    assert streams.dimensions()["vocab_size"] == streams.tokenizer.first_sentinel + 1


def test_pretraining_reads_the_docstrings(monkeypatch):
    seen = []

    def text(fraction):
        seen.append(fraction)
        return "one two three\n" * 30, "four five\n" * 30

    monkeypatch.setattr("transformer.data.embedded.texts.docstrings.docstring_text", text)
    sizes = {"tokenizer": TokenizerChoice("character"), "length": 16}
    task = with_fields(Denoising(), embedded="docstrings", **sizes)
    found = task.load(None)
    assert found.tokenizer.decode(found.train[:13]) == "one two three"
    assert seen == [task.texts.files.validation_fraction]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_target_length": 1}, "max_target_length"),
        ({"max_length": 32}, "max_target_length.*max_length"),
        ({"embedded": "news"}, "embedded.*summaries"),
        ({"validation": "a.jsonl"}, "validation needs config.task.train"),
        ({"train": "a.jsonl;b.jsonl"}, "prefix has 1 entries and config.task.train 2"),
        ({"train": "a.jsonl", "validation": "b;c"}, "validation has 2 entries"),
        ({"train": "a.jsonl", "rates": (1.0, 2.0)}, "rates has 2 numbers"),
        ({"rates": (0.0,)}, "rates.*above 0"),
        ({"length_penalty": -1.0}, "length_penalty"),
    ],
    ids=str,
)
def test_impossible_values(values, message):
    with pytest.raises(ConfigError, match=message):
        build("task", section("task", "text_to_text", **values))


def test_one_step_visits_all_of_few_pairs(data):
    pace = data.pace()
    assert pace.examples_per_epoch == 6
    assert math.isclose(pace.tokens_per_step, len(data.train.target.tokens))
