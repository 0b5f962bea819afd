"""What tasks ask of models: one protocol for each kind of job.

A task names its protocol as `model_kind`, and a model of any architecture fits that keeps it.
Shapes and meanings stand where the models are: `nn/decoder.py`, `nn/encoder_decoder.py`,
`models/bert.py`, `models/vit.py`.
"""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Float, Int


@runtime_checkable
class TextDecoder(Protocol):
    """Predicts the next token of a text."""

    context: int

    def features(self, tokens: Int[Array, "B T"], **layout: Any) -> Any:
        """What the output layer is applied to, and the cache."""
        ...

    def loss_scales(self) -> dict[str, float]:
        """The weights of auxiliary losses, by name."""
        ...

    def empty_cache(self, batch_size: int, length: int) -> Any:
        """A cache without entries."""
        ...


@runtime_checkable
class SequenceToSequence(Protocol):
    """Reads one sequence and predicts another."""

    def encode(self, source: Int[Array, "B S"], **layout: Any) -> Any:
        """What the decoder attends to."""
        ...

    def decode(self, target: Int[Array, "B T"], *memory: Any, **layout: Any) -> Any:
        """What the output layer is applied to, and the cache."""
        ...

    def begun(self, target: Int[Array, "B T"], segments: Int[Array, "B T"] | None = None) -> Any:
        """The target with the begin token in front of each of its texts."""
        ...


@runtime_checkable
class TextTagger(Protocol):
    """Gives outputs for each token of a text."""

    context: int

    def tag(self, tokens: Int[Array, "B T"], *row: Any) -> Float[Array, "B T c"]:
        """Logits of each token."""
        ...


@runtime_checkable
class TextClassifier(Protocol):
    """Gives outputs for a text or a pair of texts."""

    context: int

    def classify(self, tokens: Int[Array, "B T"], *row: Any) -> Float[Array, "B c"]:
        """Logits of each row."""
        ...


@runtime_checkable
class TokenFiller(Protocol):
    """Predicts masked tokens."""

    context: int

    def fill(self, tokens: Int[Array, "B T"], *row: Any) -> Float[Array, "B M V"]:
        """Logits of the masked tokens."""
        ...


@runtime_checkable
class SentencePretrainer(Protocol):
    """Predicts masked tokens, and whether a sentence follows another."""

    context: int

    def pretrain(self, tokens: Int[Array, "B T"], *row: Any) -> Any:
        """Logits of the masked tokens and of the pair."""
        ...


@runtime_checkable
class TextEncoder(Protocol):
    """Turns a text into vectors."""

    context: int

    def pooled(self, features: Float[Array, "B T D"]) -> Float[Array, "B D"]:
        """One vector for each row."""
        ...


@runtime_checkable
class ImageClassifier(Protocol):
    """Gives outputs for an image."""

    image_size: int

    def classify(self, images: Float[Array, "B Y X C"]) -> Float[Array, "B c"]:
        """Logits of each image."""
        ...


@runtime_checkable
class ImageReconstructor(Protocol):
    """Reconstructs patches of an image from the others."""

    image_size: int

    def reconstruct(self, images: Float[Array, "B Y X C"], *parts: Any) -> Any:
        """The pixels of all patches."""
        ...
