"""A model and its parameters in the form in which they write fastest or smallest."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from transformer.nn.compute import computing
from transformer.nn.decoder import DecoderOnly
from transformer.nn.embeddings import Embedding
from transformer.nn.layouts import unstacked
from transformer.nn.linear import Linear
from transformer.nn.mixture import Kernel
from transformer.nn.stack import MAX_UNROLLED
from transformer.ops.int8 import Int8
from transformer.ops.platforms import platform
from transformer.types import Params

_MATRICES = ("kernel", "embedding")
# More layers than this take long to compile one by one.
_MOST_UNROLLED = 48


def prepared(model: DecoderOnly, params: Params) -> tuple[DecoderOnly, Params]:
    """The model and its parameters as they write fastest, with the same results.

    Args:
        model: a language model.
        params: its parameters.
    """
    return unrolled(model, in_computed_dtypes(model, params))


def unrolled(model: DecoderOnly, params: Params) -> tuple[DecoderOnly, Params]:
    """Unrolls scanned layers where a loop over them costs time or memory.

    A loop needs caches of one size: if windows differ, those of local layers would be as long as
    those of global ones. On accelerators it copies the whole cache for every token; on CPUs, where
    compiling takes longer, it stays.

    Args:
        model: a language model.
        params: its parameters.
    """
    differ = len(set(model.layer_windows())) > 1
    most = MAX_UNROLLED if differ else 0 if platform() == "cpu" else _MOST_UNROLLED
    if not model.compute.scan_layers or model.num_layers > most:
        return model, params
    return computing(model, scan_layers=False), unstacked(params)


def in_computed_dtypes(model: DecoderOnly, params: Params) -> Params:
    """Converts each matrix to the dtype in which its layer computes, as the layer itself would.

    No result changes. A loop over tokens would read all matrices in float32 and convert them again
    for every token.

    Args:
        model: a language model.
        params: its parameters.
    """
    if model.compute.dtype == "float32":
        return params
    dtypes = _computed_dtypes(model, params)

    @jax.jit
    def convert(flat: dict) -> dict:
        return {
            path: value if isinstance(value, Int8) else value.astype(dtypes.get(path, value.dtype))
            for path, value in flat.items()
        }

    return unflatten_dict(convert(flatten_dict(params)))


def _computed_dtypes(model: DecoderOnly, params: Params) -> dict[tuple[str, ...], str]:
    """The dtype of the computation with each matrix, by its path."""
    dtypes: dict[tuple[str, ...], str] = {}

    def note(
        call: Callable, inputs: tuple, named: dict, context: nn.module.InterceptorContext
    ) -> object:
        module = context.module
        if isinstance(module, Linear | Embedding | Kernel):
            dtypes.update({(*module.path, name): module.dtype for name in _MATRICES})
        return call(*inputs, **named)

    with nn.intercept_methods(note):
        jax.eval_shape(model.apply, {"params": params}, jnp.zeros((1, 1), jnp.int32))
    return dtypes
