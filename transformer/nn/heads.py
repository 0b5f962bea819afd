"""The heads on top of a text encoder's stack, and their methods for each job.

Parameters exist for the methods that a job calls, and no others.
"""

from typing import Annotated, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from transformer.limits import Heads, Layers, Outputs, VocabSize, Whole, Width
from transformer.nn.compute import Compute
from transformer.nn.dropout import Dropout
from transformer.nn.embeddings import Embedding
from transformer.nn.linear import Linear, named
from transformer.nn.sizes import decided, require_multiple
from transformer.nn.stack import Maker
from transformer.ops.activations import ACTIVATIONS
from transformer.ops.masks import Mask, real_tokens
from transformer.traced import RateOrOff, is_zero

POOLINGS = ("cls", "mean")


class PredictionHead(nn.Module):
    """A dense layer, an activation and a normalisation, applied to each token's state.

    Attributes:
        width: D.
        activation: activation after the dense layer.
        make_norm: makes the normalisation.
        use_bias: on the dense layer.
        dtype: of the computation.
    """

    width: int
    activation: str
    make_norm: Maker
    use_bias: bool = True
    dtype: str = "float32"

    def setup(self) -> None:
        self.dense = Linear((self.width,), ("embed", None), self.use_bias, dtype=self.dtype)
        self.norm = self.make_norm()

    def __call__(self, features: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        return self.norm(ACTIVATIONS[self.activation](self.dense(features)))


class MaskedTokenHead(PredictionHead):
    """A `PredictionHead` that also holds the bias of the output layer after it.

    Attributes:
        vocab_size: V.
    """

    vocab_size: int = 0

    def setup(self) -> None:
        super().setup()
        self.bias = self.param("bias", named(nn.initializers.zeros, "vocab"), (self.vocab_size,))


class TokenBias(nn.Module):
    """The bias of the output layer, one number for each token.

    Attributes:
        vocab_size: V.
    """

    vocab_size: int

    def setup(self) -> None:
        self.bias = self.param("bias", named(nn.initializers.zeros, "vocab"), (self.vocab_size,))

    def __call__(self) -> Float[Array, "V"]:
        return self.bias


class Pooler(nn.Module):
    """A vector for a whole row: a dense layer on the state of its first token, then tanh.

    Attributes:
        width: D.
        dtype: of the computation.
    """

    width: int
    dtype: str = "float32"

    def setup(self) -> None:
        self.dense = Linear((self.width,), ("embed", None), dtype=self.dtype)
        nn.share_scope(self, self.dense)

    def __call__(self, features: Float[Array, "B T D"]) -> Float[Array, "B D"]:
        return jnp.tanh(self.dense(features[:, 0]))


def pool(
    kind: str, features: Float[Array, "B T D"], lengths: Int[Array, "B"] | None
) -> Float[Array, "B D"]:
    """One vector for each row.

    Args:
        kind: `cls` takes the first token, `mean` the mean of all before the padding.
        features: the states of the tokens.
        lengths: tokens of each row before its padding; None means no padding.
    """
    if kind == "cls":
        return features[:, 0]
    if lengths is None:
        return jnp.mean(features, axis=1)
    real = real_tokens(features.shape[1], lengths)[..., None]
    return jnp.sum(features * real, axis=1) / jnp.sum(real, axis=1)


class TextEncoder(nn.Module):
    """Maps tokens to states, and to the scores that a job asks for.

    A subclass calls `surround` in its `setup`, and defines its heads in `pooled`, `of_tokens`,
    `of_masked` and `biases`.

    Attributes:
        vocab_size: V; None takes the size of the tokenizer's vocabulary.
        num_outputs: the number of classes, or other outputs, of the fine-tuning head; None takes
            the number that the data have.
        num_layers: L.
        num_heads: N.
        width: D.
        context: the length of the longest sequence.
        dropout_rate: on embeddings, attention weights, branches and in front of the heads.
        compute: how it computes; see `nn.compute.Compute`.
    """

    # Modules that only some jobs use; then those of them whose outputs are labels.
    HEADS: ClassVar[tuple[str, ...]]
    LABEL_HEADS: ClassVar[tuple[str, ...]] = ("output",)

    vocab_size: VocabSize | None = None
    num_outputs: Outputs | None = None
    num_layers: Layers = 12
    num_heads: Heads = 12
    width: Width = 768
    context: Annotated[int, Whole(3, 1 << 24)] = 512
    dropout_rate: RateOrOff = 0.1
    compute: Compute = Compute()

    def surround(self, block: Maker, norm: Maker, *, first: tuple[Maker, ...] = ()) -> None:
        """Makes the parts that all encoders have; called by `setup`.

        Args:
            block: the maker of a block.
            norm: the maker of the normalisation of token vectors.
            first: makers of the first blocks, if those differ.

        Raises:
            ConfigError: if nothing has decided the size of the vocabulary.
        """
        vocab_size, dtype = decided("vocab_size", self.vocab_size), self.compute.dtype
        self.token_embedding = Embedding(vocab_size, self.width, dtype=dtype)
        self.embedding_norm = norm()
        self.dropout = Dropout(self.dropout_rate)
        self.blocks = self.compute.stack(block, self.num_layers, first)
        self.output = Linear((self.num_outputs or 0,), ("embed", None), dtype=dtype)

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        token_types: Int[Array, "B T"] | None = None,
        lengths: Int[Array, "B"] | None = None,
    ) -> Float[Array, "B T D"]:
        """The hidden states of all tokens.

        Args:
            tokens: rows begin with `[CLS]`, and each sentence ends with `[SEP]`.
            token_types: 0 in the first sentence, 1 in the second; None means 0 everywhere.
            lengths: tokens of each row before its padding; None means no padding.
        """
        raise NotImplementedError

    def finished(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """The hidden states, from what the last block returns; the same if that is normalised."""
        return x

    def pooled(
        self, features: Float[Array, "B T D"], lengths: Int[Array, "B"] | None = None
    ) -> Float[Array, "B D"]:
        """The vector that stands for the whole row."""
        raise NotImplementedError

    def of_tokens(self, features: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """The features from which tokens are classified."""
        return features

    def of_masked(self, features: Float[Array, "B M D"]) -> Float[Array, "B M D"]:
        """The features from which the output layer predicts masked tokens."""
        raise NotImplementedError

    def biases(self) -> Float[Array, "V"]:
        """The biases of the output layer of tokens."""
        raise NotImplementedError

    def masked(
        self, features: Float[Array, "B T D"], positions: Int[Array, "B M"]
    ) -> Float[Array, "B M D"]:
        """The input of the output layer at the positions to predict."""
        return self.of_masked(jnp.take_along_axis(features, positions[..., None], axis=1))

    def logits(self, masked: Float[Array, "B M D"]) -> Float[Array, "B M V"]:
        """Applies the output layer, in float32."""
        scores = jnp.asarray(self.token_embedding.attend(masked), jnp.float32)
        return scores + self.biases()

    def output_layer(self) -> tuple[Float[Array, "D V"], Float[Array, "V"]]:
        """Kernel and bias of the output layer, for losses that use it in chunks."""
        return self.token_embedding.embedding.T, self.biases()

    def output_table(self) -> Float[Array, "V D"]:
        """The table of tokens, which is the output layer."""
        return self.token_embedding.embedding

    def fill(
        self,
        tokens: Int[Array, "B T"],
        token_types: Int[Array, "B T"] | None,
        lengths: Int[Array, "B"] | None,
        positions: Int[Array, "B M"],
    ) -> Float[Array, "B M V"]:
        """Scores of the tokens at `positions`, in float32; other arguments as in `__call__`."""
        return self.logits(self.masked(self(tokens, token_types, lengths), positions))

    def classify(
        self,
        tokens: Int[Array, "B T"],
        token_types: Int[Array, "B T"] | None = None,
        lengths: Int[Array, "B"] | None = None,
    ) -> Float[Array, "B C"]:
        """Scores of a text, in float32; arguments as in `__call__`."""
        pooled = self.pooled(self(tokens, token_types, lengths), lengths)
        return self.output(self.dropout(pooled)).astype(jnp.float32)

    def tag(
        self,
        tokens: Int[Array, "B T"],
        token_types: Int[Array, "B T"] | None = None,
        lengths: Int[Array, "B"] | None = None,
    ) -> Float[Array, "B T C"]:
        """Scores of each token, in float32; arguments as in `__call__`."""
        features = self.of_tokens(self(tokens, token_types, lengths))
        return self.output(self.dropout(features)).astype(jnp.float32)

    def training_mask(self) -> Mask:
        """The rules of the attention mask in training."""
        return Mask(key_lengths=True)

    def chosen_attention(self, tokens: Int[Array, "B T"] | None = None, *rest: object) -> str:
        """The attention implementation that training uses for batches of this (or a usual) length.

        Raises:
            ConfigError: if the implementation that the config asks for does not support it.
        """
        return self.compute.chosen_attention(
            self.num_heads,
            self.width // self.num_heads,
            None if tokens is None else tokens.shape[1],
            mask=self.training_mask(),
            has_dropout=not is_zero(self.dropout_rate),
        )

    def check(self) -> None:
        """Refuses values that do not make a model.

        Raises:
            ConfigError: naming the field and what to do.
        """
        require_multiple("heads must divide the width", width=self.width, num_heads=self.num_heads)
        self.compute.require_compilable(num_layers=self.num_layers)
        self.chosen_attention()
