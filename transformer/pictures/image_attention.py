"""Where an image model looks: attention over patches as a picture."""

import functools
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from transformer.files import write_picture
from transformer.models.vit import ViT
from transformer.nn.layouts import layer_name, unstacked
from transformer.nn.taps import RECORDED
from transformer.types import Params


def image_attention_weights(
    model: ViT, params: Params, images: Float[Array, "B Y X C"]
) -> Float[np.ndarray, "L B g g"]:
    """The attention of each layer to each patch, averaged over heads.

    It is the attention of the class token or, without one, the mean over all patches. With
    attention pooling, that of the learned query replaces the last layer's.

    Args:
        model: a ViT.
        params: its parameters.
        images: normalised pixels.
    """
    by_layer, of_query = _weights(model, params, images)
    front, grid = model.num_front, model.grid
    # [L, B, N, T, T]: the mean over heads, for the query rows.
    mean = np.asarray(np.stack(by_layer), np.float32).mean(axis=2)
    rows = mean[:, :, 0] if model.pooling == "class" else mean[:, :, front:].mean(axis=2)
    looked = rows[:, :, front:]
    if model.pooling == "attention":
        query = np.asarray(of_query, np.float32)
        looked[-1] = query.mean(axis=1)[:, 0, front:]
    return looked.reshape(*looked.shape[:2], grid, grid)


@functools.partial(jax.jit, static_argnums=0)
def _weights(
    model: ViT, params: Params, images: Float[Array, "B Y X C"]
) -> tuple[list[Float[Array, "B N T T"]], Float[Array, "B N 1 T"] | None]:
    """The weights of each layer and of the pooling query; nothing else is computed."""
    _, found = model.apply({"params": params}, images, method="classify", mutable=[RECORDED])
    recorded = found[RECORDED]
    layers = unstacked(recorded["blocks"])
    by_layer = [
        layers[layer_name(index)]["attention"]["weights"] for index in range(model.num_layers)
    ]
    pooler = recorded.get("pooler")
    return by_layer, None if pooler is None else pooler["attention"]["weights"]


def draw_image_attention(
    model: ViT,
    params: Params,
    images: Float[Array, "B Y X C"],
    pixels: UInt8[np.ndarray, "B Y X C"],
    captions: Sequence[str],
    path: Path,
) -> None:
    """Draws images, and below each the attention of the first, a middle and the last layer.

    The brightness of a patch is its attention weight; the largest of a picture is white.

    Args:
        model: a ViT.
        params: its parameters.
        images: normalised pixels.
        pixels: the same images as they are drawn.
        captions: captions of the images.
        path: the path of the picture.
    """
    # A separate figure, not pyplot: no window system and no global state.
    from matplotlib.figure import Figure

    weights = image_attention_weights(model, params, images)
    layers = sorted({0, len(weights) // 2, len(weights) - 1})
    figure = Figure(
        figsize=(1.3 * len(pixels) + 0.4, 1.35 * (1 + len(layers)) + 0.3), layout="constrained"
    )
    grid = figure.subplots(1 + len(layers), len(pixels), squeeze=False)
    for column, (image, caption) in enumerate(zip(pixels, captions, strict=True)):
        grid[0, column].imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray")
        grid[0, column].set_title(caption, fontsize=8, parse_math=False)
        for row, layer in enumerate(layers, 1):
            grid[row, column].imshow(weights[layer, column], cmap="magma", vmin=0.0)
    for row, name in enumerate(["image", *(f"layer {layer + 1}" for layer in layers)]):
        grid[row, 0].set_ylabel(name, fontsize=8)
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
    write_picture(path, figure)
