"""Contacts of residues as a picture."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from transformer.files import write_picture


def draw_contacts(
    probabilities: Float[np.ndarray, "n n"],
    path: Path,
    *,
    title: str = "",
    known: Bool[np.ndarray, "n n"] | None = None,
) -> None:
    """Draws the probability of each contact above the diagonal, and known ones below it.

    Args:
        probabilities: symmetric.
        path: the path of the picture; its folder must exist.
        title: written above.
        known: known contacts; None draws probabilities on both sides.
    """
    # A separate figure, not pyplot: no window system and no global state.
    from matplotlib.figure import Figure

    size = len(probabilities)
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    axes = figure.add_subplot()
    shown = probabilities if known is None else np.triu(probabilities)
    ends = (0.5, size + 0.5)
    image = axes.imshow(shown, cmap="Blues", vmin=0.0, vmax=1.0, extent=(*ends, *ends[::-1]))
    figure.colorbar(image, ax=axes, label="probability of a contact", shrink=0.8)
    if known is not None:
        rows, columns = np.nonzero(np.tril(known))
        axes.scatter(columns + 1, rows + 1, s=400 / size, marker="s", color="tab:red")
    axes.plot(ends, ends, color="0.7", linewidth=0.8)
    axes.set_xlabel("residue")
    axes.set_ylabel("residue")
    axes.set_title(title, fontsize=11, parse_math=False)
    write_picture(path, figure)
