"""Limits of the values of config fields, given where a field is declared: `num_heads: Heads = 4`.

A limit is part of a field's annotation, `Annotated[int, Whole(1, 64)]`, or of an alias of one.
Python ignores it; `fields.checked` applies it to every value of a config before anything is built.
A limit that more than one file needs is defined here, or beside its table of names.
"""

import dataclasses
from collections.abc import Iterable, Sized
from typing import Annotated, Any, Protocol, runtime_checkable

import numpy as np

# Programs compute in float32, where larger numbers are infinite, and smaller ones 0.
_LARGEST, _SMALLEST = (float(getattr(np.finfo(np.float32), end)) for end in ("max", "tiny"))
# Programs count in int32.
MOST = 2**31 - 1
_IN_FLOAT32 = "a number that float32 holds"


@runtime_checkable
class Limit(Protocol):
    """A limit of the values of a field."""

    def refusal(self, value: Any) -> str | None:
        """The allowed values, as the end of the message "is VALUE: "; None if the value is allowed.

        Args:
            value: a value of the field's type.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Whole:
    """Whole numbers from `least` to `most`, and those in `also`.

    Attributes:
        least: the smallest.
        most: the largest.
        also: further values with a special meaning.
    """

    least: int
    most: int = MOST
    also: tuple[int, ...] = ()

    def refusal(self, value: int) -> str | None:
        """The allowed values, in words; None if the value is allowed."""
        if self.least <= value <= self.most or value in self.also:
            return None
        others = "".join(f"{other} or " for other in self.also)
        if self.most == MOST and value < self.least:
            return f"{others}at least {self.least}."
        return f"{others}from {self.least} to {self.most}."


@dataclasses.dataclass(frozen=True)
class Real:
    """Numbers between two ends, rounded to float32; never NaN, never infinite.

    Attributes:
        least: the lower end.
        most: the upper end.
        above: whether numbers must be above the lower end, not equal to it.
        below: whether numbers must be below the upper end, not equal to it.
    """

    least: float = 0.0
    most: float = _LARGEST
    above: bool = False
    below: bool = False

    def refusal(self, value: float) -> str | None:
        """The allowed values, in words; None if the value is allowed."""
        held = self._within(value) and (value == 0 or abs(value) >= _SMALLEST)
        # A number close to 1 is 1 in float32.
        if held and not (self.below and np.float32(value) >= np.float32(self.most)):
            return None
        return f"{self._ends()}."

    def _within(self, value: float) -> bool:
        after = self.least < value if self.above else self.least <= value
        return after and (value < self.most if self.below else value <= self.most)

    def _ends(self) -> str:
        if not self.above and not self.below and self.most < _LARGEST:
            return f"from {self.least:g} to {self.most:g}"
        lower = "any" if self.least == -_LARGEST else f"{self.least:g} or more"
        lower = f"above {self.least:g}" if self.above else lower
        upper = f"below {self.most:g}" if self.below else f"{self.most:g} at most"
        return f"{lower}, {_IN_FLOAT32 if self.most == _LARGEST else upper}"


class OneOf:
    """One of several names."""

    def __init__(self, names: Iterable[str]) -> None:
        """Takes names, or a table whose keys are names."""
        self.names = tuple(names)

    def refusal(self, value: str) -> str | None:
        """The allowed values, in words; None if the value is allowed."""
        return None if value in self.names else f"choose from {', '.join(sorted(self.names))}."


class Written:
    """A text, possibly empty, that can be written to a file."""

    def refusal(self, value: str) -> str | None:
        """The allowed values, in words; None if the value is allowed."""
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return "text that is UTF-8 is expected."
        return None


class Place:
    """The path of a file or folder, or empty; only its reader checks whether it exists."""

    def refusal(self, value: str) -> str | None:
        """The allowed values, in words; None if the value is allowed."""
        return "no path has a character 0." if "\0" in value else None


@dataclasses.dataclass(frozen=True)
class Several:
    """A tuple with a limited number of entries; the limit of each entry is that of its type.

    Attributes:
        most: the largest number of entries.
    """

    most: int

    def refusal(self, value: Sized) -> str | None:
        """The allowed values, in words; None if the value is allowed."""
        return None if len(value) <= self.most else f"{self.most} entries at most."


Count = Annotated[int, Whole(1)]
CountOrZero = Annotated[int, Whole(0)]
# Random keys drop the higher bits of numbers from 2**32 on.
Seed = Annotated[int, Whole(0, 2**32 - 1)]

# Sizes of models and batches: larger than any ever trained, and small enough to compute the memory
# that they need.
Layers = Annotated[int, Whole(1, 1000)]
Heads = Annotated[int, Whole(1, 1 << 14)]
Width = Annotated[int, Whole(1, 1 << 20)]
Length = Annotated[int, Whole(1, 1 << 24)]
BatchSize = Annotated[int, Whole(1, 1 << 16)]
Pixels = Annotated[int, Whole(1, 1 << 14)]
VocabSize = Annotated[int, Whole(1, 1 << 24)]
Token = Annotated[int, Whole(0, (1 << 24) - 1)]
# The tokens of the shortest row of a text encoder: its beginning, two tokens and its end.
LEAST_ROW = 4
# Different tokens that end a text, or that none may contain. Whisper never writes some 90.
MOST_IDS = 1000
TokenIds = Annotated[tuple[Token, ...], Several(MOST_IDS)]
Outputs = Annotated[int, Whole(1, 1 << 24)]

# Fractions that exclude 0 and 1; that include 1; that include 0; that include both.
Part = Annotated[float, Real(0.0, 1.0, above=True, below=True)]
PartOrAll = Annotated[float, Real(0.0, 1.0, above=True)]
PartOrNone = Annotated[float, Real(0.0, 1.0, below=True)]
Share = Annotated[float, Real(0.0, 1.0)]
Positive = Annotated[float, Real(0.0, above=True)]
Weight = Annotated[float, Real(0.0)]
AtLeastOne = Annotated[float, Real(1.0)]
AnyReal = Annotated[float, Real(-_LARGEST)]

Text = Annotated[str, Written()]
FilePath = Annotated[str, Place()]
