"""Durations written as people think of them: steps, epochs, examples or tokens."""

import dataclasses
import math
import re

from transformer.errors import ConfigError

_UNITS = ("steps", "epochs", "examples", "tokens", "%")
_PATTERN = re.compile(r"\s*([0-9][0-9_]*\.?[0-9]*(?:[eE][+-]?[0-9]+)?)\s*([a-z]+|%)?\s*")


@dataclasses.dataclass(frozen=True)
class Clock:
    """What it takes to turn durations into steps.

    Attributes:
        examples_per_step: examples per step.
        tokens_per_step: tokens per step.
        examples_per_epoch: examples in one pass over the data.
    """

    examples_per_step: float
    tokens_per_step: float
    examples_per_epoch: int

    def steps(self, duration: str, *, key: str, total: int | None = None) -> int:
        """A duration in steps, rounded up; no time at all is 0 steps, and nothing else is.

        Args:
            duration: `"2000 steps"` or just `"2000"`, `"3 epochs"`, `"1e6 examples"`,
                `"2.5e9 tokens"`, or `"10%"` of the whole run. Singular units are understood.
            key: where it stands in the config, for the error message.
            total: steps of the whole run, for percentages.

        Raises:
            ConfigError: if it is not a duration.
        """
        number, unit = _parsed(duration, key, percent=total is not None)
        per_step = {
            "steps": 1.0,
            "epochs": self.examples_per_step / self.examples_per_epoch,
            "examples": self.examples_per_step,
            "tokens": self.tokens_per_step,
            "%": 100.0 / (total or 1),
        }
        # A hair less before rounding up: 10% of 2000 is 200 steps, not 201.
        return max(math.ceil(number / per_step[unit] - 1e-9), int(number > 0))


def require_some_time(duration: str, *, key: str) -> None:
    """Refuses what is no duration, and no time at all.

    Raises:
        ConfigError: naming the field.
    """
    if not _parsed(duration, key, percent=True)[0]:
        raise ConfigError(f"config.{key} is {duration!r}: give more than 0, one step at least.")


def _parsed(duration: str, key: str, *, percent: bool) -> tuple[float, str]:
    """Number and unit of a duration; `percent` says whether there is a whole to have a part of."""
    match = _PATTERN.fullmatch(duration)
    unit = (match[2] or "steps") if match else ""
    if unit + "s" in _UNITS:
        unit += "s"
    known = unit in _UNITS and (percent or unit != "%")
    if not match or not known or not math.isfinite(float(match[1])):
        raise ConfigError(
            f"config.{key} is {duration!r}, which is no duration: write a number and one of "
            f"steps, epochs, examples, tokens{', %' if percent else ''} "
            f'(for example "2000 steps").'
        )
    return float(match[1]), unit
