"""Normalisation over the last axis, computed in float32 whatever the dtype of the input."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def layer_norm(
    x: Float[Array, "... D"],
    scale: Float[Array, "D"],
    bias: Float[Array, "D"] | None = None,
    *,
    epsilon: float = 1e-5,
) -> Float[Array, "... D"]:
    """Layer normalisation (Ba et al. 2016, equation 4)."""
    wide = x.astype(jnp.float32)
    centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    normed = centred * lax.rsqrt(variance + epsilon) * scale
    if bias is not None:
        normed = normed + bias
    return normed.astype(x.dtype)


def rms_norm(
    x: Float[Array, "... D"], scale: Float[Array, "D"], *, epsilon: float = 1e-6
) -> Float[Array, "... D"]:
    """Root mean square normalisation (Zhang and Sennrich 2019, equation 4)."""
    wide = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
    return (wide * lax.rsqrt(mean_square + epsilon) * scale).astype(x.dtype)
