"""SIGINT ends with 130 and SIGTERM with 143, at any moment and without a word."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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
        cwd=Path(__file__).parents[1],
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


def test_a_fork_is_by_itself():
    """The signal that ends it does not end the process that it came from."""
    process = started(FORK)
    said, _ = process.communicate(timeout=30)
    assert said.endswith(b"143\n")
    assert process.returncode == 7
