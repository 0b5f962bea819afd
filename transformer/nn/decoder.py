"""The base of decoder-only language models: everything around their blocks."""

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from transformer.limits import Heads, Layers, VocabSize, Whole, Width
from transformer.nn.attention import KVCache, for_any_shape, usual_implementation
from transformer.nn.linear import DType
from transformer.nn.stack import Remat, require_compilable
from transformer.nn.taps import tap
from transformer.ops.activations import soft_cap
from transformer.ops.attention import Implementation
from transformer.ops.masks import Mask, at_positions, causal, segments
from transformer.traced import RateOrOff, is_zero


class DecoderOnly(nn.Module):
    """Maps tokens to scores of the next tokens by a stack of causal blocks.

    A subclass makes `token_embedding`, `blocks`, `final_norm` and, without tied embeddings,
    `output` in its `setup`.

    Attributes:
        vocab_size: V; None takes the size of the tokenizer's vocabulary.
        num_layers: L.
        num_heads: N.
        width: D.
        context: the longest sequence.
        tie_embeddings: the token table is also the output layer (Press and Wolf 2017).
        dropout_rate: on embeddings, attention weights and branches.
        dtype: of the computation; parameters stay float32.
        scan_layers: compile one block and loop over it; see `nn.stack.Stack`.
        remat: what the backward pass recomputes; see `nn.stack.Stack`.
        attention: the implementation of attention; see `ops.attention.dot_product_attention`.
    """

    vocab_size: VocabSize | None = None
    num_layers: Layers = 12
    num_heads: Heads = 12
    width: Width = 768
    context: Annotated[int, Whole(2, 1 << 24)] = 1024
    tie_embeddings: bool = True
    dropout_rate: RateOrOff = 0.0
    dtype: DType = "float32"
    scan_layers: bool = False
    remat: Remat = "none"
    attention: Implementation = "auto"

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        *,
        positions: Int[Array, "B T"] | None = None,
        segment_ids: Int[Array, "B T"] | None = None,
        valid: Bool[Array, "B T"] | None = None,
        cache: Any = None,
    ) -> tuple[Float[Array, "B T V"], Any]:
        """Scores every next token.

        Args:
            tokens: the text so far.
            positions: of the tokens; None means 0, 1, 2, ...
            segment_ids: the document of each token, if several share a row.
            valid: False at padding, which takes no slot of an expert and does not count in router
                losses. Attention does not need it: no token sees padding after it, and
                `segment_ids` hide padding before it.
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
        cache: Any = None,
    ) -> tuple[Float[Array, "B T D"], Any]:
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
        kinds = self.layer_kinds()
        x, cache = self.blocks(x, cache, kinds, mask=mask, positions=positions, valid=valid)
        return tap(self, "final", self.final_norm(x)), cache

    def embed(
        self, tokens: Int[Array, "B T"], positions: Int[Array, "#B T"]
    ) -> Float[Array, "B T D"]:
        """The input of the first block."""
        raise NotImplementedError

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

    def layer_kinds(self) -> dict[str, Any]:
        """What differs between layers: arguments of blocks by name, each stacked over L."""
        return {}

    def output_layer(self) -> tuple[Float[Array, "D V"], Float[Array, "V"] | None]:
        """Kernel and bias of the output layer, for losses that use it in chunks."""
        if self.tie_embeddings:
            return self.token_embedding.embedding.T, None
        parameters = self.output.variables["params"]
        return parameters["kernel"], parameters.get("bias")

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
        length = {} if tokens is None else {"length": tokens.shape[1]}
        return usual_implementation(
            self.attention,
            (self.num_heads, self.cache_heads()[1]),
            self.dtype,
            **length,
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

    def empty_cache(self, batch_size: int, length: int) -> Any:
        """An empty cache with room for `length` positions of `batch_size` texts."""
        one = KVCache.empty(batch_size, length, *self.cache_heads(), self.dtype)
        if self.scan_layers:
            return jax.tree.map(lambda x: jnp.stack([x] * self.num_layers), one)
        return (one,) * self.num_layers

    def check(self) -> None:
        """Refuses values that do not make a model.

        Raises:
            ConfigError: naming the field and what to do.
        """
        require_compilable(self.scan_layers, num_layers=self.num_layers)
        self.chosen_attention()
