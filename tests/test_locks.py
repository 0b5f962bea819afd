import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from transformer import locks
from transformer.locks import LockedError, NoLocksError, locked

HOLD = """
import os, sys, time
from pathlib import Path
from transformer.locks import locked
with locked(Path(sys.argv[1])):
    ready, done = os.pipe()
    if len(sys.argv) > 2:
        if os.fork() == 0:
            os.write(done, b".")
            time.sleep(60)
        # Not before the fork has given up its copies.
        os.read(ready, 1)
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lock"


def holder(path, *options):
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), *options],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
        start_new_session=True,
    )
    assert process.stdout.readline() == b"held\n"
    return process


def can_be_had(path):
    try:
        with locked(path):
            return True
    except LockedError:
        return False


def test_one_at_a_time(path):
    with locked(path):
        said = rf"^process {os.getpid()} on {socket.gethostname()}, since \d{{4}}-"
        with pytest.raises(LockedError, match=said), locked(path):
            pass
        assert not can_be_had(path)
    assert not path.exists()
    with locked(path, keep=True):
        pass
    assert path.exists()
    assert can_be_had(path)


@pytest.mark.parametrize("options", [(), ("with a fork",)])
def test_a_kill_frees_it(path, options):
    """Also where a fork lives on that has a copy of all descriptors."""
    other = holder(path, *options)
    try:
        with pytest.raises(LockedError, match=f"process {other.pid} on "), locked(path):
            pass
        other.kill()
        other.wait()
        assert path.exists()
        assert can_be_had(path)
        assert not path.exists()
    finally:
        os.killpg(other.pid, signal.SIGKILL) if options else None
        other.stdout.close()


def test_who_waits_gets_the_file_that_is_there(path):
    """The one that it waits for deletes it."""
    got = threading.Event()

    def wait():
        with locked(path, wait=True):
            assert not can_be_had(path)
            got.set()

    with locked(path):
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert not got.wait(0.05)
    waiting.join(10)
    assert got.is_set()


def test_whatever_its_note_says(path):
    with locked(path):
        path.write_bytes(b"\xff" * 5000)
        with pytest.raises(LockedError, match=r"^another process$"), locked(path):
            pass


def test_what_is_no_file(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("link", "pipe", "folder"):
        with pytest.raises(OSError, match=name), locked(tmp_path / name):
            pass
    assert (tmp_path / "mine").read_text() == "mine"


def test_where_there_are_none(path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", none)
    with pytest.raises(NoLocksError, match="No locks available"), locked(path):
        pass
    monkeypatch.setattr(locks, "fcntl", None)
    with pytest.raises(NoLocksError, match="this system has no flock"), locked(path):
        pass
