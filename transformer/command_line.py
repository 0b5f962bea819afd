"""The frame of all scripts: parses flags, calls `main`, and reports failures by one message."""

import contextlib
import errno
import json
import math
import os
import re
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

# Import nothing here that imports JAX: that takes seconds, and signals must be handled before.
from transformer import config_files, signals, streams
from transformer.data.reading.library_errors import is_panic
from transformer.data.reading.text import IncomingLines
from transformer.errors import ConfigError, DataError, UserError
from transformer.installed import as_typed

FLAGS = flags.FLAGS
# Errors of the file system or the environment that no bug of ours can cause.
_OF_THE_SYSTEM = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG, errno.EIO),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ESTALE, errno.ETIMEDOUT),
    *(errno.EMFILE, errno.ENFILE, errno.ENXIO, errno.ENODEV, errno.EBUSY, errno.EOPNOTSUPP),
)
# Those of these errors that mean that no file or folder can have this path.
_OF_PATHS = (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)
_NAMELESS = re.compile(r"--?=")
# A flag for a part of a config; boolean ones may be negated as `--noconfig.x`.
_OVERRIDE = re.compile(r"--?(no)?(?P<flag>config)\.(?P<path>[^=]+)")

_HELP = re.compile(r"-h|--?help(=.*)?")

# The prefix of ml_collections' message if a config file raises certain errors.
_FROM_FILE = "Error whilst parsing config file"
# Longer messages of libraries are cut to this length.
_LONGEST = 1000

# Limits of flags that several scripts share.
LENGTHS = {"lower_bound": 4, "upper_bound": 1 << 20}
BEAMS = {"lower_bound": 1, "upper_bound": 1000}


def run(main: Callable[..., int], *, takes_arguments: bool = False) -> None:
    """Parses the flags, calls `main` and exits with what it returns.

    Positional arguments go to `main` if it accepts any; otherwise they are refused. A `UserError`
    ends with its message on stderr and its exit code; wrong flags and config keys end with exit
    code 2. SIGINT ends with 130 and SIGTERM with 143, from the first moment to the last.
    """
    signals.take()
    sys.unraisablehook = _report_unraisable
    streams.make_safe()
    try:
        _prepare_process()
        code = _parse_and_call(main, takes_arguments)
    except UserError as error:
        # Writes that Orbax dropped are never awaited.
        warnings.filterwarnings("ignore", message="coroutine .* was never awaited")
        print(f"error: {as_typed(str(error))}", file=sys.stderr)
        code = error.exit_code
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            # The reader of our output has gone, as usual with `generate.py | head`.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        if error.errno not in _OF_THE_SYSTEM:
            raise
        where = f" ({error.filename})" if error.filename else ""
        of_path = error.errno in _OF_PATHS
        hint = "Give another path." if of_path else "What was saved before is intact."
        print(f"error: {error.strerror}{where}. {hint}", file=sys.stderr)
        code = 2 if of_path else 1
    except (MemoryError, RuntimeError) as error:
        # JAX reports exhausted memory by a RuntimeError.
        if not (isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)):
            raise
        reason = str(error).split("\n")[0] or "no more can be had"
        print(f"error: the memory does not suffice: {reason}. Ask for less.", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        code = 130
    except BaseException as error:
        if not is_panic(error):
            raise
        print(f"error: a library fails on a file that is damaged: {error}", file=sys.stderr)
        code = 2
    lost = streams.flushed()
    if lost and not code:
        print(f"error: standard output cannot be written: {lost}.", file=sys.stderr)
        code = 1
    sys.stderr.flush()
    sys.exit(code)


def _prepare_process() -> None:
    from transformer.runtime import prepare_process

    prepare_process()


def _parse_and_call(main: Callable[..., int], takes_arguments: bool) -> int:
    if "config" in FLAGS:
        sys.argv = config_files.with_shipped(sys.argv, say)
    asked = next((flag for flag in sys.argv[1:] if _HELP.fullmatch(flag)), None)
    if asked is not None:
        print(_help(asked.partition("=")[2]))
        return 0
    try:
        rest = FLAGS(sys.argv)[1:]
        _require_numbers()
    except (UserError, KeyboardInterrupt):
        raise
    # A config file may raise anything, even exceptions that end a process.
    except BaseException as error:
        raise _config_error(error, sys.argv) from None
    # absl takes a flag without a name for an argument; all is an argument after `--`.
    nameless = [] if "--" in sys.argv else [each for each in rest if _NAMELESS.match(each)]
    wrong = nameless if takes_arguments else rest
    if wrong:
        from transformer.fields import shown

        raise ConfigError(f"what is {shown(wrong[0])}? Flags are written --name=value.")
    return main(*rest)


def _help(topic: str) -> str:
    """The text of `--help`, or of `--help=config.task` and the like.

    Raises:
        ConfigError: if there is no such part of the config, or its file cannot be loaded.
    """
    if not topic:
        fields = (
            "\n\n--help=config describes the fields of the config." if "config" in FLAGS else ""
        )
        words = as_typed(f"{sys.modules['__main__'].__doc__}")
        return f"{words}\n{FLAGS.main_module_help()}{fields}"
    if topic.partition(".")[0] != "config" or "config" not in FLAGS:
        raise ConfigError(f"there is no help on {topic}: --help lists the flags.")
    from transformer.training.meanings import help_on

    plain = [flag for flag in sys.argv if not _HELP.fullmatch(flag)]
    with _arguments(plain):
        try:
            FLAGS(plain)
        except UserError:
            raise
        except BaseException as error:
            raise _config_error(error, plain) from None
        return help_on(topic, loaded_config(FLAGS) if FLAGS["config"].present else None)


def _config_error(error: BaseException, argv: Sequence[str]) -> Exception:
    """Explains what is wrong with the flags, or with a config made from its file and the flags.

    For a wrong key, ml_collections reports neither its place nor, in nested keys, which part is
    wrong. So the file is loaded without the flags: either the error is in the file, or the flags
    are compared with its keys.
    """
    found = _error_of_file(error, argv)
    if found is not None:
        return found
    overrides = [match for flag in argv[1:] if (match := _OVERRIDE.match(flag))]
    if isinstance(error, flags.Error) and _FROM_FILE in str(error):
        return ConfigError(_named_after_file(_first_cause(error), argv))
    if isinstance(error, flags.Error):
        plain = f"{_tidy(error)} (--help lists the flags)"
        return ConfigError(_value_of_section(overrides) or plain)
    plain = [argv[0], *(flag for flag in argv[1:] if not _OVERRIDE.match(flag))]
    try:
        with _arguments(plain):
            FLAGS.unparse_flags()
            FLAGS(plain)
            loaded_config(FLAGS)
    except UserError as other:
        return other
    except BaseException as other:
        return _error_of_file(other, plain) or ConfigError(_named_after_file(other, plain))
    return ConfigError(_wrong_override(overrides) or f"config: {_tidy(error)}")


def _named_after_file(error: BaseException, argv: Sequence[str]) -> str:
    """The message for an error that comes from loading a config file but from no line of it."""
    given = [
        flag.partition("=")[2] or after
        for flag, after in zip(argv[1:], [*argv[2:], ""], strict=True)
        if flag.lstrip("-").partition("=")[0] == "config"
    ]
    return f"{given[-1] if given else 'config'}: {type(error).__name__}: {_tidy(error)}"


def _first_cause(error: BaseException) -> BaseException:
    """The first exception in a chain of exceptions."""
    cause = error.__cause__ or error.__context__
    return error if cause is None else _first_cause(cause)


def _wrong_override(overrides: Sequence[re.Match[str]]) -> str | None:
    """Explains the first override of a key that the config does not have."""
    from transformer.fields import shown

    for match in overrides:
        config = FLAGS[match["flag"]].value
        where = match["flag"]
        for name in match["path"].split("."):
            if not isinstance(config, ConfigDict):
                return f"{where} is a single value: it has no {shown(name)}."
            if name not in config:
                return _unknown_key(where, name, config)
            config, where = config[name], f"{where}.{name}"
    return None


def _unknown_key(where: str, name: str, config: ConfigDict) -> str:
    from transformer.fields import unknown_name
    from transformer.sections import flattened
    from transformer.training.sections import OPTIONAL_SECTIONS, RENAMED

    if where == "config" and name in OPTIONAL_SECTIONS:
        return f'this config has no {where}.{name}: add config.{name} = section("{name}") to it.'
    if where == "config":
        return unknown_name(where, name, config)
    known = {*config, *flattened(config)}
    if RENAMED.get(name) in known:
        return f'{where} has no "{name}": did you mean "{RENAMED[name]}"?'
    return unknown_name(where, name, known)


def _value_of_section(overrides: Sequence[re.Match[str]]) -> str | None:
    """Explains the first override that assigns a value to a section."""
    for match in overrides:
        # Scripts without a config have no such flag.
        if match["flag"] not in FLAGS:
            continue
        config = FLAGS[match["flag"]].value
        for name in match["path"].split("."):
            config = config.get(name) if isinstance(config, ConfigDict) else None
        if isinstance(config, ConfigDict):
            where = f"{match['flag']}.{match['path']}"
            return f"{where} is a section: give one of its fields, such as --{where}.{min(config)}="
    return None


def _error_of_file(error: BaseException, argv: Sequence[str]) -> Exception | None:
    """An error raised by a config file, with the line; None if it comes from elsewhere."""
    given = [flag.partition("=")[2].partition(":")[0] for flag in argv if "=" in flag]
    known = {Path(name).absolute() for name in given if name}
    known |= {Path(name.partition(":")[0]).absolute() for name in argv[1:]}
    cause: BaseException | None = error
    while cause is not None:
        frames = traceback.extract_tb(cause.__traceback__)
        places = [(frame.filename, frame.lineno) for frame in reversed(frames)]
        if isinstance(cause, SyntaxError):
            places.insert(0, (cause.filename or "", cause.lineno))
        for file, line in places:
            if Path(file).absolute() in known:
                return ConfigError(f"{file}, line {line}: {type(cause).__name__}: {_tidy(cause)}")
        # absl and ml_collections wrap some errors in their own.
        cause = cause.__cause__ or cause.__context__
    return None


@contextlib.contextmanager
def _arguments(argv: Sequence[str]) -> Iterator[None]:
    """Sets `sys.argv`, in which ml_collections itself looks for overrides."""
    given, sys.argv = sys.argv, list(argv)
    try:
        yield
    finally:
        sys.argv = given


def _require_numbers() -> None:
    """Refuses `nan` and `inf`, which bounds let pass, and integers that no array can hold.

    Raises:
        ConfigError: naming the flag.
    """
    # The values of a config are checked by their sections.
    for name in (name for name in FLAGS if not name.startswith("config.")):
        value = FLAGS[name].value
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"--{name} is {value}: a finite number is needed.")
        if isinstance(value, int) and abs(value) >= 2**63:
            raise ConfigError(f"--{name} is {value}: a number of 64 bits is needed.")


def loaded_config(holder: flags.FlagValues) -> ConfigDict:
    """The value of a config flag, with all sections.

    Raises:
        ConfigError: if the file cannot be loaded, or makes no config.
    """
    from transformer.fields import shown
    from transformer.training.sections import check_sections

    try:
        config = holder.config
        if config is not None:
            _ = config.keys  # A file that failed to load raises only at the first access.
    except OSError as error:
        cause = error.__cause__ or error
        path = Path(config_flags.get_config_filename(holder["config"]))
        unknown = None if path.exists() else config_files.missing(path)
        raise (
            unknown
            or _error_of_file(cause, sys.argv)
            or ConfigError(f"the config file {path} cannot be loaded: {_tidy(cause)}")
        ) from None
    except AttributeError:
        pass
    if not holder["config"].present:
        lacks_folder = "workdir" in holder and not holder.workdir
        flags = ["--config=configs/gpt_char.py", *["--workdir=runs/gpt_char"] * lacks_folder]
        raise ConfigError(f"which config? For example: {_with(*flags)}")
    if not isinstance(config, ConfigDict):
        name = config_flags.get_config_filename(holder["config"])
        raise ConfigError(
            f"get_config() of {name} returns {shown(config)}: a ConfigDict is expected, returned "
            f"at its end."
        )
    check_sections(config)
    return config


def required_workdir() -> Path:
    """The value of `--workdir`.

    Raises:
        ConfigError: if it was not given.
    """
    if not FLAGS.workdir:
        config = next((flag for flag in sys.argv if flag.startswith("--config=")), "gpt_char")
        name = Path(config.partition(":")[0]).stem
        raise ConfigError(f"which folder? For example: {_with(f'--workdir=runs/{name}')}")
    return Path(FLAGS.workdir)


def _with(*flags: str) -> str:
    """The command that was given, with further flags."""
    script = f"scripts/{Path(sys.argv[0]).name}"
    return shlex.join(["python", script, *flags, *sys.argv[1:]])


def standard_input_lines() -> IncomingLines:
    """The lines of standard input as they arrive.

    Raises:
        DataError: if it is closed; see `IncomingLines` for what lines may contain.
    """
    if sys.stdin is None:
        raise DataError("standard input is closed: give one text a line.")
    return IncomingLines(sys.stdin.buffer, "the input")


def say(text: str) -> None:
    """Prints a line for people on stderr."""
    print(text, file=sys.stderr, flush=True)


def print_json(result: Mapping[str, object]) -> None:
    """Prints one JSON object on stdout."""
    print(json.dumps(result))


def _report_unraisable(unraisable: Any) -> None:
    """Silences the messages that follow a failed save.

    When one write of a checkpoint fails, Orbax drops the others, and each dropped write complains
    from its thread that it was never awaited; so does each dropped read. The failure itself is
    reported elsewhere.
    """
    code = getattr(unraisable.object, "cr_code", None)
    dropped = code is not None and "orbax" in code.co_filename
    if not dropped and str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _tidy(error: BaseException) -> str:
    said = error.args[0] if error.args and not isinstance(error, OSError) else error
    text = str(said).replace("\\n", " ")
    text = " ".join(text.split())
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    # The given value may be very long.
    text = text if len(text) <= _LONGEST else f"{text[:200]} ... {text[-200:]}"
    return text.replace('\\"', '"').replace("\\'", "'")
