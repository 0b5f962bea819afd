"""How a model computes, apart from what it computes: the section `config.model.compute`."""

import dataclasses
import functools
from typing import Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp

from transformer.errors import ConfigError
from transformer.limits import Count
from transformer.nn.attention import Attention, usable
from transformer.nn.linear import DType
from transformer.nn.stack import MAX_UNROLLED, Maker, Remat, Stack
from transformer.ops.attention import UNDER_VMAP, Implementation, foreign_platform
from transformer.ops.masks import Mask
from transformer.ops.splash import LANES
from transformer.sharding import parts

Cache = TypeVar("Cache")


@dataclasses.dataclass(frozen=True)
class Compute:
    """A section of every model, which changes neither the number nor the meaning of parameters.

    Attributes:
        dtype: of the computation; parameters stay float32.
        scan_layers: compile one block and loop over it; see `nn.stack.Stack`.
        remat: what the backward pass recomputes; see `nn.stack.Stack`.
        attention: the implementation of attention; see `ops.attention.dot_product_attention`.
        vocab_multiple: the loss rounds the columns of the output layer up to a multiple of this,
            with zeros that stand for no token, for matrix products in tiles; on GPUs it is a
            multiple of 128 anyway. The parameters and what is generated stay as they are.
        fused_qkv: computes queries, keys and values by one product, whose kernel is put together
            at run time; the parameters stay apart. One CPU does so for many tokens anyway.
    """

    dtype: DType = "float32"
    scan_layers: bool = False
    remat: Remat = "none"
    attention: Implementation = "auto"
    vocab_multiple: Count = 1
    fused_qkv: bool = False

    def attention_layer(self, **fields: object) -> Maker:
        """The maker of an attention module with the given fields of `Attention`."""
        usual = functools.partial(
            Attention, implementation=self.attention, dtype=self.dtype, fused=self.fused_qkv
        )
        return functools.partial(usual, **fields)

    def stack(
        self, block: Maker | tuple[Maker, ...], num_layers: int, first: tuple[Maker, ...] = ()
    ) -> Stack:
        """A stack of blocks; arguments as in `Stack`."""
        return Stack(block, num_layers, self.scan_layers, self.remat, first)

    def caches(self, one: Cache, num_layers: int) -> Cache | tuple[Cache, ...]:
        """The caches of a stack, each like the given one; see `Stack.__call__`."""
        if self.scan_layers:
            return jax.tree.map(lambda x: jnp.stack([x] * num_layers), one)
        return (one,) * num_layers

    def chosen_attention(
        self,
        num_heads: int,
        head_dim: int,
        length: int | None = None,
        *,
        mask: Mask | None = None,
        **asked: bool,
    ) -> str:
        """The implementation of attention that training uses.

        Args:
            num_heads: N.
            head_dim: H.
            length: T and S; None takes a length that every implementation supports.
            mask: the attention mask in training; None hides nothing.
            **asked: as in `ops.attention.resolved`.

        Raises:
            ConfigError: if `attention` names an implementation that does not support it.
        """
        length = LANES * parts("sequence") if length is None else length
        query = jax.ShapeDtypeStruct((1, length, num_heads, head_dim), jnp.dtype(self.dtype))
        return usable(self.attention, query, length, Mask() if mask is None else mask, **asked)

    def require_compilable(self, **depths: int) -> None:
        """Refuses more blocks than can be compiled separately.

        Args:
            **depths: the numbers of blocks, by field of `config.model`.

        Raises:
            ConfigError: naming the field.
        """
        for field, depth in depths.items():
            if depth > MAX_UNROLLED and not self.scan_layers:
                raise ConfigError(
                    f"config.model.{field} is {depth}: more than {MAX_UNROLLED} layers are not "
                    f"compiled one by one. Set config.model.compute.scan_layers=True."
                )

    def require_platform(self) -> None:
        """Refuses a kernel that does not run on the devices in use.

        Raises:
            ConfigError: naming the kernel and the devices.
        """
        platform = foreign_platform(self.attention)
        if platform is not None:
            raise ConfigError(
                f"config.model.compute.attention is {self.attention!r}, which does not run on "
                f"{platform}: give auto or einsum."
            )


@runtime_checkable
class Computes(Protocol):
    """A model with a section `compute`."""

    compute: Compute

    def clone(self, **fields: object) -> "Computes":
        """The same model with other values in some fields."""
        ...


Model = TypeVar("Model", bound=Computes)


def computing(model: Model, **fields: str | bool | int) -> Model:
    """The same model with other values in fields of its section `compute`."""
    return model.clone(compute=dataclasses.replace(model.compute, **fields))  # pyright: ignore


def for_any_shape(model: Model) -> Model:
    """The model for use after training, with rows of any length and a cache.

    A kernel that a config asks for may not support those; `auto` uses it where it does.
    """
    kernel = model.compute.attention in ("ring", "splash", "cudnn")
    return computing(model, attention="auto") if kernel else model


def for_many_at_once(model: Model) -> Model:
    """The model for use under `vmap`, which not every kernel supports with every mask."""
    is_auto = model.compute.attention == "auto"
    return computing(model, attention=UNDER_VMAP) if is_auto else model
