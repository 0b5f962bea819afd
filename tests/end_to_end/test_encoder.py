"""Pretraining, fine-tuning and using an encoder, as a user does it."""

import json
import random
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.end_to_end.conftest import (
    ROOT,
    call,
    command,
    fails,
    interrupted_after,
    nothing_shown,
    run,
)
from tests.runs import answered_as_they_come, assert_same_run
from transformer.runs.opening import open_run

STEPS = 10

pytestmark = pytest.mark.usefixtures("undrawn")

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
        "--config.task.tokenizer.size=80",
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


@pytest.mark.sampled(2)
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


def conversation(script: str, *flags: str, lines: list[str]) -> list[str]:
    """What a process answers to lines, of which each is written after the answer to the last."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    answers = []
    with subprocess.Popen(command(script, *flags), text=True, **pipes) as process:
        # Whoever waits for further lines would wait for ever.
        timer = threading.Timer(240, process.kill)
        timer.start()
        for line in lines:
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            answers.append(process.stdout.readline())
        rest, errors = process.communicate()
        timer.cancel()
    assert (process.returncode, rest) == (0, ""), errors
    return answers


def test_lines_are_classified(classifier):
    lines = "the cat is near the dog\nthe oak is near the fern\n"
    rows = conversation("predict.py", f"--workdir={classifier}", lines=lines.splitlines())
    labels, probabilities = zip(*(row.split("\t") for row in rows), strict=True)
    assert set(labels) <= set(WORDS)
    assert all(0.5 <= float(probability) <= 1 for probability in probabilities)
    done = call("predict.py", f"--workdir={classifier}", "--json", input=lines)
    rows = [json.loads(row) for row in done.stdout.splitlines()]
    assert [row["predicted"] for row in rows] == list(labels)
    assert sum(rows[0]["probabilities"].values()) == pytest.approx(1)


def test_lines_are_read_in_one_way(classifier, tmp_path):
    """However they are written: the same answers and the same vectors."""
    lines = ["the cat is near the dog", "the oak"]
    ways = [f"{lines[0]}\n{lines[1]}", f"\ufeff{lines[0]}  \r\n\t{lines[1]}\r\n"]
    flags = f"--workdir={classifier}", "--json"
    answers = [call("predict.py", *flags, input=way).stdout for way in ways]
    answers.append(call("predict.py", *flags, *(f" {line} " for line in lines)).stdout)
    assert answers[0].count("\n") == 2
    assert len(set(answers)) == 1
    for number, way in enumerate(ways):
        output = f"--output={tmp_path / str(number)}.npy"
        assert call("embed.py", flags[0], output, input=way).returncode == 0
    vectors = [np.load(tmp_path / f"{number}.npy") for number in range(2)]
    np.testing.assert_array_equal(*vectors)


@pytest.mark.parametrize("script", ["predict.py", "embed.py"])
def test_lines_of_other_encodings_are_refused(script, classifier, tmp_path):
    flags = [f"--workdir={classifier}"]
    flags += [f"--output={tmp_path / 'vectors.npy'}"] if script == "embed.py" else []
    done = call(script, *flags, input="the cat\n".encode("utf-16"))
    fails(done, 2, "the input is UTF-16", "iconv -f utf-16 -t utf-8")
    done = call(script, *flags, input=b"the cat\ncaf\xe9\n")
    fails(done, 2, "line 2 of the input is not UTF-8 text: byte 3 is 0xe9")
    if script == "predict.py":
        fails(call(script, *flags, "caf\udce9"), 2, "line 1 of the input has half of a surrogate")


def test_what_is_cut_is_said(classifier, folder, tmp_path):
    """A run of 24 tokens, which is all that the model has."""
    flags = [f"--workdir={classifier}"]
    lines = "the cat\n" + "the cat is near the dog " * 4 + "\nthe oak is near the fern now\n"
    done = call("predict.py", *flags, input=lines)
    assert done.returncode == 0, done.stderr
    assert done.stderr == (
        "1 of 3 inputs have more than 24 tokens (the model reads no more): their ends were not "
        "read.\n"
    )
    shorter = "have more than 7 tokens (--max_length reads up to 24): their ends were not read.\n"
    done = call("predict.py", *flags, "--max_length=7", "--json", input=lines)
    assert done.stderr == f"2 of 3 inputs {shorter}"
    output = f"--output={tmp_path / 'vectors.npy'}"
    done = call("embed.py", *flags, output, "--max_length=7", input=lines)
    assert done.stderr.endswith(f"2 of 3 inputs {shorter}")
    for script, *others in (["predict.py"], ["embed.py", output]):
        done = call(script, *flags, *others, "--max_length=25", input=lines)
        fails(done, 2, "max_length", "25", "24")
    task: Any = open_run(classifier).with_task(max_length=7).task
    (note,) = task.load_validation([str(folder / "texts.jsonl")], classifier).notes
    assert note.startswith("150 of 150 examples")
    assert note.endswith("longer than config.task.max_length (7) and have lost their ends.")
    done = call("predict.py", *flags, "--max_question_length=7", input=lines)
    fails(done, 2, "--max_question_length is not for a run of the task text_classification")


@pytest.mark.parametrize("job", ["classifier", "pretrained"])
def test_lines_are_answered_as_they_come(job, request):
    workdir = request.getfixturevalue(job)
    opened = open_run(workdir)
    lines = ["the [MASK] is near", "the [MASK]", "the oak [MASK]"]

    def answers(incoming):
        return opened.task.predict(opened.model, opened.params, workdir, incoming)

    assert answered_as_they_come(answers, *lines) == list(answers(lines))


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
    fails(done, 2, "tokenizer.json is not what the checkpoint of step")


def test_a_model_that_does_not_fit(classifying, tmp_path):
    done = call(
        "train.py", *classifying, "--config.model.width=32", f"--workdir={tmp_path / 'run'}"
    )
    fails(done, 2, "--config.model.width=16")


def test_modern_bert_is_trained_and_answers(tmp_path):
    contexts = [f"the {animal} is near the oak" for animal in WORDS["animals"]]
    paragraphs = []
    for context in contexts:
        answers = [{"text": "oak", "answer_start": context.index("oak")}]
        question = {"id": context, "question": "where?", "answers": answers}
        paragraphs.append({"context": context, "qas": [question]})
    questions, workdir = tmp_path / "questions.json", f"--workdir={tmp_path / 'run'}"
    questions.write_text(json.dumps({"data": [{"title": "near", "paragraphs": paragraphs}]}))
    flags = [
        f"--config={ROOT / 'configs' / 'modern_bert.py'}:squad",
        *(f"--config.task.{part}={questions}" for part in ("train", "validation")),
        "--config.task.max_question_length=8",
        "--config.task.stride=8",
        "--config.task.tokenizer.size=80",
        *MODEL,
        "--config.model.feed_forward_width=16",
        "--config.model.window=5",
        "--config.train.duration=2",
        "--config.train.evaluate_every=2",
        "--config.train.save_every=2",
    ]
    with nothing_shown():
        done = call("train.py", *flags, workdir)
    assert done.returncode == 0, done.stderr
    done = call("predict.py", workdir, "--json", input=f"where?\t{contexts[0]}")
    assert json.loads(done.stdout)["answer"] in contexts[0]
    output = tmp_path / "vectors.npy"
    done = call("embed.py", workdir, f"--output={output}", input="\n".join(contexts))
    assert done.returncode == 0, done.stderr
    vectors = np.load(output)
    assert vectors.shape == (len(contexts), 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
