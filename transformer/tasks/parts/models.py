"""What training needs of every model, and each kind of task of its models, as protocols.

A task names its protocol as `model_kind`, and any model that implements it fits. Shapes and
meanings are documented with the models: `nn/decoder.py`, `nn/encoder_decoder.py`, `models/bert.py`,
`models/vit.py`.
"""

from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from transformer.nn.compute import Compute
from transformer.traced import Number
from transformer.types import Boxed


@runtime_checkable
class Model(Protocol):
    """A Linen module of `transformer/models`: its fields are `config.model`."""

    dropout_rate: Number
    compute: Compute

    def init(self, rngs: jax.Array, *inputs: Any, method: str) -> dict[str, Boxed]:
        """Collections of variables; `params` are the parameters."""
        ...

    def clone(self, **fields: Any) -> "Model":
        """The same model with other values in some fields."""
        ...

    def chosen_attention(self, *inputs: Any) -> str:
        """The implementation that training uses for such inputs.

        Raises:
            ConfigError: if the implementation that the config asks for does not support it.
        """
        ...


@runtime_checkable
class HasHeads(Protocol):
    """A model with modules for only some tasks; `LABEL_HEADS` are those that output labels."""

    HEADS: ClassVar[tuple[str, ...]]
    LABEL_HEADS: ClassVar[tuple[str, ...]]


@runtime_checkable
class Refits(Protocol):
    """A model that can be initialized from one with other values in the fields `ADAPTABLE`."""

    ADAPTABLE: ClassVar[tuple[str, ...]]

    def refit(
        self, path: str, saved: Float[Array, "..."] | Float[np.ndarray, "..."]
    ) -> Float[Array, "..."] | Float[np.ndarray, "..."]:
        """Adapts a parameter of the other model, by path, to this one."""
        ...


@runtime_checkable
class HasExperts(Protocol):
    """A model in which each token uses only a few experts."""

    experts_per_token: int


@runtime_checkable
class TextDecoder(Protocol):
    """Predicts the next token of a text."""

    context: int

    def features(self, tokens: Int[Array, "B T"], **layout: Any) -> Any:
        """The input of the output layer, and the cache."""
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
        """The memory that the decoder attends to."""
        ...

    def decode(self, target: Int[Array, "B T"], *memory: Any, **layout: Any) -> Any:
        """The input of the output layer, and the cache."""
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
