"""Numbers of a config that compiled programs take as arguments.

A program in which they are constants would be compiled again for every learning rate. Which fields
are such numbers is said where they are declared: their annotation is `Number`, or `NumberOrOff`
where zero leaves out a part of the program and is therefore a constant.
"""

import typing
from typing import Annotated, Any

from jaxtyping import AbstractArray, Array, Float

from transformer.limits import Real

# A float in a config; an array while a program is traced.
Number = float | Float[Array, ""]
_OFF = "zero is a constant"
NumberOrOff = Annotated[Number, _OFF]

# With their limits: below 1, or as much as float32 holds.
Rate = Annotated[Number, Real(0.0, 1.0, below=True)]
RateOrOff = Annotated[NumberOrOff, Real(0.0, 1.0, below=True)]
Amount = Annotated[Number, Real(0.0)]
AmountOrOff = Annotated[NumberOrOff, Real(0.0)]


def is_zero(number: Number) -> bool:
    """Whether a number is the constant zero; what is an argument of the program never is."""
    return isinstance(number, int | float) and number == 0


def is_number(hint: Any) -> bool:
    """Whether a type hint is `Number` or `NumberOrOff`."""
    if typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    kinds = typing.get_args(hint)
    return any(isinstance(kind, type) and issubclass(kind, AbstractArray) for kind in kinds)


def traced_fields(made: Any) -> dict[str, float]:
    """The numbers of a dataclass that a program takes as arguments, by field.

    Args:
        made: an instance whose fields are plain values, as a config has them.
    """
    hints = typing.get_type_hints(type(made), include_extras=True)
    values = {name: getattr(made, name) for name, hint in hints.items() if is_number(hint)}
    off = {name for name in values if _OFF in typing.get_args(hints[name])[1:]}
    return {name: value for name, value in values.items() if name not in off or value != 0}
