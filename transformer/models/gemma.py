"""Gemma 2 and 3 (Gemma Team 2024, 2025).

A decoder like Llama's, with two differences: branches are normalised on both sides, and most layers
see only a window, while every n-th sees everything. Embeddings are scaled by the root of the width
and are also the output layer. One field controls each difference between the versions:

    Gemma 2    every second layer global; `attention_cap` and `output_cap`
    Gemma 3    every sixth layer global, with slower rotations; `head_norm` in place of the caps
"""

import functools
import math

import numpy as np
from jaxtyping import Array, Float, Int

from transformer.errors import ConfigError
from transformer.limits import AtLeastOne, Count, Heads, Positive, Width
from transformer.nn.block import Block
from transformer.nn.decoder import DecoderOnly
from transformer.nn.feed_forward import FeedForward
from transformer.nn.norms import RMSNorm
from transformer.nn.stack import PerLayer
from transformer.nn.taps import tap
from transformer.ops.positions import LinearRotaryScaling, rotary


class Gemma(DecoderOnly):
    """A decoder-only language model; its fields and those of `DecoderOnly` are `config.model`.

    The defaults are Gemma 3's.

    Attributes:
        num_kv_heads: K; None means N.
        head_dim: H; None means D / N.
        feed_forward_width: F.
        norm_epsilon: added to mean squares.
        window: local layers see only tokens fewer than this many positions away.
        global_every: layers `global_every`, 2 `global_every`, ... see everything; layers are
            counted from 1.
        rope_base: the base of the rotary frequencies in global layers.
        rope_factor: global layers rotate this many times more slowly; None changes nothing.
        local_rope_base: the base in local layers.
        local_rope_factor: local layers rotate this many times more slowly; None changes nothing.
        query_scale: queries are divided by the root of this; None means H.
        head_norm: whether queries and keys are normalised over each head.
        attention_cap: squashes the logits of attention to (-cap, cap); None means no cap.
        logit_cap: squashes the scores of the output layer to (-cap, cap); None means no cap.
    """

    num_kv_heads: Heads | None = None
    head_dim: Width | None = None
    feed_forward_width: Width = 3072
    norm_epsilon: Positive = 1e-6
    window: Count = 1024
    global_every: Count = 6
    rope_base: AtLeastOne = 1_000_000.0
    rope_factor: Positive | None = None
    local_rope_base: AtLeastOne = 10_000.0
    local_rope_factor: Positive | None = None
    query_scale: Count | None = None
    head_norm: bool = True
    attention_cap: Positive | None = None
    logit_cap: Positive | None = None

    def setup(self) -> None:
        rotations = [
            functools.partial(rotary, base=base, scaling=factor and LinearRotaryScaling(factor))
            for base, factor in (
                (self.rope_base, self.rope_factor),
                (self.local_rope_base, self.local_rope_factor),
            )
        ]
        norm = functools.partial(RMSNorm, epsilon=self.norm_epsilon, offset=1.0)
        block = functools.partial(
            Block,
            attention=self.attention_layer(
                use_bias=False,
                use_output_bias=False,
                position=rotations[0],
                local_position=rotations[1],
                head_norm=norm if self.head_norm else None,
                window=self.window,
                scale=1.0 / math.sqrt(self.query_scale or self.cache_heads()[1]),
                logit_cap=self.attention_cap,
            ),
            feed_forward=functools.partial(
                FeedForward,
                width=self.feed_forward_width,
                activation="gelu_tanh",
                gated=True,
                use_bias=False,
                dtype=self.compute.dtype,
            ),
            norm=norm,
            order="sandwich",
            dropout_rate=self.dropout_rate,
        )
        self.surround(block, norm)

    def embed(
        self, tokens: Int[Array, "B T"], positions: Int[Array, "#B T"]
    ) -> Float[Array, "B T D"]:
        """Scaled token vectors; positions come in by rotating queries and keys."""
        x = self.token_embedding(tokens)
        # Rounded to the dtype of the computation before it multiplies, as in the published code.
        x = x * np.asarray(math.sqrt(self.width), x.dtype)
        return self.dropout(tap(self, "token_embedding", x))

    def layer_kinds(self) -> PerLayer:
        """For each layer, whether it is local."""
        numbers = np.arange(1, self.num_layers + 1)
        return {"local": numbers % self.global_every != 0}

    def layer_windows(self) -> tuple[int | None, ...]:
        """The window of local layers."""
        return tuple(self.window if local else None for local in self.layer_kinds()["local"])

    def hidden_width(self) -> int:
        """F."""
        return self.feed_forward_width

    def output_cap(self) -> float | None:
        """See `logit_cap`."""
        return self.logit_cap

    def has_attention_cap(self) -> bool:
        """See `attention_cap`."""
        return self.attention_cap is not None

    def cache_heads(self) -> tuple[int, int]:
        """The number of key and value heads, and the width of one."""
        return self.num_kv_heads or self.num_heads, self.head_dim or self.width // self.num_heads

    def check(self) -> None:
        """Refuses values that do not make a model.

        Raises:
            ConfigError: naming the field and what to do.
        """
        super().check()
        if self.cache_heads()[1] % 2 or (self.head_dim is None and self.width % self.num_heads):
            raise ConfigError(
                f"config.model.width ({self.width}) / config.model.num_heads ({self.num_heads}) is "
                f"not an even number, which rotary positions need: set config.model.head_dim."
            )
        if not self.tie_embeddings:
            raise ConfigError(
                "config.model.tie_embeddings must be True: Gemma has no separate output layer."
            )
