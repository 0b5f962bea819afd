"""BERT: the bidirectional encoder (Devlin et al. 2019).

The sum of token, position and type embeddings is normalised, and post-norm blocks of attention in
both directions follow. Each job of the heads is one method: filling masked tokens and predicting
whether a sentence follows another (pretraining), classifying a text, classifying its tokens.
Parameters exist for the methods that a job calls, and no others.
"""

import functools
from typing import Annotated, Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from transformer.errors import ConfigError
from transformer.limits import Heads, Layers, OneOf, Outputs, Positive, VocabSize, Whole, Width
from transformer.nn.attention import Attention, usual_implementation
from transformer.nn.block import Block
from transformer.nn.dropout import Dropout
from transformer.nn.embeddings import Embedding, sinusoidal_table
from transformer.nn.feed_forward import FeedForward
from transformer.nn.heads import MaskedTokenHead, Pooler, TextEncoder
from transformer.nn.linear import DType, Linear
from transformer.nn.norms import LayerNorm
from transformer.nn.stack import Remat, Stack, require_compilable
from transformer.nn.taps import tap
from transformer.ops.activations import Activation
from transformer.ops.attention import Implementation
from transformer.ops.masks import Mask, padding_behind
from transformer.traced import RateOrOff, is_zero

_POSITION_INITS = {"normal": None, "sinusoidal": sinusoidal_table(0.02)}


class BERT(TextEncoder):
    """An encoder and its heads; its fields are `config.model`.

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
        vocab_size: V; None takes the size of the tokenizer's vocabulary.
        num_outputs: the number of classes, or other outputs, of the fine-tuning head; None takes
            the number that the data have.
        num_layers: L.
        num_heads: N.
        width: D.
        context: the length of the longest sequence, and the number of learned positions.
        position_init: initialisation of the learned positions: `normal`, as published, or
            `sinusoidal`, with which small models on little text learn far sooner to attend to a
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
        dropout_rate: on embeddings, attention weights, branches and in front of the heads.
        dtype: of the computation; parameters stay float32.
        scan_layers: compile one block and loop over it; see `nn.stack.Stack`.
        remat: what the backward pass recomputes; see `nn.stack.Stack`.
        attention: the implementation of attention; see `ops.attention.dot_product_attention`.
    """

    HEADS: ClassVar[tuple[str, ...]] = ("output", "pooler", "masked_token", "next_sentence")

    vocab_size: VocabSize | None = None
    num_outputs: Outputs | None = None
    num_layers: Layers = 12
    num_heads: Heads = 12
    width: Width = 768
    context: Annotated[int, Whole(3, 1 << 24)] = 512
    position_init: Annotated[str, OneOf(_POSITION_INITS)] = "normal"
    position_offset: Annotated[int, Whole(0, 1 << 10)] = 0
    num_types: Annotated[int, Whole(1, 1 << 10)] = 2
    feed_forward_width: Width | None = None
    activation: Activation = "gelu"
    head_activation: Activation | None = None
    norm_epsilon: Positive = 1e-12
    dropout_rate: RateOrOff = 0.1
    dtype: DType = "float32"
    scan_layers: bool = False
    remat: Remat = "none"
    attention: Implementation = "auto"

    def setup(self) -> None:
        if self.vocab_size is None:
            raise ConfigError("config.model.vocab_size is missing, and no data have decided it.")
        norm = functools.partial(LayerNorm, epsilon=self.norm_epsilon)
        block = functools.partial(
            Block,
            attention=functools.partial(
                Attention,
                num_heads=self.num_heads,
                dropout_rate=self.dropout_rate,
                implementation=self.attention,
                dtype=self.dtype,
            ),
            feed_forward=functools.partial(
                FeedForward,
                width=self.feed_forward_width or 4 * self.width,
                activation=self.activation,
                dtype=self.dtype,
            ),
            norm=norm,
            order="post",
            dropout_rate=self.dropout_rate,
        )
        table = functools.partial(Embedding, width=self.width, dtype=self.dtype)
        self.token_embedding = table(self.vocab_size)
        self.position_embedding = table(
            self.position_offset + self.context,
            axes=("positions", "embed"),
            initializer=_POSITION_INITS[self.position_init],
        )
        self.type_embedding = table(self.num_types, axes=(None, "embed"))
        self.embedding_norm = norm()
        self.dropout = Dropout(self.dropout_rate)
        self.blocks = Stack(block, self.num_layers, self.scan_layers, self.remat)

        dense = functools.partial(Linear, axes=("embed", None), dtype=self.dtype)
        self.pooler = Pooler(self.width, self.dtype)
        self.masked_token = MaskedTokenHead(
            width=self.width,
            activation=self.head_activation or self.activation,
            make_norm=norm,
            vocab_size=self.vocab_size,
            dtype=self.dtype,
        )
        self.next_sentence = dense((2,))
        self.output = dense((self.num_outputs or 0,))

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
        if self.width % self.num_heads:
            raise ConfigError(
                f"config.model.width ({self.width}) is not a multiple of config.model.num_heads "
                f"({self.num_heads}): heads must divide the width."
            )
        if self.position_init == "sinusoidal" and self.width % 2:
            raise ConfigError(
                f"config.model.width is {self.width}: config.model.position_init=sinusoidal needs "
                f"an even one."
            )
        require_compilable(self.scan_layers, num_layers=self.num_layers)
        self.chosen_attention()

    def chosen_attention(self, tokens: Int[Array, "B T"] | None = None, *rest: Any) -> str:
        """The attention implementation that training uses for batches of this (or a usual) length.

        Raises:
            ConfigError: if the implementation that the config asks for does not support it.
        """
        length = {} if tokens is None else {"length": tokens.shape[1]}
        return usual_implementation(
            self.attention,
            (self.num_heads, self.width // self.num_heads),
            self.dtype,
            **length,
            mask=Mask(key_lengths=True),
            has_dropout=not is_zero(self.dropout_rate),
        )
