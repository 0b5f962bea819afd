"""What attention keeps of the tokens before: keys and values, each in a slot."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PyTree

from transformer.ops.int8 import Int8, rounded
from transformer.types import Leaf

# Keys or values as they are kept.
Kept = Leaf | Int8
# The position of a slot that holds nothing: after all others, so that the causal rule hides it.
_NOWHERE = 1 << 30


class Seen(NamedTuple):
    """The keys and values that new tokens may look at.

    Attributes:
        key: `[B, S, K, H]`.
        value: `[B, S, K, H]`.
        positions: of the keys, `[B, S]`; None means 0, 1, 2, ...
    """

    key: Float[Array, "B S K H"]
    value: Float[Array, "B S K H"]
    positions: Int[Array, "B S"] | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KVCache:
    """Keys and values of the positions seen so far, each in a slot.

    The slot of a position is its number, unless the caller gives other `slots`. Rows of a batch may
    be at different positions. The content of slots after a row's current position does not matter:
    the mask hides a slot until it is written.

    Heads come before positions, because attention multiplies in this order: otherwise the whole
    cache would be transposed for every token.

    Attributes:
        key: `[B, K, S, H]`; in 8 bits there is a scale for each head and position.
        value: `[B, K, S, H]`.
    """

    key: Kept
    value: Kept

    @classmethod
    def of(cls, key: Float[Array, "B S K H"], value: Float[Array, "B S K H"]) -> "KVCache":
        """Holds the given keys and values, such as those of a memory, which does not grow."""
        return cls(key=key.transpose(0, 2, 1, 3), value=value.transpose(0, 2, 1, 3))

    @classmethod
    def empty(
        cls, batch_size: int, length: int, num_kv_heads: int, head_dim: int, dtype: str
    ) -> "KVCache":
        """An empty cache with room for `length` positions."""
        zeros = jnp.zeros((batch_size, num_kv_heads, length, head_dim), dtype)
        return cls(key=zeros, value=zeros)

    def with_room(self, length: int) -> "KVCache":
        """The same with at least `length` slots; a scanned stack's has a leading axis L."""
        missing = max(0, length - self.key.shape[-2])
        widths = ((0, 0),) * (self.key.ndim - 2) + ((0, missing), (0, 0))
        return KVCache(jnp.pad(self.key, widths), jnp.pad(self.value, widths))

    def write(
        self,
        key: Float[Array, "B T K H"],
        value: Float[Array, "B T K H"],
        slots: Int[Array, "B T"],
    ) -> "KVCache":
        """Returns the cache with new keys and values written into their slots.

        The slots of a row must be consecutive: they are written as one slice.
        """
        starts = slots[:, 0]
        return KVCache(_put(self.key, key, starts), _put(self.value, value, starts))

    def read(self) -> tuple[Float[Array, "B S K H"], Float[Array, "B S K H"]]:
        """All keys and values, with the axes in the order that attention expects."""
        return _read(self.key), _read(self.value)

    def extended(
        self,
        key: Float[Array, "B T K H"],
        value: Float[Array, "B T K H"],
        slots: Int[Array, "B T"],
    ) -> tuple["KVCache", Seen]:
        """The cache with new keys and values, and all that their queries may look at."""
        cache = self.write(key, value, slots)
        return cache, Seen(_read(cache.key, key.dtype), _read(cache.value, key.dtype))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RollingCache:
    """Keys and values of the last positions, for attention that sees no more than a window.

    The slot of a position is its number modulo S. So a text of any length needs only the slots of
    a window (Jiang et al. 2023, section 2). A row is written from position 0 on, without gaps; it
    may go back and be written anew from there, by at most S - `window` positions.

    Attributes:
        key: `[B, K, S, H]`; in 8 bits there is a scale for each head and position.
        value: `[B, K, S, H]`.
        window: how many positions a query may see, itself included; at most S.
    """

    key: Kept
    value: Kept
    window: int = dataclasses.field(metadata={"static": True})

    @classmethod
    def empty(
        cls,
        batch_size: int,
        window: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: str,
        *,
        steps_back: int = 0,
    ) -> "RollingCache":
        """An empty cache for a window, whose rows may go back by `steps_back` positions."""
        shape = batch_size, num_kv_heads, window + steps_back, head_dim
        zeros = jnp.zeros(shape, dtype)
        return cls(key=zeros, value=zeros, window=window)

    def extended(
        self,
        key: Float[Array, "B T K H"],
        value: Float[Array, "B T K H"],
        slots: Int[Array, "B T"],
    ) -> tuple["RollingCache", Seen]:
        """The cache with new keys and values, and all that their queries may look at.

        Args:
            key: new keys.
            value: new values.
            slots: consecutive positions; -1 at padding behind the tokens, which is not kept.
        """
        num_slots, count = self.key.shape[2], slots.shape[1]
        first = slots[:, :1]
        cache = self._written(key, value, slots)
        if count + self.window - 1 <= num_slots:
            # What the first new query sees is still there.
            positions = _positions(first + count - 1, num_slots)
            seen = _read(cache.key, key.dtype), _read(cache.value, key.dtype)
            return cache, Seen(*seen, positions)
        old = _positions(first - 1, num_slots)
        positions = jnp.concatenate([old, first + jnp.arange(count)], axis=1)
        keys, values = (
            jnp.concatenate([_read(kept, new.dtype), _reread(kept, new)], axis=1)
            for kept, new in ((self.key, key), (self.value, value))
        )
        return cache, Seen(keys, values, positions)

    def _written(
        self,
        key: Float[Array, "B T K H"],
        value: Float[Array, "B T K H"],
        slots: Int[Array, "B T"],
    ) -> "RollingCache":
        num_slots = self.key.shape[2]
        if slots.shape[1] == 1:
            starts = slots[:, 0] % num_slots
            put = _put(self.key, key, starts), _put(self.value, value, starts)
            return dataclasses.replace(self, key=put[0], value=put[1])
        last = jnp.max(slots, axis=1, keepdims=True)
        # Of a longer text than there are slots, only the end is written.
        kept = (slots >= 0) & (slots > last - num_slots)
        # A place behind the last slot is written nowhere.
        places = jnp.where(kept, slots % num_slots, num_slots)

        @jax.vmap
        def put(old: Array, new: Array, places: Array) -> Array:
            return old.at[:, places].set(new.swapaxes(0, 1).astype(old.dtype), mode="drop")

        def put_each(old: Kept, new: Array) -> Kept:
            return jax.tree.map(lambda o, n: put(o, n, places), old, _kept_like(old, new))

        return dataclasses.replace(
            self, key=put_each(self.key, key), value=put_each(self.value, value)
        )


# What attention keeps between calls.
AnyCache = KVCache | RollingCache


def in_int8(caches: PyTree) -> PyTree:
    """Empty caches that keep their keys and values in 8 bits, instead of the given empty ones."""

    def empty(kept: Array) -> Int8:
        return Int8(jnp.zeros(kept.shape, jnp.int8), jnp.zeros((*kept.shape[:-1], 1)))

    def smaller(cache: AnyCache) -> AnyCache:
        return dataclasses.replace(cache, key=empty(cache.key), value=empty(cache.value))

    return jax.tree.map(smaller, caches, is_leaf=lambda x: isinstance(x, AnyCache))


def _kept_like(kept: Kept, new: Float[Array, "B T K H"]) -> Kept:
    """New keys or values in the form in which others are kept."""
    return rounded(new, axes=-1) if isinstance(kept, Int8) else new


def _put(old: Kept, new: Float[Array, "B T K H"], starts: Int[Array, "B"]) -> Kept:
    """Each row with consecutive slots replaced."""

    @jax.vmap
    def put(old: Array, new: Array, start: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(old, new.swapaxes(0, 1), start, axis=1)

    return jax.tree.map(lambda o, n: put(o, n, starts), old, _kept_like(old, new))


def _read(kept: Kept, dtype: DTypeLike = jnp.float32) -> Float[Array, "B S K H"]:
    """What is kept, in the order that attention expects; 8 bits as numbers of this dtype."""
    values = kept.restored(dtype) if isinstance(kept, Int8) else kept
    return values.transpose(0, 2, 1, 3)


def _reread(kept: Kept, new: Float[Array, "B T K H"]) -> Float[Array, "B T K H"]:
    """New keys or values as they will be read."""
    written = _kept_like(kept, new)
    return written.restored(new.dtype) if isinstance(written, Int8) else new.astype(kept.dtype)


def _positions(last: Int[Array, "B 1"], num_slots: int) -> Int[Array, "B S"]:
    """The position of each slot's content, if `last` is the newest position."""
    found = last - (last - jnp.arange(num_slots)) % num_slots
    return jnp.where(found < 0, _NOWHERE, found)
