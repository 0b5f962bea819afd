"""T5: an encoder-decoder that turns texts into texts (Raffel et al. 2020).

Positions enter only as biases of attention, learned for buckets of distances and shared by all
layers of a stack (section 2.1). There are no other biases; each branch normalises its input without
shifting, and the logits of attention are not scaled: the initialisation makes up for that. The
fields also make version 1.1 (Shazeer 2020): gated, with a separate output layer.
"""

import functools
from typing import Annotated

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from transformer.errors import ConfigError
from transformer.limits import Count, Positive, Whole, Width
from transformer.nn.block import Block
from transformer.nn.encoder_decoder import EncoderDecoder
from transformer.nn.feed_forward import FeedForward
from transformer.nn.linear import Linear
from transformer.nn.norms import RMSNorm
from transformer.nn.relative_positions import RelativePositions
from transformer.nn.sizes import decided, require_multiple
from transformer.traced import is_zero


class T5(EncoderDecoder):
    """An encoder-decoder with relative positions; its fields are `config.model`.

    The defaults are `small` of version 1.0. `EncoderDecoder` describes the other fields; dropout is
    on embeddings, attention weights, branches and the output of each stack. Version 1.1 has
    `gated=True`, `activation="gelu_tanh"` and `tie_embeddings=False`.

    Attributes:
        head_dim: H; None means D / N. Version 1.0 has 64 or 128 for any width.
        gated: a feed-forward layer with a gate; see `nn.feed_forward.FeedForward`.
        tie_embeddings: the token table is the output layer as well, for features scaled by
            1 / sqrt(D); otherwise the output layer is a separate matrix.
        num_buckets: the number of buckets of distances in each stack; even.
        max_distance: all distances from here on share one bucket.
        position_init_scale: standard deviation of the biases of positions at initialisation; None
            means 1 / sqrt(D), as published. Adam moves a bias by no more than the learning rate in
            a step, and from 4 a small model learned to copy sooner (LOG.md, 2026-11-28).
        norm_epsilon: added to mean squares in the normalisations.
    """

    head_dim: Width | None = None
    gated: bool = False
    tie_embeddings: bool = True
    num_buckets: Annotated[int, Whole(4, 1 << 16)] = 32
    max_distance: Count = 128
    position_init_scale: Positive | None = None
    norm_epsilon: Positive = 1e-6

    def setup(self) -> None:
        # As in the published code: outputs of unit variance from inputs of unit variance, and
        # queries that make up for logits that are not scaled by 1 / sqrt(H).
        by_width = self.width**-0.5
        heads = self.head_width()
        attention = self.compute.attention_layer(
            num_heads=self.num_heads,
            head_dim=heads,
            use_bias=False,
            use_output_bias=False,
            scale=1.0,
            dropout_rate=self.dropout_rate,
            init_scale=by_width,
            query_init_scale=(self.width * heads) ** -0.5,
            output_init_scale=(self.num_heads * heads) ** -0.5,
        )
        norm = functools.partial(RMSNorm, epsilon=self.norm_epsilon)
        block = functools.partial(
            Block,
            attention=attention,
            feed_forward=functools.partial(
                FeedForward,
                width=self.feed_forward_width,
                activation=self.activation,
                gated=self.gated,
                use_bias=False,
                init_scale=by_width,
                output_init_scale=self.feed_forward_width**-0.5,
                dtype=self.compute.dtype,
            ),
            norm=norm,
            dropout_rate=self.dropout_rate,
        )
        self.surround(block, attention, init_scale=1.0)
        positions = functools.partial(
            RelativePositions,
            self.num_heads,
            num_buckets=self.num_buckets,
            max_distance=self.max_distance,
            init_scale=self.position_init_scale or by_width,
        )
        self.encoder_positions = positions(bidirectional=True)
        self.decoder_positions = positions(bidirectional=False)
        self.encoder_norm, self.decoder_norm = norm(), norm()
        if not self.tie_embeddings:
            self.output = Linear(
                (decided("vocab_size", self.vocab_size),),
                ("embed", "vocab"),
                use_bias=False,
                init_scale=by_width,
                dtype=self.compute.dtype,
            )

    def encoder_bias(self, positions: Int[Array, "#B S"]) -> Float[Array, "#B N S S"]:
        """Biases from the distances of keys before or after queries."""
        return self.encoder_positions(positions, positions)

    def decoder_bias(
        self, queries: Int[Array, "#B T"], keys: Int[Array, "#B S"]
    ) -> Float[Array, "#B N T S"]:
        """Biases from the distances of keys before queries."""
        return self.decoder_positions(queries, keys)

    def finish_encoder(self, x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        """Normalises the output, as each branch normalises its input."""
        return self.dropout(self.encoder_norm(x))

    def finish_decoder(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Normalises the output, and scales it if the output layer is the token table."""
        x = self.dropout(self.decoder_norm(x))
        return x * self.width**-0.5 if self.tie_embeddings else x

    def logits(self, features: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """The output layer, in float32."""
        if self.tie_embeddings:
            return super().logits(features)
        return self.output(features).astype(jnp.float32)

    def output_layer(self) -> tuple[Float[Array, "D V"], Float[Array, "V"] | None]:
        """Kernel and bias of the output layer, for losses that use it in chunks."""
        if self.tie_embeddings:
            return super().output_layer()
        return self.output.variables["params"]["kernel"], None

    def output_table(self) -> Float[Array, "V D"] | None:
        """The table of tokens if it is the output layer."""
        return self.token_embedding.embedding if self.tie_embeddings else None

    def attention_needs(self) -> dict[str, bool]:
        """Biases, and dropout of attention weights."""
        return {"has_bias": True, "has_dropout": not is_zero(self.dropout_rate)}

    def head_width(self) -> int:
        """H."""
        return self.head_dim or self.width // self.num_heads

    def check(self) -> None:
        """Refuses values that do not make a model.

        Raises:
            ConfigError: naming the field and what to do.
        """
        super().check()
        if self.head_dim is None:
            require_multiple(
                "heads must divide the width, or have config.model.head_dim",
                width=self.width,
                num_heads=self.num_heads,
            )
        if self.num_buckets % 2 or self.max_distance <= self.num_buckets // 2:
            raise ConfigError(
                f"config.model.num_buckets ({self.num_buckets}) must be even, and half of it less "
                f"than config.model.max_distance ({self.max_distance}): half of the buckets hold "
                f"one distance each, the others hold ranges."
            )
