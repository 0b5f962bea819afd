"""Runs one part of a row: a process with a time limit, whose output is read as it appears."""

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
# Lines after an error of JAX that say nothing about it.
_FILTERED = ("For simplicity, JAX has removed", "JAX_TRACEBACK_FILTERING", "-----")


class Failure(NamedTuple):
    """Why the result of a part is missing or incomplete."""

    reason: str
    log: str


def run_part(
    command: Sequence[str],
    *,
    seconds: float,
    environment: Mapping[str, str],
    heard: Callable[[dict[str, Any]], None],
) -> Failure | None:
    """Runs a worker until it ends or times out, and kills everything that it started.

    Args:
        command: the command of the worker, which prints JSON objects with a `line` (see
            `clock.report`).
        seconds: its time limit; then it is killed, as it may hang in a compiler that ignores
            signals.
        environment: the environment of the process.
        heard: called with each object at once.

    Returns:
        None if it succeeded.
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
            # Its child processes may still be running.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        listener.join(timeout=1.0)
        while _hear(words, heard, patience=0.0):
            pass
        errors.seek(0)
        log = errors.read().decode(errors="replace")[-_LOGGED:]
    if code == 0:
        return None
    if code is None:
        return Failure(f"not done after {seconds:.0f} s", log)
    return Failure(_reason(code, log), log)


def _listen(stream: Any, words: queue.SimpleQueue) -> None:
    """Puts lines into the queue, and None after the last."""
    with stream:
        for line in stream:
            words.put(line)
    words.put(None)


def _hear(words: queue.SimpleQueue, heard: Callable, patience: float) -> bool:
    """Handles a line and returns whether there may be more; ignores output of libraries."""
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
    """The end of an error message, without the lines that JAX adds to all."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    shown = [line for line in lines if not line.startswith(_FILTERED)]
    if code < 0:
        shown.append(f"ended by {signal.Signals(-code).name}")
    return " / ".join(shown[-_SHOWN:]) or f"exit code {code}"
