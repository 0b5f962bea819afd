"""Configs: sections owned by one dataclass each, checked before anything is built.

A config is an `ml_collections.ConfigDict` with the sections `model`, `task`, `optimizer`, `train`
and `mesh`, and where training begins from another run `init` and `lora`. Each section holds exactly
the fields of its owner, a dataclass (for a model: the Linen module itself), so there is no second
list of keys to keep in step and a key that nobody reads cannot exist.
"""

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from transformer.errors import ConfigError
from transformer.fields import (
    Declared,
    as_declared,
    checked,
    config_fields,
    declared,
    shown,
    unknown_name,
)

SECTIONS = ("model", "task", "optimizer", "train", "mesh")
# What a config may leave out; it then has the defaults.
OPTIONAL_SECTIONS = ("init", "lora")

# The dataclass behind each section that has just one.
_OWNERS = {
    "optimizer": ("transformer.training.optimizers", "Optimizer"),
    "train": ("transformer.training.options", "Train"),
    "mesh": ("transformer.sharding", "Mesh"),
    "init": ("transformer.training.initialization", "Initialization"),
    "lora": ("transformer.training.lora", "LoRA"),
}

# The package whose files are the choices for `name` in each section that has several.
_FAMILIES = {"model": "transformer.models", "task": "transformer.tasks"}


def section(kind: str, name: str | None = None, /, **values: Any) -> ConfigDict:
    """All fields of a section's owner with their defaults, `values` put in their place.

    Args:
        kind: one of `SECTIONS` or `OPTIONAL_SECTIONS`.
        name: for `model` and `task`, the file in `transformer/models` or `transformer/tasks`.
        **values: the fields that this experiment sets.

    Returns:
        A ConfigDict. Fields that may be None become placeholders, so that they can be overridden
        on the command line.

    Raises:
        ConfigError: if a value names no field of the owner, or a field without default has none.
    """
    belongs = owner(kind, name)
    known = config_fields(belongs)
    for key in values:
        if key not in known:
            raise ConfigError(unknown_name(f"config.{kind}", key, known))
    result = ConfigDict({"name": name} if name else {})
    for key, field in known.items():
        value = values.get(key, field.default)
        if value is dataclasses.MISSING:
            raise ConfigError(f"config.{kind}.{key} has no default: give it a value.")
        base = declared(belongs)[key].base
        if dataclasses.is_dataclass(base):
            if not (isinstance(value, Mapping | ConfigDict) or dataclasses.is_dataclass(value)):
                raise ConfigError(f"config.{kind}.{key} is {shown(value)}: a section of its own.")
            result[key] = _inner_section(base, value)
            continue
        if declared(belongs)[key].optional:
            result[key] = config_dict.placeholder(base)
            if value is not None:
                result[key] = value
        else:
            result[key] = as_declared(value, base)
    return result


def _inner_section(base: Any, value: Any) -> ConfigDict:
    """A section inside of one: its owner, or some of its fields, as another config has them."""
    if not dataclasses.is_dataclass(value):
        # Lists are what JSON has for tuples. Whoever builds it is told of fields that it has not.
        given = {name: tuple(x) if isinstance(x, list) else x for name, x in value.items()}
        return ConfigDict({**dataclasses.asdict(base()), **given})
    return ConfigDict(dataclasses.asdict(value))


def build(kind: str, config: ConfigDict, **extra: Any) -> Any:
    """The owner of a section, made from the section's values and checked.

    Args:
        kind: one of `SECTIONS` or `OPTIONAL_SECTIONS`.
        config: the section, `config[kind]` of an experiment.
        **extra: values that come from elsewhere (the data decides the size of the vocabulary).

    Raises:
        ConfigError: for an unknown or missing key, a value of the wrong type, or whatever the
            owner's own `check` refuses.
    """
    values: dict[str, Any] = dict(config)
    name = values.pop("name", None)
    belongs = owner(kind, name)
    known = config_fields(belongs)
    for key in values:
        if key not in known:
            raise ConfigError(unknown_name(f"config.{kind}", key, known))
    values.update(extra)
    return _made(belongs, kind, values)


def _made(belongs: type, where: str, values: dict[str, Any]) -> Any:
    """The owner made from all of its values, and checked."""
    for key in config_fields(belongs):
        if key not in values:
            raise ConfigError(f"config.{where}.{key} is missing.")
        field, name = declared(belongs)[key], f"{where}.{key}"
        if dataclasses.is_dataclass(field.base) and not isinstance(values[key], field.base):
            values[key] = _made_inside(field.base, name, values[key])
        else:
            values[key] = checked(f"config.{name}", values[key], field)
    made = belongs(**values)
    if hasattr(made, "check"):
        made.check()
    return made


def _made_inside(belongs: Any, where: str, given: Any) -> Any:
    """The owner of a section inside of one; what is left out has its default."""
    if not isinstance(given, Mapping | ConfigDict):
        raise ConfigError(f"config.{where} is {shown(given)}: a section of its own.")
    known = config_fields(belongs)
    for name in given:
        if name not in known:
            raise ConfigError(unknown_name(f"config.{where}", name, known))
    defaults = {name: field.default for name, field in known.items()}
    return _made(belongs, where, {**defaults, **dict(given)})


def variant_of(name: str, variants: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """The changes of a config's variant; none for the empty name.

    Raises:
        ConfigError: if there is no such variant.
    """
    if not name:
        return {}
    if name not in variants:
        raise ConfigError(unknown_name("the config", f"variant {name}", variants))
    return variants[name]


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
    """A copy that has the sections which a config may leave out, those inside others included."""
    config = config.copy_and_resolve_references()
    # Whoever loads a config from the command line locks it.
    with config.unlocked():
        for key in OPTIONAL_SECTIONS:
            if key not in config:
                config[key] = section(key)
        task: Any = config.get("task")
        fields = config_fields(owner("task", task.get("name"))) if task else {}
        for key, field in fields.items():
            if dataclasses.is_dataclass(field.default) and key not in task:
                task[key] = _inner_section(type(field.default), field.default)
    return config


def saved_config(content: Mapping[str, Any]) -> ConfigDict:
    """The config of a run as it was saved, with the fields that have been added since.

    The default of a field that comes later is what was done before there was one.

    Args:
        content: what JSON has, which knows no tuples; sections that are not known stay as they are.
    """
    result: dict[str, Any] = {}
    for kind, saved in content.items():
        name = saved.get("name") if isinstance(saved, dict) else None
        known = name in choices(kind) if kind in _FAMILIES else kind in _OWNERS
        result[kind] = saved
        if not known or not isinstance(saved, dict):
            continue
        belongs = owner(kind, name)
        result[kind] = {
            key: tuple(value)
            if isinstance(value, list)
            and key in config_fields(belongs)
            and declared(belongs)[key].base is tuple
            else value
            for key, value in saved.items()
        }
        for key, field in config_fields(belongs).items():
            if dataclasses.is_dataclass(field.default):
                inner = saved.get(key, field.default)
                if isinstance(inner, dict) or inner is field.default:
                    result[kind][key] = _inner_section(type(field.default), inner)
            elif key not in saved and field.default is not dataclasses.MISSING:
                result[kind][key] = field.default
    return ConfigDict(result)


def flattened(config: Any, prefix: str = "") -> dict[str, Any]:
    """All values by their keys with dots, tuples as the lists that JSON has for them."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def choices(kind: str) -> list[str]:
    """The names a section may have: the files of its package, not the folders."""
    package = importlib.import_module(_FAMILIES[kind])
    found = pkgutil.iter_modules(package.__path__)
    return sorted(module.name for module in found if not module.ispkg)


@functools.cache
def owner(kind: str, name: str | None) -> type:
    """The dataclass whose fields a section holds.

    Of a model or a task it is the class called like its file: `masked_lm.py` has `MaskedLM`.

    Raises:
        ConfigError: if a model or task of this name does not exist, or its file has no such class.
    """
    if kind in _OWNERS:
        module, attribute = _OWNERS[kind]
        return getattr(importlib.import_module(module), attribute)
    if name not in choices(kind):
        raise ConfigError(unknown_name(f"config.{kind}.name", str(name), choices(kind)))
    module = importlib.import_module(f"{_FAMILIES[kind]}.{name}")
    wanted = name.replace("_", "")
    for key, value in vars(module).items():
        if key.lower() == wanted and isinstance(value, type):
            return value
    example = "".join(part.capitalize() for part in name.split("_"))
    raise ConfigError(
        f"{module.__file__} has no class {example}: what config.{kind}.name={name} stands for is "
        f"the class that is called like its file, without underscores, in upper or lower case."
    )


def field_of(kind: str, name: str | None, key: str) -> Declared:
    """What is declared of a field of a section."""
    return declared(owner(kind, name))[key]
