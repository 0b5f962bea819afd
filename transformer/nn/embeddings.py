"""Tables of vectors for tokens and positions."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from transformer.nn.linear import named
from transformer.ops.dense import dense
from transformer.ops.int8 import Int8, int8_scores
from transformer.ops.positions import sinusoidal
from transformer.sharding import constrain, gathered


def sinusoidal_table(scale: float) -> Callable[..., Array]:
    """An initialiser: row i holds the sinusoids of position i, with a root mean square of `scale`.

    A step from one position to another is then the same linear map everywhere (Vaswani et al. 2017,
    section 3.5); with a random table it must be learned for each position.
    """

    def init(key: object, shape: tuple[int, int], dtype: DTypeLike = jnp.float32) -> Array:
        del key
        table = scale * math.sqrt(2.0) * sinusoidal(jnp.arange(shape[0]), shape[1])
        return table.astype(dtype)

    return init


class Embedding(nn.Module):
    """A table with one learned vector per entry: tokens, or positions.

    Attributes:
        num_entries: V, or the length of the longest sequence.
        width: D.
        axes: logical names of the table's two axes.
        initializer: initialiser of the table; None means normal with a standard deviation of 0.02.
        dtype: of the computation.
    """

    num_entries: int
    width: int
    axes: tuple[str | None, str | None] = ("vocab", "embed")
    initializer: Callable[..., Array] | None = None
    dtype: str = "float32"

    def setup(self) -> None:
        init = self.initializer or nn.initializers.normal(0.02)
        shape = self.num_entries, self.width
        self.embedding = self.param("embedding", named(init, *self.axes), shape)

    def __call__(self, ids: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        if isinstance(self.embedding, Int8):
            found = jax.tree.map(lambda part: jnp.take(part, ids, axis=0), self.embedding)
            return found.restored(self.dtype)
        # Gradients of a frequent token are many small numbers, to be added in float32.
        table = gathered(self.embedding, *self.axes).astype(jnp.float32)
        vectors = jnp.take(table, ids, axis=0).astype(self.dtype)
        return constrain(vectors, "batch", "sequence", "features")

    def attend(self, x: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """Multiplies `x` by every vector: the table as output layer (Press and Wolf 2017)."""
        if isinstance(self.embedding, Int8):
            return int8_scores(x, self.embedding)
        table = gathered(self.embedding.astype(self.dtype), *self.axes)
        scores = dense(x, table.T)
        return constrain(scores, "batch", "sequence", "vocab")
