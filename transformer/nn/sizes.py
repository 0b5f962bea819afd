"""Checks of the sizes of models."""

from transformer.errors import ConfigError


def decided(field: str, size: int | None) -> int:
    """A size that the data decide if the config does not.

    Args:
        field: the field of `config.model`.
        size: its value.

    Raises:
        ConfigError: if neither has decided it.
    """
    if size is None:
        raise ConfigError(f"config.model.{field} is missing, and no data have decided it.")
    return size


def require_multiple(why: str, **sizes: int) -> None:
    """Refuses a size that is not a multiple of another.

    Args:
        why: why it must be a multiple, for the message.
        **sizes: two sizes by field of `config.model`, first the multiple.

    Raises:
        ConfigError: naming both fields.
    """
    (multiple, size), (divisor, part) = sizes.items()
    if size % part:
        raise ConfigError(
            f"config.model.{multiple} ({size}) is not a multiple of config.model.{divisor} "
            f"({part}): {why}."
        )
