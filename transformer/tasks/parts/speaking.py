"""What a task must do so that `scripts/speak.py` speaks with its models."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from transformer.tasks.parts.models import Model
from transformer.types import Params


class Sound(NamedTuple):
    """A sound.

    Attributes:
        samples: from -1 to 1.
        rate: samples a second.
    """

    samples: Float32[np.ndarray, " n"]
    rate: int


@dataclasses.dataclass(frozen=True)
class Wish:
    """How a user wants a text to be spoken; None is as the run says.

    Attributes:
        voice: the name of the voice.
        temperature: divides the logits of codes; 0 takes the most probable code.
        seed: of the random choices.
    """

    voice: str | None = None
    temperature: float | None = None
    seed: int = 0


@runtime_checkable
class Speaks(Protocol):
    """A task whose models speak."""

    def speak(
        self, model: Model, params: Params, workdir: Path, texts: Sequence[str], wish: Wish
    ) -> list[Sound]:
        """The sound of each text.

        Args:
            model: the model.
            params: its parameters.
            workdir: the folder of the run.
            texts: what is to be said.
            wish: how.

        Raises:
            DataError: if a text has a word that the model does not know.
            ConfigError: if there is no such voice.
        """
        ...
