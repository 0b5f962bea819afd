"""Errors that a user can fix: one clear message, one exit code, no traceback."""


class UserError(Exception):
    """Base of all errors caused by input or environment, not by a bug of ours.

    `exit_code` is the exit code of a script that ends with the error.
    """

    exit_code = 1


class ConfigError(UserError):
    """A config that names an unknown key, has a wrong type or combines values that cannot work."""

    exit_code = 2


class DataError(UserError):
    """A file that is missing, empty, undecodable or too short for the job."""

    exit_code = 2


class WorkdirError(UserError):
    """A run folder that is missing, belongs to another config, or cannot be read or written."""

    exit_code = 2


class CheckpointError(UserError):
    """A checkpoint that is damaged or missing."""

    exit_code = 2


class SaveError(CheckpointError):
    """A checkpoint that cannot be saved."""

    exit_code = 1


class NonFiniteLossError(UserError):
    """Training produced a loss that is infinite or not a number."""

    exit_code = 3


class MissingDependencyError(UserError):
    """An optional dependency is needed and not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install -e '.[{extra}]'"
        )
