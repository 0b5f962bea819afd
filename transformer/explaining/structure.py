"""How the layers of a model are built, read off its modules while it is traced."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from transformer.explaining.traces import Trace
from transformer.explaining.tracing import model_of
from transformer.nn.attention import Attention
from transformer.nn.block import Block
from transformer.nn.decoder import DecoderOnly
from transformer.nn.layouts import STACKED, layer_name, shape_of, turn_name
from transformer.nn.mixture import MixtureOfExperts
from transformer.ops.positions import rotary
from transformer.types import Params

# The order of normalisations as the page has it.
ORDERS = {"pre": "pre", "post": "post", "sandwich": "both"}


class AttentionFacts(NamedTuple):
    """One attention module.

    Attributes:
        window: the width of its window; None if it sees everything.
        scale: what products are multiplied by.
        cap: the cap of its scores; None if there is none.
        rotation: what rotates its queries and keys; None if nothing does.
    """

    window: int | None
    scale: float
    cap: float | None
    rotation: functools.partial | None


class LayerFacts(NamedTuple):
    """One layer.

    Attributes:
        order: `pre`, `post` or `both`.
        attention: the facts of its attention.
        cross_attention: those of its cross-attention, if there is one.
        experts: the number of experts and how many compute a token; None without experts.
        width: F.
    """

    order: str
    attention: AttentionFacts
    cross_attention: AttentionFacts | None
    experts: tuple[int, int] | None
    width: int


def layer_facts(trace: Trace) -> dict[str, tuple[LayerFacts, ...]]:
    """The facts of all layers of each stack, by the stack's name."""
    modules = _modules(trace)
    params = trace.run.params
    found = {}
    for stack in trace.stacks:
        layers = []
        for number, layer in enumerate(stack.layers):
            place = _place(params[stack.path], number)
            at = functools.partial(_module, modules, (stack.path, *place))
            visible = layer["attention_visible"][0]
            local = _is_local(trace, at, number, len(stack.layers), visible)
            feed_forward = modules[(stack.path, *place, "feed_forward")].module
            experts = None
            if isinstance(feed_forward, MixtureOfExperts):
                experts = feed_forward.num_experts, feed_forward.experts_per_token
            cross = at("cross_attention")
            head = layer["attention_query"].shape[-1]
            layers.append(
                LayerFacts(
                    ORDERS[modules[(stack.path, *place)].module.order],
                    _attention_facts(at("attention").module, head, local),
                    None if cross is None else _attention_facts(cross.module, head, local=False),
                    experts,
                    feed_forward.width,
                )
            )
        found[stack.name] = tuple(layers)
    return found


class _Seen(NamedTuple):
    """A module, and the argument `local` of its call."""

    module: Any
    local: bool | jax.Array | None


def _modules(trace: Trace) -> Mapping[tuple[str, ...], _Seen]:
    """The modules of layers by their paths, from tracing the model without computing it."""
    reading = trace.reading
    call = (trace.run.params, reading.inputs, dict(reading.named))
    leaves, tree = jax.tree.flatten(jax.eval_shape(lambda *x: x, *call))
    return _seen(model_of(trace.run, reading), reading.method, tuple(leaves), tree)


@functools.lru_cache(maxsize=32)
def _seen(
    model: nn.Module, method: Any, leaves: tuple[jax.ShapeDtypeStruct, ...], tree: Any
) -> Mapping[tuple[str, ...], _Seen]:
    found: dict[tuple[str, ...], _Seen] = {}

    def look(call: Callable, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        if context.method_name == "__call__" and (
            isinstance(module, Attention | Block) or module.name == "feed_forward"
        ):
            found[module.path] = _Seen(module, kwargs.get("local"))
        return call(*args, **kwargs)

    def run(params: Params, inputs: Any, named: Any) -> Any:
        return model.apply({"params": params}, *inputs, method=method, **named)

    with nn.intercept_methods(look):
        jax.eval_shape(run, *tree.unflatten(leaves))
    return found


def _place(params: Mapping[str, Any], number: int) -> tuple[str, ...]:
    """The path of a layer within its stack."""
    if layer_name(number) in params or STACKED not in params:
        return (layer_name(number),)
    first, turns = shape_of(params)
    if turns == 1:
        return (STACKED,)
    return STACKED, turn_name((number - first) % turns)


def _module(
    modules: Mapping[tuple[str, ...], _Seen], path: tuple[str, ...], name: str
) -> _Seen | None:
    return modules.get((*path, name))


def _is_local(
    trace: Trace, at: Callable[[str], Any], number: int, depth: int, visible: np.ndarray
) -> bool:
    """Whether a layer sees only its window, in a stack whose layers may differ in that."""
    seen = at("attention")
    if seen.module.window is None:
        return False
    if seen.local is None or isinstance(seen.local, bool | np.bool_):
        return seen.local is None or bool(seen.local)
    model = trace.run.model
    if isinstance(model, DecoderOnly) and "local" in (kinds := model.layer_kinds()):
        return bool(kinds["local"][number])
    # In a scanned stack: by what it did.
    rows, columns = np.nonzero(visible)
    return bool(np.all(np.abs(rows - columns) < seen.module.window))


def _attention_facts(module: Attention, head_width: int, local: bool) -> AttentionFacts:
    position = module.position
    if local and module.local_position is not None:
        position = module.local_position
    # A function as it is, or with some of its arguments.
    rotation = position
    if not isinstance(position, functools.partial):
        rotation = None if position is None else functools.partial(position)
    return AttentionFacts(
        window=module.window if local else None,
        scale=head_width**-0.5 if module.scale is None else float(module.scale),
        cap=module.logit_cap,
        rotation=rotation if rotation is not None and rotation.func is rotary else None,
    )


def rotary_base(rotation: functools.partial) -> float:
    """The base of the wavelengths of a rotation from `AttentionFacts`."""
    usual = inspect.signature(rotary).parameters["base"].default
    return float(rotation.keywords.get("base", usual))


def rotary_angles(
    rotation: functools.partial, count: int, head_width: int
) -> Float[np.ndarray, "T h"]:
    """The angle, in radians, of each pair of features at each position, h = H / 2 pairs.

    Feature i is paired with feature i + H / 2.

    Args:
        rotation: from `AttentionFacts`.
        count: T.
        head_width: H.
    """
    scaling = rotation.keywords.get("scaling")
    frequencies = rotary_base(rotation) ** (
        -jnp.arange(0, head_width, 2, dtype=jnp.float32) / head_width
    )
    if scaling:
        frequencies = scaling(frequencies)
    return np.asarray(jnp.arange(count, dtype=jnp.float32)[:, None] * frequencies)
