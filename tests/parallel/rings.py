"""Attention by rings of simulated devices beside the reference; prints largest differences as JSON.

Run by test_ring.py in a process of its own: the number of devices is fixed when JAX begins.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from tests.common import normal
from transformer.ops.attention import dot_product_attention
from transformer.ops.losses import linear_cross_entropy
from transformer.ops.masks import (
    Mask,
    at_positions,
    causal,
    explicit,
    padding,
    padding_behind,
    segments,
    sliding_window,
)
from transformer.planning.collectives import collectives

ROWS, LENGTH, HEADS, KV_HEADS, SIZE = 2, 40, 4, 2, 8
DOCUMENTS = jnp.asarray(np.repeat([[0, 1, 2, 2], [0, 0, 0, 3]], LENGTH // 4, axis=1))
REAL = jnp.arange(LENGTH)[None] < jnp.asarray([[LENGTH], [13]])
BEHIND = jnp.arange(LENGTH)[None] >= jnp.asarray([[5], [23]])
TURNED = jnp.broadcast_to(7 * jnp.arange(LENGTH) % LENGTH, (ROWS, LENGTH))
CASES = {
    "a row that is all padding": (2, padding_behind(jnp.asarray([20, 0]))),
    "causal": (8, causal()),
    "a window": (4, causal() & sliding_window(7)),
    "a window on both sides, padding anywhere": (8, sliding_window(6) & padding(REAL)),
    # The first queries see no key, in blocks that others need.
    "documents, padding in front": (4, causal() & segments(DOCUMENTS) & padding(BEHIND)),
    "positions": (4, causal() & at_positions(TURNED, TURNED)),
}


def line(devices: int) -> Mesh:
    axes = ("data", "sequence")
    grid = np.asarray(jax.devices()[:devices]).reshape(1, devices)
    return Mesh(grid, axes, axis_types=(AxisType.Auto,) * 2)


def by_ring(query, key, value, mask):
    def alone(query, key, value, mask):
        return dot_product_attention(
            query, key, value, mask=mask, logit_cap=3.0, implementation="ring"
        )

    along = PartitionSpec(None, "sequence")
    inputs = (along, along, along, PartitionSpec())
    divided = jax.shard_map(alone, in_specs=inputs, out_specs=along, check_vma=False)
    return divided(query, key, value, mask)


def at_once(query, key, value, mask):
    return dot_product_attention(
        query, key, value, mask=mask, logit_cap=3.0, implementation="einsum"
    )


def with_gradients(attend):
    def total(arrays, mask):
        attended = attend(*arrays, mask)
        return jnp.sum(
            attended * jnp.cos(jnp.arange(attended.size).reshape(attended.shape))
        ), attended

    return jax.jit(jax.value_and_grad(total, has_aux=True))


def differences():
    """Of the output and of the gradients of queries, keys and values, by case."""
    rng = np.random.default_rng(0)
    arrays = [normal(rng, ROWS, LENGTH, heads, SIZE) for heads in (HEADS, KV_HEADS, KV_HEADS)]
    reference, ring = with_gradients(at_once), with_gradients(by_ring)
    found = {}
    for name, (devices, mask) in CASES.items():
        allowed = mask.materialize(LENGTH, LENGTH)
        shape = (ROWS, 1, LENGTH, LENGTH)
        allowed = jnp.ones(shape, bool) if allowed is None else jnp.broadcast_to(allowed, shape)
        (_, expected), gradients = reference(arrays, explicit(allowed))
        with jax.set_mesh(line(devices)):
            (_, attended), of_ring = ring(arrays, mask)
        pairs = zip((attended, *of_ring), (expected, *gradients), strict=True)
        # In NumPy: the largest of several simulated devices leaves NaN out.
        found[name] = [float(np.max(np.abs(np.subtract(*pair)))) for pair in pairs]
    return found


def program_of(devices: int, mask: Mask) -> str:
    """The compiled program of attention and its gradients, of divided arrays."""
    mesh = line(devices)
    place = NamedSharding(mesh, PartitionSpec(None, "sequence"))
    shapes = [
        jax.ShapeDtypeStruct((ROWS, LENGTH, heads, SIZE), jnp.float32, sharding=place)
        for heads in (HEADS, KV_HEADS, KV_HEADS)
    ]
    with jax.set_mesh(mesh):
        return with_gradients(by_ring).lower(shapes, mask).compile().as_text()


def exchanges_of_the_loss(chunks: int) -> dict:
    """What is exchanged for the gradients of an output layer."""
    mesh = line(4)

    def total(features, kernel, labels):
        return linear_cross_entropy(
            features, kernel, labels, num_chunks=chunks, num_position_shards=4
        ).objective

    def placed(*shape, dtype=jnp.float32, cut=()):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*cut)))

    shapes = (
        placed(2, 32, 8, cut=(None, "sequence")),
        placed(8, 64),
        placed(2, 32, dtype=jnp.int32),
    )
    with jax.set_mesh(mesh):
        compiled = jax.jit(jax.grad(total, argnums=(0, 1))).lower(*shapes).compile()
    return {kind: found.count for kind, found in collectives(compiled.as_text()).items()}


def everything():
    window = collectives(program_of(*CASES["a window"]))
    return {
        "differences": differences(),
        "window": {kind: exchange._asdict() for kind, exchange in window.items()},
        "loss": exchanges_of_the_loss(chunks=4),
    }


if __name__ == "__main__":
    print(json.dumps(everything()))
