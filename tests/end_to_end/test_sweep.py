"""`scripts/sweep.py` as a user starts it: shared by workers, killed, searched, asked wrongly."""

import collections
import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.end_to_end.conftest import CONFIG, call, command, fails
from tests.runs import assert_same_run
from transformer.training.metrics import read_metrics

# A process is busy for seconds before it trains: the one to be killed must still be at it then.
STEPS = 120
FLAGS = ["--config.train.save_every=40", "--config.train.evaluate_every=120"]


@pytest.fixture(scope="module")
def flags(text_file):
    return [
        f"--config={CONFIG}:tiny",
        f"--config.task.path={text_file}",
        "--config.task.batch_size=4",
        "--config.model.num_layers=1",
        # Nobody looks at samples here.
        "--config.task.sample_length=0",
        "--config.train.steps_per_dispatch=1",
        "--config.train.log_every=1",
        "--config.train.tensorboard=False",
    ]


@pytest.fixture(scope="module")
def short(flags):
    return [*flags, "--config.train.duration=3"]


def statuses(workdir: Path) -> dict[str, dict]:
    paths = workdir.glob("trials/*/status.json")
    return {path.parent.name: json.loads(path.read_text()) for path in paths}


def begun(workdir: Path, process: subprocess.Popen) -> Path:
    """The run folder of the trial that a process is at, once there is a checkpoint."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        for lock in workdir.glob("locks/*"):
            folder = workdir / "trials" / lock.name
            mine = lock.read_text().split()[1:2] == [str(process.pid)]
            if mine and any(step.name.isdecimal() for step in folder.glob("checkpoints/*")):
                return folder
        time.sleep(0.002)
    raise AssertionError("it has never begun")


def test_three_workers_of_one_grid_one_of_them_killed(flags, tmp_path):
    """Each trial is trained by one of them, and that of the killed one goes on elsewhere."""
    flags = [*flags, *FLAGS, f"--config.train.duration={STEPS}"]
    grid = ["--grid=optimizer.learning_rate=1e-3,2e-3", "--grid=train.seed=0,1"]
    workdir = tmp_path / "sweep"
    start = command("sweep.py", *flags, *grid, f"--workdir={workdir}", "--worker")
    workers = [
        subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    killed = begun(workdir, workers[0])
    workers[0].kill()
    said = [worker.communicate(timeout=300)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [-signal.SIGKILL, 0, 0], said
    found = statuses(workdir)
    assert [status["status"] for status in found.values()] == ["done"] * 4
    trained = collections.Counter(
        line.split()[4].rstrip(":")
        for text in said
        for line in text.splitlines()
        if line.startswith("trial ")
    )
    assert trained == dict.fromkeys(found, 1) | {killed.name: 2}
    assert any(f"Resuming {killed}" in text for text in said[1:])
    for name in found:
        lines = read_metrics(workdir / "trials" / name)
        steps = [line["step"] for line in lines if line["split"] == "train"]
        assert steps == list(range(1, STEPS + 1))
    overrides = [f"--config.{k}={v}" for k, v in found[killed.name]["overrides"].items()]
    done = call("train.py", *flags, *overrides, f"--workdir={tmp_path / 'alone'}")
    assert done.returncode == 0, done.stderr
    assert_same_run(killed, tmp_path / "alone")


def test_a_search_in_several_processes(short, tmp_path):
    """Workers are processes of their own; the one that starts them need not be."""
    workdir = tmp_path / "search"
    done = call(
        "sweep.py",
        *short,
        "--search=optuna",
        "--space=optimizer.learning_rate=log(1e-4,1e-2)",
        "--trials=3",
        "--vectorize=processes",
        "--workers=2",
        "--json",
        f"--workdir={workdir}",
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [trial["status"] for trial in result["trials"]] == ["done"] * 3
    rates = {trial["overrides"]["optimizer.learning_rate"] for trial in result["trials"]}
    assert len(rates) == 3
    losses = [trial["validation_loss"] for trial in result["trials"]]
    assert losses == sorted(losses)
    assert result["best"] == result["trials"][0]


CONFIG_WITH_SWEEPS = """
import importlib.util
from transformer.sweeps.algebra import product, values, zipped

def get_config(variant=""):
    spec = importlib.util.spec_from_file_location("gpt_char", {path!r})
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variant)

def sweep_rate():
    return zipped(
        values("optimizer.learning_rate", [1e-3, 1e30]), values("optimizer.beta1", [0.9, 0.8])
    )

def sweep_seed():
    return values("train.seed", range(2))
"""


@pytest.fixture(scope="module")
def swept(short, tmp_path_factory):
    """A sweep that a config file names, of which half fails, and what it printed."""
    folder = tmp_path_factory.mktemp("swept")
    path = folder / "mine.py"
    path.write_text(CONFIG_WITH_SWEEPS.format(path=str(CONFIG)))
    flags = [f"--config={path}:tiny", *short[1:], f"--workdir={folder / 'sweep'}"]
    return flags, call("sweep.py", *flags, "--sweep=rate,seed"), folder / "sweep"


def test_some_fail(swept):
    _, done, workdir = swept
    assert done.returncode == 1, done.stderr
    assert "4 trials: 2 done, 2 failed." in done.stdout
    assert "training cannot go on" in done.stderr
    for name in ("results.csv", "report.png", "report.html"):
        assert (workdir / name).stat().st_size > 0


def test_again_nothing_is_trained(swept):
    flags, _, workdir = swept
    before = {path: path.read_bytes() for path in workdir.glob("trials/*/status.json")}
    done = call("sweep.py", *flags, "--sweep=rate,seed", "--json")
    assert done.returncode == 1
    assert "trial " not in done.stderr
    assert json.loads(done.stdout)["failed"] == 2
    assert before == {path: path.read_bytes() for path in workdir.glob("trials/*/status.json")}
    done = call("sweep.py", *flags, "--sweep=rate,seed", "--retry_failed", "--shard=3/4")
    assert done.stderr.count("trial 1 of 1") == 1


def test_a_trial_is_a_run_like_any_other(swept):
    _, _, workdir = swept
    best = json.loads(call("sweep.py", "--collect", "--json", f"--workdir={workdir}").stdout)[
        "best"
    ]
    folder = workdir / "trials" / best["id"]
    done = call("evaluate.py", f"--workdir={folder}", "--json")
    assert json.loads(done.stdout)["loss"] == pytest.approx(best["validation_loss"], rel=1e-5)
    words = best["command"].split()
    assert words[:2] == ["python", "scripts/train.py"]
    assert f"--config.train.seed={best['overrides']['train.seed']}" in words


def test_a_grid_is_listed(swept):
    flags, _, workdir = swept
    before = sorted(workdir.rglob("*"))
    done = call("sweep.py", *flags, "--sweep=rate", "--grid=model.width=16,32", "--dry_run")
    assert done.returncode == 0, done.stderr
    assert "4 trials, 2 programs to compile." in done.stdout
    assert sorted(workdir.rglob("*")) == before


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([], "what is to be swept?"),
        (["--sweep=lerning"], 'mine.py: --sweep has no "lerning": choose from rate, seed'),
        (["--sweep=rat"], 'did you mean "rate"?'),
        (["--grid=optimizer.learning_rat=1"], 'did you mean "learning_rate"?'),
        (["--grid=train.seed=0,x"], "config.train.seed cannot be 'x'"),
        (["--grid=model.num_heads=4,3"], "trial 2 (model.num_heads=3): config.model"),
        (["--sweep=seed", "--shard=2/2"], "write I/N"),
        (["--sweep=seed", "--vectorize=all"], '--vectorize has no "all"'),
        (["--search=grid"], "there is optuna"),
        (["--search=optuna"], "what is to be searched?"),
        (["--search=optuna", "--sweep=seed"], "does not go with"),
        (["--search=optuna", "--vectorize=vmap"], "is for grids"),
        (["--sweep=seed", "--space=train.seed=choice(1)"], "--space is for --search"),
        (["--sweep=seed", "--population=0"], "--population=0"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_done_is_said_before_anything_is(swept, wrong, said):
    flags, _, workdir = swept
    before = sorted(workdir.rglob("*"))
    fails(call("sweep.py", *flags, *wrong), 2, said)
    assert sorted(workdir.rglob("*")) == before


def test_folders_of_something_else(swept, tmp_path):
    flags, _, _ = swept
    (tmp_path / "notes.txt").write_text("mine")
    other = [*flags[:-1], f"--workdir={tmp_path}", "--sweep=seed"]
    fails(call("sweep.py", *other), 2, "is not the folder of a sweep")
    fails(call("sweep.py", "--collect", f"--workdir={tmp_path}"), 2, "holds no trials")
