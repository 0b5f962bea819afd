"""Pretraining, fine-tuning and using an encoder, as a user does it."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.conftest import ROOT, call, fails, interrupted_after, run
from tests.runs import assert_same_run

STEPS = 10
WORDS = {
    "animals": ["cat", "dog", "horse", "sheep", "mouse", "bird"],
    "plants": ["oak", "rose", "fern", "moss", "birch", "lily"],
}
MODEL = [
    "--config.model.num_layers=1",
    "--config.model.num_heads=2",
    "--config.model.width=16",
    "--config.model.context=24",
    "--config.task.max_length=24",
    "--config.task.batch_size=8",
    f"--config.train.duration={STEPS}",
    "--config.train.steps_per_dispatch=1",
    "--config.train.log_every=1",
    "--config.train.save_every=5",
    "--config.train.evaluate_every=5",
    "--config.train.tensorboard=False",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Texts and labels about plants and animals."""
    source, folder = random.Random(0), tmp_path_factory.mktemp("encoder")

    def sentence() -> tuple[str, str]:
        label = source.choice(sorted(WORDS))
        first, second = source.choices(WORDS[label], k=2)
        return f"the {first} is near the {second}", label

    documents = ("\n".join(sentence()[0] for _ in range(4)) for _ in range(60))
    (folder / "text.txt").write_text("\n\n".join(documents), "utf-8")
    rows = (dict(zip(("text", "label"), sentence(), strict=True)) for _ in range(150))
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return folder


@pytest.fixture(scope="module")
def pretraining(folder) -> list[str]:
    return [
        f"--config={ROOT / 'configs' / 'bert_pretrain.py'}",
        f"--config.task.path={folder / 'text.txt'}",
        "--config.task.vocab_size=80",
        "--config.model.dropout_rate=0.1",
        *MODEL,
    ]


@pytest.fixture(scope="module")
def pretrained(folder, pretraining) -> Path:
    done = call("train.py", *pretraining, f"--workdir={folder / 'bert'}")
    assert done.returncode == 0, done.stderr
    return folder / "bert"


@pytest.fixture(scope="module")
def classifying(folder, pretrained) -> list[str]:
    return [
        f"--config={ROOT / 'configs' / 'bert_classify.py'}",
        f"--config.init.workdir={pretrained}",
        f"--config.task.train={folder / 'texts.jsonl'}",
        *MODEL,
    ]


@pytest.fixture(scope="module")
def classifier(folder, classifying) -> Path:
    done = call("train.py", *classifying, f"--workdir={folder / 'texts'}")
    assert done.returncode == 0, done.stderr
    assert "Parameters from" in done.stderr
    assert "loaded" in done.stderr
    assert "output (2)" in done.stderr
    return folder / "texts"


@pytest.mark.parametrize("job", ["pretraining", "classifying"])
def test_a_stopped_run_ends_with_the_same_bits(job, request, tmp_path):
    flags = request.getfixturevalue(job)
    whole = request.getfixturevalue({"pretraining": "pretrained", "classifying": "classifier"}[job])
    workdir = tmp_path / "run"
    with interrupted_after(6):
        assert call("train.py", *flags, f"--workdir={workdir}").returncode == 130
    done = call("train.py", *flags, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert "Resuming" in done.stderr
    assert_same_run(workdir, whole)


def test_lines_are_classified(classifier):
    lines = "the cat is near the dog\nthe oak is near the fern\n"
    done = run("predict.py", f"--workdir={classifier}", input=lines)
    assert done.returncode == 0, done.stderr
    labels, probabilities = zip(*(row.split("\t") for row in done.stdout.splitlines()), strict=True)
    assert set(labels) <= set(WORDS)
    assert all(0.5 <= float(probability) <= 1 for probability in probabilities)
    done = call("predict.py", f"--workdir={classifier}", "--json", input=lines)
    rows = [json.loads(row) for row in done.stdout.splitlines()]
    assert [row["predicted"] for row in rows] == list(labels)
    assert sum(rows[0]["probabilities"].values()) == pytest.approx(1)


def test_pictures_and_predictions_are_left_in_the_folder(classifier):
    assert (classifier / "confusion.png").stat().st_size > 1000
    lines = (classifier / "predictions.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 15
    of_class = {"predicted", "class", "probability", "probabilities"}
    assert set(rows[0]) == {"text", "label"} | of_class


def test_sentences_become_vectors(classifier, tmp_path):
    lines = "the cat is near the dog\nthe oak\n"
    for suffix, start in (("npy", run), ("safetensors", call)):
        output = tmp_path / f"vectors.{suffix}"
        done = start("embed.py", f"--workdir={classifier}", f"--output={output}", input=lines)
        assert done.returncode == 0, done.stderr
    vectors = np.load(tmp_path / "vectors.npy")
    assert vectors.shape == (2, 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    safetensors = pytest.importorskip("safetensors.numpy")
    loaded = safetensors.load_file(tmp_path / "vectors.safetensors")["embeddings"]
    np.testing.assert_array_equal(loaded, vectors)


def test_masked_words_are_filled_in(pretrained):
    done = call("predict.py", f"--workdir={pretrained}", input="the [MASK] is near the [MASK]\n")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip().split("\t")) == 2


@pytest.mark.parametrize(
    ("script", "job", "lines", "said"),
    [
        ("predict.py", "classifier", "the cat\n\n", "line 2 of the input is empty"),
        ("predict.py", "pretrained", "the cat\n", "line 1 of the input has no [MASK]"),
        ("embed.py", "classifier", "the cat\n \n", "line 2 of the input is empty"),
    ],
)
def test_lines_that_cannot_be_answered(script, job, lines, said, request, tmp_path):
    flags = [f"--workdir={request.getfixturevalue(job)}"]
    if script == "embed.py":
        flags += [f"--output={tmp_path / 'vectors.npy'}"]
    fails(call(script, *flags, input=lines), 2, said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            '{"text": "a cat", "label": "animals"}\n{"text": "a stone", "label": "minerals"}\n',
            "minerals",
        ),
        ('{"text": "a cat", "label": "animals"}\n{"text": "a dog", \n', "line 2 is not JSON"),
    ],
    ids=["unknown label", "malformed line"],
)
def test_files_that_cannot_be_evaluated(content, said, classifier, tmp_path):
    path = tmp_path / "other.jsonl"
    path.write_text(content, "utf-8")
    fails(call("evaluate.py", f"--workdir={classifier}", f"--path={path}"), 2, said)


def test_a_tokenizer_that_does_not_match_the_weights(pretrained, classifying, tmp_path):
    other = tmp_path / "bert"
    other.mkdir()
    for name in ("config.json", "checkpoints"):
        (other / name).symlink_to(pretrained / name)
    text = (pretrained / "tokenizer.json").read_text("utf-8")
    (other / "tokenizer.json").write_text(text.replace("horse", "hoarse"), "utf-8")
    flags = [flag for flag in classifying if "init.workdir" not in flag]
    done = call(
        "train.py", *flags, f"--config.init.workdir={other}", f"--workdir={tmp_path / 'run'}"
    )
    fails(done, 2, "is not the one its checkpoints were trained with")


def test_a_model_that_does_not_fit(classifying, tmp_path):
    done = call(
        "train.py", *classifying, "--config.model.width=32", f"--workdir={tmp_path / 'run'}"
    )
    fails(done, 2, "--config.model.width=16")
