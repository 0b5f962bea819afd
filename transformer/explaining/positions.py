"""How a model knows positions: what its panel on the page shows."""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from transformer.explaining.pooling import POOLED
from transformer.explaining.structure import LayerFacts, rotary_angles, rotary_base
from transformer.explaining.traces import StackTrace, Trace
from transformer.explaining.tracing import model_of


def positions_of(
    trace: Trace, stack: StackTrace, facts: Sequence[LayerFacts]
) -> tuple[Mapping[str, np.ndarray], tuple[str, str]]:
    """The tables of a stack's positions, then their kind and a sentence about them.

    The tables, by name: `tokens` `[T, D]`, the embedded tokens before positions; where there are
    such, `table` and `added` `[T, D]`, what is added to them; `angles` `[T, H / 2]`; `bias`
    `[N, T, T]`.
    """
    if trace.reading.family == "image":
        return _of_image(trace, stack)
    whole, params = stack.whole, trace.run.params
    read = "frame_embedding" if "frame_embedding" in whole else "token_embedding"
    tables = {"tokens": whole[read]}
    pools = trace.reading.pools if stack.name == POOLED else None
    added = whole.get("position_embedding")
    if added is not None:
        # The mean of several positions is none, and is not shown as one.
        tables |= {"added": added} if pools else {"table": added, "added": added}
        learned = params.get("position_embedding", params.get(f"{stack.name}_positions"))
        if isinstance(learned, Mapping):
            total = learned["embedding"].shape[0]
            words = (
                f"Each of {total:,} positions has a learned vector, which is added to the token."
            )
            return tables, ("learned", words)
        return tables, (
            "sinusoidal",
            "Each position has a fixed vector of sines and cosines, which is added to the token.",
        )
    count = len(stack.tokens)
    # Of layers that differ, the one that sees everything.
    layer = next((number for number, fact in enumerate(facts) if fact.attention.window is None), 0)
    rotation = facts[layer].attention.rotation
    if rotation is not None:
        width = stack.layers[layer]["attention_query"].shape[-1]
        angles = rotary_angles(rotation, len(pools.tokens) if pools else count, width)
        tables["angles"] = pools.means(angles) if pools else angles
        bases = dict.fromkeys(
            rotary_base(fact.attention.rotation)
            for fact in facts
            if fact.attention.rotation is not None
        )
        said = " and ".join(f"{base:,.0f}" for base in bases)
        return tables, (
            "rotary",
            f"Queries and keys are rotated, in pairs of features, by angles that grow with the "
            f"position; the base of their wavelengths is {said}.",
        )
    if f"{stack.name}_positions" in params:
        tables["bias"] = _bias(trace, stack.name, count)
        return tables, (
            "relative",
            "Each head adds a learned number to its scores, by the distance of key and query.",
        )
    return tables, ("none", "The model is told nothing about positions.")


def _bias(trace: Trace, stack: str, count: int) -> np.ndarray:
    """The bias of each head, `[N, T, T]`."""
    places = jnp.arange(count)[None]
    sides = (places,) if stack == "encoder" else (places, places)
    model = model_of(trace.run, trace.reading)
    found = model.apply({"params": trace.run.params}, *sides, method=f"{stack}_bias")
    return np.asarray(found, np.float32)[0]


def _of_image(trace: Trace, stack: StackTrace) -> tuple[Mapping[str, np.ndarray], tuple[str, str]]:
    """The tables of an image model; those of tokens before the patches are parameters."""
    model, params = trace.run.model, trace.run.params
    patches, places = stack.whole["token_embedding"], stack.whole["position_embedding"]
    names = ["class_token"] if model.pooling == "class" else []
    names += ["distillation_token"] if model.distillation != "none" else []
    front = [np.asarray(params[name], np.float32) for name in names]
    placed = len(front)
    if model.num_registers:
        front.append(np.asarray(params["registers"], np.float32))
    before = np.zeros((model.num_front, patches.shape[-1]), np.float32)
    if model.positions == "learned":
        before[:placed] = np.asarray(params["position_embedding"]["embedding"])[:placed]
    added = np.concatenate([before, places])
    tables = {"tokens": np.concatenate([*front, patches]), "table": added, "added": added}
    if model.positions == "learned":
        words = f"Each of {len(places):,} patches has a learned vector, which is added to it."
        return tables, ("learned", words)
    how = "its row and its column" if model.positions == "sinusoidal_2d" else "its number"
    return tables, (
        "sinusoidal",
        f"Each patch has a fixed vector of sines and cosines of {how}, which is added to it.",
    )
