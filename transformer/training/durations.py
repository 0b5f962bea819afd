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
        """A duration in steps, rounded up.

        Args:
            duration: `"2000 steps"` or just `"2000"`, `"3 epochs"`, `"1e6 examples"`,
                `"2.5e9 tokens"`, or `"10%"` of the whole run. Singular units are understood.
            key: where it stands in the config, for the error message.
            total: steps of the whole run, for percentages.

        Raises:
            ConfigError: if it is not a duration.
        """
        match = _PATTERN.fullmatch(duration)
        unit = (match[2] or "steps") if match else ""
        if match and unit + "s" in _UNITS:
            unit += "s"
        if not match or unit not in _UNITS or (unit == "%" and total is None):
            raise ConfigError(
                f"config.{key} is {duration!r}, which is no duration: write a number and one of "
                f"steps, epochs, examples, tokens{'' if total is None else ', %'} "
                f'(for example "2000 steps").'
            )
        number = float(match[1])
        per_step = {
            "steps": 1.0,
            "epochs": self.examples_per_step / self.examples_per_epoch,
            "examples": self.examples_per_step,
            "tokens": self.tokens_per_step,
            "%": 100.0 / (total or 1),
        }
        # A hair less before rounding up: 10% of 2000 is 200 steps, not 201.
        return math.ceil(number / per_step[unit] - 1e-9)
