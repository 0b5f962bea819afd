"""Sections of configs: dataclasses, whose values are checked before anything is built.

A config is an `ml_collections.ConfigDict` of sections. A section holds exactly the fields of its
owner, a dataclass (for a model: the Linen module itself), so there is no second list of keys to
keep in step, and no key without a reader. A field may itself be a dataclass: a section inside the
section, at any depth; or a part, whose fields stand beside those of its owner (`composition.py`).
`training/sections.py` lists the sections.
"""

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from types import MappingProxyType, ModuleType
from typing import TypeVar

from ml_collections import ConfigDict, config_dict

from transformer.composition import composed, config_fields, values_of
from transformer.errors import ConfigError
from transformer.fields import (
    Declared,
    as_declared,
    checked,
    declared,
    require_working,
    shown,
    unknown_name,
)
from transformer.types import Facts, Json

Owner = TypeVar("Owner")


def filled(belongs: type, where: str, given: Facts) -> ConfigDict:
    """A section with all fields of its owner: given values, and defaults for the rest.

    Args:
        belongs: the owner of the section.
        where: the section, such as `config.task`.
        given: values by field; inner sections may be partial.

    Returns:
        A ConfigDict. Fields that may be None become placeholders, so that they can be overridden
        on the command line.

    Raises:
        ConfigError: if a value names no field of the owner, or a field without default has none.
    """
    known = config_fields(belongs)
    require_known(belongs, where, given)
    result = ConfigDict()
    for key, field in known.items():
        value, kind = given.get(key, field.default), declared(belongs)[key]
        if value is dataclasses.MISSING:
            raise ConfigError(f"{where}.{key} has no default: give it a value.")
        if dataclasses.is_dataclass(kind.base):
            result[key] = filled(kind.base, f"{where}.{key}", _inside(where, key, value, field))
        elif kind.optional:
            result[key] = config_dict.placeholder(kind.base)
            if value is not None:
                result[key] = value
        else:
            result[key] = as_declared(value, kind.base)
    return result


def made(belongs: type[Owner], where: str, given: Facts) -> Owner:
    """Makes the owner of a section from the section's values, and checks it.

    Args:
        belongs: the owner of the section.
        where: the section, such as `config.task`.
        given: values of all fields; inner sections may be partial or missing.

    Raises:
        ConfigError: for an unknown or missing key, a value of the wrong type, or whatever the
            owner's own `check` refuses.
    """
    require_known(belongs, where, given)
    values: Json = {}
    for key, field in config_fields(belongs).items():
        kind, name = declared(belongs)[key], f"{where}.{key}"
        if dataclasses.is_dataclass(kind.base):
            inner = _inside(where, key, given.get(key, field.default), field)
            values[key] = made(kind.base, name, inner)
        elif key not in given:
            raise ConfigError(f"{name} is missing.")
        else:
            values[key] = checked(name, given[key], kind)
    result = composed(belongs, values)
    require_working(result)
    return result


def _inside(where: str, key: str, value: object, field: dataclasses.Field) -> Json:
    """The values of an inner section; missing values come from the field's default.

    Raises:
        ConfigError: if the value is not a section.
    """
    if dataclasses.is_dataclass(value):
        return values_of(value)
    if not isinstance(value, Mapping | ConfigDict):
        raise ConfigError(
            f"{where}.{key} is {shown(value)}: it is a section, whose fields are "
            f"{', '.join(config_fields(type(field.default)))}."
        )
    return values_of(field.default) | dict(value.items())


def completed(
    belongs: type, section: Facts, renamed: Mapping[str, str] = MappingProxyType({})
) -> Json:
    """Completes a saved section with fields added since, and turns lists into tuples.

    The default of a new field must be the behaviour before the field existed.

    Args:
        belongs: the owner of the section.
        section: the section as read from JSON; keys and values that do not fit stay as they are.
        renamed: new paths of renamed fields, such as `tokenizer.size`, by old name.
    """
    result = _moved(belongs, section, renamed)
    for key, field in config_fields(belongs).items():
        kind = declared(belongs)[key]
        if dataclasses.is_dataclass(kind.base):
            inner = result.get(key, {})
            if isinstance(inner, Mapping | ConfigDict):
                given = completed(kind.base, inner)
                result[key] = _plain(field.default) | given
        elif key not in result and field.default is not dataclasses.MISSING:
            result[key] = field.default
        elif kind.base is tuple and isinstance(result.get(key), list):
            result[key] = tuple(result[key])
    return result


def _plain(made: object) -> Json:
    """The values of a section and of those inside it, as in a config."""
    return {
        key: _plain(value) if dataclasses.is_dataclass(value) else value
        for key, value in values_of(made).items()
    }


def _moved(belongs: type, section: Facts, renamed: Mapping[str, str]) -> Json:
    """A section with fields moved into the inner sections where they are today."""
    known = config_fields(belongs)
    renamed = {key: path for key, path in renamed.items() if path in paths(belongs)}
    places = {path.rpartition(".")[2]: path for path in paths(belongs) if "." in path}
    result = dict(section)
    for key, value in section.items():
        inner = key in known and dataclasses.is_dataclass(declared(belongs)[key].base)
        path = renamed.get(key) or places.get(key)
        if path is None or (key in known and not inner) or isinstance(value, Mapping | ConfigDict):
            continue
        del result[key]
        put = result
        *above, last = path.split(".")
        for name in above:
            before = put.get(name)
            put[name] = dict(before) if isinstance(before, Mapping | ConfigDict) else {}
            put = put[name]
        put[last] = value
    return result


def require_known(belongs: type, where: str, given: Facts) -> None:
    """Refuses a section with a key that its owner does not have.

    Raises:
        ConfigError: with the nearest existing name, at any depth.
    """
    for key in given:
        if key not in config_fields(belongs):
            raise ConfigError(unknown_name(where, key, paths(belongs)))


@functools.cache
def paths(belongs: type) -> tuple[str, ...]:
    """The dotted paths of all fields of an owner and of the sections inside it."""
    found: list[str] = []
    for key, field in declared(belongs).items():
        found.append(key)
        if dataclasses.is_dataclass(field.base):
            found += (f"{key}.{inner}" for inner in paths(field.base))
    return tuple(found)


def field_at(belongs: type, path: str) -> Declared:
    """The declaration of a field, at any depth.

    Args:
        belongs: the owner of the section.
        path: the dotted path of the field.
    """
    key, _, rest = path.partition(".")
    field = declared(belongs)[key]
    return field_at(field.base, rest) if rest else field


def flattened(config: ConfigDict, prefix: str = "") -> Json:
    """All values by dotted keys; tuples become lists, as in JSON."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def plugin_names(package: ModuleType) -> list[str]:
    """The names of a package's files, each a plugin; folders are not plugins."""
    found = pkgutil.iter_modules(package.__path__)
    return sorted(module.name for module in found if not module.ispkg)


def plugin(package: ModuleType, name: str, where: str) -> type:
    """The class named like its file: `masked_lm.py` has `MaskedLM`.

    Args:
        package: `transformer.models` or `transformer.tasks`.
        name: the name of the file.
        where: the field that names it, such as `config.task.name`.

    Raises:
        ConfigError: if there is no such file, or no such class in it.
    """
    if name not in plugin_names(package):
        raise ConfigError(unknown_name(where, str(name), plugin_names(package)))
    module = importlib.import_module(f"{package.__name__}.{name}")
    wanted = name.replace("_", "")
    for key, value in vars(module).items():
        if key.lower() == wanted and isinstance(value, type):
            return value
    example = "".join(part.capitalize() for part in name.split("_"))
    raise ConfigError(
        f"{module.__file__} has no class {example}: {where}={name} stands for the class that has "
        f"the name of its file, without underscores, in upper or lower case."
    )


def plugins(package: ModuleType, where: str) -> Iterator[tuple[str, type]]:
    """The names and the classes of a package; arguments as in `plugin`."""
    for name in plugin_names(package):
        yield name, plugin(package, name, where)
