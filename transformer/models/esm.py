"""ESM-2: a language model of proteins (Lin et al. 2023, supplement A.1).

A bidirectional encoder of pre-norm blocks with rotary positions; each residue is a token. The
vector of the mask is 0, and the vectors of a row are scaled by the fraction of its tokens that is
not masked, as dropout scales what it keeps ("token dropout"). Which residues touch each other is
predicted from attention weights; see `decoding.contacts`.
"""

import functools
from typing import Annotated, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from transformer.errors import ConfigError
from transformer.limits import AtLeastOne, Heads, OneOf, Positive, Token, Weight, Whole, Width
from transformer.nn.block import Block
from transformer.nn.contacts import ContactHead
from transformer.nn.feed_forward import FeedForward
from transformer.nn.heads import POOLINGS, MaskedTokenHead, Pooler, TextEncoder, pool
from transformer.nn.norms import LayerNorm
from transformer.nn.sizes import decided
from transformer.nn.taps import tap
from transformer.ops.masks import padding_behind, real_tokens
from transformer.ops.positions import in_half_precision, rotary
from transformer.traced import RateOrOff

# The fraction of a row that was masked when the published models were trained.
_MASKED_IN_TRAINING = 0.15 * 0.8
# How the rotary frequencies are rounded, by the name of the precision.
_ROUNDED = {"float32": None, "float16": in_half_precision}


class ESM(TextEncoder):
    """An encoder and its heads; its fields and those of `TextEncoder` are `config.model`.

    The defaults are those of 35 million parameters. With the published vocabulary of 33 tokens and
    the head for masked tokens, the published sizes are

        size    num_layers  width  num_heads      parameters
        8M               6    320         20       7,512,474
        35M             12    480         20      33,501,394
        150M            30    640         20     148,140,154
        650M            33   1280         20     651,043,254
        3B              36   2560         40   2,839,005,634
        15B             48   5120         40  15,129,100,194

    Attributes:
        feed_forward_width: F; None means 4 D.
        rope_base: the base of the rotary frequencies.
        rope_precision: the precision that the rotary frequencies are rounded to; weights that were
            trained in half precision have `float16`.
        token_dropout: whether the mask has the vector 0 and the others are scaled; False makes the
            mask a token like any other.
        mask_token: the id of the mask, which `token_dropout` needs.
        norm_epsilon: added to variances.
        init_scale: standard deviation of the kernels of blocks at initialisation. The usual 0.02 is
            for widths of several hundred. A narrow model needs about 1 / sqrt(D): the vector of
            the mask is 0, so that a masked residue has nothing but what attention adds to it.
        pooling: what stands for a protein: `cls`, the state of its first token, as published; or
            `mean`, the mean over its tokens.
    """

    # What need not be as in the run whose parameters this model begins with.
    ADAPTABLE: ClassVar[tuple[str, ...]] = ("pooling",)
    HEADS: ClassVar[tuple[str, ...]] = ("output", "pooler", "masked_token", "contact_head")

    num_heads: Heads = 20
    width: Width = 480
    context: Annotated[int, Whole(3, 1 << 24)] = 1026
    dropout_rate: RateOrOff = 0.0
    feed_forward_width: Width | None = None
    rope_base: AtLeastOne = 10_000.0
    rope_precision: Annotated[str, OneOf(_ROUNDED)] = "float32"
    token_dropout: bool = True
    mask_token: Token = 32
    norm_epsilon: Positive = 1e-5
    init_scale: Weight = 0.02
    pooling: Annotated[str, OneOf(POOLINGS)] = "cls"

    def setup(self) -> None:
        scales = {"init_scale": self.init_scale, "output_init_scale": self.init_scale}
        norm = functools.partial(LayerNorm, epsilon=self.norm_epsilon)
        position = functools.partial(
            rotary, base=self.rope_base, scaling=_ROUNDED[self.rope_precision]
        )
        block = functools.partial(
            Block,
            attention=self.compute.attention_layer(
                num_heads=self.num_heads,
                dropout_rate=self.dropout_rate,
                position=position,
                **scales,
            ),
            feed_forward=functools.partial(
                FeedForward,
                width=self.feed_forward_width or 4 * self.width,
                dtype=self.compute.dtype,
                **scales,
            ),
            norm=norm,
            dropout_rate=self.dropout_rate,
        )
        # The vectors of tokens are not normalised.
        self.surround(block, norm)
        self.final_norm = norm()
        self.pooler = Pooler(self.width, self.compute.dtype)
        self.masked_token = MaskedTokenHead(
            width=self.width,
            activation="gelu",
            make_norm=norm,
            vocab_size=decided("vocab_size", self.vocab_size),
            dtype=self.compute.dtype,
        )
        self.contact_head = ContactHead(self.num_layers * self.num_heads)

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        token_types: Int[Array, "B T"] | None = None,
        lengths: Int[Array, "B"] | None = None,
    ) -> Float[Array, "B T D"]:
        """The hidden states of all tokens; token types are ignored. See `TextEncoder`."""
        mask = None if lengths is None else padding_behind(lengths)
        x = tap(self, "token_embedding", self.token_embedding(tokens))
        if self.token_dropout:
            x = x * self._kept(tokens, lengths)[..., None].astype(x.dtype)
        # As in published models, contacts have parameters whatever the job is.
        self.contact_head.weights()
        x, _ = self.blocks(self.dropout(x), mask=mask)
        return tap(self, "final", self.finished(x))

    def finished(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Normalised, as pre-norm blocks leave their sum as it is."""
        return self.final_norm(x)

    def _kept(
        self, tokens: Int[Array, "B T"], lengths: Int[Array, "B"] | None
    ) -> Float[Array, "B T"]:
        """The factor of each token's vector: 0 for masks, the same for all others of a row."""
        hidden = tokens == self.mask_token
        count = jnp.full(tokens.shape[:1], tokens.shape[1]) if lengths is None else lengths
        inside = hidden if lengths is None else hidden & real_tokens(tokens.shape[1], lengths)
        observed = jnp.sum(inside, axis=1) / jnp.maximum(count, 1)
        # A row of masks only has no other vector to scale.
        factor = (1.0 - _MASKED_IN_TRAINING) / jnp.maximum(1.0 - observed, 1e-6)
        return jnp.where(hidden, 0.0, factor[:, None])

    def pooled(
        self, features: Float[Array, "B T D"], lengths: Int[Array, "B"] | None = None
    ) -> Float[Array, "B D"]:
        """The vector that stands for the whole row; see `pooling`."""
        return self.pooler(pool(self.pooling, self.dropout(features), lengths)[:, None])

    def of_masked(self, features: Float[Array, "B M D"]) -> Float[Array, "B M D"]:
        """The features from which masked tokens are predicted."""
        return self.masked_token(features)

    def biases(self) -> Float[Array, "V"]:
        """The biases of the output layer of tokens."""
        return self.masked_token.bias

    def hidden_token(self) -> int | None:
        """The token that must be the tokenizer's mask; None if no token is special."""
        return self.mask_token if self.token_dropout else None

    def refit(
        self, path: str, saved: Float[Array, "..."] | Float[np.ndarray, "..."]
    ) -> Float[Array, "..."] | Float[np.ndarray, "..."]:
        """A parameter of a model with other values in `ADAPTABLE`: the same."""
        return saved

    def check(self) -> None:
        """Refuses values that do not make a model.

        Raises:
            ConfigError: naming the field and what to do.
        """
        super().check()
        if self.width // self.num_heads % 2:
            raise ConfigError(
                f"config.model.width ({self.width}) / config.model.num_heads ({self.num_heads}) is "
                f"not an even number, which rotary positions need."
            )
