"""Train, look, evaluate, write: the scripts together."""

import json
import os
import re

import pytest

from tests.end_to_end.conftest import CONFIG, OPTIMIZED, call, fails, run


@pytest.fixture(scope="module")
def trained(tiny_flags, tmp_path_factory):
    """As a user does it: a process of its own, optimized."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    flags = [
        "--config.train.duration=150",
        "--config.train.evaluate_every=50",
        "--config.train.tensorboard=True",
        "--config.optimizer.schedule=cosine",
        "--config.optimizer.warmup=20 steps",
    ]
    flags += [f"--workdir={workdir}", "--json", "--profile=101:3", "--dump_hlo"]
    done = run("train.py", *tiny_flags, *flags, env=os.environ | OPTIMIZED)
    assert done.returncode == 0, done.stderr
    return workdir, json.loads(done.stdout), done.stderr


def test_training_learns_and_reports(trained):
    workdir, result, shown = trained
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["split"] == "train"]
    assert [line["step"] for line in train] == list(range(1, 151))
    expected = {"loss", "grad_norm", "update_norm", "learning_rate", "tokens_per_second"}
    assert expected | {"step_time"} <= train[0].keys()
    validation = [line for line in lines if line["split"] == "validation"]
    assert [line["step"] for line in validation] == [50, 100, 150]
    assert train[-1]["loss"] < 0.6 * train[0]["loss"]
    assert result["step"] == 150
    assert result["validation"]["loss"] == lines[-1]["loss"]
    assert "ETA" in shown
    assert (workdir / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert len((workdir / "sample.txt").read_text()) > 5
    assert any((workdir / "tensorboard").iterdir())
    assert (workdir / "tokenizer.json").exists()


def test_it_says_where_the_time_went(trained):
    workdir, _, shown = trained
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    times = [line for line in lines if line["split"] == "time"]
    assert [line["step"] for line in times] == [50, 100, 150]
    spent = times[-1]
    assert spent["steps_time"] > times[0]["steps_time"] > 0
    assert 0 < spent["goodput"] < 1
    assert spent["compiling_time"] > 0.1
    assert "Time: " in shown
    assert all(line["data_time"] >= 0 for line in lines if line["split"] == "train")
    # The trace holds operations of the step, and the compiler has written its program.
    assert "Trace of 3 steps" in shown
    shares = [float(share) for share in re.findall(r"^ +([\d.]+)% .* ms ", shown, re.MULTILINE)]
    assert len(shares) > 2
    assert shares == sorted(shares, reverse=True)
    assert list((workdir / "profile").rglob("perfetto_trace.json.gz"))
    assert list((workdir / "hlo").glob("*jit_steps*after_optimizations.txt"))


def test_evaluation_repeats_the_validation_of_training(trained):
    workdir, result, _ = trained
    done = run("evaluate.py", f"--workdir={workdir}", "--checkpoint=last", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["loss"] == pytest.approx(result["validation"]["loss"], abs=1e-5)


def test_evaluation_on_another_file(trained, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("the the the the the the the the the the the the")
    done = call("evaluate.py", f"--workdir={trained[0]}", f"--path={other}")
    assert done.returncode == 0, done.stderr
    assert "loss" in done.stdout


def test_generation_is_reproducible_and_stops(trained):
    flags = [f"--workdir={trained[0]}", "--prompt=the ", "--max_new_tokens=60"]
    first, here = run("generate.py", *flags), call("generate.py", *flags)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("the ")
    assert first.stdout == here.stdout
    assert call("generate.py", *flags, "--seed=1").stdout != here.stdout
    two = json.loads(call("generate.py", *flags, "--num_samples=2", "--json").stdout)["texts"]
    assert len(two) == 2
    assert two[0] != two[1]
    assert two[0] == here.stdout[:-1]
    stopped = call("generate.py", *flags, "--stop=e").stdout[:-1]
    assert "e" not in stopped[len("the ") :]


def test_guesses_change_no_text(trained):
    workdir = trained[0]
    flags = [f"--workdir={workdir}", "--prompt=the ", "--max_new_tokens=40"]
    plain = call("generate.py", *flags).stdout
    for draft in ("lookup", str(workdir)):
        done = call("generate.py", *flags, f"--draft={draft}", "--num_guesses=3")
        assert done.returncode == 0, done.stderr
        assert done.stdout == plain
        assert "40 tokens with " in done.stderr
    # What a model guesses for itself is always right: 16 tokens take 4 passes.
    assert "with 10 passes of the model (4.00 a pass)" in done.stderr
    fails(call("generate.py", *flags, "--num_guesses=3"), 2, "--num_guesses is of --draft")
    fails(call("generate.py", *flags, "--draft=nowhere"), 2, "nowhere")


@pytest.mark.parametrize(("variant", "parameters"), [("tiny", 437_764), ("small", 15_466_756)])
def test_dry_run_counts_the_published_parameters(text_file, tmp_path, variant, parameters):
    done = call(
        "train.py",
        f"--config={CONFIG}:{variant}",
        f"--config.task.path={text_file}",
        "--config.task.batch_size=2",
        "--config.model.vocab_size=6148",
        "--config.model.compute.scan_layers=True",
        f"--workdir={tmp_path / 'run'}",
        "--dry_run",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["parameters"] == parameters
    assert plan["memory"]["parameters"] == 4 * parameters
    assert plan["memory"]["optimizer"] > 8 * parameters
    assert plan["flops_per_step"] > 6 * 2 * parameters
    assert not (tmp_path / "run").exists()
