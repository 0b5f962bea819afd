"""Runs a model on a prompt and keeps all of its activations."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from transformer.decoding.embed import pooled_states
from transformer.explaining.editing import Edit, as_collection
from transformer.explaining.names import axes_of
from transformer.explaining.pooling import WHOLE, pooled
from transformer.explaining.prompts import read
from transformer.explaining.readings import Reading, Token
from transformer.explaining.traces import StackTrace, Trace
from transformer.nn.layouts import layer_name, layer_number, unstacked
from transformer.nn.taps import EDITS, RECORDED
from transformer.runs.opening import Run
from transformer.types import Params

# The path in a model of each stack of a family.
STACKS = {
    "decoder": {"decoder": "blocks"},
    "encoder": {"encoder": "blocks"},
    "image": {"encoder": "blocks"},
    "recording": {"encoder": "encoder"},
    "encoder-decoder": {"encoder": "encoder", "decoder": "decoder"},
}


def trace(
    run: Run,
    prompt: str,
    target: str | None = None,
    *,
    edits: Sequence[Edit] | None = None,
    most: int | None = None,
    append: Sequence[int] = (),
) -> Trace:
    """Runs a model on a prompt and keeps every activation.

    Args:
        run: an open run; see `runs.opening.open_run`.
        prompt: a text, or the path of an image or of a recording.
        target: the second text, where the model reads two; see `prompts.read`.
        edits: what to change in the model; `()` changes nothing, with the program of edits.
        most: the most tokens of a stack; None means as many as the model reads.
        append: token ids behind the prompt, or behind the target of an encoder-decoder.

    Raises:
        ConfigError: if the run cannot be explained, or an edit names what the model does not have.
        DataError: if the prompt cannot be read.
    """
    reading = read(run, prompt, target, most=most, append=append)
    return trace_reading(run, reading, edits)


def trace_reading(run: Run, reading: Reading, edits: Sequence[Edit] | None = None) -> Trace:
    """As `trace`, for inputs that are prepared already."""
    model = model_of(run, reading)
    paths = STACKS[reading.family]
    changes = None
    if edits is not None:
        changes = as_collection(edits, model, run.params, reading, paths)
    named = dict(reading.named)
    shares = None if reading.pools is None else reading.pools.shares()
    outputs, found = _apply(
        model, reading.method, run.params, changes, reading.inputs, named, shares
    )
    lengths = [len(tokens) for tokens in reading.stacks.values()]
    stacks = tuple(
        _stack_trace(name, paths[name], tokens, lengths[0], found)
        for name, tokens in reading.stacks.items()
    )
    outputs = np.asarray(outputs)[0].astype(np.float32)
    if reading.pools is not None and reading.family == "recording":
        # Log probabilities of vectors: the probabilities of a token are their means.
        outputs = np.log(reading.pools.means(np.exp(outputs)))
    if reading.pooling is not None:
        outputs = pooled_states(outputs[: lengths[0]], reading.pooling, reading.num_prompt_tokens)
    if reading.output in ("next_token", "token_classes", "span"):
        outputs = outputs[: lengths[-1]]
    told = tuple(edit.sentence() for edit in edits or ())
    return Trace(run, reading, stacks, outputs, told)


def model_of(run: Run, reading: Reading) -> Any:
    """The model as it is used: without limits that depend on the other texts of a batch."""
    return run.model.for_writing() if reading.family == "decoder" else run.model


@functools.partial(jax.jit, static_argnums=(0, 1))
def _apply(
    model: nn.Module,
    method: str | Callable[..., Any],
    params: Params,
    edits: Params | None,
    inputs: tuple[np.ndarray, ...],
    named: Mapping[str, np.ndarray],
    shares: np.ndarray | None,
) -> tuple[Any, Any]:
    """The outputs and all recorded activations; compiled once for each shape.

    They are pooled here, so that those of a long recording need not be in memory all at once.
    """
    variables = {"params": params} if edits is None else {"params": params, EDITS: edits}
    outputs, found = model.apply(variables, *inputs, method=method, mutable=[RECORDED], **named)
    outputs = outputs[0] if isinstance(outputs, tuple) else outputs
    found = unstacked(found[RECORDED])
    if shares is not None:
        found = pooled(found, jnp.asarray(shares))
    # 16 bits are widened here: NumPy has no such type of its own.
    return outputs, jax.tree.map(lambda x: x if x.dtype == bool else x.astype(jnp.float32), found)


def _stack_trace(
    name: str, path: str, tokens: tuple[Token, ...], num_memory: int, found: Mapping[str, Any]
) -> StackTrace:
    """The activations of one stack, without batch axis and padding."""
    count = len(tokens)
    numbers = sorted(n for key in found[path] if (n := layer_number(key)) is not None)
    layers = []
    for number in numbers:
        flat = dict(_flat(found[path][layer_name(number)]))
        layers.append(
            {
                key: _tidy(key, x, count, num_memory if key.startswith("cross") else count)
                for key, x in flat.items()
            }
        )
    whole = {}
    for key, x in found.items():
        ours = key.removeprefix(f"{name}_") if path == name else key
        if not isinstance(x, Mapping) and (path != name or key.startswith(f"{name}_")):
            whole[ours] = np.asarray(x)[0] if ours in WHOLE else _tidy(ours, x, count, count)
    return StackTrace(name, path, tokens, tuple(layers), whole)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, jax.Array]]:
    """The leaves of a layer's activations; names are joined by underscores."""
    found = []
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name}_")
        else:
            found.append((f"{prefix}{name}", value))
    return found


def _tidy(name: str, x: jax.Array | np.ndarray, count: int, num_keys: int) -> np.ndarray:
    """An activation of the only row: its real tokens, heads first."""
    x, axes = np.asarray(x), axes_of(name)
    if axes == "flat":
        return x[:count]
    if axes == "pairs":
        return x[0, :, :count, :num_keys]
    if axes == "heads":
        of_keys = name.endswith(("_key", "_value"))
        return x[0, : num_keys if of_keys else count].transpose(1, 0, 2)
    # Positions may be the same for all rows, and then have no batch axis.
    return (x[0] if x.ndim == 3 else x)[:count]
