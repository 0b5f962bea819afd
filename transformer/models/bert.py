"""BERT: the bidirectional encoder (Devlin et al. 2019).

The sum of token, position and type embeddings is normalised, and post-norm blocks of attention in
both directions follow. Each job of the heads is one method: filling masked tokens and predicting
whether a sentence follows another (pretraining), classifying a text, classifying its tokens.
Parameters exist for the methods that a job calls, and no others.
"""

import functools
from typing import Annotated, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from transformer.errors import ConfigError
from transformer.limits import OneOf, Positive, Whole, Width
from transformer.nn.block import Block
from transformer.nn.embeddings import Embedding, sinusoidal_table
from transformer.nn.feed_forward import FeedForward
from transformer.nn.heads import MaskedTokenHead, Pooler, TextEncoder
from transformer.nn.linear import Linear
from transformer.nn.norms import LayerNorm
from transformer.nn.sizes import decided
from transformer.nn.taps import tap
from transformer.ops.activations import Activation
from transformer.ops.masks import padding_behind

_POSITION_INITS = {"normal": None, "sinusoidal": sinusoidal_table(0.02)}


class BERT(TextEncoder):
    """An encoder and its heads; its fields and those of `TextEncoder` are `config.model`.

    The defaults are `base` of Devlin et al. 2019. With the published vocabulary of 30,522 entries,
    with the pooler and without other heads, the published sizes are

        size    num_layers  width  num_heads   parameters
        tiny             2    128          2    4,385,920
        mini             4    256          4   11,170,560
        small            4    512          8   28,763,648
        medium           8    512          8   41,373,184
        base            12    768         12  109,482,240
        large           24   1024         16  335,141,888

    (the four smaller ones are of Turc et al. 2019). Both heads of pretraining add 2 V-independent
    dense layers and V biases: 624,188 parameters for `base`.

    Attributes:
        position_init: initialisation of the `context` learned positions: `normal`, as published,
            or `sinusoidal`, with which small models on little text learn far sooner to attend to a
            token's neighbours.
        position_offset: the number of unused rows at the start of the position table; RoBERTa has
            2.
        num_types: the number of token types; 2 distinguish the first of two sentences from the
            second.
        feed_forward_width: F; None means 4 D.
        activation: activation of the feed-forward layer.
        head_activation: activation of the dense layer in the head for masked tokens; None takes
            `activation`. RoBERTa always uses gelu here.
        norm_epsilon: added to variances.
    """

    HEADS: ClassVar[tuple[str, ...]] = ("output", "pooler", "masked_token", "next_sentence")

    position_init: Annotated[str, OneOf(_POSITION_INITS)] = "normal"
    position_offset: Annotated[int, Whole(0, 1 << 10)] = 0
    num_types: Annotated[int, Whole(1, 1 << 10)] = 2
    feed_forward_width: Width | None = None
    activation: Activation = "gelu"
    head_activation: Activation | None = None
    norm_epsilon: Positive = 1e-12

    def setup(self) -> None:
        norm = functools.partial(LayerNorm, epsilon=self.norm_epsilon)
        block = functools.partial(
            Block,
            attention=self.compute.attention_layer(
                num_heads=self.num_heads, dropout_rate=self.dropout_rate
            ),
            feed_forward=functools.partial(
                FeedForward,
                width=self.feed_forward_width or 4 * self.width,
                activation=self.activation,
                dtype=self.compute.dtype,
            ),
            norm=norm,
            order="post",
            dropout_rate=self.dropout_rate,
        )
        self.surround(block, norm)
        dtype = self.compute.dtype
        table = functools.partial(Embedding, width=self.width, dtype=dtype)
        self.position_embedding = table(
            self.position_offset + self.context,
            axes=("positions", "embed"),
            initializer=_POSITION_INITS[self.position_init],
        )
        self.type_embedding = table(self.num_types, axes=(None, "embed"))
        self.pooler = Pooler(self.width, dtype)
        self.masked_token = MaskedTokenHead(
            width=self.width,
            activation=self.head_activation or self.activation,
            make_norm=norm,
            vocab_size=decided("vocab_size", self.vocab_size),
            dtype=dtype,
        )
        self.next_sentence = Linear((2,), ("embed", None), dtype=dtype)

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        token_types: Int[Array, "B T"] | None = None,
        lengths: Int[Array, "B"] | None = None,
    ) -> Float[Array, "B T D"]:
        """The hidden states of all tokens; see `TextEncoder`."""
        if token_types is None:
            token_types = jnp.zeros_like(tokens)
        mask = None if lengths is None else padding_behind(lengths)
        positions = self.position_offset + jnp.arange(tokens.shape[1])
        x = (
            tap(self, "token_embedding", self.token_embedding(tokens))
            + tap(self, "position_embedding", self.position_embedding(positions[None, :]))
            + self.type_embedding(jnp.minimum(token_types, self.num_types - 1))
        )
        x, _ = self.blocks(self.dropout(self.embedding_norm(x)), mask=mask)
        return tap(self, "final", x)

    def pooled(
        self, features: Float[Array, "B T D"], lengths: Int[Array, "B"] | None = None
    ) -> Float[Array, "B D"]:
        """The vector that stands for the whole row, computed from the state of `[CLS]`."""
        return self.pooler(features)

    def of_masked(self, features: Float[Array, "B M D"]) -> Float[Array, "B M D"]:
        """The head for masked tokens, which is in the published code but not in the paper."""
        return self.masked_token(features)

    def biases(self) -> Float[Array, "V"]:
        """The biases of the output layer of tokens."""
        return self.masked_token.bias

    def follows(self, features: Float[Array, "B T D"]) -> Float[Array, "B 2"]:
        """Scores, in float32, of two classes: the second sentence follows the first, or not."""
        return self.next_sentence(self.pooled(features)).astype(jnp.float32)

    def pretrain(
        self,
        tokens: Int[Array, "B T"],
        token_types: Int[Array, "B T"],
        lengths: Int[Array, "B"],
        positions: Int[Array, "B M"],
    ) -> tuple[Float[Array, "B M V"], Float[Array, "B 2"]]:
        """Scores of the tokens at `positions`, and `follows`."""
        features = self(tokens, token_types, lengths)
        return self.logits(self.masked(features, positions)), self.follows(features)

    def check(self) -> None:
        """Refuses values that do not make a model.

        Raises:
            ConfigError: naming the field and what to do.
        """
        super().check()
        if self.position_init == "sinusoidal" and self.width % 2:
            raise ConfigError(
                f"config.model.width is {self.width}: config.model.position_init=sinusoidal needs "
                f"an even one."
            )
