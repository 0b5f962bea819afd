"""Durations in steps, epochs, examples or tokens."""

import dataclasses
import math
import re
from typing import Annotated

from transformer.errors import ConfigError
from transformer.fields import shown

_UNITS = ("steps", "epochs", "examples", "tokens", "%")
_PATTERN = re.compile(r"\s*([0-9]+(?:_[0-9]+)*(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)\s*([a-z]+|%)?\s*")
# More tokens than any text has.
_LONGEST = 1e18


@dataclasses.dataclass(frozen=True)
class Lasts:
    """The constraint on a duration; `Clock.steps` describes the notation.

    Attributes:
        some: whether it must be greater than 0.
        of_run: whether it may be a percentage of the run.
    """

    some: bool = True
    of_run: bool = True

    def refusal(self, value: str) -> str | None:
        """What is allowed instead; None if the value is allowed."""
        number, unit = _parsed(value)
        if unit not in _UNITS or (unit == "%" and not self.of_run):
            units = "steps, epochs, examples, tokens" + (", %" if self.of_run else "")
            return f'no duration; write a number and one of {units} (for example "2000 steps").'
        if unit == "%" and number > 100:
            return "of the run, 100% at most."
        if not number <= _LONGEST:
            return f"{_LONGEST:g} at most, of whatever unit."
        if self.some and not number:
            return "give more than 0, one step at least."
        return None


# The length of the run; the interval of repeated actions; the length of the warmup.
Duration = Annotated[str, Lasts(of_run=False)]
Interval = Annotated[str, Lasts()]
Warmup = Annotated[str, Lasts(some=False)]


@dataclasses.dataclass(frozen=True)
class Clock:
    """Converts durations to steps.

    Attributes:
        examples_per_step: examples per step.
        tokens_per_step: tokens per step.
        examples_per_epoch: examples in one pass over the data.
    """

    examples_per_step: float
    tokens_per_step: float
    examples_per_epoch: int

    def steps(self, duration: str, *, key: str, total: int | None = None) -> int:
        """A duration in steps, rounded up; only a duration of 0 is 0 steps.

        Args:
            duration: `"2000 steps"` or just `"2000"`, `"3 epochs"`, `"1e6 examples"`,
                `"2.5e9 tokens"`, or `"10%"` of the whole run. Singular units are understood.
            key: its key in the config, for the error message.
            total: steps of the whole run, needed for percentages.

        Raises:
            ConfigError: if it is not a duration.
        """
        problem = Lasts(some=False, of_run=total is not None).refusal(duration)
        if problem is not None:
            raise ConfigError(f"config.{key} is {shown(duration)}: {problem}")
        number, unit = _parsed(duration)
        per_step = {
            "steps": 1.0,
            "epochs": self.examples_per_step / self.examples_per_epoch,
            "examples": self.examples_per_step,
            "tokens": self.tokens_per_step,
            "%": 100.0 / (total or 1),
        }
        # Subtract a little before rounding up: 10% of 2000 is 200 steps, not 201.
        return max(math.ceil(number / per_step[unit] - 1e-9), int(number > 0))


def _parsed(duration: str) -> tuple[float, str]:
    """Number and unit of a duration; the unit is empty if the text is not a duration."""
    match = _PATTERN.fullmatch(duration)
    if match is None:
        return 0.0, ""
    unit = match[2] or "steps"
    return float(match[1]), f"{unit}s" if f"{unit}s" in _UNITS else unit
