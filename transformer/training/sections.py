"""The sections of an experiment's config, and the dataclass that owns each.

A config has the sections `model`, `task`, `optimizer`, `train` and `mesh`; and `init` and `lora` if
training begins from another run. `name` chooses the model and the task: the name of a file in
`transformer/models` or `transformer/tasks`.
"""

import functools
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
from transformer.types import Facts, Json

SECTIONS = ("model", "task", "optimizer", "train", "mesh")
# A config may leave these sections out; they then have their defaults.
OPTIONAL_SECTIONS = ("init", "lora")
# The format of `config.json`. Format 1 had flat sections and did not store a format number.
FORMAT = 2
# Fields of tasks that were renamed since format 1, besides those that only moved to a section.
RENAMED = {
    "tokenizer": "tokenizer.kind",
    "bpe_vocab_size": "tokenizer.size",
    "vocab_size": "tokenizer.size",
}

_OWNERS: dict[str, type] = {
    "optimizer": Optimizer,
    "train": Train,
    "mesh": Mesh,
    "init": Initialization,
    "lora": LoRA,
}
_PACKAGES = {"model": models, "task": tasks}


def choices(kind: str) -> list[str]:
    """The valid names of `model` or `task`."""
    return plugin_names(_PACKAGES[kind])


@functools.cache
def owner(kind: str, name: str | None = None) -> type:
    """The dataclass whose fields a section holds.

    Args:
        kind: one of `SECTIONS` or `OPTIONAL_SECTIONS`.
        name: the name of the model or the task.

    Raises:
        ConfigError: if a model or task of this name does not exist.
    """
    if kind in _OWNERS:
        return _OWNERS[kind]
    return plugin(_PACKAGES[kind], str(name), f"config.{kind}.name")


def section(kind: str, name: str | None = None, /, **values: object) -> ConfigDict:
    """All fields of a section with their defaults, overridden by `values`.

    Args:
        kind: one of `SECTIONS` or `OPTIONAL_SECTIONS`.
        name: for `model` and `task`, the file in `transformer/models` or `transformer/tasks`.
        **values: the fields that this experiment sets; a dict for a nested section.

    Raises:
        ConfigError: if a value names no field of the owner, or a field without default is missing.
    """
    result = filled(owner(kind, name), f"config.{kind}", values)
    if name:
        result.name = name
    return result


def build(kind: str, config: Facts | ConfigDict) -> Any:
    """Builds the owner of a section from the section's values and checks it.

    Args:
        kind: one of `SECTIONS` or `OPTIONAL_SECTIONS`.
        config: the section, `config[kind]` of an experiment.

    Raises:
        ConfigError: for an unknown or missing key, a value of the wrong type, or a value that the
            owner's `check` refuses.
    """
    values: Json = dict(config)
    name = values.pop("name", None)
    return made(owner(kind, name), f"config.{kind}", values)


def field_of(config: ConfigDict, key: str) -> Declared:
    """The declaration of a field of an experiment's config.

    Args:
        config: the config of the experiment.
        key: the key of an existing field, such as `task.search.kind`.
    """
    kind, _, path = key.partition(".")
    name = config[kind].get("name") if kind in config else None
    return field_at(owner(kind, name), path)


def check_sections(config: ConfigDict) -> None:
    """Refuses a config with unknown or missing sections.

    Raises:
        ConfigError: names the section.
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
    """A copy of a config with the optional sections added."""
    config = config.copy_and_resolve_references()
    # A config loaded from the command line is locked.
    with config.unlocked():
        for key in OPTIONAL_SECTIONS:
            if key not in config:
                config[key] = section(key)
    return config


def saved_config(content: Facts) -> ConfigDict:
    """The config of a saved run, with defaults for fields added since.

    Args:
        content: the content of `config.json`; unknown sections are kept unchanged.

    Raises:
        ValueError: if a later version of this project wrote it.
    """
    number = content.get("format", 1)
    if type(number) is not int or not 1 <= number <= FORMAT:
        raise ValueError(
            f"its format is {shown(number)}, and this version reads formats up to {FORMAT}"
        )
    result: Json = {}
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
            result[kind] = completed(belongs, saved, RENAMED if kind == "task" else {})
        # The default True of format 1 is None today, with the same meaning.
        if number == 1 and kind == "task" and saved.get("lowercase") is True:
            result[kind]["tokenizer"]["lowercase"] = None
    return ConfigDict(result)
