"""Helpers for the files in `configs/`: sections, and variants of a config."""

from collections.abc import Mapping
from types import MappingProxyType

from ml_collections import ConfigDict

from transformer.errors import ConfigError
from transformer.fields import unknown_name
from transformer.training.sections import OPTIONAL_SECTIONS, section
from transformer.types import Facts

__all__ = ["complete", "section"]


def complete(
    config: ConfigDict, variant: str = "", variants: Mapping[str, Facts] = MappingProxyType({})
) -> ConfigDict:
    """The config after a variant's changes; sections that it leaves out have their defaults.

    Args:
        config: at least the sections without defaults; it is changed.
        variant: the name of the variant; empty changes nothing.
        variants: the values that each variant changes, by section and field.

    Raises:
        ConfigError: if there is no such variant.
    """
    for kind in ("mesh", *OPTIONAL_SECTIONS):
        if kind not in config:
            config[kind] = section(kind)
    if variant and not variants:
        raise ConfigError(f"the config has no variants: leave out :{variant} behind its name.")
    if variant:
        if variant not in variants:
            raise ConfigError(unknown_name("the config", f"variant {variant}", variants))
        config.update(variants[variant])
    return config
