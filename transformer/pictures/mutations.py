"""Scores of all single mutations of a protein as a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from transformer.files import write_picture

# Residues in a row of the picture.
_PER_ROW = 60


def draw_mutations(
    scores: Float[np.ndarray, "n c"], sequence: str, residues: Sequence[str], path: Path
) -> None:
    """Draws how much better or worse each residue would be at each place; dots mark the sequence.

    Args:
        scores: in nats, 0 for the residue of the sequence.
        sequence: n residues.
        residues: the names of the c columns.
        path: the path of the picture; its folder must exist.
    """
    # A separate figure, not pyplot: no window system and no global state.
    from matplotlib.figure import Figure

    count = -(-len(sequence) // _PER_ROW)
    figure = Figure(figsize=(13.0, 0.6 + 3.4 * count), layout="constrained")
    largest = float(np.abs(scores).max(initial=1e-6))
    rows = figure.subplots(count, 1, squeeze=False)[:, 0]
    for row, axes in enumerate(rows):
        first = row * _PER_ROW
        part = sequence[first : first + _PER_ROW]
        image = axes.imshow(
            scores[first : first + len(part)].T,
            cmap="RdBu_r",
            vmin=-largest,
            vmax=largest,
            aspect="auto",
        )
        places = [residues.index(residue) for residue in part if residue in residues]
        known = [place for place, residue in enumerate(part) if residue in residues]
        axes.plot(known, places, "k.", markersize=3)
        axes.set_xlim(-0.5, _PER_ROW - 0.5)
        labels = [
            f"{residue}\n{first + place + 1}" if (first + place + 1) % 10 == 0 else residue
            for place, residue in enumerate(part)
        ]
        axes.set_xticks(range(len(part)), labels, fontsize=8)
        axes.set_yticks(range(len(residues)), residues, fontsize=7)
        axes.tick_params(length=0)
    figure.colorbar(image, ax=list(rows), label="nats against the sequence", aspect=40)
    write_picture(path, figure)
