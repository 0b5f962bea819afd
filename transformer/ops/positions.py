"""Positions: sinusoidal tables and rotary embeddings. Learned ones are a table in `nn`."""

import dataclasses
import math
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def sinusoidal(
    positions: Int[Array, "..."], width: int, *, base: float = 10_000.0, interleaved: bool = True
) -> Float[Array, "... D"]:
    """Sines and cosines of geometrically spaced wavelengths (Vaswani et al. 2017, section 3.5).

    Column 2i holds `sin(position / base^(2i / D))`, column 2i + 1 the cosine, as in the paper.

    Args:
        positions: any shape.
        width: D, even.
        base: the ratio between the longest and the shortest wavelength.
        interleaved: False puts all sines before all cosines, as Marian does.

    Raises:
        ValueError: if `width` is odd.
    """
    if width % 2:
        raise ValueError(f"sinusoidal positions come in pairs: width must be even, not {width}.")
    frequencies = base ** (-jnp.arange(0, width, 2, dtype=jnp.float32) / width)
    angles = positions[..., None].astype(jnp.float32) * frequencies
    pairs = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1 if interleaved else -2)
    return pairs.reshape(*positions.shape, width)


def sinusoidal_2d(rows: int, columns: int, width: int) -> Float[Array, "T D"]:
    """Positions on a grid: the first half of the features encodes the row, the second the column.

    As in He et al. 2022 (masked autoencoders), appendix A, up to the order of features.

    Args:
        rows: rows of the grid.
        columns: columns of the grid; T = rows x columns, row by row.
        width: D, a multiple of 4.

    Raises:
        ValueError: if `width` is not a multiple of 4.
    """
    if width % 4:
        raise ValueError(f"positions on a grid need a width that is a multiple of 4, not {width}.")
    row, column = jnp.divmod(jnp.arange(rows * columns), columns)
    halves = [sinusoidal(indices, width // 2) for indices in (row, column)]
    return jnp.concatenate(halves, axis=-1)


@dataclasses.dataclass(frozen=True)
class RotaryScaling:
    """Slower rotations for sequences longer than those of pretraining, as in Llama 3.1.

    Wavelengths that complete many rotations within the old context stay as they are, long ones
    become `factor` times longer, and the factor changes smoothly between them (Grattafiori et al.
    2024, the published code; after Chen et al. 2023, "position interpolation").

    Attributes:
        factor: how many times longer the long wavelengths become.
        low_frequency: wavelengths with fewer rotations than this within the old context get the
            whole factor.
        high_frequency: wavelengths with more rotations than this stay as they are.
        old_context: the number of positions in pretraining.
    """

    factor: float
    low_frequency: float
    high_frequency: float
    old_context: int

    def __call__(self, frequencies: Float[Array, " h"]) -> Float[Array, " h"]:
        """Scales frequencies, which are in radians per position."""
        rounds = self.old_context * frequencies / (2.0 * math.pi)
        kept = (rounds - self.low_frequency) / (self.high_frequency - self.low_frequency)
        kept = jnp.clip(kept, 0.0, 1.0)
        return kept * frequencies + (1.0 - kept) * frequencies / self.factor


@dataclasses.dataclass(frozen=True)
class LinearRotaryScaling:
    """Slows down all rotations by one factor (Chen et al. 2023, "position interpolation").

    Attributes:
        factor: how much longer sequences are than those of pretraining.
    """

    factor: float

    def __call__(self, frequencies: Float[Array, " h"]) -> Float[Array, " h"]:
        """Scales frequencies, which are in radians per position."""
        return frequencies / self.factor


def in_half_precision(frequencies: Float[Array, " h"]) -> Float[Array, " h"]:
    """Rounds frequencies to float16, as in models whose tables were kept in half precision."""
    return frequencies.astype(jnp.float16).astype(jnp.float32)


def rotary(
    x: Float[Array, "B T N H"],
    positions: Int[Array, "#B T"],
    *,
    base: float = 10_000.0,
    scaling: Callable[[Float[Array, " h"]], Float[Array, " h"]] | None = None,
) -> Float[Array, "B T N H"]:
    """Rotates pairs of features by an angle that grows with position (Su et al. 2021, eq. 34).

    Feature i is paired with feature i + H/2, the layout of published Llama weights.

    Args:
        x: queries or keys.
        positions: the position of each query or key.
        base: theta in the paper.
        scaling: applied to the frequencies; see `RotaryScaling`.

    Raises:
        ValueError: if the head dimension is odd.
    """
    head_dim = x.shape[-1]
    if head_dim % 2:
        raise ValueError(f"rotary positions come in pairs: head_dim must be even, not {head_dim}.")
    frequencies = base ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    if scaling is not None:
        frequencies = scaling(frequencies)
    angles = positions[:, :, None, None].astype(jnp.float32) * frequencies
    sine, cosine = jnp.sin(angles), jnp.cos(angles)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate(
        [first * cosine - second * sine, second * cosine + first * sine], axis=-1
    )
    return rotated.astype(x.dtype)
