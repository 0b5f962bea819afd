"""Attention masks as rules that compose, turned into booleans only where a kernel needs them.

A `Mask` says which keys a query may look at without holding a `[T, S]` array, so that a blockwise
kernel can ask for one block at a time and skip the blocks that are empty:

    mask = causal() & segments(document_ids)

True means "may attend" everywhere.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int

from transformer.types import Leaf

# The index of the first entry of a block, which may be known only at run time.
Start = int | Int[Array, ""]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mask:
    """A conjunction of rules; made by the functions below and combined with `&`.

    Attributes:
        query_positions: `[B, T]`, the position of each query; None means 0..T-1.
        key_positions: `[B, S]`, the position of each key; None means 0..S-1.
        query_segments: `[B, T]`, the document each query belongs to.
        key_segments: `[B, S]`, the document each key belongs to.
        valid_keys: boolean `[B, S]`, False at padding, anywhere in a row.
        key_lengths: `[B]`, the number of keys of each row before its padding.
        allowed: boolean `[B or 1, N or 1, T, S]`, an arbitrary mask.
        causal: a query sees no key after its own position.
        window: a query sees only keys fewer than this many positions away.
    """

    query_positions: Leaf = None
    key_positions: Leaf = None
    query_segments: Leaf = None
    key_segments: Leaf = None
    valid_keys: Leaf = None
    key_lengths: Leaf = None
    allowed: Leaf = None
    causal: bool = dataclasses.field(default=False, metadata={"static": True})
    window: int | None = dataclasses.field(default=None, metadata={"static": True})

    def __and__(self, other: "Mask") -> "Mask":
        windows = [w for w in (self.window, other.window) if w is not None]

        def one(what: str, first: Leaf, second: Leaf) -> Leaf:
            if first is not None and second is not None:
                raise ValueError(f"both masks give {what}: only one of them may.")
            return second if first is None else first

        return Mask(
            query_positions=one("query positions", self.query_positions, other.query_positions),
            key_positions=one("key positions", self.key_positions, other.key_positions),
            query_segments=one("query segments", self.query_segments, other.query_segments),
            key_segments=one("key segments", self.key_segments, other.key_segments),
            valid_keys=_both(self.valid_keys, other.valid_keys),
            key_lengths=one("lengths", self.key_lengths, other.key_lengths),
            allowed=_both(self.allowed, other.allowed),
            causal=self.causal or other.causal,
            window=min(windows) if windows else None,
        )

    def with_keys_at(self, positions: Int[Array, "B S"] | None) -> "Mask":
        """The same for keys at these positions; None changes nothing.

        Raises:
            ValueError: if the mask says something of each key by its index.
        """
        if positions is None:
            return self
        by_index = (self.key_positions, self.key_segments, self.valid_keys, self.key_lengths)
        if any(rule is not None for rule in (*by_index, self.allowed)):
            raise ValueError("a mask with rules by the index of keys does not fit keys elsewhere.")
        return dataclasses.replace(self, key_positions=positions)

    def may_hide_all_keys(self, num_queries: int, num_keys: int) -> bool:
        """Whether some query may see no key; False if each certainly sees its own position."""
        rules = (self.query_positions, self.query_segments, self.valid_keys)
        rules += (self.key_lengths, self.allowed)
        beyond_window = self.window is not None and num_queries > num_keys
        return beyond_window or any(rule is not None for rule in rules)

    def block(
        self, query_start: Start, query_size: int, key_start: Start, key_size: int
    ) -> Bool[Array, "#B #N t s"] | None:
        """The mask of one block of queries and keys; None if nothing is masked.

        Args:
            query_start: index of the first query.
            query_size: number of queries, t.
            key_start: index of the first key.
            key_size: number of keys, s.
        """
        queries = _positions(self.query_positions, query_start, query_size)
        keys = _positions(self.key_positions, key_start, key_size)
        distance = queries[:, None, :, None] - keys[:, None, None, :]

        rules = []
        if self.causal:
            rules.append(distance >= 0)
        if self.window is not None:
            rules.append(distance < self.window)
            if not self.causal:
                rules.append(distance > -self.window)
        if self.query_segments is not None:
            query_segments = _slice(self.query_segments, query_start, query_size)
            key_segments = _slice(self.key_segments, key_start, key_size)
            rules.append(query_segments[:, None, :, None] == key_segments[:, None, None, :])
        if self.valid_keys is not None:
            rules.append(_slice(self.valid_keys, key_start, key_size)[:, None, None, :])
        if self.key_lengths is not None:
            indices = key_start + jnp.arange(key_size)
            rules.append((indices < self.key_lengths[:, None])[:, None, None, :])
        if self.allowed is not None:
            rows = lax.dynamic_slice_in_dim(self.allowed, query_start, query_size, axis=2)
            rules.append(lax.dynamic_slice_in_dim(rows, key_start, key_size, axis=3))
        if not rules:
            return None
        combined = rules[0]
        for rule in rules[1:]:
            combined = combined & rule
        return combined

    def materialize(self, num_queries: int, num_keys: int) -> Bool[Array, "#B #N T S"] | None:
        """The whole mask as booleans; None if nothing is masked."""
        return self.block(0, num_queries, 0, num_keys)


def full() -> Mask:
    """Every query sees every key."""
    return Mask()


def causal() -> Mask:
    """A query sees itself and everything before it."""
    return Mask(causal=True)


def sliding_window(window: int) -> Mask:
    """A query sees keys fewer than `window` positions away (Beltagy et al. 2020, section 3.1).

    Together with `causal` it sees itself and the `window - 1` keys before it.
    """
    if window < 1:
        raise ValueError(f"a sliding window holds at least one key, not {window}.")
    return Mask(window=window)


def padding(valid: Bool[Array, "B S"]) -> Mask:
    """No query sees keys that are padding (False in `valid`).

    If all padding is behind the tokens, use `padding_behind`: some kernels support no other.
    """
    return Mask(valid_keys=valid)


def padding_behind(lengths: Int[Array, "B"]) -> Mask:
    """No query sees the keys of a row from its length on, which are padding."""
    return Mask(key_lengths=lengths)


def real_tokens(count: int, lengths: Int[Array, "B"]) -> Bool[Array, "B T"]:
    """True before the padding of each row.

    Args:
        count: T.
        lengths: the number of tokens of each row before its padding.
    """
    return jnp.arange(count)[None, :] < lengths[:, None]


def segments(query: Int[Array, "B T"], key: Int[Array, "B S"] | None = None) -> Mask:
    """A query sees the keys of its own document, where several are packed into one row."""
    return Mask(query_segments=query, key_segments=query if key is None else key)


def at_positions(query: Int[Array, "#B T"], key: Int[Array, "#B S"] | None = None) -> Mask:
    """Gives positions of queries (and keys) other than 0, 1, 2, ...; needed with a cache."""
    return Mask(query_positions=query, key_positions=key)


def explicit(allowed: Bool[Array, "#B #N T S"]) -> Mask:
    """An arbitrary boolean mask, held in memory as a whole."""
    return Mask(allowed=allowed)


def _both(first: Array | None, second: Array | None) -> Array | None:
    if first is None or second is None:
        return second if first is None else first
    return first & second


def _positions(given: Int[Array, "#B _"] | None, start: Start, size: int) -> Int[Array, "#B _"]:
    """The positions of a block: those given, or else the indices themselves."""
    if given is None:
        return (start + jnp.arange(size))[None, :]
    return _slice(given, start, size)


def _slice(values: Array, start: Start, size: int) -> Array:
    return lax.dynamic_slice_in_dim(values, start, size, axis=1)
