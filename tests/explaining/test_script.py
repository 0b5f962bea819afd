"""scripts/explain.py, as a user calls it."""

import json
import re
import shutil
import signal
import socket
import subprocess
import urllib.request

import pytest
from ml_collections import ConfigDict

from tests.end_to_end.conftest import call, command
from transformer.runs.folders import write_run
from transformer.tasks.parts.tokenizers import tokenizer_digest
from transformer.training.sections import section

SIZES = {"num_layers": 2, "num_heads": 4, "width": 16, "context": 32}


def written(folder, run, model, task, **fields):
    """A run folder, as training leaves it."""
    config = ConfigDict({name: section(name) for name in ("optimizer", "train", "mesh")})
    config.model = section("model", model, vocab_size=run.model.vocab_size, **SIZES)
    config.task = section("task", task, **fields)
    tokenizer = run.task.load_tokenizer(run.workdir)
    write_run(
        folder,
        config,
        run.params,
        tokenizer=tokenizer,
        labels=(),
        fingerprint=tokenizer_digest(tokenizer),
    )
    return folder


@pytest.fixture(scope="module")
def workdir(run_of, tmp_path_factory):
    """A GPT's."""
    folder = tmp_path_factory.mktemp("scripts") / "gpt"
    return written(folder, run_of("gpt"), "gpt", "language_modeling", context=32)


@pytest.fixture(scope="module")
def masked(run_of, tmp_path_factory):
    """A BERT's."""
    folder = tmp_path_factory.mktemp("scripts") / "bert"
    fields = {"next_sentence": False, "max_length": 32}
    return written(folder, run_of("masked"), "bert", "masked_lm", **fields)


def explain(workdir, *flags):
    return call("explain.py", f"--workdir={workdir}", *flags)


def header_of(path):
    page = path.read_text("utf-8")
    data = re.search(r'<script type="application/json" id="trace">(.*?)</script>', page)[1]
    return json.loads(data)


def test_a_page_is_written(workdir, tmp_path):
    path = tmp_path / "page.html"
    done = explain(workdir, "--prompt=ROMEO: But", f"--output={path}", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told == {"step": 0, "output": str(path), "bytes": path.stat().st_size}
    header = header_of(path)
    assert header["title"] == f"{workdir}, step 0"
    (trace,) = header["traces"]
    assert trace["prompt"] == "ROMEO: But"
    assert not header["live"]


def test_prompts_and_runs_are_shown_side_by_side(workdir, tmp_path):
    path = tmp_path / "page.html"
    flags = ["--prompt=ROMEO", "--prompt=the east", "--compare_checkpoint=last"]
    done = explain(workdir, *flags, f"--output={path}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{path}: {path.stat().st_size / 1e6:.2f} MB\n"
    prompts = [trace["prompt"] for trace in header_of(path)["traces"]]
    assert prompts == ["ROMEO", "the east"] * 2


def test_markup_right_to_left_text_and_emoji_are_data(masked, tmp_path):
    path = tmp_path / "page.html"
    prompt = "</script><b>light</b> \u202eאבג 😀 [MASK]"
    done = explain(masked, f"--prompt={prompt}", f"--output={path}")
    assert done.returncode == 0, done.stderr
    assert header_of(path)["traces"][0]["prompt"] == prompt
    assert "</script><b>" not in path.read_text("utf-8")


def test_what_was_cut_is_said(workdir, tmp_path):
    path = tmp_path / "page.html"
    done = explain(workdir, f"--prompt={'the east ' * 8}", f"--output={path}")
    assert done.returncode == 0, done.stderr
    note = "The prompt has 72 tokens and was cut to its last 32."
    assert done.stderr == f"{note}\n"
    assert header_of(path)["notes"] == [note]


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--output=OUT"], "what does the model read? Give --prompt=TEXT"),
        (["--prompt=ROMEO"], "where to? Give --output=FILE.html, or --serve."),
        (["--prompt=ROMEO", "--output=OUT", "--serve"], "where to?"),
        (["--prompt=ROMEO", "--output=/nowhere/page.html"], "--output"),
        (["--prompt=", "--output=OUT"], "the prompt is empty"),
        (["--prompt=ROMEO", "--target=x", "--output=OUT"], "leave the target out"),
        (["--prompt=ROMEO", "--image=x", "--output=OUT"], "reads one of them"),
        (["--image=ROMEO", "--output=OUT"], "for texts give --prompt"),
        (["--prompt=ROMEO", "--compare=/nowhere", "--output=OUT"], "/nowhere"),
        (["--prompt=ROMEO", "--checkpoint=7", "--output=OUT"], "7"),
        (["--prompt=ROMEO", "--prompt=a", "--serve"], "--prompt is given more than once"),
        (["--prompt=ROMEO", "--port=70000", "--serve"], "port"),
    ],
)
def test_what_cannot_be_done_is_one_message(flags, message, workdir, tmp_path):
    path = tmp_path / "page.html"
    done = explain(workdir, *(flag.replace("OUT", str(path)) for flag in flags))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not path.exists()


def test_damaged_runs_are_refused(workdir, tmp_path):
    shutil.copytree(workdir, tmp_path / "run")
    (tmp_path / "run" / "tokenizer.json").unlink()
    path = tmp_path / "page.html"
    done = explain(tmp_path / "run", "--prompt=ROMEO", f"--output={path}")
    assert done.returncode == 2
    assert "tokenizer" in done.stderr
    assert not path.exists()


def test_runs_of_other_kinds_are_not_compared(workdir, masked, tmp_path):
    flags = ["--prompt=what light", f"--compare={masked}", f"--output={tmp_path / 'page.html'}"]
    done = explain(workdir, *flags)
    assert done.returncode == 2
    assert "different kinds (decoder, encoder)" in done.stderr


def test_a_port_in_use_is_one_message(workdir):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = explain(workdir, "--prompt=ROMEO", "--serve", f"--port={port}")
    assert done.returncode == 2
    assert f"--port={port} cannot be used" in done.stderr


def test_a_page_is_served_until_control_c(workdir):
    flags = command("explain.py", f"--workdir={workdir}", "--prompt=ROMEO", "--serve")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(flags, **pipes) as process:
        try:
            address = process.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:"), process.stderr.read()
            with urllib.request.urlopen(address, timeout=60) as answer:
                assert b'"prompt": "ROMEO"' in answer.read()
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert told.splitlines() == [
        "Open this address in a browser of this machine; Ctrl-C ends the server."
    ]
