"""Few tokens that stand for many vectors, so that a page can show a recording of 1,500 of them.

A token's vectors are means. Its weights are means over the vectors that read and sums over those
that are read, so that they still sum to one.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from transformer.explaining.names import axes_of

# The stack whose vectors are pooled, and what is kept of each vector.
POOLED, WHOLE = "encoder", ("alignment",)


@dataclasses.dataclass(frozen=True)
class Pools:
    """Which token each of R vectors of the encoder belongs to.

    Attributes:
        tokens: the numbers of the tokens, from 0, in order.
    """

    tokens: Int[np.ndarray, " R"]

    def shares(self) -> Float[np.ndarray, "R G"]:
        """1 where a vector belongs to a token, of which there are G."""
        return np.eye(int(self.tokens[-1]) + 1, dtype=np.float32)[self.tokens]

    def starts(self) -> Int[np.ndarray, " G"]:
        """The first vector of each token."""
        return np.flatnonzero(np.diff(self.tokens, prepend=-1))

    def means(self, x: Float[np.ndarray, "R ..."]) -> Float[np.ndarray, "G ..."]:
        """The mean of each token's vectors."""
        starts = self.starts()
        counts = np.diff(starts, append=len(self.tokens))
        sums = np.add.reduceat(x, starts, axis=0)
        return sums / counts.reshape(-1, *[1] * (x.ndim - 1)).astype(x.dtype)


def pools_of(count: int, heard: int, most: int | None) -> tuple[Pools | None, int]:
    """How vectors share tokens, and how many at most share one of the recording.

    Args:
        count: R.
        heard: how many vectors are of the recording; behind it there is silence, one token.
        most: the most tokens; None pools nothing, as where there are no more vectors.
    """
    if most is None or count <= most:
        return None, 1
    size = -(-heard // max(1, most - (heard < count)))
    tokens = np.arange(count) // size
    tokens[heard:] = -(-heard // size)
    return Pools(tokens), size


def pooled(found: Mapping[str, Any], shares: Float[Array, "R G"]) -> dict[str, Any]:
    """Recorded activations of an unrolled model, with those of the encoder's vectors pooled.

    Args:
        found: activations by their place in the model.
        shares: of `Pools`.
    """
    result = {}
    for place, value in found.items():
        if isinstance(value, Mapping):
            result[place] = {
                layer: _layer(activations, shares, of_encoder=place == POOLED)
                for layer, activations in value.items()
            }
        elif place.startswith(f"{POOLED}_") and place.removeprefix(f"{POOLED}_") not in WHOLE:
            result[place] = _means(value, shares, -2)
        else:
            result[place] = value
    return result


def _layer(
    found: Mapping[str, Any], shares: Float[Array, "R G"], *, of_encoder: bool, prefix: str = ""
) -> dict[str, Any]:
    """The activations of a layer, with the names that `axes_of` knows."""
    result = {}
    for name, value in found.items():
        if isinstance(value, Mapping):
            inner = f"{prefix}{name}_"
            result[name] = _layer(value, shares, of_encoder=of_encoder, prefix=inner)
        else:
            result[name] = _activation(f"{prefix}{name}", value, shares, of_encoder)
    return result


def _activation(name: str, x: Array, shares: Float[Array, "R G"], of_encoder: bool) -> Array:
    axes, is_cross = axes_of(name), name.startswith("cross_")
    if axes != "pairs":
        of_keys = is_cross and name.endswith(("_key", "_value"))
        if not (of_encoder or of_keys):
            return x
        return _means(x, shares, {"heads": 1, "tokens": -2, "flat": 0}[axes])
    if of_encoder:
        x = _any(x, shares, 2) if x.dtype == bool else _means(x, shares, 2)
    if not (of_encoder or is_cross):
        return x
    if x.dtype == bool:
        return _any(x, shares, 3)
    return _sums(x, shares, 3) if name.endswith("weights") else _means(x, shares, 3)


def _sums(x: Array, shares: Float[Array, "R G"], axis: int) -> Array:
    summed = jnp.tensordot(x.astype(jnp.float32), shares, axes=(axis, 0))
    return jnp.moveaxis(summed, -1, axis)


def _means(x: Array, shares: Float[Array, "R G"], axis: int) -> Array:
    return _sums(x, shares / shares.sum(0), axis)


def _any(x: Array, shares: Float[Array, "R G"], axis: int) -> Array:
    # Of a mask of all vectors, that has no axis of its own.
    if x.shape[axis] == 1:
        x = jnp.broadcast_to(x, (*x.shape[:axis], len(shares), *x.shape[axis + 1 :]))
    return _sums(x, shares, axis) > 0
