"""The cross-attention of a translation as a picture (Bahdanau et al. 2015, figure 3)."""

import functools
import warnings
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from transformer.data.tokenizers.protocol import SentenceTokenizer
from transformer.files import write_picture
from transformer.nn.encoder_decoder import EncoderDecoder
from transformer.nn.layouts import layer_name, unstacked
from transformer.nn.taps import RECORDED
from transformer.types import Params


def cross_attention_weights(
    model: EncoderDecoder, params: Params, source: np.ndarray, target: np.ndarray, end: int
) -> Float[np.ndarray, "L N T S"]:
    """The weight of each source token for each token of a translation, when it was made.

    Args:
        model: an encoder-decoder.
        params: its parameters.
        source: token ids without end token.
        target: token ids without end token.
        end: the end token.

    Returns:
        Weights of every layer and head, end tokens included.
    """
    begin = model.begin_token()
    begun = [end if begin is None else begin, *target.tolist()]
    inputs = np.array([[*source.tolist(), end]]), np.array([begun])
    return np.stack([weights[0] for weights in _weights(model, params, *inputs)])


@functools.partial(jax.jit, static_argnums=0)
def _weights(
    model: EncoderDecoder, params: Params, source: Int[Array, "1 S"], target: Int[Array, "1 T"]
) -> list[Float[Array, "1 N T S"]]:
    """The weights of each layer; what else is recorded is not computed."""
    _, found = model.apply({"params": params}, source, target, mutable=[RECORDED])
    layers = unstacked(found[RECORDED]["decoder"])
    names = [layer_name(index) for index in range(len(layers))]
    return [layers[name]["cross_attention"]["weights"] for name in names]


def draw_alignment(
    model: EncoderDecoder,
    params: Params,
    tokenizer: SentenceTokenizer,
    source_ids: np.ndarray,
    target_ids: np.ndarray,
    path: Path,
) -> None:
    """Draws each token's attention: the mean over heads of each layer, and over all layers.

    Args:
        model: an encoder-decoder.
        params: its parameters.
        tokenizer: the model's tokenizer.
        source_ids: token ids without end token.
        target_ids: token ids without end token.
        path: the path of the picture.
    """
    weights = cross_attention_weights(model, params, source_ids, target_ids, tokenizer.end)
    source, target = (
        tokenizer.tokens([*ids.tolist(), tokenizer.end]) for ids in (source_ids, target_ids)
    )
    # A separate figure, not pyplot: no window system and no global state.
    from matplotlib.figure import Figure

    by_layer = weights.mean(axis=1)
    panels = [("all layers", by_layer.mean(axis=0))]
    panels += [(f"layer {index}", layer) for index, layer in enumerate(by_layer, 1)]
    height = 1.6 + 0.24 * len(target)
    width = 1.0 + 0.24 * len(source)
    figure = Figure(figsize=(1.2 + width * len(panels), height), layout="constrained")
    for place, (title, values) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1)
        axes.imshow(values, cmap="Blues", vmin=0.0, aspect="auto")
        axes.set_title(title, fontsize=10)
        # A dollar sign must not begin a formula.
        axes.set_xticks(range(len(source)), source, rotation=90, fontsize=8, parse_math=False)
        shown = target if place == 0 else [""] * len(target)
        axes.set_yticks(range(len(target)), shown, parse_math=False)
        axes.tick_params(length=0, labelsize=8)
    with warnings.catch_warnings():
        # Characters that the font lacks become boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        write_picture(path, figure)
