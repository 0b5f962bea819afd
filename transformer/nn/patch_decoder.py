"""The decoder of a masked autoencoder."""

import functools
import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from transformer.nn.linear import Linear, named
from transformer.nn.norms import LayerNorm
from transformer.nn.stack import Maker, Stack
from transformer.ops.positions import sinusoidal_2d


class PatchDecoder(nn.Module):
    """Reconstructs hidden patches (He et al. 2022, section 3, "MAE decoder").

    Attributes:
        block: makes a block.
        num_layers: L.
        width: D.
        patch_values: P, the number of values of a patch.
        norm_epsilon: added to variances.
        dtype: of the computation.
    """

    block: Maker
    num_layers: int
    width: int
    patch_values: int
    norm_epsilon: float
    dtype: str

    @nn.compact
    def __call__(
        self, features: Float[Array, "B S E"], places: Int[Array, "B T"], num_front: int
    ) -> Float[Array, "B T P"]:
        """Reconstructs the values of all patches.

        Args:
            features: features of the front tokens, then of the visible patches.
            places: the index of each patch among the visible patches; an index beyond them means
                that the patch is hidden.
            num_front: the number of front tokens, which stay in front.
        """
        dense = functools.partial(Linear, axes=("embed", None), dtype=self.dtype)
        x = dense((self.width,), name="embedding")(features)
        init = named(nn.initializers.normal(0.02), "tokens", "embed")
        hidden = self.param("mask_token", init, (1, self.width)).astype(x.dtype)
        front, x = x[:, :num_front], x[:, num_front:]
        batch, count = places.shape
        hidden = jnp.broadcast_to(hidden, (batch, count - x.shape[1], self.width))
        x = jnp.take_along_axis(jnp.concatenate([x, hidden], axis=1), places[..., None], axis=1)
        grid = math.isqrt(count)
        x = x + sinusoidal_2d(grid, grid, self.width).astype(x.dtype)
        x = jnp.concatenate([front, x], axis=1)
        x, _ = Stack(self.block, self.num_layers, name="blocks")(x)
        x = LayerNorm(epsilon=self.norm_epsilon, name="norm")(x[:, num_front:])
        return dense((self.patch_values,), name="pixels")(x).astype(jnp.float32)
