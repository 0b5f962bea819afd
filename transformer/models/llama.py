"""Llama and its kin: Llama 2 and 3, Mistral, Qwen2 and Qwen3.

A pre-norm decoder with RMS normalisation (Zhang and Sennrich 2019), rotary positions (Su et al.
2021), gated feed-forward layers (Shazeer 2020) and queries that share keys and values (Ainslie et
al. 2023); no biases, no learned positions. The fields make the variants:

    Llama 2    the defaults (Touvron et al. 2023) Llama 3    `rope_base` 500,000 and, from 3.1 on,
    `rope_factor` (Grattafiori et al. 2024) Mistral    `window` (Jiang et al. 2023) Qwen2
    `qkv_bias` (Yang et al. 2024) Qwen3      `head_norm` (Yang et al. 2025)
"""

import functools
from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Float, Int

from transformer.errors import ConfigError
from transformer.limits import AtLeastOne, Count, Heads, Length, Positive, Width
from transformer.nn.attention import Attention
from transformer.nn.block import Block
from transformer.nn.decoder import DecoderOnly
from transformer.nn.dropout import Dropout
from transformer.nn.embeddings import Embedding
from transformer.nn.feed_forward import FeedForward
from transformer.nn.linear import Linear
from transformer.nn.norms import RMSNorm
from transformer.nn.stack import Stack
from transformer.nn.taps import tap
from transformer.ops.activations import Activation
from transformer.ops.positions import LinearRotaryScaling, RotaryScaling, rotary


class Llama(DecoderOnly):
    """A decoder-only language model; its fields and those of `DecoderOnly` are `config.model`.

    Attributes:
        num_kv_heads: K; None means N.
        head_dim: H; None means D / N.
        feed_forward_width: F; None means 8/3 D, rounded up to a multiple of 64.
        activation: activation of the gate; `silu` makes it SwiGLU.
        norm_epsilon: added to mean squares.
        rope_base: the base of the rotary frequencies.
        rope_factor: how many times longer texts are than in pretraining; None leaves the
            frequencies as they are. See `ops.positions.RotaryScaling`, also for the next three
            fields.
        rope_low_frequency: frequencies with fewer rotations than this are divided by the factor.
        rope_high_frequency: frequencies with more rotations than this stay as they are.
        rope_old_context: the number of positions in pretraining; None divides all frequencies by
            the factor, see `ops.positions.LinearRotaryScaling`.
        window: each token sees only tokens fewer than this many positions away; None means all
            before it.
        qkv_bias: bias on the query, key and value projections.
        head_norm: whether queries and keys are normalised over each head.
    """

    tie_embeddings: bool = False
    num_kv_heads: Heads | None = None
    head_dim: Width | None = None
    feed_forward_width: Width | None = None
    activation: Activation = "silu"
    norm_epsilon: Positive = 1e-5
    rope_base: AtLeastOne = 10_000.0
    rope_factor: Positive | None = None
    rope_low_frequency: Positive = 1.0
    rope_high_frequency: Positive = 4.0
    rope_old_context: Length | None = 8192
    window: Count | None = None
    qkv_bias: bool = False
    head_norm: bool = False

    def setup(self) -> None:
        if self.vocab_size is None:
            raise ConfigError("config.model.vocab_size is missing, and no data have decided it.")
        scaling: RotaryScaling | LinearRotaryScaling | None = None
        if self.rope_factor is not None and self.rope_old_context is None:
            scaling = LinearRotaryScaling(self.rope_factor)
        elif self.rope_factor is not None:
            scaling = RotaryScaling(
                self.rope_factor,
                self.rope_low_frequency,
                self.rope_high_frequency,
                self.rope_old_context,
            )
        num_kv_heads, head_dim = self.cache_heads()
        norm = functools.partial(RMSNorm, epsilon=self.norm_epsilon)
        block = functools.partial(
            Block,
            attention=functools.partial(
                Attention,
                num_heads=self.num_heads,
                head_dim=head_dim,
                num_kv_heads=num_kv_heads,
                use_bias=self.qkv_bias,
                use_output_bias=False,
                position=functools.partial(rotary, base=self.rope_base, scaling=scaling),
                head_norm=norm if self.head_norm else None,
                window=self.window,
                dropout_rate=self.dropout_rate,
                implementation=self.attention,
                dtype=self.dtype,
            ),
            feed_forward=self.feed_forward_layer(),
            norm=norm,
            dropout_rate=self.dropout_rate,
        )
        self.token_embedding = Embedding(self.vocab_size, self.width, dtype=self.dtype)
        self.dropout = Dropout(self.dropout_rate)
        self.blocks = Stack(block, self.num_layers, self.scan_layers, self.remat)
        self.final_norm = norm()
        if not self.tie_embeddings:
            self.output = Linear((self.vocab_size,), ("embed", "vocab"), False, dtype=self.dtype)

    def feed_forward_layer(self) -> Callable[..., nn.Module]:
        """The maker of a block's feed-forward layer."""
        return functools.partial(
            FeedForward,
            width=self.hidden_width(),
            activation=self.activation,
            gated=True,
            use_bias=False,
            dtype=self.dtype,
        )

    def hidden_width(self) -> int:
        """F."""
        return self.feed_forward_width or -(-8 * self.width // (3 * 64)) * 64

    def embed(
        self, tokens: Int[Array, "B T"], positions: Int[Array, "#B T"]
    ) -> Float[Array, "B T D"]:
        """Token vectors; positions come in by rotating queries and keys."""
        return self.dropout(tap(self, "token_embedding", self.token_embedding(tokens)))

    def cache_heads(self) -> tuple[int, int]:
        """The number of key and value heads, and the width of one."""
        return self.num_kv_heads or self.num_heads, self.head_dim or self.width // self.num_heads

    def check(self) -> None:
        """Refuses values that do not make a model.

        Raises:
            ConfigError: naming the field and what to do.
        """
        super().check()
        if self.head_dim is None and self.width % self.num_heads:
            raise ConfigError(
                f"config.model.width ({self.width}) is not a multiple of config.model.num_heads "
                f"({self.num_heads}): heads must divide the width, or have config.model.head_dim."
            )
        num_kv_heads, head_dim = self.cache_heads()
        if self.num_heads % num_kv_heads:
            raise ConfigError(
                f"config.model.num_heads ({self.num_heads}) is not a multiple of "
                f"config.model.num_kv_heads ({num_kv_heads}): as many queries share each."
            )
        if head_dim % 2:
            raise ConfigError(
                f"heads of {head_dim} are odd, and rotary positions rotate pairs: give an even "
                f"config.model.head_dim, or an even config.model.width / config.model.num_heads."
            )
        by_frequency = self.rope_factor is not None and self.rope_old_context is not None
        if by_frequency and self.rope_low_frequency >= self.rope_high_frequency:
            raise ConfigError(
                f"config.model.rope_low_frequency ({self.rope_low_frequency}) must be below "
                f"config.model.rope_high_frequency ({self.rope_high_frequency})."
            )
