"""What a page shows, as one JSON object and arrays: see `docs/explainer.md` for the format."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from transformer.explaining.arrays import Arrays
from transformer.explaining.lens import Lens, has_lens, logit_lens
from transformer.explaining.outputs import output_of
from transformer.explaining.pictures import png_address
from transformer.explaining.pooling import POOLED
from transformer.explaining.positions import positions_of
from transformer.explaining.scores import norms
from transformer.explaining.sounds import sound_of
from transformer.explaining.structure import AttentionFacts, LayerFacts, layer_facts
from transformer.explaining.traces import StackTrace, Trace
from transformer.tasks.parts.models import HasContext, HasVocabulary
from transformer.types import Json

FORMAT = 1
# The most units of a feed-forward layer that are kept, and tokens of a lens.
_UNITS, _LENS = 32, 5


@dataclasses.dataclass(frozen=True)
class Fidelity:
    """What is kept of large arrays, and how exactly.

    Attributes:
        vectors: queries and keys: `half` (11 bits), `rows` (7 bits and a sign, scaled by row), or
            `none`.
        values: whether values are kept like queries and keys.
        scores: as `vectors`, for attention scores.
        units: how many units of feed-forward layers are kept.
    """

    vectors: str = "half"
    values: bool = True
    scores: str = "half"
    units: int = _UNITS

    def note(self) -> str | None:
        """Says what was left out or stored less exactly; None if nothing was."""
        if self == LEVELS[0]:
            return None
        short = [name for name in ("vectors", "scores") if getattr(self, name) == "rows"]
        left = [name for name in ("vectors", "scores") if getattr(self, name) == "none"]
        words = {"vectors": "queries and keys", "scores": "scores"}
        said = [f"{words[name]} are stored with 8 bits" for name in short]
        said += [f"{words[name]} were left out" for name in left]
        if not self.values:
            said.append("values were left out")
        if not self.units:
            said.append("units of feed-forward layers were left out")
        return f"To keep the page small, {', '.join(said)}."


# From everything to the least; a page takes the first that fits.
LEVELS = (
    Fidelity(),
    Fidelity(vectors="rows"),
    Fidelity(vectors="rows", scores="rows"),
    Fidelity(vectors="rows", values=False, scores="rows"),
    Fidelity(vectors="none", values=False),
    Fidelity(vectors="none", values=False, scores="rows"),
    Fidelity(vectors="none", values=False, scores="none"),
    Fidelity(vectors="none", values=False, scores="none", units=0),
)


def header_and_arrays(
    traces: Sequence[Trace], title: str, fidelity: Fidelity, *, live: bool = False
) -> tuple[Json, Arrays]:
    """The header of a page and its arrays.

    Args:
        traces: what to show, side by side.
        title: what the page is called.
        fidelity: what is kept.
        live: whether the page may ask its server for more.
    """
    arrays = Arrays()
    first = traces[0]
    notes = list(dict.fromkeys(note for trace in traces for note in trace.reading.notes))
    if (note := fidelity.note()) is not None:
        notes.append(note)
    facts = [model_facts(trace) for trace in traces]
    if any(other != facts[0] for other in facts):
        notes.append(f"The facts of the model are those of {_run_name(first)}.")
    header: Json = {
        "format": FORMAT,
        "title": title,
        "family": first.reading.family,
        "model": facts[0],
        "notes": notes,
        "live": live,
        "traces": [_trace(trace, arrays, fidelity) for trace in traces],
    }
    if len({_run_name(trace) for trace in traces}) > 1:
        for trace, shown in zip(traces, header["traces"], strict=True):
            shown["label"] = f"{_run_name(trace)}: {shown['label']}"
    header["arrays"] = arrays.described
    return header, arrays


def _run_name(trace: Trace) -> str:
    return f"{trace.run.workdir}, step {trace.run.step}"


def model_facts(trace: Trace) -> Json:
    """The model in words."""
    config, model = trace.run.config.model, trace.run.model
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(trace.run.params))
    layer = trace.stacks[-1].layers[0]
    heads, _, width = layer["attention_query"].shape
    kv_heads = layer["attention_key"].shape[0]
    depths = [len(stack.layers) for stack in trace.stacks]
    words = [["layers", " + ".join(map(str, depths))], ["heads", f"{heads} of width {width}"]]
    if kv_heads != heads:
        words.append(["key and value heads", str(kv_heads)])
    words.append(["width", f"{model.width:,}"])
    if "feed_forward_hidden" in layer:
        words.append(["feed-forward width", f"{layer['feed_forward_hidden'].shape[-1]:,}"])
    if "feed_forward_router" in layer:
        words.append(["experts", str(layer["feed_forward_router"].shape[-1])])
    if isinstance(model, HasContext):
        words.append(["context", f"{model.context:,} tokens"])
    vocab = model.vocab_size if isinstance(model, HasVocabulary) else None
    if vocab is not None:
        words.append(["vocabulary", f"{vocab:,} tokens"])
    sound = trace.reading.sound
    if sound is not None:
        words.append(["spectrogram", f"{sound.frames.shape[1]} bands"])
        words.append(["vectors of the encoder", f"{1 / sound.second:g} a second"])
    if trace.reading.family == "image":
        words.append(["image", f"{model.image_size} x {model.image_size} pixels"])
        words.append(["patch", f"{model.patch_size} x {model.patch_size} pixels"])
    words.append(["parameters", f"{count:,}"])
    return {
        "name": str(config.name),
        "words": words,
        "num_parameters": count,
        "vocab_size": vocab,
    }


def _trace(trace: Trace, arrays: Arrays, fidelity: Fidelity) -> Json:
    facts, reading = layer_facts(trace), trace.reading
    output, shown = output_of(trace, arrays)
    stacks = []
    for stack in trace.stacks:
        lens = None
        if has_lens(trace) and stack is trace.stacks[-1]:
            lens = logit_lens(trace, _LENS)
            shown |= set(np.unique(lens.ids).tolist())
        stacks.append(_stack(trace, stack, facts[stack.name], lens, arrays, fidelity))
    if has_lens(trace):
        output["texts"] = {str(i): reading.text_of(i) for i in sorted(shown)}
    return {
        "label": reading.prompt,
        "prompt": reading.prompt,
        "target": reading.target,
        "written": reading.written,
        "edits": list(trace.edits),
        "loss": trace.loss,
        "stacks": stacks,
        "output": output,
    }


def _stack(
    trace: Trace,
    stack: StackTrace,
    facts: Sequence[LayerFacts],
    lens: Lens | None,
    arrays: Arrays,
    fidelity: Fidelity,
) -> Json:
    tables, words = positions_of(trace, stack, facts)
    keep = {"table": arrays.half, "angles": arrays.exact, "bias": arrays.half}
    positions: Json = {"kind": words[0], "words": words[1], "table": None}
    for name, store in keep.items():
        table = tables.get(name)
        positions[name] = None if table is None else store(table)
    # Scores of pooled vectors do not give pooled weights.
    apart = dataclasses.replace(fidelity, vectors="none", values=False, scores="none")
    pooled = trace.reading.pools is not None
    kept = {
        "attention": apart if pooled and stack.name == POOLED else fidelity,
        "cross_attention": apart if pooled else fidelity,
    }
    layers = [
        _layer(number, layer, fact, lens, arrays, kept, fidelity.units)
        for number, (layer, fact) in enumerate(zip(stack.layers, facts, strict=True))
    ]
    position_norm = tables.get("added")
    return {
        "name": stack.name,
        "tokens": [token._asdict() for token in stack.tokens],
        "image": _image(trace),
        "sound": sound_of(trace, stack, arrays),
        "positions": positions,
        "embedding": {
            "token_norm": arrays.exact(norms(tables["tokens"])),
            "position_norm": None if position_norm is None else arrays.exact(norms(position_norm)),
        },
        "layers": layers,
    }


def _image(trace: Trace) -> Json | None:
    picture = trace.reading.picture
    if picture is None:
        return None
    grid = trace.reading.grid
    assert grid is not None, "a picture is of tokens"
    return {
        "width": picture.shape[1],
        "height": picture.shape[0],
        **grid._asdict(),
        "png": png_address(picture),
    }


def _layer(
    number: int,
    layer: Mapping[str, np.ndarray],
    facts: LayerFacts,
    lens: Lens | None,
    arrays: Arrays,
    kept: Mapping[str, Fidelity],
    num_units: int,
) -> Json:
    streams = [name for name in layer if name.startswith("residual") or name.endswith("_output")]
    cross = None
    if facts.cross_attention is not None:
        cross = _attention("cross_attention", layer, facts.cross_attention, arrays, kept)
    found = None
    if lens is not None:
        found = {
            "ids": arrays.exact(lens.ids[number], "int32"),
            "probabilities": arrays.half(lens.probabilities[number]),
        }
    return {
        "name": str(number),
        "order": facts.order,
        "norms": {name: arrays.exact(norms(layer[name])) for name in sorted(streams)},
        "attention": _attention("attention", layer, facts.attention, arrays, kept),
        "cross_attention": cross,
        "feed_forward": _feed_forward(layer, facts, arrays, num_units),
        "router": _router(layer, facts, arrays),
        "lens": found,
    }


def _attention(
    part: str,
    layer: Mapping[str, np.ndarray],
    facts: AttentionFacts,
    arrays: Arrays,
    kept: Mapping[str, Fidelity],
) -> Json:
    fidelity = kept[part]
    query, key = layer[f"{part}_query"], layer[f"{part}_key"]
    visible = layer[f"{part}_visible"][0]
    stores = {"half": arrays.half, "rows": arrays.rows, "none": lambda x: None}
    vectors = stores[fidelity.vectors]
    square = part == "attention"
    return {
        "num_heads": query.shape[0],
        "num_key_heads": key.shape[0],
        "head_width": query.shape[-1],
        "window": facts.window,
        "causal": bool(square and len(visible) > 1 and not np.triu(visible, 1).any()),
        "scale": facts.scale,
        "cap": facts.cap,
        "visible": None if visible.all() else arrays.exact(visible, "uint8"),
        "weights": arrays.shares(layer[f"{part}_weights"]),
        "scores": stores[fidelity.scores](layer[f"{part}_scores"]),
        "query": vectors(query),
        "key": vectors(key),
        "value": vectors(layer[f"{part}_value"]) if fidelity.values else None,
        "mixed_norm": arrays.exact(norms(layer[f"{part}_mixed"])),
    }


def _feed_forward(
    layer: Mapping[str, np.ndarray], facts: LayerFacts, arrays: Arrays, units: int
) -> Json:
    hidden = layer.get("feed_forward_hidden")
    found: Json = {
        "hidden": None,
        "units": None,
        "width": facts.width,
        "experts": None if facts.experts is None else facts.experts[0],
        "norm": None,
    }
    if hidden is None:
        return found
    found["norm"] = arrays.exact(norms(hidden))
    if units:
        largest = np.argsort(-np.abs(hidden).max(axis=0), kind="stable")[:units]
        found["units"] = arrays.exact(largest, "int32")
        found["hidden"] = arrays.half(hidden[:, largest])
    return found


def _router(layer: Mapping[str, np.ndarray], facts: LayerFacts, arrays: Arrays) -> Json | None:
    logits = layer.get("feed_forward_router")
    if logits is None or facts.experts is None:
        return None
    exponents = np.exp(logits - logits.max(-1, keepdims=True))
    # Ties go to the first expert, as in `ops.routing.route`.
    chosen = np.argsort(-logits, axis=-1, kind="stable")[:, : facts.experts[1]]
    return {
        "probabilities": arrays.half(exponents / exponents.sum(-1, keepdims=True)),
        "chosen": arrays.exact(chosen, "int32"),
    }
