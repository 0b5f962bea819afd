"""Texts of recordings by a trained recogniser, and a picture of how one was found."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from transformer.data.order import Batches
from transformer.data.tokenizers.protocol import SentenceTokenizer
from transformer.decoding.ctc import align
from transformer.decoding.recognize import Found, Recognition, encoded, recognize
from transformer.nn.layouts import layer_name, unstacked
from transformer.nn.taps import RECORDED
from transformer.pictures.recognition import Panel, Placed, draw_recognition
from transformer.tasks.parts.speech import SpeechAligner, SpeechReader, SpeechWriter
from transformer.tasks.parts.speech_losses import Heard
from transformer.types import Batch, HostBatch, Params

Hearing = Callable[[Batch | HostBatch], Heard]


def recognized(
    model: SpeechReader,
    params: Params,
    batches: Batches,
    hear: Hearing,
    how: Recognition,
    on_progress: Callable[[int], None],
) -> list[Found]:
    """The text of every recording, in the order of the source.

    Args:
        model: the model.
        params: its parameters.
        batches: of an order that visits every recording once.
        hear: the features of a batch.
        how: how texts are found.
        on_progress: called with the number of recordings that are done.
    """
    results: dict[int, Found] = {}
    for step in range(len(batches)):
        visits = batches.order.visits(step, slice(None))
        heard = hear(batches[step])
        found = recognize(model, params, heard.frames, heard.num_frames, how)
        # Padding rows are behind all others.
        results |= {visit.example: one for visit, one in zip(visits, found, strict=False)}
        on_progress(len(results))
    return [results[example] for example in range(len(results))]


def draw_example(
    model: SpeechReader,
    params: Params,
    heard: Heard,
    ids: np.ndarray,
    tokenizer: SentenceTokenizer,
    seconds_per_frame: float,
    path: Path,
) -> None:
    """Draws the first recording of a batch: its spectrogram, and where its tokens were found.

    Args:
        model: the model.
        params: its parameters.
        heard: the batch.
        ids: the tokens that were found, without the end token.
        tokenizer: of the transcripts.
        seconds_per_frame: the time from one frame to the next.
        path: the path of the picture.
    """
    count = int(heard.num_frames[0])
    frames = np.asarray(heard.frames[:1, :count])
    number = np.array([count])
    names = [name.strip() or "▁" for name in tokenizer.tokens(ids)]
    panels, placed = [], []
    seconds_per_vector = seconds_per_frame * model.source_stride
    if isinstance(model, SpeechAligner):
        log_probs = np.asarray(encoded(model, params, frames, number)[1][0], np.float64)
        spans = align(log_probs, ids.tolist(), log_probs.shape[1] - 1) or []
        placed = [
            Placed(name, span.begin * seconds_per_vector, span.end * seconds_per_vector)
            for name, span in zip(names, spans, strict=False)
        ]
        # Every token once, and none at all.
        shown = list(dict.fromkeys(ids.tolist()))
        rows = np.exp(log_probs[:, [*shown, -1]]).T
        titles = [*(name.strip() or "▁" for name in tokenizer.tokens(shown)), "none"]
        panels.append(Panel("CTC: the probability of each token", rows, titles))
    if isinstance(model, SpeechWriter):
        weights = np.asarray(_cross_attention(model, params, frames, ids, tokenizer.end))
        panels.append(Panel("attention: what was heard for each token", weights, [*names, "end"]))
    title = tokenizer.decode(ids)
    draw_recognition(frames[0], count * seconds_per_frame, panels, placed, title, path)


def _cross_attention(
    model: SpeechWriter,
    params: Params,
    frames: Float[np.ndarray, "1 T M"],
    ids: np.ndarray,
    end: int,
) -> Float[Array, "U R"]:
    """The decoder's attention to the recording, the mean over layers and heads."""
    target = model.begun(jnp.array([[end, *ids.tolist()]]))
    return _mean_weights(model, params, frames, target)


@functools.partial(jax.jit, static_argnums=0)
def _mean_weights(
    model: SpeechWriter, params: Params, frames: Float[Array, "1 T M"], target: Array
) -> Float[Array, "U R"]:
    _, found = model.apply({"params": params}, frames, target, mutable=[RECORDED])
    layers = unstacked(found[RECORDED]["decoder"])
    names: Sequence[str] = [layer_name(index) for index in range(len(layers))]
    weights = jnp.stack([layers[name]["cross_attention"]["weights"][0] for name in names])
    return jnp.mean(weights, axis=(0, 1))
