"""The other jobs: each learns, stops, goes on with the same bits, and answers."""

import functools
import importlib.util
import json
import random
from operator import getitem
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.end_to_end.conftest import ROOT
from tests.runs import answered_as_they_come, assert_same_run, logged
from transformer.data.labels.squad import Answer, Question, write_squad
from transformer.errors import ConfigError, DataError
from transformer.runs.evaluating import evaluate_run
from transformer.runs.opening import open_run
from transformer.tasks.parts.protocol import Shown
from transformer.training.loop import train
from transformer.training.sections import owner
from transformer.training.shared import Shared

STEPS = 6
NAMES = ("ann", "bob", "eve", "tom")
ENCODER = {"model.num_layers": 1, "model.num_heads": 2, "model.width": 16, "model.context": 40}
TRAIN = {
    "optimizer.schedule": "constant",
    "optimizer.warmup": "0 steps",
    "train.log_every": 1,
    "train.evaluate_every": "3 steps",
    "train.save_every": "3 steps",
    "train.steps_per_dispatch": 1,
    "train.tensorboard": False,
}


class Job(NamedTuple):
    """A finished run, the config and the file it was made with, and its programs."""

    name: str
    workdir: Path
    config: Any
    data: Path
    shared: Shared


def question_answering(folder: Path) -> tuple[str, dict, Path]:
    source = random.Random(0)
    questions = []
    for number in range(40):
        first, second = source.sample(NAMES, 2)
        context = f"{first} has the  hat. {second} has the coat."
        answer = (Answer(second, context.rindex(second)),) if number % 4 else ()
        questions.append(Question(str(number), "who has the coat?", context, answer))
    path = folder / "questions.json"
    write_squad(questions, path)
    sizes = {
        "max_length": 28,
        "max_question_length": 8,
        "stride": 8,
        "tokenizer.size": 60,
        "no_answer": True,
    }
    return "bert_squad", {**ENCODER, **{f"task.{k}": v for k, v in sizes.items()}}, path


def tagging(folder: Path) -> tuple[str, dict, Path]:
    source = random.Random(0)
    sentences = (
        f"{source.choice(NAMES)} B-PER\nsees O\nmister B-PER\n{source.choice(NAMES)} I-PER\n"
        for _ in range(40)
    )
    path = folder / "tags.conll"
    path.write_text("\n".join(sentences), "utf-8")
    return "bert_tag", {**ENCODER, "task.max_length": 12, "task.tokenizer.size": 60}, path


def denoising(folder: Path) -> tuple[str, dict, Path]:
    source = random.Random(0)
    path = folder / "text.txt"
    lines = (" ".join(source.choices(NAMES, k=6)) for _ in range(80))
    path.write_text("\n".join(lines), "utf-8")
    model = {"num_encoder_layers": 1, "num_decoder_layers": 1, "num_heads": 2, "width": 16}
    changes = {f"model.{key}": value for key, value in model.items()}
    return "denoising", {**changes, "task.tokenizer.kind": "character", "task.length": 16}, path


def masked_lm(folder: Path) -> tuple[str, dict, Path]:
    source = random.Random(0)
    path = folder / "proteins.fasta"
    sequences = ("".join(source.choices("ACDEFGHIKL", k=12)) for _ in range(60))
    path.write_text("".join(f">{n}\n{each}\n" for n, each in enumerate(sequences)), "utf-8")
    sizes = {"max_length": 16, "validation_fraction": 0.2}
    return "protein_mlm", {**ENCODER, **{f"task.{k}": v for k, v in sizes.items()}}, path


JOBS = {make.__name__: make for make in (question_answering, tagging, denoising, masked_lm)}


@pytest.fixture(scope="module", params=JOBS)
def job(request, tmp_path_factory) -> Job:
    folder = tmp_path_factory.mktemp(request.param)
    name, changes, path = JOBS[request.param](folder)
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    field = "task.path" if request.param in ("denoising", "masked_lm") else "task.train"
    changes |= {**TRAIN, field: str(path), "task.batch_size": 4}
    with config.unlocked():
        for key, value in changes.items():
            *sections, field = key.split(".")
            section = functools.reduce(getitem, sections, config)
            section[field] = str(value) if key == "train.log_every" else value
    config.train.duration = f"{STEPS} steps"
    shared = Shared()
    code, _ = train(config, folder / "run", shared=shared, curves=False)
    assert code == 0
    return Job(request.param, folder / "run", config, path, shared)


@pytest.mark.sampled(2)
def test_a_run_goes_on_with_the_same_bits(job, tmp_path, monkeypatch):
    task = owner("task", job.name)
    monkeypatch.setattr(task, "show", lambda *arguments: Shown("", {}))
    config = job.config.copy_and_resolve_references()
    for steps in (3, STEPS):
        config.train.duration = f"{steps} steps"
        assert train(config, tmp_path / "run", shared=job.shared, curves=False)[0] == 0
    assert_same_run(tmp_path / "run", job.workdir, final=False)


def test_the_last_scores_are_those_of_an_evaluation(job):
    run = open_run(job.workdir, "last")
    found = evaluate_run(run, run.task.load(job.workdir))
    last = {line["split"]: line for line in logged(job.workdir)}
    assert found["loss"] == pytest.approx(last["validation"]["loss"], rel=1e-5)
    for name, value in last.get("final", {}).items():
        if name not in ("step", "split"):
            assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-4), name


def test_its_own_file_can_be_evaluated(job):
    run = open_run(job.workdir)
    found = evaluate_run(run, run.task.load_validation([str(job.data)], job.workdir))
    assert found["loss"] > 0
    with pytest.raises(ConfigError, match="--path"):
        run.task.load_validation(["one", "two"], job.workdir)


def answers(job: Job, *lines: str) -> list:
    run = open_run(job.workdir)
    return list(run.task.predict(run.model, run.params, job.workdir, lines))


@pytest.mark.parametrize("job", ["question_answering"], indirect=True)
def test_questions_are_answered(job):
    context = "tom has the  hat. eve has the coat."
    line = json.dumps({"question": "who has the coat?", "context": context})
    for found in answers(job, line, f"who has the coat?\t{context}"):
        for answer in found.details["answers"]:
            assert context[answer["start"] : answer["end"]] == answer["text"]
        assert found.details["answer"] in context
    for line, said in (
        ("who?", "the context is empty"),
        ('{"question": "who?"}', "'context'"),
        ('{"question": 3, "context": "a"}', "the question is empty"),
    ):
        with pytest.raises(DataError, match=rf"line 1 of the input: expected.*{said}"):
            answers(job, line)


@pytest.mark.parametrize("job", ["question_answering"], indirect=True)
def test_questions_in_white_space(job):
    """What stands around them changes no answer; a question that is cut is told."""
    context = "tom has the  hat. eve has the coat."
    plain, *others = answers(
        job,
        f"who has the coat?\t{context}",
        f"  who has the coat? \t {context} \r",
        json.dumps({"question": "who has the coat?\n", "context": f"\n {context}"}),
        f"{'who has the coat and the hat ' * 4}?\t{context}",
    )
    assert [each.details["answer"] for each in others[:2]] == [plain.details["answer"]] * 2
    moved = [answer["start"] + 2 for answer in plain.details["answers"]]
    assert [answer["start"] for answer in others[1].details["answers"]] == moved
    assert [each.cut for each in (plain, *others[:2])] == [""] * 3
    assert others[2].cut.startswith("have a question of more than 8 tokens (--max_question_length")
    with pytest.raises(DataError, match=r"line 1 of the input: the context has half of a surr"):
        answers(job, '{"question": "who?", "context": "a \\ud83d"}')


@pytest.mark.parametrize("job", ["question_answering", "tagging"], indirect=True)
def test_lines_are_answered_as_they_come(job):
    run = open_run(job.workdir)
    lines = [f"who has the {thing}?\teve has the {thing}" for thing in ("coat", "hat", "cat")]

    def found(incoming):
        return run.task.predict(run.model, run.params, job.workdir, incoming)

    assert answered_as_they_come(found, *lines) == list(found(lines))


@pytest.mark.parametrize("job", ["tagging"], indirect=True)
def test_sentences_are_tagged(job):
    found = answers(job, "ann sees mister tom", "x " * 30)
    assert [len(each.details["tags"]) for each in found] == [4, 30]
    assert set(found[0].details["tags"]) <= {"O", "B-PER", "I-PER"}
    spaced = answers(job, "  ann\tsees mister  tom \r", "bob\xa0sees", "ann " + "tom" * 20)
    assert spaced[0] == found[0]
    assert [len(each.details["tags"]) for each in spaced] == [4, 1, 2]
    assert [bool(each.cut) for each in spaced] == [False, False, True]
    assert spaced[2].cut == "have a word of more than 12 tokens (--max_length reads up to 40)"
    with pytest.raises(DataError, match="line 2 of the input is empty"):
        answers(job, "ann", " ")
    other = job.workdir.parent / "other.conll"
    other.write_text("ann B-PER\nrome B-LOC\n", "utf-8")
    run = open_run(job.workdir)
    with pytest.raises(DataError, match="B-LOC"):
        run.task.load_validation([str(other)], job.workdir)
