"""One part of a row: a process with a time limit, whose words are read as it says them."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

# Lines of an error that the table shows, and characters of its log in the JSON file.
_SHOWN, _LOGGED = 3, 4000
# What follows an error of JAX and says nothing of it.
_FILTERED = ("For simplicity, JAX has removed", "JAX_TRACEBACK_FILTERING", "-----")


class Failure(NamedTuple):
    """Why a part has no result, or not all of it."""

    reason: str
    log: str


def run_part(
    command: Sequence[str],
    *,
    seconds: float,
    environment: Mapping[str, str],
    heard: Callable[[dict[str, Any]], None],
) -> Failure | None:
    """Runs a worker until it ends or its time is over; nothing that it started is left.

    Args:
        command: of the worker, which prints JSON objects with a `line` (see `clock.report`).
        seconds: after which it is killed; it may hang in a compiler, which no signal ends.
        environment: of the process.
        heard: is given each object at once.

    Returns:
        None if it ended well.
    """
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=dict(environment),
            process_group=0,
        )
        words: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        listener = threading.Thread(target=_listen, args=(process.stdout, words), daemon=True)
        listener.start()
        deadline = time.monotonic() + seconds
        code = None
        try:
            while code is None and time.monotonic() < deadline:
                _hear(words, heard, patience=0.1)
                code = process.poll()
        finally:
            # What it started itself may go on without it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        while _hear(words, heard, patience=1.0):
            pass
        listener.join(timeout=1.0)
        errors.seek(0)
        log = errors.read().decode(errors="replace")[-_LOGGED:]
    if code == 0:
        return None
    if code is None:
        return Failure(f"not done after {seconds:.0f} s", log)
    return Failure(_reason(code, log), log)


def _listen(stream: Any, words: queue.SimpleQueue) -> None:
    """Hands on lines, and None after the last."""
    with stream:
        for line in stream:
            words.put(line)
    words.put(None)


def _hear(words: queue.SimpleQueue, heard: Callable, patience: float) -> bool:
    """Whether there may be more; what is not ours (libraries print, too) is passed over."""
    try:
        line = words.get(timeout=patience)
    except queue.Empty:
        return False
    if line is None:
        return False
    with contextlib.suppress(json.JSONDecodeError):
        said = json.loads(line)
        if isinstance(said, dict) and "line" in said:
            heard(said)
    return True


def _reason(code: int, log: str) -> str:
    """The end of an error, without what JAX adds to all."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(_FILTERED)]
    if code < 0:
        told.append(f"ended by {signal.Signals(-code).name}")
    return " / ".join(told[-_SHOWN:]) or f"exit code {code}"
