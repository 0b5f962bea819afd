"""Numbers of a config that compiled programs take as arguments.

If they were constants, a program would be compiled again for every learning rate. Such fields are
annotated as `Number`, or as `NumberOrOff` if zero leaves out a part of the program and is therefore
a constant.
"""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Annotated, TypeVar

from jaxtyping import AbstractArray, Array, Float

from transformer.composition import parts, value_of, with_fields
from transformer.limits import Real

# A float in a config; an array while a program is traced.
Number = float | Float[Array, ""]
Owner = TypeVar("Owner")
_OFF = "zero is a constant"
NumberOrOff = Annotated[Number, _OFF]

# The same with limits: below 1, or any finite float32.
Rate = Annotated[Number, Real(0.0, 1.0, below=True)]
RateOrOff = Annotated[NumberOrOff, Real(0.0, 1.0, below=True)]
Amount = Annotated[Number, Real(0.0)]
AmountOrOff = Annotated[NumberOrOff, Real(0.0)]


def is_zero(number: Number) -> bool:
    """Whether a number is the constant zero; arguments of a program never are."""
    return isinstance(number, int | float) and number == 0


def is_number(hint: object) -> bool:
    """Whether a type hint is `Number` or `NumberOrOff`."""
    if typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    kinds = typing.get_args(hint)
    return any(isinstance(kind, type) and issubclass(kind, AbstractArray) for kind in kinds)


def traced_fields(made: object) -> dict[str, float]:
    """The numbers of a section that a program takes as arguments, by field.

    Args:
        made: an instance whose fields are plain values, as in a config.

    Returns:
        Numbers by name, those of inner sections by names such as `inner.name`.
    """
    found: dict[str, float] = {}
    for name, hint in typing.get_type_hints(type(made), include_extras=True).items():
        value = getattr(made, name, None)
        if is_number(hint):
            if value != 0 or _OFF not in typing.get_args(hint)[1:]:
                found[name] = value
        elif name in parts(type(made)):
            found |= traced_fields(value)
        elif dataclasses.is_dataclass(hint):
            inner = traced_fields(value)
            found |= {f"{name}.{key}": number for key, number in inner.items()}
    return found


def with_numbers(made: Owner, numbers: Mapping[str, Number]) -> Owner:
    """Replaces numbers of a section, with names as in `traced_fields`."""
    changes: dict[str, object] = {}
    inner: dict[str, dict[str, Number]] = {}
    for name, number in numbers.items():
        section, dot, key = name.partition(".")
        if dot:
            inner.setdefault(section, {})[key] = number
        else:
            changes[name] = number
    changes |= {name: with_numbers(value_of(made, name), of) for name, of in inner.items()}
    return with_fields(made, **changes)
