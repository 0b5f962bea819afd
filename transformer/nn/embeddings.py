"""Tables of vectors for tokens and positions."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from transformer.nn.linear import named
from transformer.ops.dense import dense


class Embedding(nn.Module):
    """A table with one learned vector per entry: tokens, or positions.

    Attributes:
        num_entries: V, or the longest sequence.
        width: D.
        axes: logical names of the table's two axes.
        init_scale: standard deviation of the normal initialiser.
        dtype: of the computation.
    """

    num_entries: int
    width: int
    axes: tuple[str | None, str | None] = ("vocab", "embed")
    init_scale: float = 0.02
    dtype: str = "float32"

    def setup(self) -> None:
        init = named(nn.initializers.normal(self.init_scale), *self.axes)
        self.embedding = self.param("embedding", init, (self.num_entries, self.width))

    def __call__(self, ids: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        return jnp.take(self.embedding, ids, axis=0).astype(self.dtype)

    def attend(self, x: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """The product of `x` with every vector: the table as output layer (Press and Wolf 2017)."""
        return dense(x, self.embedding.T.astype(self.dtype))
