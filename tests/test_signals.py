"""SIGINT ends with 130 and SIGTERM with 143, at any moment and without a word."""

import ast
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What scripts may import before they take signals, besides what comes with Python.
LIGHT = (
    *("absl", "ml_collections", "transformer", "transformer.command_line", "transformer.commands"),
    *("transformer.errors", "transformer.installed"),
)

BEGIN = """
import hashlib, os, signal, sys, time
from transformer import signals
signals.take()
print("begun, ", end="")
go = lambda: os.write(2, b"go")
"""
# What a process may be at when the signal comes.
WORK = {
    "it swallows everything": """
go()
while True:
    try:
        time.sleep(60)
    except BaseException:
        pass
""",
    # The interpreter comes to no handler.
    "it is in C": "go(), hashlib.pbkdf2_hmac('sha512', b'', b'', 10**9)",
    # As an exception this would be told with a traceback.
    "it is in a callback": """
class Told:
    def __del__(self):
        go()
        time.sleep(60)
del [Told()][0]
""",
}
SPARED = """
def note(number, frame):
    print("noted, ", end="")
    os.write(2, b"on")
with signals.first_goes_to(note):
    go()
    while signals._watch.spared:
        time.sleep(0.01)
    SECOND
    print("ended", flush=True)
"""
FORK = """
go()
child = os.fork()
if child == 0:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
time.sleep(2 * signals.PATIENCE)
sys.exit(7)
"""


def started(code):
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stderr.read(2) == b"go"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_at_any_moment(work, number):
    process = started(work)
    time.sleep(0.05)
    process.send_signal(number)
    said, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert errors == b""
    # What was printed is out, where the interpreter is not stuck.
    assert said == b"begun, " or "pbkdf2" in work


@pytest.mark.parametrize(
    "second", ["time.sleep(60)", "hashlib.pbkdf2_hmac('sha512', b'', b'', 10**9)"]
)
def test_the_first_may_go_to_somebody_else(second):
    process = started(SPARED.replace("SECOND", second))
    process.send_signal(signal.SIGINT)
    assert process.stderr.read(2) == b"on"
    time.sleep(0.1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"ended" not in said


def test_scripts_take_them_before_anything_slow():
    """What they import before that is no more than flags; JAX alone takes seconds."""
    for path in (ROOT / "scripts").glob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        froms = (node.module for node in tree.body if isinstance(node, ast.ImportFrom))
        plain = (a.name for node in tree.body if isinstance(node, ast.Import) for a in node.names)
        for name in (*froms, *plain):
            known = name.split(".")[0] in sys.stdlib_module_names
            assert known or name in LIGHT, f"{path.name} imports {name}"
    code = f"import sys, {', '.join(LIGHT)}; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert not re.findall(rb"'(jax|numpy|flax|grain|orbax|transformer.config)'", done.stdout)


def test_a_fork_is_by_itself():
    """The signal that ends it does not end the process that it came from."""
    process = started(FORK)
    said, _ = process.communicate(timeout=30)
    assert said.endswith(b"143\n")
    assert process.returncode == 7
