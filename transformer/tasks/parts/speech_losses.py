"""The loss of a recogniser of speech: attention and CTC."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from transformer.ops.losses import IGNORED
from transformer.tasks.parts.losses import vocabulary_losses
from transformer.tasks.parts.protocol import Losses
from transformer.tasks.parts.speech import SpeechAligner, SpeechReader
from transformer.traced import Number, is_zero
from transformer.types import Params


class Heard(NamedTuple):
    """Recordings as a model reads them, with their transcripts.

    Attributes:
        frames: the features.
        num_frames: how many of each row are valid.
        target: the tokens to read, the end token first.
        labels: the next token of each, or `IGNORED`.
    """

    frames: Float[Array, "B T M"]
    num_frames: Int[Array, "B"]
    target: Int[Array, "B U"]
    labels: Int[Array, "B U"]

    @property
    def segments(self) -> Int[Array, "B T"]:
        """1 at frames, 0 at padding."""
        valid = jnp.arange(self.frames.shape[1]) < self.num_frames[:, None]
        return valid.astype(jnp.int32)

    @property
    def target_segments(self) -> Int[Array, "B U"]:
        """1 at tokens, 0 at padding."""
        places = jnp.arange(self.labels.shape[1])
        last = jnp.max(jnp.where(self.labels != IGNORED, places, -1), axis=1, keepdims=True)
        return (places <= last).astype(jnp.int32)


def recognition_losses(
    model: SpeechReader,
    params: Params,
    heard: Heard,
    rngs: dict[str, jax.Array],
    *,
    ctc_weight: float,
    label_smoothing: Number = 0.0,
    vocab_chunk: int = 0,
) -> Losses:
    """(1 - w) x cross-entropy + w x CTC, summed over tokens (Watanabe et al. 2017, equation 11).

    Args:
        model: a `SpeechWriter` unless w is 1, and a `SpeechAligner` unless it is 0.
        params: its parameters.
        heard: the batch.
        rngs: for dropout; empty for none.
        ctc_weight: w.
        label_smoothing: of the cross-entropy; `loss` in the metrics is without smoothing.
        vocab_chunk: see `vocabulary_losses`.
    """
    segments = heard.segments
    counted = heard.labels != IGNORED
    weight = jnp.sum(counted).astype(jnp.float32)

    def score(module: SpeechReader) -> Losses:
        memory = module.encode(heard.frames, segments)
        objective = loss = jnp.zeros(())
        metrics = {}
        if ctc_weight < 1:
            features = module.written(
                memory,
                module.begun(heard.target),
                source_segments=segments,
                target_segments=heard.target_segments,
            )
            terms = {"label_smoothing": label_smoothing}
            found = vocabulary_losses(module, features, heard.labels, vocab_chunk, **terms)
            objective += (1.0 - ctc_weight) * found.objective
            loss += (1.0 - ctc_weight) * found.nll
            metrics["accuracy"] = found.correct
            if ctc_weight > 0:
                metrics["attention_loss"] = found.nll
        if ctc_weight > 0:
            ctc = jnp.sum(alignment_losses(module, memory, heard))
            objective, loss = objective + ctc_weight * ctc, loss + ctc_weight * ctc
            if ctc_weight < 1:
                metrics["ctc_loss"] = ctc
        metrics["loss"] = loss
        if ctc_weight < 1 and not is_zero(label_smoothing):
            metrics["smoothed_loss"] = objective
        return Losses(objective, weight, metrics)

    return model.apply({"params": params}, method=score, rngs=rngs)


def alignment_losses(
    module: SpeechAligner, memory: Float[Array, "B R D"], heard: Heard
) -> Float[Array, "B"]:
    """The negative log probability of each transcript under CTC (Graves et al. 2006, section 4).

    It is 0 where a recording has too few vectors for its transcript, which no alignment fits.

    Args:
        module: a bound model.
        memory: of the recordings.
        heard: the batch.
    """
    logits = module.aligned(memory)
    lengths = module.memory_lengths(heard.num_frames)
    behind = jnp.arange(logits.shape[1]) >= lengths[:, None]
    # Every target begins with the end token.
    is_token = (heard.labels != IGNORED) & (heard.labels != heard.target[:, :1])
    labels, kept = _to_the_left(heard.labels, is_token)
    losses = optax.ctc_loss(
        logits, behind.astype(jnp.float32), labels, 1.0 - kept, blank_id=logits.shape[-1] - 1
    )
    repeats = jnp.sum((labels[:, 1:] == labels[:, :-1]) * kept[:, 1:], axis=1)
    fits = jnp.sum(kept, axis=1) + repeats <= lengths
    return jnp.where(fits & (lengths > 0), losses, 0.0)


def _to_the_left(
    labels: Int[Array, "B U"], is_token: Array
) -> tuple[Int[Array, "B U"], Float[Array, "B U"]]:
    """Moves tokens in front of the rest, which becomes 0; and where tokens are, as 1 and 0."""
    order = jnp.argsort(~is_token, axis=1, stable=True)
    kept = jnp.take_along_axis(is_token, order, axis=1)
    labels = jnp.where(kept, jnp.take_along_axis(labels, order, axis=1), 0)
    return labels, kept.astype(jnp.float32)
