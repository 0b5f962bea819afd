"""Helpers for the files in `configs/`: sections, and variants of a config."""

from collections.abc import Mapping

from transformer.errors import ConfigError
from transformer.fields import unknown_name
from transformer.training.sections import section
from transformer.types import Facts

__all__ = ["section", "variant_of"]


def variant_of(name: str, variants: Mapping[str, Facts]) -> Facts:
    """The changes of a config's variant; none for the empty name.

    Raises:
        ConfigError: if there is no such variant.
    """
    if not name:
        return {}
    if name not in variants:
        raise ConfigError(unknown_name("the config", f"variant {name}", variants))
    return variants[name]
