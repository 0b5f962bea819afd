"""The base of decoder-only language models: everything around their blocks."""

from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from transformer.limits import Heads, Layers, VocabSize, Whole, Width
from transformer.nn.caches import AnyCache, KVCache, RollingCache
from transformer.nn.compute import Compute, for_any_shape
from transformer.nn.dropout import Dropout
from transformer.nn.embeddings import Embedding
from transformer.nn.linear import Linear
from transformer.nn.sizes import decided, require_multiple
from transformer.nn.stack import Maker, PerLayer
from transformer.nn.taps import tap
from transformer.ops.activations import soft_cap
from transformer.ops.masks import Mask, at_positions, causal, segments
from transformer.traced import RateOrOff, is_zero

# The caches of all layers; in a scanned stack, one with a leading axis L.
Caches = AnyCache | tuple[AnyCache, ...]


class DecoderOnly(nn.Module):
    """Maps tokens to scores of the next tokens by a stack of causal blocks.

    A subclass calls `surround` in its `setup`.

    Attributes:
        vocab_size: V; None takes the size of the tokenizer's vocabulary.
        num_layers: L.
        num_heads: N.
        width: D.
        context: the longest sequence.
        tie_embeddings: the token table is also the output layer (Press and Wolf 2017).
        dropout_rate: on embeddings, attention weights and branches.
        compute: how it computes; see `nn.compute.Compute`.
    """

    vocab_size: VocabSize | None = None
    num_layers: Layers = 12
    num_heads: Heads = 12
    width: Width = 768
    context: Annotated[int, Whole(2, 1 << 24)] = 1024
    tie_embeddings: bool = True
    dropout_rate: RateOrOff = 0.0
    compute: Compute = Compute()

    def attention_layer(self, **fields: object) -> Maker:
        """The maker of a block's attention; `fields` of `Attention` are added."""
        num_kv_heads, head_dim = self.cache_heads()
        return self.compute.attention_layer(
            num_heads=self.num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            dropout_rate=self.dropout_rate,
            **fields,
        )

    def surround(
        self, block: Maker | tuple[Maker, ...], norm: Maker, *, output_bias: bool = False
    ) -> None:
        """Makes the parts that all decoders have; called by `setup`.

        Args:
            block: the maker of a block; several take turns.
            norm: the maker of the normalisation after the last block.
            output_bias: whether a separate output layer has a bias.

        Raises:
            ConfigError: if nothing has decided the size of the vocabulary.
        """
        vocab_size, dtype = decided("vocab_size", self.vocab_size), self.compute.dtype
        self.token_embedding = Embedding(vocab_size, self.width, dtype=dtype)
        self.dropout = Dropout(self.dropout_rate)
        self.blocks = self.compute.stack(block, self.num_layers)
        self.final_norm = norm()
        if not self.tie_embeddings:
            self.output = Linear((vocab_size,), ("embed", "vocab"), output_bias, dtype=dtype)

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        *,
        positions: Int[Array, "B T"] | None = None,
        segment_ids: Int[Array, "B T"] | None = None,
        valid: Bool[Array, "B T"] | None = None,
        cache: Caches | None = None,
    ) -> tuple[Float[Array, "B T V"], Caches | None]:
        """Scores every next token.

        Args:
            tokens: the text so far.
            positions: of the tokens; None means 0, 1, 2, ...
            segment_ids: the document of each token, if several share a row.
            valid: False at padding, which takes no slot of an expert and does not count in router
                losses, and which a cache of a window does not keep. Otherwise attention does not
                need it: no token sees padding after it, and `segment_ids` hide padding before it.
                With a cache the first token of a row is none.
            cache: from `empty_cache` or an earlier call.

        Returns:
            Logits in float32, and the cache to pass to the next call.
        """
        features, cache = self.features(
            tokens, positions=positions, segment_ids=segment_ids, valid=valid, cache=cache
        )
        return self.logits(features), cache

    def features(
        self,
        tokens: Int[Array, "B T"],
        *,
        positions: Int[Array, "B T"] | None = None,
        segment_ids: Int[Array, "B T"] | None = None,
        valid: Bool[Array, "B T"] | None = None,
        cache: Caches | None = None,
    ) -> tuple[Float[Array, "B T D"], Caches | None]:
        """The hidden states before the output layer; arguments as in `__call__`."""
        mask: Mask = causal()
        if segment_ids is not None:
            mask = mask & segments(segment_ids)
        if positions is not None:
            # The slots of a cache are the positions; without a cache, keys have the queries'
            # positions.
            mask = mask & at_positions(positions, positions if cache is None else None)
        else:
            positions = jnp.arange(tokens.shape[1])[None, :]
        x = self.embed(tokens, positions)
        positions = jnp.broadcast_to(positions, tokens.shape)
        slots = None if valid is None else jnp.where(valid, positions, -1)
        where = {"mask": mask, "positions": positions, "slots": slots, "valid": valid}
        x, cache = self.blocks(x, cache, self.layer_kinds(), **where)
        return tap(self, "final", self.final_norm(x)), cache

    def embed(
        self, tokens: Int[Array, "B T"], positions: Int[Array, "#B T"]
    ) -> Float[Array, "B T D"]:
        """The input of the first block; by default the vectors of the tokens."""
        return self.dropout(tap(self, "token_embedding", self.token_embedding(tokens)))

    def logits(self, features: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """Applies the output layer, in float32."""
        if self.tie_embeddings:
            scores = jnp.asarray(self.token_embedding.attend(features), jnp.float32)
        else:
            scores = self.output(features).astype(jnp.float32)
        cap = self.output_cap()
        return scores if cap is None else soft_cap(scores, cap)

    def output_cap(self) -> float | None:
        """The cap that squashes the output layer's scores to (-cap, cap); None means no cap."""
        return None

    def layer_kinds(self) -> PerLayer:
        """What differs between layers: arguments of blocks by name, each stacked over L."""
        return {}

    def output_layer(self) -> tuple[Float[Array, "D V"], Float[Array, "V"] | None]:
        """Kernel and bias of the output layer, for losses that use it in chunks."""
        if self.tie_embeddings:
            return self.token_embedding.embedding.T, None
        parameters = self.output.variables["params"]
        return parameters["kernel"], parameters.get("bias")

    def output_table(self) -> Float[Array, "V D"] | None:
        """The table of tokens if it is the output layer."""
        return self.token_embedding.embedding if self.tie_embeddings else None

    def for_writing(self) -> "DecoderOnly":
        """This model for generation: with a cache, rows of any length and no dropped tokens."""
        return for_any_shape(self)

    def loss_scales(self) -> dict[str, float]:
        """The weights of auxiliary losses (the collection `losses`) in the objective, by name."""
        return {}

    def chosen_attention(self, tokens: Int[Array, "B T"] | None = None) -> str:
        """The attention implementation that training uses for batches of this (or a usual) length.

        Raises:
            ConfigError: if the implementation that the config asks for does not support it.
        """
        return self.compute.chosen_attention(
            self.num_heads,
            self.cache_heads()[1],
            None if tokens is None else tokens.shape[1],
            mask=causal(),
            has_dropout=not is_zero(self.dropout_rate),
            has_cap=self.has_attention_cap(),
        )

    def has_attention_cap(self) -> bool:
        """Whether the logits of attention are capped."""
        return False

    def cache_heads(self) -> tuple[int, int]:
        """The number of key and value heads, and the width of one."""
        return self.num_heads, self.width // self.num_heads

    def layer_windows(self) -> tuple[int | None, ...]:
        """How many positions each layer sees, the token's own included; None means all."""
        return (None,) * self.num_layers

    def empty_cache(self, batch_size: int, length: int, *, steps_back: int = 0) -> Caches:
        """An empty cache for texts of up to `length` tokens.

        A layer with a window has the slots of this window only. In a scanned stack, whose layers
        have caches of one size, that needs the same window in all of them.

        Args:
            batch_size: the number of texts.
            length: of the longest text.
            steps_back: how many of its last tokens a text may replace.
        """
        windows = self.layer_windows()
        if self.compute.scan_layers and len(set(windows)) > 1:
            windows = (None,) * self.num_layers
        heads = *self.cache_heads(), self.compute.dtype

        def empty(window: int | None) -> AnyCache:
            if window is None or window + steps_back >= length:
                return KVCache.empty(batch_size, length, *heads)
            return RollingCache.empty(batch_size, window, *heads, steps_back=steps_back)

        if self.compute.scan_layers:
            return self.compute.caches(empty(windows[0]), self.num_layers)
        return tuple(map(empty, windows))

    def check(self) -> None:
        """Refuses values that do not make a model.

        Raises:
            ConfigError: naming the field and what to do.
        """
        require_multiple(
            "each key head serves equally many query heads",
            num_heads=self.num_heads,
            num_kv_heads=self.cache_heads()[0],
        )
        self.compute.require_compilable(num_layers=self.num_layers)
        self.chosen_attention()
