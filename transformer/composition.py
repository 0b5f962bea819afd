"""Sections that are made of parts, whose fields stand beside one another in a config.

A field annotated as `Annotated[Part, FLAT]` holds a dataclass, and a config writes the fields of
that dataclass where it would write the field: with `rows: Annotated[FixedRows, FLAT]` a task has
`rows.batch_size` in code, and `config.task.batch_size` in a config. So classes are composed of
parts, and flags stay short. Parts may have parts.
"""

import copy
import dataclasses
import functools
import typing
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, TypeVar

Owner = TypeVar("Owner")
FLAT = "the fields of this part stand beside those of its owner"


@functools.cache
def parts(owner: type) -> Mapping[str, type]:
    """The classes of an owner's parts, by the field that holds the part."""
    found: dict[str, type] = {}
    for name, hint in typing.get_type_hints(owner, include_extras=True).items():
        if typing.get_origin(hint) is Annotated and FLAT in typing.get_args(hint)[1:]:
            found[name] = typing.get_args(hint)[0]
    return MappingProxyType(found)


@functools.cache
def config_fields(owner: type) -> Mapping[str, dataclasses.Field]:
    """The fields of a dataclass that a config may set, those of its parts included.

    Args:
        owner: a dataclass; of a Linen module all fields count but Flax's own.

    Returns:
        The fields by name, in order. The default of a part's field is the one that the owner gives.

    Raises:
        TypeError: if two parts have a field of the same name, or a part has no default.
    """
    found: dict[str, dataclasses.Field] = {}
    for field in dataclasses.fields(owner):
        if not field.init or field.name in ("parent", "name"):
            continue
        part = parts(owner).get(field.name)
        if part is not None and field.default is dataclasses.MISSING:
            raise TypeError(f"{owner.__name__}.{field.name} is a part: give it a default.")
        new = {field.name: field} if part is None else _fields_of(part, field.default)
        if twice := found.keys() & new.keys():
            raise TypeError(f"{owner.__name__} has two fields named {', '.join(sorted(twice))}.")
        found |= new
    return MappingProxyType(found)


def _fields_of(part: type, default: object) -> dict[str, dataclasses.Field]:
    """The fields of a part, with the defaults that its owner gives."""
    found: dict[str, dataclasses.Field] = {}
    for name, field in config_fields(part).items():
        found[name] = copy.copy(field)
        found[name].default = value_of(default, name)
    return found


@functools.cache
def _holders(owner: type) -> Mapping[str, str]:
    """The field that holds the part, by the names of the fields of all parts."""
    found = {name: holder for holder, part in parts(owner).items() for name in config_fields(part)}
    return MappingProxyType(found)


def value_of(made: object, name: str) -> object:
    """The value of a field, by its name in a config."""
    holder = _holders(type(made)).get(name)
    return getattr(made, name) if holder is None else value_of(getattr(made, holder), name)


def values_of(made: object) -> dict[str, object]:
    """The values of all fields, by their names in a config."""
    return {name: value_of(made, name) for name in config_fields(type(made))}


def composed(owner: type[Owner], values: Mapping[str, object]) -> Owner:
    """Makes an owner and its parts.

    Args:
        owner: the class.
        values: a value for every field, by its name in a config.
    """
    held: dict[str, dict[str, object]] = {holder: {} for holder in parts(owner)}
    given: dict[str, object] = {}
    for name, value in values.items():
        held.get(_holders(owner).get(name, ""), given)[name] = value
    made = {holder: composed(parts(owner)[holder], inner) for holder, inner in held.items()}
    return owner(**given, **made)


def with_fields(made: Owner, **fields: object) -> Owner:
    """A copy with other values in some fields, by their names in a config."""
    holders = _holders(type(made))
    held: dict[str, dict[str, object]] = {}
    changes: dict[str, object] = {}
    for name, value in fields.items():
        inner = held.setdefault(holders[name], {}) if name in holders else changes
        inner[name] = value
    changes |= {name: with_fields(getattr(made, name), **inner) for name, inner in held.items()}
    return dataclasses.replace(made, **changes)  # pyright: ignore
