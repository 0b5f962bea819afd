"""Texts that encoder-decoders write for texts: how that is learned, searched for and shown."""

import dataclasses
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Protocol, runtime_checkable

import jax
import numpy as np

from transformer.composition import FLAT
from transformer.data.pairs.files import Pairs
from transformer.decoding.translate import Beam, Output, best_texts, translate
from transformer.files import write_text
from transformer.pictures.alignment import draw_alignment
from transformer.progress import counting
from transformer.tasks.parts.beams import BeamSearch
from transformer.tasks.parts.losses import LogitChunks, sequence_losses
from transformer.tasks.parts.models import SequenceToSequence
from transformer.tasks.parts.pairs import PairData
from transformer.tasks.parts.protocol import Losses, Shown
from transformer.traced import RateOrOff
from transformer.types import Batch, Json, Params

_BEAMS, _CHUNKS = BeamSearch(), LogitChunks()


@dataclasses.dataclass(frozen=True)
class Writing:
    """The part of tasks that write a text for each text: the loss, and the search for outputs.

    Attributes:
        label_smoothing: see `ops.losses.cross_entropy`; Vaswani et al. 2017, section 5.4.
        chunks: how many logits are held at once.
        beams: how outputs are searched for.
    """

    label_smoothing: RateOrOff = 0.1
    chunks: Annotated[LogitChunks, FLAT] = _CHUNKS
    beams: Annotated[BeamSearch, FLAT] = _BEAMS

    def losses(
        self, model: SequenceToSequence, params: Params, batch: Batch, rngs: dict[str, jax.Array]
    ) -> Losses:
        """Cross-entropy of every token of the target; `loss` is without smoothing."""
        return sequence_losses(
            model, params, batch, rngs, self.chunks.vocab_chunk, self.label_smoothing
        )

    def beam(self, limits: Mapping[str, int], **changes: object) -> Beam:
        """The search that the config asks for.

        Args:
            limits: fields of `Beam` that limit the length of outputs, if `search` does not.
            **changes: other values for some fields.
        """
        beams = self.beams
        limits = beams.search.limits() or limits
        beam = Beam(beams.beam_size, beams.length_penalty, search=beams.search, **limits)
        return dataclasses.replace(beam, **changes)


@runtime_checkable
class ScoresOutputs(Protocol):
    """A task that searches for outputs and compares them with references."""

    def beam(self) -> Beam:
        """The search that the config asks for."""

    def output_scores(self, outputs: Sequence[str], references: Sequence[str]) -> Json:
        """Scores of outputs, in percent."""


def outputs_and_scores(
    task: ScoresOutputs, model: SequenceToSequence, params: Params, data: PairData
) -> tuple[list[list[Output]], Json]:
    """The outputs for the validation pairs, and their scores."""

    def of_texts(text: Pairs) -> tuple[list[list[Output]], Json]:
        sources = data.layout.encode_sources(data.tokenizer, text.source)[0]
        with counting(len(sources), "translated", "sentences") as update:
            found = translate(model, params, data.tokenizer, sources, task.beam(), update)
        return found, task.output_scores(best_texts(found), text.target)

    found, scores = of_texts(data.validation_text)
    if data.longer_text.source:
        scores["exact_match_longer"] = of_texts(data.longer_text)[1]["exact_match"]
    kinds = sorted(set(data.groups))
    for kind in kinds if len(kinds) > 1 else ():
        rows = [row for row, group in enumerate(data.groups) if group == kind]
        sides = (best_texts(found), data.validation_text.target)
        part = task.output_scores(*([side[row] for row in rows] for side in sides))
        scores |= {f"{name}[{kind}]": value for name, value in part.items()}
    return found, scores


def show_outputs(
    task: ScoresOutputs, model: SequenceToSequence, params: Params, data: PairData, path: Path
) -> Shown:
    """Shows scores and some outputs.

    All outputs are written to the file `path`, and the cross-attention of one is drawn beside it.
    """
    found, scores = outputs_and_scores(task, model, params, data)
    outputs, (source, target) = best_texts(found), data.validation_text
    write_outputs(path, data.validation_text, outputs)
    # For a validation pair of medium length.
    order = np.argsort(data.validation.source.lengths, kind="stable")
    index = int(order[int(0.6 * len(order))])
    ids = data.validation.source[index][:-1]
    for best in found[index][:1]:
        place = path.with_name("alignment.png")
        draw_alignment(model, params, data.tokenizer, ids, best.ids, place)
    lines = [
        f"{name:<24} {value:.2f}" if isinstance(value, float) else f"{name:<24} {value}"
        for name, value in scores.items()
    ]
    for index in np.linspace(0, len(outputs) - 1, min(3, len(outputs))).astype(int):
        lines += [f"  {textwrap.shorten(source[index], 300)}", f"  -> {outputs[index]}"]
        if outputs[index] != target[index]:
            lines += [f"  not {target[index]}"]
    numbers = {name: value for name, value in scores.items() if isinstance(value, float)}
    return Shown("\n".join(lines), numbers)


def write_outputs(path: Path, pairs: Pairs, outputs: Sequence[str]) -> None:
    """Writes sources, references and outputs to a file, separated by tabs."""
    rows = [("source", "reference", "output"), *zip(*pairs, outputs, strict=True)]
    lines = ("\t".join(re.sub(r"[\t\n]", " ", text) for text in row) for row in rows)
    write_text(path, "".join(f"{line}\n" for line in lines))
