"""Mistakes of users: one clear message, the exit code of the contract, no traceback."""

import errno
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from tests.end_to_end.conftest import CONFIG, call, fails, nothing_shown, run

pytestmark = pytest.mark.usefixtures("undrawn")


def test_a_process_ends_with_one_message(tiny_flags, tmp_path):
    """What the others below are called for in this process, which takes less time."""
    workdir = f"--workdir={tmp_path / 'run'}"
    fails(run("train.py", *tiny_flags, "--config.model.width=33", workdir), 2, "heads must divide")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--config.model.widht=32", '"width"'),
        ("--config.modle.width=32", '"model"'),
        ("--config.model.width=wide", "wide"),
        ("--config.model.width=33", "heads must divide"),
        ("--config.model.activation=gelo", "gelu"),
        ("--config.model.vocab_size=3", "smaller than"),
        ("--config.optimizer.algorithm=adma", "adamw"),
        ("--config.train.duration=soon", "duration"),
        ("--config.train.duration=0", "config.train.duration"),
        ("--config.train.validation_batches=0", "config.train.validation_batches"),
        ("--config.optimizer.clip_norm=-1", "config.optimizer.clip_norm"),
        ("--config.optimizer.learning_rate=nan", "config.optimizer.learning_rate"),
        ("--config.optimizer.epsilon=0", "config.optimizer.epsilon"),
        ("--config.model.compute.dtype=float16", "bfloat16"),
        ("--config.train.microbatches=3", "microbatches"),
        ("--config.task.tokenizer.kind=word", "bpe"),
        ("--config.task.tokenizer=bpe", "such as --config.task.tokenizer.kind="),
        ("--config.task.bpe_vocab_size=300", 'did you mean "tokenizer.size"'),
        ("--config.model.attention=einsum", 'did you mean "compute.attention"'),
        ("--config.task.path=x", "does not exist"),
        ("--config.task.context=4096", "config.task.context"),
        ("--config.mesh.fsdp=3", "devices"),
        ("--workdri=x", "workdri"),
        ("--config.train.duration=1e400", "config.train.duration is '1e400': 1e+18 at most"),
        (
            "--config.train.log_every=0 steps",
            "config.train.log_every is '0 steps': give more than 0",
        ),
        ("--config.optimizer.warmup=200%", "config.optimizer.warmup is '200%': of the run, 100%"),
        (
            "--config.train.seed=100000000000000000000",
            "seed is 100000000000000000000: from 0 to 42",
        ),
        ("--config.task.vocab_chunk=-1", "config.task.vocab_chunk is -1: at least 0"),
        ("--config.task.sample_length=-5", "config.task.sample_length is -5: at least 0"),
        ("--config.task.validation_batch_size=-2", "is -2: from 1 to 65536, or nothing"),
        ("--config.task.validation_batch_size=0", "is 0: from 1 to 65536, or nothing"),
        ("--config.task.z_loss=-1", "config.task.z_loss is -1.0: 0 or more"),
        ("--config.task.stop_ids=(1,-1)", "config.task.stop_ids is (1, -1), of which one is -1"),
        ("--config.task.stop_ids=('a',)", "of which one is 'a' (str): expected int"),
        (
            "--config.task.prompt=caf\udce9",
            "config.task.prompt is 'caf\\udce9': text that is UTF-8",
        ),
        ("--config.model.num_layers=", "config.model.num_layers"),
        ("--config.model.num_layers=\u00b2", "config.model.num_layers"),
        ("--config.model.num_layers=1e3", "config.model.num_layers"),
        ("--config.model.num_layers=" + "9" * 5000, "config.model.num_layers"),
        ("--config.model.tie_embeddings=maybe", "config.model.tie_embeddings"),
        ("--config.model.num_layers", "config.model.num_layers"),
        ("--config.task.search={}", 'has no "search"'),
        ("--config.model={}", "config.model"),
        ("caf\udce9", "what is 'caf\\udce9'?"),
    ],
)
def test_wrong_flags(tiny_flags, tmp_path, flag, said):
    workdir = tmp_path / "run"
    fails(call("train.py", *tiny_flags, flag, f"--workdir={workdir}"), 2, said)
    assert not workdir.exists()


@pytest.mark.parametrize("flag", ["--=", "-=x"])
def test_flags_without_a_name(tmp_path, flag):
    """predict.py takes arguments: only behind `--` is this one of them."""
    fails(call("predict.py", f"--workdir={tmp_path}", flag), 2, f"what is '{flag}'?")
    fails(call("predict.py", f"--workdir={tmp_path}", "--", flag), 2, "no config.json")


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--config.foo=1", 'config has no "foo": choose from init, lora, mesh, model, optimizer'),
        ("--config.modle.width=3", 'config has no "modle": did you mean "model"?'),
        ("--config.foo.bar.baz=1", 'config has no "foo": choose from'),
        ("--config.model.widht=3", 'config.model has no "widht": did you mean "width"?'),
        ("--noconfig.model.tie_embedings", 'config.model has no "tie_embedings": did you mean'),
        ("--config.model.width.x=3", "config.model.width is a single value: it has no 'x'."),
    ],
)
def test_unknown_keys(tiny_flags, flag, said):
    done = call("train.py", *tiny_flags, flag, "--dry_run")
    fails(done, 2, f"error: {said}")
    assert "\\n" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("config.model.widht = 3", 'config.model has no "widht": did you mean "width"?'),
        ("config.modle = 3", 'config has no "modle": did you mean "model"?'),
        ("print(config.model.widht)", ", line 4: AttributeError: 'widht' Did you mean \"width\""),
        ("config.model.width = wide", "line 4: NameError: name 'wide' is not defined"),
        ("config.model.width = (", "line 4: SyntaxError: '(' was never closed"),
        ("section('model', 'gpt', widht=3)", 'config.model has no "widht": did you mean "width"?'),
    ],
)
def test_mistakes_in_a_config_file(tmp_path, line, said):
    path = tmp_path / "mine.py"
    path.write_text(
        "from configs import gpt_char\nfrom transformer.training.sections import section\n"
        f"def get_config(variant=''):\n config = gpt_char.get_config(); {line}\n return config\n"
    )
    done = call("train.py", f"--config={path}", "--config.model.num_layers=1", "--dry_run")
    fails(done, 2, said)
    assert "\\n" not in done.stderr


# A config file that is none, and what is said of it.
BROKEN = {
    "def get_config(variant=''):\n    raise ValueError('no')\n": "line 2: ValueError: no",
    "def get_config(variant=''):\n    return 1 + 'x'\n": "line 2: TypeError: unsupported operand",
    "def get_config(variant=''):\n    raise SystemExit(7)\n": "line 2: SystemExit: 7",
    "def get_config(variant=''):\n    raise GeneratorExit\n": "line 2: GeneratorExit",
    # CPython 3.13.0 does not count calls that leave out arguments: those would never be stopped.
    "def get_config(variant=''):\n    return get_config(variant)\n": "line 2: RecursionError",
    "def get_config(variant=''):\n    return open('/').read()\n": "Is a directory",
    "raise ImportError('no')\n": "line 1: ImportError: no",
    "import nonsense\n": "line 1: ModuleNotFoundError: No module named 'nonsense'",
    "def get_config(variant=''):\n    pass\n": "returns None: a ConfigDict is expected",
    "def get_config(variant=''):\n    return {'model': 3}\n": "returns {'model': 3}: a ConfigDict",
    "def get_config(:\n": "line 1: SyntaxError",
    "This is my config.\n": "line 1: SyntaxError",
    "x = 1\0\n": "null bytes",
    "x = 'caf\udce9'\n": "SyntaxError",
    "": "has no attribute 'get_config'",
    "get_config = 3\n": "mine.py: ",
    "from ml_collections import ConfigDict\nget_config = ConfigDict\n": "config.model is missing",
}


@pytest.mark.parametrize("content", BROKEN, ids=list(BROKEN.values()))
@pytest.mark.parametrize("override", [False, True])
def test_config_files_that_are_none(tmp_path, monkeypatch, content, override):
    # As in a process of its own: what a file leaves out is not that of another one.
    monkeypatch.delitem(sys.modules, "config_config", raising=False)
    path = tmp_path / "mine.py"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    done = call("train.py", f"--config={path}", *["--config.model.width=8"] * override, "--dry_run")
    fails(done, 2, BROKEN[content])
    assert len([line for line in done.stderr.splitlines() if line.startswith("error:")]) == 1


def test_config_files_that_take_no_variant_or_are_folders(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def get_config():\n    return 3\n")
    done = call("train.py", f"--config={path}:small", "--dry_run")
    fails(done, 2, "takes 0 positional arguments but 1 was given")
    fails(call("train.py", f"--config={tmp_path}", "--dry_run"), 2, "Is a directory")


@pytest.mark.parametrize("section", ["3", "('a',)", "'text'"])
def test_sections_that_are_none(tmp_path, section):
    path = tmp_path / "mine.py"
    path.write_text(
        "from configs import gpt_char\ndef get_config():\n    config = gpt_char.get_config()\n"
        f"    del config.mesh\n    config.mesh = {section}\n    return config\n"
    )
    fails(call("train.py", f"--config={path}", "--dry_run"), 2, "config.mesh is ", "a section is")


def test_help_lists_the_flags():
    done = call("train.py", "--help")
    assert done.returncode == 0
    assert "Trains a config in a run folder" in done.stdout
    assert "--heartbeat_seconds" in done.stdout


@pytest.mark.parametrize(
    ("script", "flags", "said"),
    [
        ("plan.py", ["--topology=cpu:100000000"], "at most 16,384 devices"),
        ("plan.py", ["--topology=cpu:\u00b2"], "--topology=cpu:\u00b2"),
        ("plan.py", ["--topology=cpu:" + "9" * 5000], "at most 16,384 devices"),
        ("plan.py", ["--topology=cpu:1", "--tokens=1e400"], "--tokens=1e400"),
        ("plan.py", ["--topology=cpu:1", "--mfu=nan"], "--mfu=nan"),
        ("plan.py", ["--topology=cpu:1", "--price=nan"], "--price"),
        ("train.py", ["--coordinator=x", "--num_processes=2", "--process_id=0"], "HOST:PORT"),
        ("train.py", ["--coordinator=x:99999", "--num_processes=2", "--process_id=0"], "HOST:PORT"),
        ("sweep.py", ["--grid=train.seed=1,2", "--shard=\u00b2/3"], "--shard"),
        ("sweep.py", ["--grid=train.seed=1,2", "--shard=0/" + "9" * 5000], "--shard"),
        ("sweep.py", ["--grid=train.seed=100000000000000000000"], "config.train.seed is 1000"),
        ("sweep.py", ["--grid=optimizer.learning_rate=nan"], "config.optimizer.learning_rate"),
        ("sweep.py", ["--grid=train.seed=1,2", "--trials=-1"], "--trials=-1"),
    ],
)
def test_flags_of_other_scripts(tmp_path, script, flags, said):
    # No topology is set up here: it would be that of all tests in this process.
    workdir = [f"--workdir={tmp_path / 'x'}"] * (script != "plan.py")
    fails(call(script, f"--config={CONFIG}", *flags, *workdir), 2, said)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--grid=model.widht=8,16"], 'config.model has no "widht": did you mean "width"?'),
        (["--grid=modle.width=8,16"], 'config has no "modle": did you mean "model"?'),
        (["--grid=foo=8,16"], 'config has no "foo": choose from'),
        (["--grid=model.width=wide"], "config.model.width cannot be 'wide': expected int."),
        (
            ["--search=optuna", "--space=optimizer.learning_rat=log(1e-4,1e-2)"],
            'config.optimizer has no "learning_rat": did you mean "learning_rate"?',
        ),
        (["--search=optuna", "--space=foo=choice(1,2)"], 'config has no "foo": choose from'),
        (["--grid=model.width=8", "--config.foo=1"], 'config has no "foo": choose from'),
    ],
)
def test_unknown_keys_of_sweeps(tiny_flags, tmp_path, flags, said):
    done = call("sweep.py", *tiny_flags, *flags, f"--workdir={tmp_path / 'sweep'}")
    wrong = "" if "--config" in flags[-1] else f"{flags[-1]}: "
    fails(done, 2, f"error: {wrong}{said}")
    assert not (tmp_path / "sweep").exists()


def test_no_config_and_no_workdir(tiny_flags):
    fails(call("train.py", "--workdir=x"), 2, "--config")
    fails(call("train.py", "--config=nowhere.py"), 2, "nowhere.py")
    fails(call("train.py", f"--config={CONFIG}:huge"), 2, "huge", "tiny")
    fails(call("train.py", *tiny_flags), 2, "--workdir")
    fails(call("train.py", *tiny_flags, "--compile", "--workdir=x"), 2, "--compile", "--dry_run")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("file", "file is a file, not a folder"),
        ("file/below/run", "file is a file, not a folder"),
        ("loop/run", "cannot be a folder"),
        ("x" * 300, "cannot be a folder"),
        ("y/" + "x" * 300, "File name too long"),
        ("x/" * 3000, "cannot be a folder"),
        ("dangling/x", "cannot be a folder"),
        ("caf\udce9", "is not UTF-8"),
        ("/proc/x", "/proc/x cannot be written"),
        ("/dev/null/x", "/dev/null is a file"),
        ("closed/run", "closed cannot be written"),
    ],
)
@pytest.mark.parametrize("script", ["train.py", "sweep.py"])
def test_folders_that_cannot_be_made(tiny_flags, tmp_path, monkeypatch, script, place, said):
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "at" / "all")
    (tmp_path / "closed").mkdir()
    # Root may write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "closed")
    grid = ["--grid=train.seed=1,2"] if script == "sweep.py" else []
    done = call(script, *tiny_flags, *grid, f"--workdir={tmp_path / place}")
    fails(done, 2, said, "--workdir")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b"  \n\n ", "is empty"),
        (b"caf\xe9 au lait " * 100, "not UTF-8"),
        (b"too short", "too few"),
    ],
)
def test_unusable_text(tmp_path, content, said):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    flags = [f"--config={CONFIG}", f"--config.task.path={path}"]
    fails(call("train.py", *flags, f"--workdir={tmp_path / 'run'}"), 2, said)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def trained(tiny_flags, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained") / "run"
    done = call("train.py", *tiny_flags, "--config.train.duration=8", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir


def test_workdir_of_another_config(tiny_flags, trained):
    flags = [*tiny_flags, "--config.train.duration=8", "--config.optimizer.learning_rate=0.5"]
    done = call("train.py", *flags, f"--workdir={trained}")
    fails(done, 2, "config.optimizer.learning_rate", "0.5", "0.002")


@pytest.mark.parametrize("number", [errno.EPERM, errno.EROFS, errno.EIO])
def test_folders_that_only_say_so_when_written(tiny_flags, tmp_path, monkeypatch, number):
    def refuse(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    done = call("train.py", *tiny_flags, f"--workdir={tmp_path / 'run'}")
    fails(done, 2, f"{tmp_path} cannot be written: {os.strerror(number)}. Give another --workdir")


@pytest.mark.parametrize("output", ["folder.npy", "nowhere/x.npy", "x" * 300 + ".npy"])
def test_outputs_that_cannot_be_written(tmp_path, output):
    (tmp_path / "folder.npy").mkdir()
    flags = [f"--workdir={tmp_path}", f"--output={tmp_path / output}"]
    fails(call("embed.py", *flags), 2, "--output")


@pytest.mark.parametrize(
    ("name", "said"),
    [("loop", "symbolic links"), ("x" * 300, "name too long"), ("file/x", "does not")],
)
def test_paths_that_no_file_has(tiny_flags, tmp_path, name, said):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").write_text("x")
    done = call("train.py", *tiny_flags, f"--config.task.path={tmp_path / name}", "--dry_run")
    fails(done, 2, said)
    done = call("import_hf.py", f"--source={tmp_path / name}", f"--workdir={tmp_path / 'run'}")
    fails(done, 2, "error: ")


def test_workdir_of_something_else(tiny_flags, tmp_path):
    (tmp_path / "thesis.tex").write_text("chapter one")
    fails(call("train.py", *tiny_flags, f"--workdir={tmp_path}"), 2, "config.json")


def test_more_steps_are_allowed(tiny_flags, trained, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    flags = [*tiny_flags, "--config.train.duration=12", f"--workdir={workdir}"]
    with nothing_shown():
        done = call("train.py", *flags)
    assert done.returncode == 0, done.stderr
    assert "from step 8" in done.stderr


def test_text_changed_under_a_run(tiny_flags, text_file, tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(text_file.read_bytes())
    flags = [*tiny_flags, f"--config.task.path={path}", f"--workdir={tmp_path / 'run'}"]
    with nothing_shown():
        assert call("train.py", *flags, "--config.train.duration=4").returncode == 0
    path.write_bytes(text_file.read_bytes()[::-1])
    fails(call("train.py", *flags, "--config.train.duration=8"), 2, "data have changed")


def test_loss_that_is_not_finite(tiny_flags, tmp_path):
    workdir = tmp_path / "run"
    flags = [*tiny_flags, "--config.train.duration=40", "--config.train.save_every=4"]
    schedule = ["--config.optimizer.learning_rate=1e25", "--config.optimizer.warmup=20"]
    done = run("train.py", *flags, *schedule, f"--workdir={workdir}")
    fails(done, 3, "is nan", "blocks/layer_0", "not finite")
    losses = (workdir / "metrics.jsonl").read_text()
    assert "NaN" not in losses


def test_scripts_on_a_folder_that_is_no_run(tmp_path):
    for script in ("evaluate.py", "generate.py"):
        fails(call(script, f"--workdir={tmp_path}"), 2, "not the folder of a run")


def test_generation_refuses_what_it_cannot_do(trained):
    workdir = f"--workdir={trained}"
    fails(call("generate.py", workdir, "--prompt=日本"), 2, "U+65E5")
    fails(call("generate.py", workdir, "--prompt="), 2, "empty")
    fails(call("generate.py", workdir, "--top_p=1.5"), 2, "top_p")
    fails(call("generate.py", workdir, "--checkpoint=7"), 2, "step 7", "8")
    for name in (
        "worst",
        "\u00b2",
        "last:\u00b2",
        "last:0",
        "-1",
        "9" * 5000,
        "last:" + "9" * 5000,
    ):
        fails(call("generate.py", workdir, f"--checkpoint={name}"), 2, "--checkpoint is ")


SHORT = ("--prompt=the ", "--max_new_tokens=8")


def test_extreme_temperatures_work(trained):
    flags = [f"--workdir={trained}", *SHORT]
    greedy = call("generate.py", *flags, "--temperature=0")
    assert greedy.returncode == 0, greedy.stderr
    for cold in ("1e-39", "1e-400"):
        assert call("generate.py", *flags, f"--temperature={cold}").stdout == greedy.stdout
    hot = [call("generate.py", *flags, f"--temperature={t}") for t in ("1e39", "1e308")]
    assert {done.returncode for done in hot} == {0}
    assert hot[0].stdout == hot[1].stdout
    assert hot[0].stdout != greedy.stdout


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--temperature=-1", "temperature is -1.0"),
        ("--top_p=0", "top_p is 0.0"),
        ("--top_k=-1", "top_k is -1"),
        ("--min_p=2", "min_p is 2.0"),
        ("--seed=-1", "--seed=-1"),
        ("--seed=4294967296", "[0, 4294967295]"),
        ("--seed=18446744073709551616", "[0, 4294967295]"),
        ("--max_source_len=8", "--max_source_len is for text_to_text, translation"),
    ],
)
def test_generation_refuses_numbers_out_of_range(trained, flag, said):
    fails(call("generate.py", f"--workdir={trained}", *SHORT, flag), 2, said)


def test_large_numbers_that_mean_something_work(trained):
    flags = [f"--workdir={trained}", *SHORT]
    plain = call("generate.py", *flags).stdout
    assert call("generate.py", *flags, f"--top_k={10**12}").stdout == plain
    last = call("generate.py", *flags, "--seed=4294967295", "--temperature=9")
    assert last.returncode == 0, last.stderr
    assert last.stdout != call("generate.py", *flags, "--seed=0", "--temperature=9").stdout


def test_prompts_that_are_too_long_or_no_text(trained):
    """A run with a context of 16."""
    flags = [f"--workdir={trained}", "--max_new_tokens=2"]
    done = call("generate.py", *flags, "--prompt=the transformer reads")
    assert done.returncode == 0, done.stderr
    assert "the prompt has 21 tokens and the model's context 16: it goes on from the last 8" in (
        done.stderr
    )
    assert call("generate.py", *flags, "--prompt=the\r\n").stdout.startswith("the\n")
    assert call("generate.py", *flags, "--prompt=the").stderr == ""
    fails(call("generate.py", *flags, "--prompt=caf\udce9"), 2, "--prompt has half of a surrogate")
