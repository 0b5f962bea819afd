"""Parameters in 8 bits, for writing."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from transformer.errors import ConfigError
from transformer.nn.decoder import DecoderOnly
from transformer.nn.embeddings import Embedding
from transformer.nn.linear import Linear
from transformer.nn.mixture import Experts
from transformer.ops.int8 import rounded
from transformer.types import Params


def weights_in_int8(model: DecoderOnly, params: Params) -> Params:
    """The parameters with kernels and the table of tokens in 8 bits, a quarter of their size.

    Each output of a kernel, and each token, has a scale of its own. All else stays as it is: it is
    small. The model computes with the result as with the parameters; see `ops.int8.int8_dense`.

    Args:
        model: a language model.
        params: its parameters.

    Raises:
        ConfigError: if the model has mixtures of experts.
    """
    contracted = _contracted_axes(model, params)

    @jax.jit
    def convert(flat: dict) -> dict:
        return {
            path: rounded(value, contracted[path]) if path in contracted else value
            for path, value in flat.items()
        }

    return unflatten_dict(convert(flatten_dict(params)))


def _contracted_axes(model: DecoderOnly, params: Params) -> dict[tuple[str, ...], tuple[int, ...]]:
    """The axes along which numbers share a scale, by the path of a parameter."""
    layers: dict[tuple[str, ...], Linear | Embedding] = {}

    def note(
        call: Callable, inputs: tuple, named: dict, context: nn.module.InterceptorContext
    ) -> object:
        module = context.module
        if isinstance(module, Experts):
            raise ConfigError(
                "weights in 8 bits are not there for mixtures of experts: leave out --weights."
            )
        if isinstance(module, Linear | Embedding):
            layers[module.path] = module
        return call(*inputs, **named)

    with nn.intercept_methods(note):
        jax.eval_shape(model.apply, {"params": params}, jnp.zeros((1, 1), jnp.int32))
    flat, found = flatten_dict(params), {}
    for path, layer in layers.items():
        if isinstance(layer, Linear):
            kernel = (*path, "kernel")
            # A scanned stack has an axis of layers in front.
            first = flat[kernel].ndim - len(layer.axes)
            found[kernel] = tuple(range(first, first + layer.num_input_axes))
        elif layer.axes[0] == "vocab":
            found[(*path, "embedding")] = (1,)
    return found
