"""A stack of blocks, unrolled or scanned, with rematerialisation by name."""

from collections.abc import Callable
from typing import Annotated, Any

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from transformer.errors import ConfigError
from transformer.limits import OneOf

# What the backward pass finds in memory; the rest it computes again.
REMAT_POLICIES: dict[str, Callable[..., bool] | None] = {
    "full": None,
    "dots": jax.checkpoint_policies.checkpoint_dots,
    "dots_without_batch": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
Remat = Annotated[str, OneOf(("none", *REMAT_POLICIES))]

# So many different blocks a compiler takes minutes to hours for.
MOST_UNROLLED = 256


def require_compilable(scan_layers: bool, **depths: int) -> None:
    """Refuses more blocks than can be compiled one by one.

    Args:
        scan_layers: whether one stands for all.
        **depths: the fields of `config.model` that say how many there are.

    Raises:
        ConfigError: naming the field.
    """
    for field, depth in depths.items():
        if depth > MOST_UNROLLED and not scan_layers:
            raise ConfigError(
                f"config.model.{field} is {depth}: more than {MOST_UNROLLED} layers are not "
                f"compiled one by one. Set config.model.scan_layers=True."
            )


class Stack(nn.Module):
    """L blocks, one after another.

    Attributes:
        block: makes one block, called as `block(x, cache, **shared) -> (x, cache)`.
        num_layers: L.
        scan: compiles one block and loops over stacked parameters `[L, ...]`. Compile time then
            does not grow with L; on CPUs the loop costs time.
        remat: `none`, or a name in `REMAT_POLICIES`: what is recomputed in the backward pass to
            save memory (Chen et al. 2016). `full` keeps only the input of each block.
    """

    block: Callable[..., nn.Module]
    num_layers: int
    scan: bool = False
    remat: str = "none"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        caches: Any = None,
        per_layer: Any = None,
        **shared: Any,
    ) -> tuple[Float[Array, "B T D"], Any]:
        """Runs the blocks.

        Args:
            x: the embedded input.
            caches: one per block in a tuple, or when scanned one with a leading axis L.
            per_layer: arrays by name with a leading axis L, of which each block is handed its part.
            **shared: handed to every block: masks, positions, a memory.

        Returns:
            The hidden states after the last block, and the caches.
        """
        per_layer = per_layer or {}

        def run(block, x, cache, own, shared):
            return block(x, cache, **own, **shared)

        if self.remat != "none":
            policy = REMAT_POLICIES[self.remat]
            run = nn.remat(run, policy=policy, prevent_cse=not self.scan)
        if self.scan:
            run = nn.scan(
                run,
                variable_axes={"params": 0, "intermediates": 0, "losses": 0},
                split_rngs={"params": True, "dropout": True},
                in_axes=(0, 0, nn.broadcast),  # pyright: ignore[reportArgumentType]
                length=self.num_layers,
                metadata_params={nn.PARTITION_NAME: "layers"},
            )
            return run(self.block(name="layers"), x, caches, per_layer, shared)
        new_caches = []
        for layer in range(self.num_layers):
            cache = None if caches is None else caches[layer]
            own = {name: values[layer] for name, values in per_layer.items()}
            x, cache = run(self.block(name=f"layer_{layer}"), x, cache, own, shared)
            new_caches.append(cache)
        return x, None if caches is None else tuple(new_caches)
