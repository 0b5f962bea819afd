"""Hiding parts of a recording's features in training (SpecAugment; Park et al. 2019)."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def hidden(
    frames: Float[Array, "B T M"],
    num_frames: Int[Array, "B"],
    *,
    time_masks: Float[Array, "B k 2"] | None = None,
    frequency_masks: Float[Array, "B j 2"] | None = None,
) -> Float[Array, "B T M"]:
    """Replaces runs of frames and of bands by zeros.

    Args:
        frames: features of mean 0.
        num_frames: how many frames of each row are valid.
        time_masks: where each run begins and ends, as fractions of the valid frames.
        frequency_masks: the same, as fractions of the M bands.
    """
    if time_masks is not None:
        inside = _within(time_masks, frames.shape[1], num_frames)
        frames = jnp.where(inside[:, :, None], 0.0, frames)
    if frequency_masks is not None:
        count = jnp.full_like(num_frames, frames.shape[2])
        inside = _within(frequency_masks, frames.shape[2], count)
        frames = jnp.where(inside[:, None, :], 0.0, frames)
    return frames


def _within(
    masks: Float[Array, "B k 2"], length: int, counts: Int[Array, "B"]
) -> Bool[Array, "B n"]:
    """Whether each of `length` places is in one of the runs of its row."""
    ends = jnp.round(masks * counts[:, None, None])
    places = jnp.arange(length)[None, None, :]
    return jnp.any((places >= ends[..., :1]) & (places < ends[..., 1:]), axis=1)
