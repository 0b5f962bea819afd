"""A process that does one command after another, and keeps what it has compiled.

A forked process of each command is safer, and several times slower: tracing takes most of its time.
Here a command is what it is for a user, from its flags to its exit code, but for the process; one
that hangs or dies takes the process with it, and the next command gets a new one.
"""

import contextlib
import functools
import io
import json
import os
import runpy
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from unittest import mock

from tests.campaigns.frame import ROOT, SECONDS, Done, _resident
from transformer import command_line
from transformer.training import loop
from transformer.training.shared import Shared


class Warm:
    """Scripts of `scripts/` in one process at a time; as `frame.script`, but faster."""

    def __init__(self, *, most: int = 60, megabytes: float = 3000.0) -> None:
        """The first command begins the process.

        Args:
            most: commands of one process.
            megabytes: that it may hold.
        """
        self._most, self._megabytes = most, megabytes
        self._child = self._left = 0
        self._send = self._receive = -1

    def script(self, name: str, *flags: str, stdin: str = "", seconds: float = SECONDS) -> Done:
        """What becomes of a command."""
        if not self._left:
            self._begin()
        self._left -= 1
        before = _resident(self._child)
        request = json.dumps([name, flags, stdin])
        os.write(self._send, f"{request}\n".encode())
        answer, begun = b"", time.monotonic()
        while not answer.endswith(b"\n"):
            taken = time.monotonic() - begun
            left = seconds - taken
            ready = left > 0 and select.select([self._receive], [], [], min(left, 0.2))[0]
            held = _resident(self._child)
            piece = os.read(self._receive, 1 << 16) if ready else None
            answer += piece or b""
            if left <= 0 or piece == b"" or held > self._megabytes:
                status = self.end()
                large = held > self._megabytes
                return Done(status, "", "", left <= 0, held - before, large, taken)
        code, stdout, stderr = json.loads(answer)
        held = _resident(self._child) - before
        return Done(code, stdout, stderr, False, held, False, time.monotonic() - begun)

    def _begin(self) -> None:
        self.end()
        requests, answers = os.pipe(), os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self._child, self._left = os.fork(), self._most
        if self._child == 0:
            try:
                os.setpgid(0, 0)
                os.close(requests[1])
                _serve(requests[0], answers[1])
            finally:
                os._exit(1)
        os.close(requests[0])
        os.close(answers[1])
        self._send, self._receive = requests[1], answers[0]

    def end(self) -> int:
        """Ends the process; how it ended."""
        if not self._child:
            return 0
        os.close(self._send)
        os.close(self._receive)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._child, signal.SIGKILL)
        _, status = os.waitpid(self._child, 0)
        self._child = self._left = 0
        return os.waitstatus_to_exitcode(status)


def _serve(requests: int, answers: int) -> None:
    shared = Shared()
    # The step is compiled once; curves are no part of what is looked at.
    train = functools.partial(loop.train, shared=shared, curves=False)
    silent = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(silent, number)
    with mock.patch.object(loop, "train", train), os.fdopen(requests) as lines:
        for line in lines:
            name, flags, stdin = json.loads(line)
            answer = json.dumps(_called(name, flags, stdin)).encode() + b"\n"
            while answer:
                answer = answer[os.write(answers, answer) :]


def _called(name: str, flags: Sequence[str], stdin: str) -> tuple[int, str, str]:
    """Exit code and output of a script, called in this process."""
    path = str(ROOT / "scripts" / name)
    streams = {key: io.TextIOWrapper(io.BytesIO(), "utf-8") for key in ("stdout", "stderr")}
    streams["stdin"] = io.TextIOWrapper(io.BytesIO(stdin.encode()), "utf-8")
    known, code = set(command_line.FLAGS), 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.multiple(sys, argv=[path, *flags], **streams))
        stack.enter_context(warnings.catch_warnings())
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            code = 1
            traceback.print_exc()
        for added in set(command_line.FLAGS) - known:
            delattr(command_line.FLAGS, added)
        command_line.FLAGS.unparse_flags()
        for stream in streams.values():
            stream.flush()
    written = [
        streams[key].buffer.getvalue().decode("utf-8", "replace") for key in ("stdout", "stderr")
    ]
    return code, written[0], written[1]
