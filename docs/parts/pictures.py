"""Draws the pictures of these pages, from the functions that they are about.

python docs/parts/pictures.py
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from transformer.ops.activations import ACTIVATIONS
from transformer.ops.alibi import alibi_slopes
from transformer.ops.masks import Mask, causal, segments, sliding_window
from transformer.ops.normalization import layer_norm, rms_norm
from transformer.ops.positions import rotary, sinusoidal

FOLDER = Path(__file__).parent


def draw_attention(path: Path) -> None:
    """The four steps from products to weights, of one head and six tokens."""
    keys = jax.random.split(jax.random.key(3), 2)
    query, key = (jax.random.normal(each, (6, 16)) * 1.5 for each in keys)
    products = query @ key.T
    scaled = products / jnp.sqrt(16.0)
    allowed = jnp.tril(jnp.ones((6, 6), bool))
    masked = jnp.where(allowed, scaled, jnp.nan)
    weights = jax.nn.softmax(jnp.where(allowed, scaled, -jnp.inf), axis=-1)
    steps = {
        "1. query · key": products,
        "2. divided by √H": scaled,
        "3. the future hidden": masked,
        "4. softmax of each row": weights,
    }
    figure, axes = plt.subplots(1, 4, figsize=(11, 3), layout="constrained")
    for axis, (title, values) in zip(axes, steps.items(), strict=True):
        last = title.startswith("4")
        limit = 1.0 if last else float(jnp.nanmax(jnp.abs(values)))
        image = axis.imshow(
            np.asarray(values),
            cmap="Blues" if last else "RdBu_r",
            vmin=0.0 if last else -limit,
            vmax=limit,
        )
        _label(axis, title, "key", "query" if axis is axes[0] else "")
        figure.colorbar(image, ax=axis, shrink=0.7)
    _save(figure, path)


def draw_masks(path: Path) -> None:
    """Four rules, and two of them together."""
    documents = jnp.asarray([[1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3]])
    masks = {
        "causal()": causal(),
        "sliding_window(4)": sliding_window(4),
        "segments(documents)": segments(documents),
        "causal() & sliding_window(4)": causal() & sliding_window(4),
        "causal() & segments(documents)": causal() & segments(documents),
    }
    figure, axes = plt.subplots(1, 5, figsize=(12, 2.9), layout="constrained")
    for axis, (title, mask) in zip(axes, masks.items(), strict=True):
        axis.imshow(_allowed(mask, 12), cmap="Blues", vmin=0, vmax=1.3)
        _label(axis, title, "key", "query" if axis is axes[0] else "")
    _save(figure, path)


def _allowed(mask: Mask, length: int) -> np.ndarray:
    allowed = mask.materialize(length, length)
    return np.ones((length, length)) if allowed is None else np.asarray(allowed[0, 0])


def draw_sinusoids(path: Path) -> None:
    """The table of sines and cosines, and the product of any two of its rows."""
    table = sinusoidal(jnp.arange(128), 64)
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    axes[0].imshow(np.asarray(table), cmap="RdBu_r", aspect="auto")
    _label(axes[0], "sin and cos, wavelengths from 2π on", "feature", "position")
    products = np.asarray(table @ table.T)
    image = axes[1].imshow(products, cmap="viridis")
    figure.colorbar(image, ax=axes[1], shrink=0.8)
    _label(axes[1], "product of two positions", "position", "position")
    for position in (20, 50, 90):
        offsets = np.arange(-20, 21)
        width = 4 - position / 30
        axes[2].plot(offsets, products[position, position + offsets], lw=width, label=f"{position}")
    axes[2].legend(frameon=False, title="from position")
    _label(axes[2], "it depends on the distance alone", "distance", "product")
    _save(figure, path)


def draw_rotation(path: Path) -> None:
    """Pairs of features that turn, and a product that only the distance decides."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    pair = jnp.zeros((1, 8, 1, 8)).at[..., 0].set(1.0).at[..., 1].set(1.0)
    turned = np.asarray(rotary(pair, jnp.arange(8)[None], base=100.0))[0, :, 0]
    for feature, colour in ((0, "tab:blue"), (1, "tab:orange")):
        points = turned[:, [feature, feature + 4]]
        for position, (x, y) in enumerate(points):
            shade = 0.25 + 0.75 * (position + 1) / len(points)
            axes[0].annotate(
                "", (x, y), (0, 0), arrowprops={"arrowstyle": "->", "color": colour, "alpha": shade}
            )
            axes[0].annotate(str(position), 1.08 * np.array([x, y]), color=colour, ha="center")
    axes[0].set(xlim=(-1.3, 1.3), ylim=(-1.3, 1.3), aspect="equal")
    _label(axes[0], "two pairs of features, positions 0 to 7", "feature i", "feature i + H/2")
    keys = jax.random.split(jax.random.key(0), 2)
    query, key = (jax.random.normal(each, (1, 1, 1, 32)) for each in keys)
    offsets = jnp.arange(0, 65)
    for first in (0, 100, 1000):
        at = rotary(query, jnp.full((1, 1), first + 64))
        others = rotary(jnp.tile(key, (1, 65, 1, 1)), (first + 64 - offsets)[None])
        products = jnp.einsum("bqnh,bknh->k", at, others)
        axes[1].plot(offsets, products, label=f"query at {first + 64}", lw=4 - first / 350)
    axes[1].legend(frameon=False)
    _label(axes[1], "query · key after the rotation", "distance", "product")
    _save(figure, path)


def draw_alibi(path: Path) -> None:
    """What ALiBi subtracts from the scores of eight heads."""
    figure, axis = plt.subplots(figsize=(5, 3), layout="constrained")
    distance = np.arange(33)
    for head, slope in enumerate(np.asarray(alibi_slopes(8))):
        axis.plot(distance, -slope * distance, label=f"head {head}")
    axis.legend(frameon=False, ncols=2, fontsize=8)
    _label(axis, "ALiBi: added to the scores", "distance of the key", "bias")
    _save(figure, path)


def draw_norms(path: Path) -> None:
    """A vector before and after both normalisations."""
    x = 3.0 + 2.0 * jax.random.normal(jax.random.key(1), (4096,))
    one, zero = jnp.ones(4096), jnp.zeros(4096)
    figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
    kinds = {"before": x, "layer norm": layer_norm(x, one, zero), "RMS norm": rms_norm(x, one)}
    for name, values in kinds.items():
        label = f"{name}: mean {values.mean():.2f}, RMS {jnp.sqrt((values**2).mean()):.2f}"
        axis.hist(np.asarray(values), bins=80, histtype="step", lw=1.8, label=label)
    axis.legend(frameon=False, fontsize=8)
    _label(axis, "4,096 features of one token", "value", "features")
    _save(figure, path)


def draw_activations(path: Path) -> None:
    """The activations of the published models."""
    figure, axis = plt.subplots(figsize=(5, 3), layout="constrained")
    x = jnp.linspace(-4, 3, 400)
    for name in ("relu", "gelu", "silu"):
        axis.plot(x, ACTIVATIONS[name](x), label=name)
    axis.legend(frameon=False)
    _label(axis, "activations", "input", "output")
    _save(figure, path)


def _label(axis: Axes, title: str, x: str, y: str) -> None:
    axis.set_title(title, fontsize=9)
    axis.set_xlabel(x, fontsize=8)
    axis.set_ylabel(y, fontsize=8)
    axis.tick_params(labelsize=7)


def _save(figure: plt.Figure, path: Path) -> None:
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    """Draws all of them beside this file."""
    draw_attention(FOLDER / "attention.png")
    draw_masks(FOLDER / "masks.png")
    draw_sinusoids(FOLDER / "sinusoids.png")
    draw_rotation(FOLDER / "rotation.png")
    draw_alibi(FOLDER / "alibi.png")
    draw_norms(FOLDER / "norms.png")
    draw_activations(FOLDER / "activations.png")


if __name__ == "__main__":
    main()
