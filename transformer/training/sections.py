"""The sections of an experiment's config, and the dataclass that owns each.

A config has the sections `model`, `task`, `optimizer`, `train` and `mesh`, and where training
begins from another run `init` and `lora`. The model and the task are chosen by `name`, that of a
file in `transformer/models` or `transformer/tasks`.
"""

import functools
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from transformer import models, tasks
from transformer.errors import ConfigError
from transformer.fields import Declared, shown, unknown_name
from transformer.sections import completed, field_at, filled, made, plugin, plugin_names
from transformer.sharding import Mesh
from transformer.training.initialization import Initialization
from transformer.training.lora import LoRA
from transformer.training.optimizers import Optimizer
from transformer.training.options import Train

SECTIONS = ("model", "task", "optimizer", "train", "mesh")
# A config may leave these out; they then have their defaults.
OPTIONAL_SECTIONS = ("init", "lora")
# How `config.json` is written. Format 1, of runs that say none, had flat sections.
FORMAT = 2

_OWNERS: dict[str, type] = {
    "optimizer": Optimizer,
    "train": Train,
    "mesh": Mesh,
    "init": Initialization,
    "lora": LoRA,
}
_PACKAGES = {"model": models, "task": tasks}


def choices(kind: str) -> list[str]:
    """The names that `model` or `task` may have."""
    return plugin_names(_PACKAGES[kind])


@functools.cache
def owner(kind: str, name: str | None = None) -> type:
    """The dataclass whose fields a section holds.

    Args:
        kind: one of `SECTIONS` or `OPTIONAL_SECTIONS`.
        name: of the model or the task.

    Raises:
        ConfigError: if a model or task of this name does not exist.
    """
    if kind in _OWNERS:
        return _OWNERS[kind]
    return plugin(_PACKAGES[kind], str(name), f"config.{kind}.name")


def section(kind: str, name: str | None = None, /, **values: Any) -> ConfigDict:
    """All fields of a section with their defaults, `values` put in their place.

    Args:
        kind: one of `SECTIONS` or `OPTIONAL_SECTIONS`.
        name: for `model` and `task`, the file in `transformer/models` or `transformer/tasks`.
        **values: the fields that this experiment sets; a dict for a section inside of this one.

    Raises:
        ConfigError: if a value names no field of the owner, or a field without default has none.
    """
    result = filled(owner(kind, name), f"config.{kind}", values)
    if name:
        result.name = name
    return result


def build(kind: str, config: Mapping[str, Any] | ConfigDict) -> Any:
    """The owner of a section, made from the section's values and checked.

    Args:
        kind: one of `SECTIONS` or `OPTIONAL_SECTIONS`.
        config: the section, `config[kind]` of an experiment.

    Raises:
        ConfigError: for an unknown or missing key, a value of the wrong type, or whatever the
            owner's own `check` refuses.
    """
    values: dict[str, Any] = dict(config)
    name = values.pop("name", None)
    return made(owner(kind, name), f"config.{kind}", values)


def field_of(config: Any, key: str) -> Declared:
    """What is declared of a field of an experiment's config.

    Args:
        config: of the experiment.
        key: of a field that exists, such as `task.search.kind`.
    """
    kind, _, path = key.partition(".")
    name = config[kind].get("name") if kind in config else None
    return field_at(owner(kind, name), path)


def check_sections(config: ConfigDict) -> None:
    """Refuses a config with a section too many or too few.

    Raises:
        ConfigError: naming the section.
    """
    for key in config:
        if key not in SECTIONS + OPTIONAL_SECTIONS:
            raise ConfigError(unknown_name("config", key, SECTIONS + OPTIONAL_SECTIONS))
    for key in SECTIONS:
        if key not in config:
            raise ConfigError(f"config.{key} is missing; a config has {', '.join(SECTIONS)}.")
    for key in config:
        if not isinstance(config[key], ConfigDict):
            raise ConfigError(f"config.{key} is {shown(config[key])}: a section is expected.")


def with_optional_sections(config: ConfigDict) -> ConfigDict:
    """A copy that has the sections which a config may leave out."""
    config = config.copy_and_resolve_references()
    # A config that was loaded from the command line is locked.
    with config.unlocked():
        for key in OPTIONAL_SECTIONS:
            if key not in config:
                config[key] = section(key)
    return config


def saved_config(content: Mapping[str, Any]) -> ConfigDict:
    """The config of a run as it was saved, with the fields that have been added since.

    Args:
        content: of `config.json`; sections that are not known stay as they are.

    Raises:
        ValueError: if it was written by a later version of this project.
    """
    number = content.get("format", 1)
    if type(number) is not int or not 1 <= number <= FORMAT:
        raise ValueError(
            f"its format is {shown(number)}, and this version reads formats up to {FORMAT}"
        )
    result: dict[str, Any] = {}
    for kind, saved in content.items():
        if kind == "format":
            continue
        result[kind] = saved
        name = saved.get("name") if isinstance(saved, dict) else None
        try:
            belongs = owner(kind, name)
        except (ConfigError, KeyError):
            continue
        if isinstance(saved, dict):
            result[kind] = completed(belongs, saved)
    return ConfigDict(result)
