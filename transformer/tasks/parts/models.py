"""What tasks and training ask of a model."""

from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float

from transformer.traced import Number
from transformer.types import Boxed


@runtime_checkable
class Model(Protocol):
    """A Linen module of `transformer/models`: its fields are `config.model`."""

    dropout_rate: Number
    dtype: str
    attention: str
    # What the backward pass recomputes; see `nn.stack.Stack`.
    remat: str

    def init(self, rngs: jax.Array, *inputs: Any, method: str) -> dict[str, Boxed]:
        """Collections of variables; `params` are the parameters."""
        ...

    def clone(self, **fields: Any) -> "Model":
        """The same model with other values in some fields."""
        ...

    def chosen_attention(self, *inputs: Any) -> str:
        """The implementation that training uses for such inputs.

        Raises:
            ConfigError: if what the config asks for cannot do it.
        """
        ...


@runtime_checkable
class HasHeads(Protocol):
    """A model with modules that only some jobs have; `LABEL_HEADS` are those that give labels."""

    HEADS: ClassVar[tuple[str, ...]]
    LABEL_HEADS: ClassVar[tuple[str, ...]]


@runtime_checkable
class Refits(Protocol):
    """A model that can begin from one whose fields in `ADAPTABLE` have other values."""

    ADAPTABLE: ClassVar[tuple[str, ...]]

    def refit(
        self, path: str, saved: Float[Array, "..."] | Float[np.ndarray, "..."]
    ) -> Float[Array, "..."] | Float[np.ndarray, "..."]:
        """A parameter of the other model, by path, as this one takes it."""
        ...


@runtime_checkable
class HasExperts(Protocol):
    """A model of which each token uses a few experts only."""

    experts_per_token: int
