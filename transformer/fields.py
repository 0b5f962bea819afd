"""Fields of config sections: their types, their limits, and the check of both."""

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Iterable
from typing import Annotated

from transformer.composition import config_fields, parts, value_of
from transformer.errors import ConfigError
from transformer.limits import Limit
from transformer.traced import is_number

# Messages show at most this many characters of a value.
_SHOWN = 100


@dataclasses.dataclass(frozen=True)
class Declared:
    """The contents of a field's annotation.

    Attributes:
        base: its plain type: `int`, `float`, `bool`, `str`, `tuple`, or a dataclass.
        optional: whether it may be None.
        limits: limits of its values, as in `transformer.limits`.
        entry: for a tuple, the declaration of its entries.
    """

    base: type
    optional: bool = False
    limits: tuple[Limit, ...] = ()
    entry: "Declared | None" = None


@typing.runtime_checkable
class Checks(typing.Protocol):
    """The owner of a section that refuses values which cannot work together."""

    def check(self) -> None:
        """Refuses such values.

        Raises:
            ConfigError: naming the fields.
        """
        ...


@functools.cache
def declared(owner: type) -> dict[str, Declared]:
    """The declaration of each field of a dataclass that a config may set."""
    hints = typing.get_type_hints(owner, include_extras=True)
    found = {name: of for part in parts(owner).values() for name, of in declared(part).items()}
    return {name: found.get(name) or _declared(hints[name]) for name in config_fields(owner)}


def _declared(hint: object) -> Declared:
    limits: tuple[Limit, ...] = ()
    if typing.get_origin(hint) is Annotated:
        hint, *notes = typing.get_args(hint)
        limits = tuple(note for note in notes if isinstance(note, Limit))
    if is_number(hint):
        return Declared(float, limits=limits)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (base,) = (arg for arg in typing.get_args(hint) if arg is not type(None))
        inner = _declared(base)
        return dataclasses.replace(inner, optional=True, limits=(*inner.limits, *limits))
    if typing.get_origin(hint) is tuple:
        return Declared(tuple, limits=limits, entry=_declared(typing.get_args(hint)[0]))
    return Declared(hint, limits=limits)


def checked(where: str, value: object, field: Declared) -> object:
    """Checks a value and converts it to its field's type: an integer to a float, a list to a tuple.

    Args:
        where: the field, such as `config.model.num_heads`.
        value: the value of the field.
        field: the declaration of the field.

    Raises:
        ConfigError: naming the field and the values that it allows.
    """
    if value is None and field.optional:
        return None
    beside = " or nothing" if field.optional else ""
    plain = as_declared(value, field.base)
    if type(plain) is not field.base:
        raise ConfigError(
            f"{where} is {shown(value)} ({type(value).__name__}): expected "
            f"{field.base.__name__}{beside}."
        )
    if field.entry is not None:
        of_one = f"{where} is {shown(plain)}, of which one"
        plain = tuple(checked(of_one, one, field.entry) for one in plain)
    for limit in field.limits:
        allowed = limit.refusal(plain)
        if allowed is not None:
            beside = f"{allowed[:-1]}, or nothing." if field.optional else allowed
            raise ConfigError(f"{where} is {shown(plain)}: {beside}")
    return plain


def as_declared(value: object, base: type) -> object:
    """Converts an integer to a float, and a list to a tuple, if the declared type asks for it."""
    if base is float and type(value) is int:
        # An integer beyond the range of floats is refused as an infinite float.
        return float(value) if abs(value) < 2**1023 else float("inf")
    if base is tuple and type(value) is list:
        return tuple(value)
    return value


def require_allowed(section: str, made: object) -> None:
    """Refuses the owner of a section if a field's value is not allowed or its own check fails.

    Owners made by `config.build` have been checked; this is for others.

    Args:
        section: the section, such as `model`, for the message.
        made: the owner.

    Raises:
        ConfigError: naming the field.
    """
    for name, field in declared(type(made)).items():
        value = value_of(made, name)
        if dataclasses.is_dataclass(field.base):
            require_allowed(f"{section}.{name}", value)
        else:
            checked(f"config.{section}.{name}", value, field)
    require_working(made)


def require_working(made: object) -> None:
    """Refuses the owner of a section if its own check fails, or that of one of its parts.

    Raises:
        ConfigError: naming the fields.
    """
    for holder in parts(type(made)):
        require_working(getattr(made, holder))
    if isinstance(made, Checks):
        made.check()


def shown(value: object) -> str:
    """A value for a message, shortened if it is long."""
    try:
        text = repr(value)
    except ValueError:
        # Raised for integers with more digits than Python converts to text.
        if not isinstance(value, int):
            return f"a {type(value).__name__} with a very large number"
        return f"a whole number of {value.bit_length():,} bits"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def unknown_name(where: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that does not exist, with the nearest one that does.

    Args:
        where: the place that has no such name.
        name: the name that was given.
        known: names that exist; `augmentation.mixup` is a name inside the section `augmentation`.
    """
    known = list(known)
    # A name is compared with whole names and with their last parts; the shortest name wins.
    places = {path.rpartition(".")[2]: path for path in sorted(known, key=len, reverse=True)}
    places |= {path: path for path in known}
    # Very long names have no near matches.
    near = difflib.get_close_matches(str(name)[:_SHOWN], places, n=1, cutoff=0.5)
    first = sorted(path for path in known if "." not in path)
    hint = f'did you mean "{places[near[0]]}"?' if near else f"choose from {', '.join(first)}."
    short = name if len(str(name)) <= _SHOWN else f"{str(name)[:_SHOWN]}..."
    return f'{where} has no "{short}": {hint}'
