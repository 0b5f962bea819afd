"""What training needs of every model, and each kind of task of its models, as protocols.

A task names its protocol as `model_kind`, and any model that implements it fits. Shapes and
meanings are documented with the models: `nn/decoder.py`, `nn/encoder_decoder.py`, `models/bert.py`,
`models/vit.py`.
"""

from typing import ClassVar, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from transformer.nn.compute import Compute
from transformer.traced import Number
from transformer.types import Boxed, Params


@runtime_checkable
class Model(Protocol):
    """A Linen module of `transformer/models`: its fields are `config.model`."""

    dropout_rate: Number
    compute: Compute

    def init(self, rngs: jax.Array, *inputs: object, method: str) -> dict[str, Boxed]:
        """Collections of variables; `params` are the parameters."""

    def apply(self, variables: dict[str, Params], *inputs: object, **options: object) -> PyTree:
        """What a method of the model returns with these parameters; see Flax's `Module.apply`."""

    def clone(self, **fields: object) -> "Model":
        """The same model with other values in some fields."""

    def chosen_attention(self, *inputs: object) -> str:
        """The implementation that training uses for such inputs.

        Raises:
            ConfigError: if the implementation that the config asks for does not support it.
        """


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


@runtime_checkable
class HasContext(Protocol):
    """A model of sequences up to a length."""

    context: int


@runtime_checkable
class HasVocabulary(Protocol):
    """A model of tokens; None until a tokenizer decides how many there are."""

    vocab_size: int | None


@runtime_checkable
class HasExperts(Protocol):
    """A model in which each token uses only a few experts."""

    experts_per_token: int


@runtime_checkable
class HasOutputLayer(Protocol):
    """A model with an output layer over a vocabulary."""

    compute: Compute

    def logits(self, features: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """Applies the output layer, in float32."""

    def output_layer(self) -> tuple[Float[Array, "D V"], Float[Array, "V"] | None]:
        """Kernel and bias of the output layer, for losses that use it in chunks."""

    def output_table(self) -> Float[Array, "V D"] | None:
        """The table whose transpose is the kernel of the output layer; None if there is none."""


@runtime_checkable
class CapsOutputs(Protocol):
    """A model whose output layer may cap its scores."""

    def output_cap(self) -> float | None:
        """The cap, which squashes scores to (-cap, cap); None means no cap."""


@runtime_checkable
class TextDecoder(Model, HasOutputLayer, Protocol):
    """Predicts the next token of a text."""

    context: int

    def features(
        self, tokens: Int[Array, "B T"], **layout: object
    ) -> tuple[Float[Array, "B T D"], PyTree]:
        """The input of the output layer, and the cache."""

    def loss_scales(self) -> dict[str, float]:
        """The weights of auxiliary losses, by name."""

    def empty_cache(self, batch_size: int, length: int) -> PyTree:
        """A cache without entries."""


@runtime_checkable
class SequenceToSequence(Model, HasOutputLayer, Protocol):
    """Reads one sequence of tokens and predicts another."""

    def read_tokens(
        self, source: Int[Array, "B S"], positions: Int[Array, "B S"] | None = None
    ) -> Float[Array, "B S D"]:
        """The input of the encoder's first block."""

    def features(
        self, source: Int[Array, "B S"], target: Int[Array, "B T"], **layout: object
    ) -> Float[Array, "B T D"]:
        """The input of the output layer."""

    def encode(self, source: Int[Array, "B S"], **layout: object) -> Float[Array, "B S D"]:
        """The memory that the decoder attends to."""

    def decode(
        self, target: Int[Array, "B T"], *memory: object, **layout: object
    ) -> tuple[Float[Array, "B T D"], PyTree]:
        """The input of the output layer, and the cache."""

    def begun(
        self, target: Int[Array, "B T"], segments: Int[Array, "B T"] | None = None
    ) -> Int[Array, "B T"]:
        """The target with the begin token in front of each of its texts."""


@runtime_checkable
class RowReader(Model, Protocol):
    """Reads rows of text in both directions."""

    context: int

    def __call__(self, tokens: Int[Array, "B T"], *row: object) -> Float[Array, "B T D"]:
        """The states of all tokens."""


@runtime_checkable
class HidesToken(Protocol):
    """A model in which one token stands for what is hidden."""

    def hidden_token(self) -> int | None:
        """The token, which must be the tokenizer's mask; None if all tokens are alike."""


@runtime_checkable
class TextTagger(RowReader, Protocol):
    """Gives outputs for each token of a text."""

    def tag(self, tokens: Int[Array, "B T"], *row: object) -> Float[Array, "B T c"]:
        """Logits of each token."""


@runtime_checkable
class TextClassifier(RowReader, Protocol):
    """Gives outputs for a text or a pair of texts."""

    def classify(self, tokens: Int[Array, "B T"], *row: object) -> Float[Array, "B c"]:
        """Logits of each row."""


@runtime_checkable
class TokenFiller(RowReader, HasOutputLayer, Protocol):
    """Predicts masked tokens."""

    def masked(
        self, features: Float[Array, "B T D"], positions: Int[Array, "B M"]
    ) -> Float[Array, "B M D"]:
        """The input of the output layer at the positions of masked tokens."""

    def fill(self, tokens: Int[Array, "B T"], *row: object) -> Float[Array, "B M V"]:
        """Logits of the masked tokens."""


@runtime_checkable
class SentencePretrainer(TokenFiller, Protocol):
    """Predicts masked tokens, and whether a sentence follows another."""

    def follows(self, features: Float[Array, "B T D"]) -> Float[Array, "B 2"]:
        """Logits of whether the second sentence follows the first, or not."""

    def pretrain(
        self, tokens: Int[Array, "B T"], *row: object
    ) -> tuple[Float[Array, "B M V"], Float[Array, "B 2"]]:
        """Logits of the masked tokens and of the pair."""


@runtime_checkable
class TextEncoder(RowReader, Protocol):
    """Turns a text into vectors."""

    def pooled(self, features: Float[Array, "B T D"]) -> Float[Array, "B D"]:
        """One vector for each row."""


@runtime_checkable
class ImageClassifier(Model, Protocol):
    """Gives outputs for an image."""

    image_size: int
    channels: int | None

    def classify(self, images: Float[Array, "B Y X C"]) -> Float[Array, "B c"]:
        """Logits of each image."""


@runtime_checkable
class ImageReconstructor(Model, Protocol):
    """Reconstructs patches of an image from the others.

    Attributes:
        stem: how an image becomes tokens; `patches` if each sees only the pixels of its patch.
    """

    image_size: int
    channels: int | None
    patch_size: int
    stem: str

    @property
    def grid(self) -> int:
        """The number of patches along a side of the image."""

    def reconstruct(
        self, images: Float[Array, "B Y X C"], order: Int[Array, "B T"], num_seen: int
    ) -> Float[Array, "B T P"]:
        """The pixels of all patches."""
