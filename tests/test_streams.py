import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(code, redirections):
    """A program that begins as scripts do, its streams as a shell makes them."""
    start = f"import os, sys\nfrom transformer import streams\nstreams.make_safe()\n{code}"
    shell = f'exec "$0" "$@" {redirections}'
    return subprocess.run(
        ["sh", "-c", shell, sys.executable, "-c", start],
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_nothing_gets_the_number_of_a_closed_stream(tmp_path):
    code = f"""
file = open({str(tmp_path / "x")!r}, "w")
assert file.fileno() > 2
os.write(1, b"of a library")
os.write(2, b"of a library")
print("a result")
print("progress", file=sys.stderr)
assert sys.stdin is None
"""
    done = run(code, "<&- >&- 2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "x").read_bytes() == b""


@pytest.mark.parametrize("stderr", ["2>&-", "2>/dev/full"])
def test_what_people_cannot_be_told_does_not_end_a_run(stderr):
    code = "print('progress', file=sys.stderr, flush=True)\nprint('a result')"
    done = run(code, stderr)
    assert (done.returncode, done.stdout) == (0, "a result\n")


def test_a_reader_of_progress_may_leave():
    code = "import time\ntime.sleep(0.3)\nprint('progress', file=sys.stderr)\nprint('a result')"
    done = run(code, "2>&1 >/dev/null | true")
    assert (done.returncode, done.stderr) == (0, "")


def test_progress_is_written_at_once_and_as_it_is():
    code = "print('\\U0001f98a \\udcff', end='', file=sys.stderr)\nos._exit(0)"
    assert run(code, "").stderr == "\U0001f98a \\udcff"


@pytest.mark.parametrize(
    ("stdout", "lost"), [("", ""), (">/dev/full", "No space left on device"), ("| true", "")]
)
def test_whether_results_were_written(stdout, lost):
    code = f"print('a result')\nimport time\ntime.sleep(0.2)\nassert streams.flushed() == {lost!r}"
    done = run(code, stdout)
    assert (done.returncode, done.stderr) == (0, "")


def test_names_that_are_not_utf8_come_out_as_they_went_in():
    done = run("print('\\udce9' + 'é')", "| od -An -tx1")
    assert done.stdout.split() == ["e9", "c3", "a9", "0a"]
