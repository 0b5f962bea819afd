"""Named activations of a model, which can be recorded and edited.

A module marks an activation by `x = tap(self, "name", x)`. Usually that is `x` itself, and the
compiled program is the same as without it. If the collection `RECORDED` is mutable, the activation
is also put into it, under its name in the module's place in the tree; if the collection `EDITS` has
an entry of this name there, the activation is edited first:

    edits = {"blocks": {"layer_0": {"attention": {"mixed": {"scale": keep_heads}}}}}
    variables = {"params": params, EDITS: edits}
    output, found = model.apply(variables, tokens, mutable=[RECORDED])
    weights = found[RECORDED]["blocks"]["layer_0"]["attention"]["weights"]

An entry is a dict: `scale` multiplies the activation; then `value` replaces it where the booleans
`mask` are True. Each broadcasts to the activation. In a scanned stack, entries and records have a
leading axis of the layers, as parameters do.

Scores and weights of attention exist only in its reference implementation: recording anything, or
editing those two, chooses it.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

# Flax leaves this collection out at initialisation.
RECORDED = "intermediates"
EDITS = "interventions"


def tap(module: nn.Module, name: str, x: Array) -> Array:
    """Returns an activation, edited if the caller of the model asks for it, and maybe records it.

    Args:
        module: the module to which the activation belongs.
        name: its name, unique in the module.
        x: the activation, of any shape.
    """
    if module.has_variable(EDITS, name):
        x = edited(x, module.get_variable(EDITS, name))
    if module.is_mutable_collection(RECORDED):
        module.put_variable(RECORDED, name, x)
    return x


def is_tapped(module: nn.Module, *names: str) -> bool:
    """Whether a module's activations are recorded, or one of these names is edited."""
    return module.is_mutable_collection(RECORDED) or any(
        module.has_variable(EDITS, name) for name in names
    )


def edited(x: Array, edit: Mapping[str, Any]) -> Array:
    """Applies one entry of `EDITS` to an activation."""
    if "scale" in edit:
        x = x * jnp.asarray(edit["scale"], x.dtype)
    if "mask" in edit:
        x = jnp.where(edit["mask"], jnp.asarray(edit["value"], x.dtype), x)
    return x
