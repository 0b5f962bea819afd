"""Changes of a model's activations: parts switched off, or activations taken from another prompt.

All changes go through one collection of `nn.taps`, which has an entry for every layer: so the
program is compiled once, whatever is switched off.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from transformer.errors import ConfigError
from transformer.explaining.names import OF_LAYERS, axes_of
from transformer.explaining.readings import Reading
from transformer.explaining.traces import Trace
from transformer.nn.encoder_decoder import AnyEncoderDecoder
from transformer.nn.layouts import laid_out_like, layer_name
from transformer.types import Params

PARTS = ("attention", "cross_attention", "feed_forward")


@dataclasses.dataclass(frozen=True)
class Ablate:
    """Switches off a part of a layer, or weakens it.

    Attributes:
        layer: which layer, from 0.
        head: which head, from 0; None means the whole part, which then adds nothing to the stream.
            Without all its heads, attention still adds the bias of its output.
        part: `attention`, `cross_attention` or `feed_forward`.
        stack: the name or the number of the stack.
        factor: what the part is multiplied by.
    """

    layer: int
    head: int | None = None
    part: str = "attention"
    stack: str | int = -1
    factor: float = 0.0

    def sentence(self) -> str:
        """Says what is changed, with layers and heads counted from 0."""
        what = self.part.replace("_", "-")
        head = "" if self.head is None else f", head {self.head}"
        done = "switched off" if self.factor == 0.0 else f"multiplied by {self.factor:g}"
        return f"layer {self.layer}, {what}{head}: {done}"


@dataclasses.dataclass(frozen=True)
class Patch:
    """Replaces an activation of a layer by that of another trace of the same model.

    Attributes:
        source: the other trace.
        name: which activation; see `explaining.names`.
        layer: which layer, from 0.
        position: which token, in both prompts; None means all, in prompts of equal length.
        head: which head, for activations that have heads; None means all.
        stack: the name or the number of the stack.
    """

    source: Trace
    name: str
    layer: int
    position: int | None = None
    head: int | None = None
    stack: str | int = -1

    def sentence(self) -> str:
        """Says what is changed."""
        where = "" if self.position is None else f", token {self.position}"
        head = "" if self.head is None else f", head {self.head}"
        name = self.name.replace("_", " ")
        prompt = self.source.reading.prompt
        shown = prompt if len(prompt) <= 40 else f"{prompt[:37]}..."
        return f"layer {self.layer}, {name}{where}{head}: taken from {shown!r}"


Edit = Ablate | Patch
# Activations of the encoder's tokens, in a layer of the decoder.
_OF_MEMORY = ("cross_attention_key", "cross_attention_value")


def as_collection(
    edits: Sequence[Edit],
    model: Any,
    params: Params,
    reading: Reading,
    paths: Mapping[str, str],
) -> Params:
    """Edits as the collection `nn.taps.EDITS`, in the layout of the model's parameters.

    Args:
        edits: what to change.
        model: the model.
        params: its parameters.
        reading: what it reads.
        paths: the path of each stack, by name.

    Raises:
        ConfigError: if an edit names what the model does not have.
    """
    names = list(paths)
    found: Params = {}
    inputs = zip(names, reading.inputs, strict=False)
    padded = [reading.padded.get(name, x.shape[1]) for name, x in inputs]
    for edit in edits:
        if isinstance(edit, Patch) and edit.source.reading.pools is not reading.pools:
            raise ConfigError(
                "several vectors of a recording share a token here, so that none can be taken from "
                "another one: give a shorter recording, or trace it without `most`."
            )
        if isinstance(edit, Patch) and _shapes(edit.source.run.params) != _shapes(params):
            raise ConfigError(
                f"{edit.source.run.workdir} has a model of other sizes: nothing of it fits here."
            )
    for name, path in paths.items():
        depth = _depth(model, path)
        crossed = name == "decoder" and len(paths) > 1
        layers = [_neutral(model.num_heads, crossed) for _ in range(depth)]
        mine = [edit for edit in edits if _stack_name(edit, names) == name]
        for edit in mine:
            if not -depth <= edit.layer < depth:
                raise ConfigError(f"there is no layer {edit.layer}: {name} has {depth}, from 0.")
        for edit in mine:
            if isinstance(edit, Ablate):
                _ablate(layers[edit.layer], edit, model.num_heads)
        lengths = padded[0], padded[names.index(name)]
        for edit in mine:
            if isinstance(edit, Patch):
                place = names[0] if edit.name in _OF_MEMORY else name
                _patch(layers, edit, lengths, len(reading.stacks[place]), name)
        found[path] = {layer_name(i): layer for i, layer in enumerate(layers)}
    return laid_out_like(found, params)


def _depth(model: Any, path: str) -> int:
    """The number of layers of a stack."""
    if isinstance(model, AnyEncoderDecoder):
        return model.num_encoder_layers if path == "encoder" else model.num_decoder_layers
    return model.num_layers


def _shapes(params: Params) -> list[tuple[int, ...]]:
    return [np.shape(leaf) for leaf in jax.tree.leaves(params)]


def _stack_name(edit: Edit, names: Sequence[str]) -> str:
    if edit.stack in names:
        return str(edit.stack)
    if not isinstance(edit.stack, int) or not -len(names) <= edit.stack < len(names):
        raise ConfigError(f"there is no stack {edit.stack!r}: choose from {', '.join(names)}.")
    return names[edit.stack]


def _neutral(num_heads: int, crossed: bool) -> Params:
    """The entries of a layer in which nothing is switched off."""
    layer: Params = {"feed_forward_output": {"scale": np.ones((), np.float32)}}
    for part in ("attention", "cross_attention") if crossed else ("attention",):
        layer[part] = {"mixed": {"scale": np.ones((num_heads, 1), np.float32)}}
        layer[f"{part}_output"] = {"scale": np.ones((), np.float32)}
    return layer


def _ablate(layer: Params, edit: Ablate, num_heads: int) -> None:
    """Enters an ablation into the entries of its layer."""
    if f"{edit.part}_output" not in layer:
        known = ", ".join(part for part in PARTS if f"{part}_output" in layer)
        raise ConfigError(f"a layer has no part {edit.part!r}: choose from {known}.")
    if edit.head is None:
        layer[f"{edit.part}_output"]["scale"] = np.float32(edit.factor)
        return
    if edit.part not in layer:
        raise ConfigError(f"{edit.part} has no heads: leave the head out.")
    if not 0 <= edit.head < num_heads:
        raise ConfigError(f"there is no head {edit.head}: there are {num_heads}, from 0.")
    layer[edit.part]["mixed"]["scale"][edit.head] = edit.factor


def _patch(
    layers: Sequence[Params],
    edit: Patch,
    lengths: tuple[int, int],
    count: int,
    stack: str,
) -> None:
    """Enters a patch; other layers get an entry of the same shape that changes nothing.

    Args:
        layers: the entries of all layers.
        edit: the patch.
        lengths: padded tokens of the first stack, and of this one.
        count: real tokens of this stack, or of the encoder where keys and values are of its tokens.
        stack: the name of the stack.
    """
    theirs = edit.source.stack(stack).layers[edit.layer]
    if edit.name not in theirs or edit.name.endswith("visible"):
        known = ", ".join(name for name in OF_LAYERS if name in theirs)
        raise ConfigError(f"there is no activation {edit.name!r}: choose from {known}.")
    value = theirs[edit.name]
    there = value.shape[0] if value.ndim == 2 else value.shape[1]
    if edit.head is not None:
        if axes_of(edit.name) not in ("heads", "pairs"):
            raise ConfigError(f"{edit.name} has no heads: leave the head out.")
        if not 0 <= edit.head < value.shape[0]:
            raise ConfigError(f"there is no head {edit.head}: there are {value.shape[0]}, from 0.")
    if edit.position is None and there != count:
        raise ConfigError(
            f"the other prompt has {there} tokens and this one {count}: give a position, or "
            f"prompts of equal length."
        )
    if edit.position is not None and not 0 <= edit.position < min(there, count):
        raise ConfigError(
            f"there is no token {edit.position} in both prompts, which have {count} and {there}."
        )
    mask, filled = _laid_out(edit, value, lengths)
    for number, layer in enumerate(layers):
        entry = _entry(layer, edit.name)
        old_mask = entry.setdefault("mask", np.zeros_like(mask))
        old = entry.setdefault("value", np.zeros_like(filled))
        if number == edit.layer % len(layers):
            entry["mask"], entry["value"] = old_mask | mask, np.where(mask, filled, old)


def _laid_out(
    edit: Patch, value: np.ndarray, lengths: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Where an activation is replaced, and by what, with the axes that the model gives it."""
    first, width = lengths
    width = first if edit.name in _OF_MEMORY else width
    here = slice(None) if edit.position is None else slice(edit.position, edit.position + 1)
    heads = slice(None) if edit.head is None else slice(edit.head, edit.head + 1)
    axes = axes_of(edit.name)
    if axes == "heads":
        value = value.transpose(1, 0, 2)[None]
        shape, chosen = (1, width, *value.shape[2:]), (slice(None), here, heads)
    elif axes == "pairs":
        value = value[None]
        keys = first if edit.name.startswith("cross_") else width
        shape, chosen = (1, value.shape[1], width, keys), (slice(None), heads, here)
    elif axes == "flat":
        shape, chosen = (width, value.shape[-1]), (here,)
    else:
        value = value[None]
        shape, chosen = (1, width, value.shape[-1]), (slice(None), here)
    both = tuple(slice(0, min(sizes)) for sizes in zip(shape, value.shape, strict=True))
    filled, there = np.zeros(shape, np.float32), np.zeros((*shape[:-1], 1), bool)
    filled[both], there[both[:-1]] = value[both], True
    mask = np.zeros_like(there)
    mask[chosen] = True
    # Padding keeps what it has.
    return mask & there, filled


def _entry(layer: Params, name: str) -> Params:
    """The entry of an activation in a layer's tree, made if it is not there."""
    part = next(
        (
            part
            for part in ("cross_attention", "attention", "feed_forward")
            if name.startswith(f"{part}_")
        ),
        None,
    )
    if part is None or name == f"{part}_output":
        return layer.setdefault(name, {})
    return layer.setdefault(part, {}).setdefault(name.removeprefix(f"{part}_"), {})
