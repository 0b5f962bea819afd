import jax
import numpy as np
import pytest

from transformer import explaining
from transformer.errors import ConfigError
from transformer.explaining.lens import direct_logit_attribution, lens_logits, logit_lens
from transformer.explaining.scores import (
    attention_rollout,
    duplicate_token_scores,
    induction_scores,
    previous_token_scores,
    stream_norms,
)

# --------------------------------------------------------------------------------------- lens


@pytest.mark.parametrize("name", ["gpt", "gemma", "t5", "masked"])
def test_the_last_lens_is_the_output(name, trace_of):
    trace = trace_of(name)
    lens = logit_lens(trace, k=4)
    assert lens.ids.shape == lens.probabilities.shape == (2, len(trace.tokens), 4)
    assert np.all(np.diff(lens.probabilities, axis=-1) <= 0.0)
    last = lens_logits(trace, -1)
    if name == "masked":
        last = last[list(trace.reading.positions)]
    np.testing.assert_allclose(last, trace.outputs, atol=1e-5)
    assert np.abs(lens_logits(trace, 0)[-1] - trace.outputs[-1]).max() > 1e-3


def test_lenses_need_tokens(trace_of):
    with pytest.raises(ConfigError, match="needs a model that predicts tokens"):
        logit_lens(trace_of("bert"))


@pytest.mark.parametrize("name", ["gpt", "llama", "gemma", "mixtral"])
def test_contributions_add_up_to_the_score(name, trace_of):
    trace = trace_of(name)
    for position, token in ((-1, None), (3, 5)):
        found = direct_logit_attribution(trace, position, token)
        assert len(found.names) == len(found.scores) == 1 + 2 * 2 + 1
        chosen = int(trace.outputs[position].argmax()) if token is None else token
        score = trace.outputs[position, chosen]
        if name == "gemma":  # Its scores are capped.
            score = 4.0 * np.arctanh(score / 4.0)
        assert found.scores.sum() == pytest.approx(score, abs=1e-4)
        if name == "gemma":
            assert found.heads is None
            continue
        # Heads add up to their layer, up to the bias of the layer's output.
        by_layer = found.scores[1:-1:2] - found.heads.sum(-1)
        without_bias = name != "gpt"
        assert (np.abs(by_layer).max() < 1e-5) == without_bias


def test_contributions_are_of_sums(trace_of):
    with pytest.raises(ConfigError, match="needs a decoder-only model"):
        direct_logit_attribution(trace_of("bert"))


# ------------------------------------------------------------------------------------- scores


def weights_to(places):
    """Weights of one layer and one head, by the key that each query looks at."""
    weights = np.zeros((1, 1, len(places), len(places)), np.float32)
    weights[0, 0, np.arange(len(places)), places] = 1.0
    return weights


def test_heads_are_told_by_where_they_look():
    ids = np.array([7, 8, 9, 7, 8, 5])
    before = weights_to([0, 0, 1, 2, 3, 4])
    same = weights_to([0, 1, 2, 0, 1, 5])
    after = weights_to([0, 0, 0, 1, 2, 0])
    for weights, expected in ((before, (1, 0, 0)), (same, (0, 1, 0)), (after, (0.2, 0, 1))):
        found = (
            previous_token_scores(weights),
            duplicate_token_scores(weights, ids),
            induction_scores(weights, ids),
        )
        np.testing.assert_allclose(np.array(found)[:, 0, 0], expected, atol=1e-6)
    assert duplicate_token_scores(same, np.arange(6)) == 0.0
    # In "A A" the token after the first A is the second itself.
    assert induction_scores(weights_to([0, 1]), np.array([3, 3])) == 1.0


def test_rollout_mixes_the_stream_with_what_is_looked_at(trace_of):
    before = weights_to([0, 0, 1])[0]
    one, two = attention_rollout(np.stack([before, before]))
    np.testing.assert_allclose(one, [[1, 0, 0], [0.5, 0.5, 0], [0, 0.5, 0.5]])
    np.testing.assert_allclose(two[2], [0.25, 0.5, 0.25])
    found = attention_rollout(trace_of("gpt")["attention_weights"])
    np.testing.assert_allclose(found.sum(-1), 1.0, atol=1e-5)
    assert not np.any(np.triu(found, 1))


def test_norms_are_those_of_the_stream(trace_of):
    trace = trace_of("t5")
    found = stream_norms(trace)
    assert {"residual_before", "residual_before_cross", "cross_attention_output"} <= found.keys()
    expected = np.linalg.norm(trace["residual_middle"], axis=-1)
    np.testing.assert_allclose(found["residual_middle"], expected, rtol=1e-5)


def test_losses_are_those_of_the_tokens(trace_of):
    trace = trace_of("gpt")
    ids = np.array([token.id for token in trace.tokens])
    log_probs = np.asarray(jax.nn.log_softmax(trace.outputs))
    expected = -log_probs[np.arange(len(ids) - 1), ids[1:]]
    np.testing.assert_allclose(explaining.next_token_losses(trace), expected, atol=1e-5)
    assert trace.loss == pytest.approx(expected.mean(), abs=1e-5)
    assert trace_of("bert").loss is None
