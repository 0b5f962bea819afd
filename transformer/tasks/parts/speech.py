"""What the task `transcription` needs of its models, as protocols.

In this file, T is the frames of a recording, M the numbers of a frame, R the vectors of the memory
(T divided by the model's stride and rounded up), U the tokens of a transcript.
"""

from typing import Protocol, runtime_checkable

from jaxtyping import Array, Float, Int, PyTree

from transformer.tasks.parts.models import HasOutputLayer, Model


@runtime_checkable
class SpeechReader(Model, Protocol):
    """Reads the frames of a recording.

    Attributes:
        num_features: M.
        source_stride: how many frames share one vector of the memory.
    """

    num_features: int | None

    @property
    def source_stride(self) -> int:
        """How many frames share one vector of the memory."""

    def encode(
        self, frames: Float[Array, "B T M"], segments: Int[Array, "B T"] | None = None
    ) -> Float[Array, "B R D"]:
        """The memory of recordings; `segments` is 1 at frames and 0 at padding."""

    def memory_lengths(self, num_frames: Int[Array, "B"]) -> Int[Array, "B"]:
        """How many vectors of the memory belong to recordings of these lengths."""


@runtime_checkable
class SpeechWriter(SpeechReader, HasOutputLayer, Protocol):
    """Writes the transcript of a recording, token by token."""

    def features(
        self, frames: Float[Array, "B T M"], target: Int[Array, "B U"], **layout: object
    ) -> Float[Array, "B U D"]:
        """The input of the output layer."""

    def written(
        self, memory: Float[Array, "B R D"], target: Int[Array, "B U"], **layout: object
    ) -> Float[Array, "B U D"]:
        """The same from the memory."""

    def decode(
        self, target: Int[Array, "B U"], *memory: object, **layout: object
    ) -> tuple[Float[Array, "B U D"], PyTree]:
        """The input of the output layer, and the cache."""

    def begun(
        self, target: Int[Array, "B U"], segments: Int[Array, "B U"] | None = None
    ) -> Int[Array, "B U"]:
        """The target with the begin token in front of it."""


@runtime_checkable
class SpeechAligner(SpeechReader, Protocol):
    """Gives each vector of the memory a token or none, for CTC (Graves et al. 2006)."""

    def aligned(self, memory: Float[Array, "B R D"]) -> Float[Array, "B R C"]:
        """Logits of the tokens, in float32: C is V + 1, the last is that of none."""
