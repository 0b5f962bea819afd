"""The choice of the next token: filters on its logits, and sampling."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

# Dividing by these still gives finite float32 numbers.
_COLDEST, _HOTTEST = 1e-30, 1e30


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How to choose the next token.

    Attributes:
        temperature: divides the logits; 0 takes the most probable token. Finite; clipped to 1e-30
            and 1e30, since float32 cannot hold the quotients beyond those.
        top_k: keeps only this many tokens; 0 keeps all.
        top_p: keeps the smallest set of tokens with at least this probability; 1 keeps all.
        min_p: keeps tokens at least this fraction as probable as the best; 0 keeps all.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}: it must be a number, 0 or more.")
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}: it must be 0 (all tokens) or more.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}: it must be above 0 and at most 1.")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p is {self.min_p}: it must be between 0 and 1.")


def filter_top_k(logits: Float[Array, "... V"], k: int) -> Float[Array, "... V"]:
    """Keeps the `k` largest logits (and ties); sets the rest to -inf (Fan et al. 2018)."""
    k = min(k, logits.shape[-1])
    threshold = jax.lax.top_k(logits, k)[0][..., -1:]
    return jnp.where(logits < threshold, -jnp.inf, logits)


def filter_top_p(logits: Float[Array, "... V"], p: float) -> Float[Array, "... V"]:
    """Keeps the nucleus: the fewest tokens whose probabilities reach `p` (Holtzman et al. 2020).

    The most probable token always stays.
    """
    descending = -jnp.sort(-logits, axis=-1)
    probabilities = jax.nn.softmax(descending, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    kept = jnp.where(before < p, descending, jnp.inf)
    return jnp.where(logits < jnp.min(kept, axis=-1, keepdims=True), -jnp.inf, logits)


def filter_min_p(logits: Float[Array, "... V"], p: float) -> Float[Array, "... V"]:
    """Keeps tokens at least `p` times as probable as the best (Nguyen et al. 2024)."""
    if p == 0:
        return logits
    threshold = jnp.max(logits, axis=-1, keepdims=True) + jnp.log(p)
    return jnp.where(logits < threshold, -jnp.inf, logits)


def filter_logits(logits: Float[Array, "... V"], sampling: Sampling) -> Float[Array, "... V"]:
    """Applies temperature, then the filters of `sampling`; temperature 0 leaves one token."""
    if sampling.temperature == 0:
        return filter_top_k(logits, 1)
    temperature = min(max(sampling.temperature, _COLDEST), _HOTTEST)
    logits = logits.astype(jnp.float32) / temperature
    if sampling.top_k:
        logits = filter_top_k(logits, sampling.top_k)
    if sampling.top_p < 1:
        logits = filter_top_p(logits, sampling.top_p)
    if sampling.min_p:
        logits = filter_min_p(logits, sampling.min_p)
    return logits


def most_probable(logits: Float[Array, "... V"]) -> Int[Array, "..."]:
    """The token with the largest logit, the first of several; the last token if one is NaN.

    Takes two fifths of the time of `argmax` on a CPU.
    """
    last = logits.shape[-1] - 1
    is_largest = logits >= jnp.max(logits, axis=-1, keepdims=True)
    return jnp.min(jnp.where(is_largest, jnp.arange(last + 1), last), axis=-1)


def choose(
    logits: Float[Array, "B V"],
    keys: Key[Array, "B"],
    position: Int[Array, ""] | Int[Array, "B"],
    sampling: Sampling,
) -> Int[Array, "B"]:
    """The next token of each row; its randomness depends only on the row and the position."""
    if sampling.temperature == 0:
        return most_probable(logits).astype(jnp.int32)
    filtered = filter_logits(logits, sampling)
    positions = jnp.broadcast_to(position, keys.shape)
    keys = jax.vmap(jax.random.fold_in)(keys, positions)
    return jax.vmap(jax.random.categorical)(keys, filtered).astype(jnp.int32)
