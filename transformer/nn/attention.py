"""Multi-head attention with its projections and its cache."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import TypedDict

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from transformer.errors import ConfigError
from transformer.nn.caches import AnyCache, KVCache
from transformer.nn.linear import Linear, product
from transformer.nn.stack import Maker
from transformer.nn.taps import is_tapped, tap
from transformer.ops.attention import (
    dot_product_attention,
    einsum_attention,
    refusal,
    resolved,
)
from transformer.ops.cudnn import Queries
from transformer.ops.masks import Mask, explicit, sliding_window
from transformer.ops.platforms import is_one_cpu
from transformer.sharding import constrain, is_cut, parts, per_device
from transformer.traced import Number, is_zero

PROJECTIONS = ("query", "key", "value")
# From this many tokens on, one product is faster on a CPU although its kernel is copied each time.
FUSED_FROM = 256
# Whether a layer is local, which a scanned stack knows only at run time. None: see `Attention`.
Local = bool | np.bool_ | Bool[Array, ""] | None


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2.2), self or cross.

    Attributes:
        num_heads: N.
        head_dim: H; None means D / N.
        num_kv_heads: K; None means N. Fewer share keys and values (Ainslie et al. 2023).
        use_bias: on the query, key and value projections.
        use_key_bias: False leaves out the bias of the key projection.
        use_output_bias: on the output projection.
        position: applied to queries and keys with their positions, for example
            `ops.positions.rotary`.
        head_norm: makes the normalisations of queries and of keys, over H.
        window: queries see only keys fewer than this many positions away; if calls pass `local`,
            this holds only for local attention.
        local_position: replaces `position` in local attention; None means `position`.
        scale: multiplies the logits; None means 1 / sqrt(H).
        logit_cap: squashes the logits to (-cap, cap).
        dropout_rate: on the attention weights.
        init_scale: standard deviation of the other kernels at initialisation.
        query_init_scale: standard deviation of the query kernel; None means `init_scale`.
        output_init_scale: standard deviation of the output kernel at initialisation.
        implementation: see `ops.attention.dot_product_attention`.
        dtype: of the computation.
        fused: computes queries, keys and values of the same source by one product; one CPU does
            so anyway from `FUSED_FROM` tokens on.
    """

    num_heads: int
    head_dim: int | None = None
    num_kv_heads: int | None = None
    use_bias: bool = True
    use_key_bias: bool = True
    use_output_bias: bool = True
    position: Callable[..., Array] | None = None
    head_norm: Maker | None = None
    window: int | None = None
    local_position: Callable[..., Array] | None = None
    scale: float | None = None
    logit_cap: float | None = None
    dropout_rate: Number = 0.0
    init_scale: float = 0.02
    query_init_scale: float | None = None
    output_init_scale: float = 0.02
    implementation: str = "auto"
    dtype: str = "float32"
    fused: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        memory: Float[Array, "B S D"] | KVCache | None = None,
        *,
        mask: Mask | None = None,
        positions: Int[Array, "B T"] | None = None,
        slots: Int[Array, "B T"] | None = None,
        cache: AnyCache | None = None,
        bias: Float[Array, "#B #N T S"] | None = None,
        local: Local = None,
    ) -> tuple[Float[Array, "B T D"], AnyCache | None]:
        """Attends from `x` to `memory`, or to itself.

        Args:
            x: the states that queries are computed from.
            memory: the states that keys and values are computed from; None means `x`. Passing what
                an earlier call returned for the same memory saves projecting it again.
            mask: which keys each query sees. With a cache it must hold the positions of the
                queries.
            positions: the positions of `x`; None means 0, 1, 2, ...
            slots: the cache slots for the keys of `x`; None means the positions. Beam search needs
                them, since several of its tokens share a position. -1 at padding behind the tokens,
                which a `RollingCache` then does not keep.
            cache: earlier keys and values; those of `x` are added.
            bias: added to the logits.
            local: whether this layer sees only its window, in stacks that mix local and global
                layers (Beltagy et al. 2020; Gemma 2, section 2). None applies `window` if there is
                one.

        Returns:
            The output, and what to pass to the next call: the keys and values of the memory, or
            else the cache with those of `x` added (None if no cache was passed).
        """
        if positions is None:
            positions = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])
        projected = self._projected(x, ("query",) if memory is not None else PROJECTIONS)
        query = tap(self, "query", self._place(projected["query"], positions, local))
        mask = Mask() if mask is None else mask
        if memory is not None:
            cache = self._remembered(memory)
            key, value = cache.read()
        else:
            key, value = projected["key"], tap(self, "value", projected["value"])
            key = tap(self, "key", self._place(key, positions, local))
            if cache is not None:
                cache, seen = cache.extended(key, value, positions if slots is None else slots)
                key, value, mask = seen.key, seen.value, mask.with_keys_at(seen.positions)
        query = constrain(query, "batch", "sequence", "heads", None)
        # Every query attends to all keys, so no device may hold only a part of them, except in a
        # ring, where they go round.
        along = "sequence" if self.implementation == "ring" else None
        key = constrain(key, "batch", along, "kv_heads", None)
        value = constrain(value, "batch", along, "kv_heads", None)
        logits = _Logits(bias=bias, scale=self.scale, logit_cap=self.logit_cap)
        dropout_key = self.make_rng("dropout") if self._drops() else None
        options = _Options(**logits, dropout_rate=self.dropout_rate, dropout_key=dropout_key)

        def attend(mask: Mask) -> Array:
            return _attend(query, key, value, mask, self.implementation, options)

        if is_tapped(self, "scores", "weights"):
            visible = self._visible(mask, local, query.shape[1], key.shape[1])
            mask = explicit(tap(self, "visible", visible))
            watch = functools.partial(tap, self)
            attended = einsum_attention(query, key, value, mask=mask, **options, watch=watch)
        else:
            attended = self._within_window(attend, mask, local)
        attended = constrain(attended, "batch", "sequence", "heads", None)
        return self._output(tap(self, "mixed", attended), x.shape[-1]), cache

    def _remembered(self, memory: Float[Array, "B S D"] | KVCache) -> KVCache:
        """Keys and values of a memory."""
        if isinstance(memory, KVCache):
            return memory
        projected = self._projected(memory, PROJECTIONS[1:])
        return KVCache.of(
            tap(self, "key", projected["key"]), tap(self, "value", projected["value"])
        )

    def _output(self, attended: Float[Array, "B T N H"], width: int) -> Float[Array, "B T D"]:
        layer = Linear(
            (width,),
            ("heads", None, "embed"),
            self.use_output_bias,
            init_scale=self.output_init_scale,
            dtype=self.dtype,
            name="output",
        )
        return layer(attended)

    def _within_window(self, attend: Callable[..., Array], mask: Mask, local: Local) -> Array:
        """Attends with the mask, and within the window if this layer has one."""
        if self.window is None:
            return attend(mask=mask)
        narrow = mask & sliding_window(self.window)
        if isinstance(local, jax.Array):
            # In a scanned stack, a layer learns only at run time whether it is local.
            return jax.lax.cond(local, lambda: attend(mask=narrow), lambda: attend(mask=mask))
        return attend(mask=narrow if local is None or local else mask)

    def _visible(
        self, mask: Mask, local: Local, num_queries: int, num_keys: int
    ) -> Bool[Array, "#B #N T S"]:
        """The whole mask as booleans, with the window if this layer has one."""

        def visible(mask: Mask) -> Array:
            allowed = mask.materialize(num_queries, num_keys)
            allowed = jnp.ones((1, 1, 1, 1), bool) if allowed is None else allowed
            return jnp.broadcast_to(allowed, (*allowed.shape[:2], num_queries, num_keys))

        return self._within_window(visible, mask, local)

    def _place(
        self, heads: Float[Array, "B T N H"], positions: Int[Array, "B T"], local: Local
    ) -> Float[Array, "B T N H"]:
        """Applies positions, rotary ones for example, to queries or keys."""
        if self.position is None:
            return heads
        if self.local_position is None or local is None:
            return self.position(heads, positions)
        if isinstance(local, jax.Array):
            near = self.local_position(heads, positions)
            return jnp.where(local, near, self.position(heads, positions))
        return (self.local_position if local else self.position)(heads, positions)

    def _projected(
        self, source: Float[Array, "B S D"], names: tuple[str, ...]
    ) -> dict[str, Float[Array, "B S heads H"]]:
        """The projections with these names, queries and keys normalised."""
        layers = {name: self._projection(name, source.shape[-1]) for name in names}
        fused = self.fused or (is_one_cpu() and math.prod(source.shape[:2]) >= FUSED_FROM)
        if fused and len(layers) > 1:
            heads = _in_one_product(source, list(layers.values()))
        else:
            heads = [layer(source) for layer in layers.values()]
        found = dict(zip(names, heads, strict=True))
        if self.head_norm is not None:
            for name in ("query", "key"):
                if name in found:
                    found[name] = self.head_norm(name=f"{name}_norm")(found[name])
        return found

    def _projection(self, name: str, width: int) -> Linear:
        """The layer of queries, keys or values."""
        num_heads, axis = self.num_heads, "heads"
        if name != "query":
            num_heads, axis = self.num_kv_heads or self.num_heads, "kv_heads"
        init_scale = self.init_scale
        if name == "query" and self.query_init_scale is not None:
            init_scale = self.query_init_scale
        return Linear(
            (num_heads, self.head_dim or width // self.num_heads),
            ("embed", axis, None),
            self.use_bias and (name != "key" or self.use_key_bias),
            init_scale,
            self.dtype,
            name=name,
        )

    def _drops(self) -> bool:
        return not is_zero(self.dropout_rate) and self.has_rng("dropout")


def _in_one_product(
    source: Float[Array, "B S D"], layers: Sequence[Linear]
) -> list[Float[Array, "B S heads H"]]:
    """Applies layers with heads of equal width by one product with all their kernels."""
    weights, dtype = [layer.weights(source.shape[-1:]) for layer in layers], layers[0].dtype
    kernels = [kernel for kernel, _ in weights]
    # Of kernels in 8 bits, numbers and scales.
    kernel = jax.tree.map(lambda *each: jnp.concatenate(each, axis=1), *kernels)
    bias = None
    if any(bias is not None for _, bias in weights):
        biases = [jnp.zeros(kernel.shape[1:]) if one is None else one for kernel, one in weights]
        bias = jnp.concatenate(biases).astype(dtype)
    heads = product(source.astype(dtype), kernel, bias)
    ends = np.cumsum([kernel.shape[1] for kernel in kernels])
    return jnp.split(heads, ends[:-1], axis=2)


def usable(implementation: str, query: Queries, num_keys: int, mask: Mask, **asked: bool) -> str:
    """Resolves the implementation that a config asks for to the one that computes this attention.

    Arguments as in `ops.attention.resolved`.

    Raises:
        ConfigError: if that implementation does not support it, with the reason.
    """
    why_not = refusal(implementation, query, num_keys, mask, **asked)
    devices, num_queries = parts("sequence"), query.shape[1]
    if implementation == "ring" and (num_queries % devices or num_keys % devices):
        why_not = (
            f"{num_queries} queries and {num_keys} keys cannot be divided equally over "
            f"config.mesh.sequence = {devices} devices"
        )
    if why_not is not None:
        raise ConfigError(
            f"config.model.compute.attention is {implementation!r}, which cannot compute this: "
            f"{why_not}. Give auto or einsum."
        )
    return resolved(implementation, query, num_keys, mask, **asked)


class _Logits(TypedDict):
    """How logits become what the softmax sees; see `ops.attention.dot_product_attention`."""

    bias: Float[Array, "#B #N T S"] | None
    scale: float | None
    logit_cap: float | None


class _Options(_Logits):
    """Further arguments of `ops.attention.dot_product_attention`."""

    dropout_rate: Number
    dropout_key: Key[Array, ""] | None


def _attend(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    mask: Mask,
    implementation: str,
    options: _Options,
) -> Float[Array, "B T N H"]:
    """Attention; a kernel that the compiler cannot shard is called on each device.

    Each device then computes its own rows and heads.
    """
    implementation = usable(
        implementation,
        query,
        key.shape[1],
        mask,
        has_bias=options["bias"] is not None,
        has_dropout=options["dropout_key"] is not None,
        has_cap=options["logit_cap"] is not None,
    )

    def compute(query: Array, key: Array, value: Array, mask: Mask, bias: Array | None) -> Array:
        others = {**options, "bias": bias}
        return dot_product_attention(
            query, key, value, mask=mask, implementation=implementation, **others
        )

    bias = options["bias"]
    by_ring = implementation == "ring" and is_cut("sequence")
    # JAX shards cuDNN's kernel over rows and heads by itself, but not over tokens.
    if by_ring or implementation == "splash" or (implementation == "cudnn" and is_cut("sequence")):
        # One row, with which a model is initialised, is computed by all.
        rows = "batch" if query.shape[0] % parts("batch") == 0 else None
        along = "sequence" if by_ring else None
        heads, kv_heads = (rows, along, "heads", None), (rows, along, "kv_heads", None)
        if rows is not None and is_cut("batch"):
            mask = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(query), *x.shape[1:])), mask)
        shared = (1, 1) if bias is None else bias.shape
        of_bias = [
            name if size > 1 else None for name, size in zip(heads[::2], shared, strict=False)
        ]
        inputs = (heads, kv_heads, kv_heads, (rows,), tuple(of_bias))
        compute = per_device(compute, inputs, heads)
    return compute(query, key, value, mask, bias)
