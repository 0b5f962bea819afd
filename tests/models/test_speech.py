"""The recogniser: its padding, its losses and its search, each against a simpler way."""

import dataclasses
import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import noisy_parameters
from transformer.decoding.recognize import Recognition, encoded, recognize
from transformer.errors import ConfigError
from transformer.models.speech import Speech
from transformer.models.speech_encoder import SpeechEncoder
from transformer.ops.losses import IGNORED
from transformer.ops.spec_augment import hidden
from transformer.tasks.parts.speech_losses import Heard, alignment_losses, recognition_losses

END, TOKENS = 4, 5
SIZES = {"vocab_size": TOKENS, "num_heads": 2, "width": 8, "feed_forward_width": 16}
FRAMES = np.random.default_rng(0).normal(size=(3, 26, 3)).astype(np.float32)
LENGTHS = np.array([26, 13, 0])


@pytest.fixture(scope="module")
def model():
    return Speech(**SIZES, num_encoder_layers=1, num_decoder_layers=1, num_features=3)


@pytest.fixture(scope="module")
def params(model):
    return noisy_parameters(model, FRAMES[:1], jnp.zeros((1, 1), int), scale=0.5)


@pytest.fixture(scope="module")
def heard():
    """A transcript for each recording; of the last, which is padding, none."""
    target = np.array([[END, 0, 1, 1], [END, 2, 0, 0], [0, 0, 0, 0]])
    labels = np.array([[0, 1, 1, END], [2, END, IGNORED, IGNORED], [IGNORED] * 4])
    return Heard(
        jnp.asarray(FRAMES), jnp.asarray(LENGTHS), jnp.asarray(target), jnp.asarray(labels)
    )


@functools.partial(jax.jit, static_argnames=("model", "ctc_weight"))
def losses(model, params, heard, ctc_weight):
    return recognition_losses(model, params, heard, {}, ctc_weight=ctc_weight, label_smoothing=0.0)


def test_padding_makes_no_difference(model, params):
    """Neither that behind a recording, nor that in an odd number of frames."""
    noisy = FRAMES.copy()
    noisy[1, 13:] = 7.0
    memory, log_probs, lengths = encoded(model, params, noisy, LENGTHS)
    assert lengths.tolist() == [7, 4, 0]
    assert memory.shape == (3, 7, 8)
    alone = encoded(model, params, FRAMES[1:2, :13], LENGTHS[1:2])
    np.testing.assert_allclose(memory[1, :4], alone[0][0], atol=1e-5)
    np.testing.assert_allclose(log_probs[1, :4], alone[1][0], atol=1e-5)
    assert np.isfinite(memory).all()


def test_the_loss_of_ctc_is_a_sum_over_alignments(model, params, heard):
    def run(module):
        return alignment_losses(module, module.encode(heard.frames, heard.segments), heard)

    found = jax.jit(nn.apply(run, model))({"params": params})
    _, log_probs, lengths = encoded(model, params, FRAMES, LENGTHS)
    wanted = [(0, 1, 1), (2,)]
    for row, ids in enumerate(wanted):
        values, total = np.asarray(log_probs[row, : lengths[row]], np.float64), -np.inf
        for path in itertools.product(sorted({*ids, TOKENS}), repeat=len(values)):
            if tuple(t for t, _ in itertools.groupby(path) if t != TOKENS) == ids:
                total = np.logaddexp(total, sum(values[i, t] for i, t in enumerate(path)))
        assert found[row] == pytest.approx(-total, rel=1e-4)
    assert found[2] == 0.0


def test_a_recording_too_short_for_its_transcript_costs_nothing(model, params, heard):
    # Two vectors hold no token twice, for which three are needed.
    short = heard._replace(num_frames=jnp.array([8, 8, 0]))

    def objective(params):
        return losses(model, params, short, 1.0).objective

    loss, slope = jax.jit(jax.value_and_grad(objective))(params)
    alone = short._replace(labels=short.labels.at[0].set(IGNORED), num_frames=jnp.array([0, 8, 0]))
    found = losses(model, params, alone, 1.0).objective
    assert loss == pytest.approx(float(found), rel=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))


def test_the_losses_are_weighted(model, params, heard):
    parts = [losses(model, params, heard, weight) for weight in (0.0, 0.25, 1.0)]
    attention, both, ctc = (float(part.objective) for part in parts)
    assert both == pytest.approx(0.75 * attention + 0.25 * ctc, rel=1e-5)
    assert parts[1].metrics["ctc_loss"] == pytest.approx(ctc, rel=1e-5)
    assert parts[1].metrics["attention_loss"] == pytest.approx(attention, rel=1e-5)
    assert [float(part.weight) for part in parts] == [6.0] * 3


def greedy(model, params, frames, most):
    """Token by token, all of it anew each time."""
    score, ids = jax.jit(lambda target: model.apply({"params": params}, frames, target)), []
    while len(ids) < most:
        # No token sees what is behind it.
        target = jnp.array([[END, *ids, *[0] * (most - len(ids))]])
        token = int(score(target)[0, len(ids)].argmax())
        if token == END:
            break
        ids.append(token)
    return ids


def test_attention_writes_what_it_would_without_a_cache(model, params):
    how = Recognition(end=END, num_tokens=TOKENS, max_length=6, kind="attention", size=1)
    found = recognize(model, params, jnp.asarray(FRAMES), jnp.asarray(LENGTHS), how)
    for row in range(2):
        frames = jnp.asarray(FRAMES[row : row + 1, : LENGTHS[row]])
        wanted = greedy(model, params, frames, 5)
        assert found[row].ids.tolist() == wanted
    assert found[2].ids.tolist() == []


def test_both_together_choose_the_best_of_their_sum(model, params):
    frames, lengths = jnp.asarray(FRAMES), jnp.asarray(LENGTHS)
    how = Recognition(END, TOKENS, max_length=20, kind="joint", size=8, ctc_weight=0.4)
    found = recognize(model, params, frames, lengths, how)
    by_ctc = recognize(model, params, frames, lengths, dataclasses.replace(how, kind="ctc"))
    assert all(joint.score > -np.inf for joint in found)
    for row in range(2):
        # The score of what was found, and of what CTC alone finds, by their definitions.
        scores = []
        for ids in (found[row].ids, by_ctc[row].ids):
            labels = jnp.array([[*ids, END]])
            one = Heard(
                frames[row : row + 1], lengths[row : row + 1], jnp.array([[END, *ids]]), labels
            )
            part = losses(model, params, one, 0.4)
            scores.append(-float(part.objective))
        assert found[row].score == pytest.approx(scores[0], abs=0.15)
        assert scores[0] >= scores[1] - 0.15


def test_an_encoder_alone(heard):
    model = SpeechEncoder(**SIZES, num_layers=1, num_features=3, stride="2")
    params = noisy_parameters(model, FRAMES[:1])
    assert set(losses(model, params, heard, 1.0).metrics) == {"loss"}
    how = Recognition(END, TOKENS, max_length=6, kind="ctc", size=3)
    found = recognize(model, params, jnp.asarray(FRAMES), jnp.asarray(LENGTHS), how)
    assert len(found) == 3
    assert END not in found[0].ids


@pytest.mark.parametrize("kind", [Speech, SpeechEncoder])
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 6, "num_heads": 2}, "must be even"),
        ({"width": 7, "num_heads": 2}, "divide the width"),
        ({"kernel_size": 4}, "kernel_size is 4: give an odd number"),
    ],
)
def test_sizes_that_make_no_model(kind, fields, message):
    with pytest.raises(ConfigError, match=message):
        kind(**{**SIZES, **fields}).check()


def test_parts_of_the_features_are_hidden():
    frames = jnp.ones((2, 10, 4))
    found = hidden(
        frames,
        jnp.array([10, 5]),
        time_masks=jnp.array([[[0.2, 0.4]], [[0.2, 0.4]]]),
        frequency_masks=jnp.array([[[0.0, 0.0], [0.5, 1.0]], [[0.0, 0.0], [0.0, 0.25]]]),
    )
    assert np.flatnonzero(found[0, :, 0] == 0).tolist() == [2, 3]
    # Fractions are of the valid frames.
    assert np.flatnonzero(found[1, :, 1] == 0).tolist() == [1]
    assert np.flatnonzero(found[0, 0] == 0).tolist() == [2, 3]
    assert np.flatnonzero(found[1, 0] == 0).tolist() == [0]
