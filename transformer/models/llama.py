"""Llama and its kin: Llama 2 and 3, Mistral, Qwen2 and Qwen3.

A pre-norm decoder with RMS normalisation (Zhang and Sennrich 2019), rotary positions (Su et al.
2021), gated feed-forward layers (Shazeer 2020) and queries that share keys and values (Ainslie et
al. 2023); no biases, no learned positions. The fields make the variants:

    Llama 2    the defaults (Touvron et al. 2023)
    Llama 3    `rope_base` 500,000 and, from 3.1 on, `rope_factor` (Grattafiori et al. 2024)
    Mistral    `window` (Jiang et al. 2023)
    Qwen2      `qkv_bias` (Yang et al. 2024)
    Qwen3      `head_norm` (Yang et al. 2025)
"""

import functools

from transformer.errors import ConfigError
from transformer.limits import AtLeastOne, Count, Heads, Length, Positive, Width
from transformer.nn.block import Block
from transformer.nn.decoder import DecoderOnly
from transformer.nn.feed_forward import FeedForward
from transformer.nn.norms import RMSNorm
from transformer.nn.sizes import require_multiple
from transformer.nn.stack import Maker
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
        norm = functools.partial(RMSNorm, epsilon=self.norm_epsilon)
        block = functools.partial(
            Block,
            attention=self.attention_layer(
                use_bias=self.qkv_bias,
                use_output_bias=False,
                position=functools.partial(
                    rotary, base=self.rope_base, scaling=self.rotary_scaling()
                ),
                head_norm=norm if self.head_norm else None,
                window=self.window,
            ),
            feed_forward=self.feed_forward_layer(),
            norm=norm,
            dropout_rate=self.dropout_rate,
        )
        self.surround(block, norm)

    def rotary_scaling(self) -> RotaryScaling | LinearRotaryScaling | None:
        """The change of the rotary frequencies for texts longer than in pretraining."""
        if self.rope_factor is None:
            return None
        if self.rope_old_context is None:
            return LinearRotaryScaling(self.rope_factor)
        return RotaryScaling(
            self.rope_factor,
            self.rope_low_frequency,
            self.rope_high_frequency,
            self.rope_old_context,
        )

    def feed_forward_layer(self) -> Maker:
        """The maker of a block's feed-forward layer."""
        return functools.partial(
            FeedForward,
            width=self.hidden_width(),
            activation=self.activation,
            gated=True,
            use_bias=False,
            dtype=self.compute.dtype,
        )

    def hidden_width(self) -> int:
        """F."""
        return self.feed_forward_width or -(-8 * self.width // (3 * 64)) * 64

    def layer_windows(self) -> tuple[int | None, ...]:
        """See `window`."""
        return (self.window,) * self.num_layers

    def cache_heads(self) -> tuple[int, int]:
        """The number of key and value heads, and the width of one."""
        return self.num_kv_heads or self.num_heads, self.head_dim or self.width // self.num_heads

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
        head_dim = self.cache_heads()[1]
        if head_dim % 2:
            raise ConfigError(
                f"the head dimension {head_dim} is odd, and rotary positions rotate pairs: give an "
                f"even config.model.head_dim, or an even config.model.width / "
                f"config.model.num_heads."
            )
        by_frequency = self.rope_factor is not None and self.rope_old_context is not None
        if by_frequency and self.rope_low_frequency >= self.rope_high_frequency:
            raise ConfigError(
                f"config.model.rope_low_frequency ({self.rope_low_frequency}) must be below "
                f"config.model.rope_high_frequency ({self.rope_high_frequency})."
            )
