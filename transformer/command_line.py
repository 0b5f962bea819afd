"""What all scripts share: flags in, one call, one clear message and exit code on failure."""

import errno
import io
import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from absl import flags

from transformer.data.text import IncomingLines
from transformer.errors import ConfigError, DataError, UserError
from transformer.runtime import prepare_process

FLAGS = flags.FLAGS

# Between which numbers flags of several scripts must lie.
LENGTHS = {"lower_bound": 4, "upper_bound": 1 << 20}
BEAMS = {"lower_bound": 1, "upper_bound": 1000}


def run(main: Callable[..., int], *, takes_arguments: bool = False) -> None:
    """Parses the flags, calls `main` and exits with what it returns.

    What is no flag is handed to `main` if it takes arguments, and refused otherwise. A `UserError`
    ends with its message on stderr and its exit code; wrong flags and config keys
    end with exit code 2.
    """
    sys.unraisablehook = _report_unraisable
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What is read is UTF-8 whatever the locale says, and so is what is written.
        sys.stdout.reconfigure(encoding="utf-8")
    try:
        prepare_process()
        code = _parse_and_call(main, takes_arguments)
    except UserError as error:
        # Writes that Orbax dropped are never awaited.
        warnings.filterwarnings("ignore", message="coroutine .* was never awaited")
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            # Whoever read our output has left; the usual end of `generate.py | head`.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EFBIG):
            raise
        where = f" ({error.filename})" if error.filename else ""
        print(f"error: {error.strerror}{where}. What was saved before is intact.", file=sys.stderr)
        code = 1
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not (isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)):
            raise
        reason = str(error).split("\n")[0] or "no more can be had"
        print(f"error: the memory does not suffice: {reason}. Ask for less.", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        code = 130
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


def _parse_and_call(main: Callable[..., int], takes_arguments: bool) -> int:
    try:
        rest = FLAGS(sys.argv)[1:]
        _require_numbers()
    except flags.Error as error:
        raise ConfigError(f"{error} (--help lists the flags)") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # ml_collections names the key and suggests the nearest one.
        raise ConfigError(f"config: {_tidy(error)}") from None
    if rest and not takes_arguments:
        raise ConfigError(f"what is {rest[0]!r}? Flags are written --name=value.")
    return main(*rest)


def _require_numbers() -> None:
    """Refuses `nan` and `inf`, which bounds do not keep out.

    Raises:
        ConfigError: naming the flag.
    """
    for name in FLAGS:
        value = FLAGS[name].value
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"--{name} is {value}: a finite number is needed.")


def loaded_config(holder: Any) -> Any:
    """The value of a config flag.

    Raises:
        ConfigError: if the file cannot be loaded.
    """
    try:
        config = holder.config
        if config is not None:
            config.keys()  # A file that failed to load says so only when it is looked into.
    except OSError as error:
        raise ConfigError(f"the config file cannot be loaded: {_tidy(error)}") from None
    if config is None:
        raise ConfigError("which config? Give --config=configs/NAME.py")
    return config


def required_workdir() -> Path:
    """The value of `--workdir`.

    Raises:
        ConfigError: if it was not given.
    """
    if not FLAGS.workdir:
        raise ConfigError("which folder? Give --workdir=runs/NAME")
    return Path(FLAGS.workdir)


def standard_input_lines() -> IncomingLines:
    """The lines of standard input as they come.

    Raises:
        DataError: if it is closed; see `IncomingLines` for what its lines may hold.
    """
    if sys.stdin is None:
        raise DataError("standard input is closed: give one text a line.")
    return IncomingLines(sys.stdin.buffer, "the input")


def say(text: str) -> None:
    """A line for people, on stderr."""
    print(text, file=sys.stderr, flush=True)


def print_json(result: Mapping[str, Any]) -> None:
    """One JSON object on stdout."""
    print(json.dumps(result))


def _report_unraisable(unraisable: Any) -> None:
    """Leaves out what a failed save drags behind it.

    When one write of a checkpoint fails, Orbax drops the others, and each of those complains from
    a thread of its own that nobody waits for it. The failure itself is reported by us.
    """
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _tidy(error: BaseException) -> str:
    text = " ".join(str(error.args[0] if error.args else error).split())
    return text.strip("'\"").replace('\\"', '"').replace("\\'", "'")
