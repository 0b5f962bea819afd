"""A process that answers questions one after the other, and is watched while it does.

Forking for each case would pay for tracing the same models again and again. Questions come one by
one, so that a death or a delay is that of the question; whoever ends badly is replaced.
"""

import json
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.campaigns.frame import Done, _kill, _resident

# Questions until it is replaced, so that what it remembers does not grow for ever.
_MOST = 150
# Seconds on the clock for a second of work.
_PATIENCE = 6


class Worker:
    """Answers questions in a process of its own.

    Args:
        function: a question to a dict that JSON can say. It is called in the other process.
        seconds: of work for one question; of waiting, six times as many, as the machine is shared.
        megabytes: of one question, beyond what the process held before it.
    """

    def __init__(
        self, function: Callable[[Any], dict[str, Any]], *, seconds: float, megabytes: float
    ) -> None:
        self._function, self._seconds, self._megabytes = function, seconds, megabytes
        self._child = self._count = 0
        self._pipe: Any = None
        self._stderr: Any = None

    def ask(self, question: Any) -> Done:
        """What becomes of a question; the answer is in `stdout` as JSON."""
        if not self._child or self._count >= _MOST:
            self._replace()
        self._count += 1
        first, before = _resident(self._child), _worked(self._child)
        begun, peak, timed_out, too_large = time.monotonic(), 0.0, False, False
        self._pipe.send(question)
        while not self._pipe.poll(0.01):
            peak = max(peak, _resident(self._child) - first)
            worked = _worked(self._child) - before
            timed_out = max(worked, (time.monotonic() - begun) / _PATIENCE) > self._seconds
            too_large = peak > self._megabytes
            if timed_out or too_large:
                _kill(self._child)
                break
        try:
            code, stdout, stderr = self._pipe.recv()
            done = Done(code, stdout, stderr, timed_out, peak, too_large, time.monotonic() - begun)
        except (EOFError, OSError):
            _, status = os.waitpid(self._child, 0)
            self._stderr.seek(0)
            said = self._stderr.read().decode("utf-8", "replace")
            code = os.waitstatus_to_exitcode(status)
            taken = time.monotonic() - begun
            done = Done(code, "", said, timed_out, peak, too_large, taken)
            self._child = 0
        if done.code not in (0, 2):
            self._end()
        return done

    def _replace(self) -> None:
        self._end()
        self._pipe, theirs = multiprocessing.Pipe()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process.
        sys.stdout.flush()
        sys.stderr.flush()
        self._child, self._count = os.fork(), 0
        if self._child == 0:
            self._pipe.close()
            os.setpgid(0, 0)
            os.dup2(self._stderr.fileno(), 2)
            _answer_all(theirs, self._function)
        theirs.close()

    def _end(self) -> None:
        if self._child:
            _kill(self._child)
            os.waitpid(self._child, 0)
        self._child = 0


def _worked(child: int) -> float:
    """Seconds that a process has computed."""
    try:
        fields = Path(f"/proc/{child}/stat").read_text("ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _answer_all(pipe: Any, function: Callable[[Any], dict[str, Any]]) -> None:
    """Never returns."""
    try:
        while True:
            try:
                question = pipe.recv()
            except EOFError:
                break
            try:
                answer = function(question)
                message = answer.pop("error", None)
                code, stderr = answer.pop("code", 0), f"error: {message}\n" if message else ""
                pipe.send((code, json.dumps(answer), stderr))
            except BaseException:
                pipe.send((1, "", traceback.format_exc()))
    finally:
        os._exit(0)
