"""A stack of equal or alternating blocks, unrolled or scanned, with named rematerialisation."""

from collections.abc import Callable, Mapping
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jaxtyping import Array, Float, PyTree

from transformer.limits import OneOf
from transformer.nn.layouts import STACKED, layer_name, turn_name
from transformer.nn.mixture import LOSSES
from transformer.nn.taps import EDITS, RECORDED

# JAX's name of cuDNN's forward pass, whose results are attended values and log normalizers.
_CUDNN_FORWARD = "dot_product_attention_fwd_wrapper"


def _by_cudnn(primitive: Primitive, *_: object, **__: object) -> bool:
    """Whether an operation is attention by cuDNN, whose products have no operation of their own."""
    return primitive.name == _CUDNN_FORWARD


# Policies by name: which values are saved for the backward pass; it recomputes all others.
REMAT_POLICIES: dict[str, Callable[..., bool] | None] = {
    "full": None,
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.checkpoint_dots, _by_cudnn
    ),
    "dots_without_batch": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
Remat = Annotated[str, OneOf(("none", *REMAT_POLICIES))]

# A module with some of its fields.
Maker = Callable[..., nn.Module]
# What blocks keep between calls, in a form that only they know.
Caches = PyTree[Array]
# Arguments of all blocks by name, each with a leading axis L; then those of one call of a block.
PerLayer = Mapping[str, Array | np.ndarray]
Arguments = Mapping[str, object]

# The compiler takes minutes to hours for more separate blocks than this.
MAX_UNROLLED = 256


class Stack(nn.Module):
    """L blocks, one after another.

    Blocks may differ in structure: several kinds may take turns, and the first blocks may be
    special. In an unrolled stack the parameters of each block are under `layer_0`, `layer_1`, ...
    In a scanned one this holds only for the first blocks; the others are stacked under `layers`,
    or, if P blocks take turns, under `layers/turn_0` to `layers/turn_{P-1}`, each with a leading
    axis (L - first) // P. Blocks of an incomplete last round are again under `layer_N`.

    Attributes:
        block: makes one block, called as `block(x, cache, **shared) -> (x, cache)`; several makers
            take turns.
        num_layers: L.
        scan: compiles one round of blocks and loops over stacked parameters. Compile time then does
            not grow with L; on CPUs the loop costs time.
        remat: `none`, or a name in `REMAT_POLICIES`: what is recomputed in the backward pass to
            save memory (Chen et al. 2016). `full` keeps only the input of each block.
        first: makers of the first blocks, if those differ.
    """

    block: Maker | tuple[Maker, ...]
    num_layers: int
    scan: bool = False
    remat: str = "none"
    first: tuple[Maker, ...] = ()

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        caches: Caches | None = None,
        per_layer: PerLayer | None = None,
        **shared: object,
    ) -> tuple[Float[Array, "B T D"], Caches | None]:
        """Runs the blocks.

        Args:
            x: the embedded input.
            caches: a tuple with one cache per block; in a scanned stack, one cache with a leading
                axis L.
            per_layer: arrays by name with a leading axis L; each block gets its own slice.
            **shared: passed to every block: masks, positions, a memory.

        Returns:
            The hidden states after the last block, and the caches.
        """
        per_layer = per_layer or {}
        if self.scan:
            return self._scanned(x, caches, per_layer, shared)
        new_caches = []
        for layer in range(self.num_layers):
            cache = None if caches is None else caches[layer]
            x, cache = self._one(layer, x, cache, per_layer, shared)
            new_caches.append(cache)
        return x, None if caches is None else tuple(new_caches)

    def _turns(self) -> tuple[Maker, ...]:
        return self.block if isinstance(self.block, tuple) else (self.block,)

    def _one(
        self, layer: int, x: Array, cache: Caches | None, per_layer: PerLayer, shared: Arguments
    ) -> tuple[Array, Caches | None]:
        """Runs the block of one layer whose parameters are not stacked."""
        turns, place = self._turns(), layer - len(self.first)
        make = self.first[layer] if place < 0 else turns[place % len(turns)]
        layer_args = {name: values[layer] for name, values in per_layer.items()}
        return _run(self.remat)(make(name=layer_name(layer)), x, cache, layer_args, shared)

    def _scanned(
        self, x: Array, caches: Caches | None, per_layer: PerLayer, shared: Arguments
    ) -> tuple[Array, Caches | None]:
        """Runs the first blocks, loops over complete rounds, and runs the remaining blocks."""
        turns, first = self._turns(), min(len(self.first), self.num_layers)
        rounds = (self.num_layers - first) // len(turns)
        last = first + rounds * len(turns)

        def alone(x: Array, layers: range) -> tuple[Array, list]:
            kept = []
            for layer in layers:
                cache = jax.tree.map(lambda leaf: leaf[layer], caches)  # noqa: B023
                x, cache = self._one(layer, x, cache, per_layer, shared)
                kept.append(jax.tree.map(lambda leaf: leaf[None], cache))
            return x, kept

        def in_rounds(leaf: Array | np.ndarray) -> Array | np.ndarray:
            leaf = leaf if rounds * len(turns) == self.num_layers else leaf[first:last]
            return leaf if len(turns) == 1 else leaf.reshape(rounds, len(turns), *leaf.shape[1:])

        def in_layers(leaf: Array) -> Array:
            return leaf if len(turns) == 1 else leaf.reshape(-1, *leaf.shape[2:])

        x, before = alone(x, range(first))
        looped = []
        if rounds:
            if len(turns) == 1:
                block, run = turns[0](name=STACKED), _run(self.remat, in_loop=True)
            else:
                block, run = _Round(turns, self.remat, name=STACKED), _Round.run
            run = nn.scan(
                run,
                variable_axes={"params": 0, RECORDED: 0, EDITS: 0, LOSSES: 0},
                split_rngs={"params": True, "dropout": True},
                in_axes=(0, 0, nn.broadcast),  # pyright: ignore[reportArgumentType]
                length=rounds,
                metadata_params={nn.PARTITION_NAME: "layers"},
            )
            x, kept = run(block, x, *jax.tree.map(in_rounds, (caches, per_layer)), shared)
            looped = [jax.tree.map(in_layers, kept)]
        x, after = alone(x, range(last, self.num_layers))
        parts = [*before, *looped, *after]
        if len(parts) == 1:
            return x, parts[0]
        return x, jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


class _Round(nn.Module):
    """One round of blocks that take turns: the body of a scanned stack's loop.

    Attributes:
        turns: makers of the blocks.
        remat: see `Stack`.
    """

    turns: tuple[Maker, ...]
    remat: str

    @nn.compact
    def run(
        self, x: Array, cache: Caches | None, layer_args: Arguments, shared: Arguments
    ) -> tuple[Array, Caches | None]:
        """Runs each block once; `cache` and `layer_args` have a leading axis of the turns."""
        run, kept = _run(self.remat, in_loop=True), []
        for turn, make in enumerate(self.turns):
            cache_of, args_of = jax.tree.map(lambda leaf: leaf[turn], (cache, layer_args))  # noqa: B023
            x, new = run(make(name=turn_name(turn)), x, cache_of, args_of, shared)
            kept.append(new)
        return x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *kept)


def _run(remat: str, *, in_loop: bool = False) -> Callable[..., tuple[Array, Caches | None]]:
    """Calls a block; `remat` names what the backward pass recomputes."""

    def run(
        block: nn.Module, x: Array, cache: Caches | None, layer_args: Arguments, shared: Arguments
    ) -> tuple[Array, Caches | None]:
        return block(x, cache, **layer_args, **shared)

    if remat == "none":
        return run
    return nn.remat(run, policy=REMAT_POLICIES[remat], prevent_cse=not in_loop)
