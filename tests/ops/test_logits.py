import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer.ops.logits import (
    Sampling,
    choose,
    filter_logits,
    filter_min_p,
    filter_top_k,
    filter_top_p,
    most_probable,
)

VOCAB = 9
# Distinct values, so that there is one right answer.
scores = st.permutations(np.linspace(-4, 4, VOCAB).tolist()).map(np.float32)


def kept(filtered, logits):
    """Which entries are left; those must be unchanged."""
    filtered = np.asarray(filtered)
    left = np.isfinite(filtered)
    np.testing.assert_array_equal(filtered[left], np.asarray(logits)[left])
    assert (filtered[~left] == -np.inf).all()
    return left


def softmax(logits):
    weights = np.exp(np.asarray(logits, np.float64))
    return weights / weights.sum()


@given(logits=scores, k=st.integers(1, VOCAB + 3))
def test_top_k_keeps_the_k_largest(logits, k):
    left = kept(filter_top_k(jnp.asarray(logits), k), logits)
    expected = np.zeros(VOCAB, bool)
    expected[np.argsort(-logits)[:k]] = True
    np.testing.assert_array_equal(left, expected)


@given(logits=scores, p=st.floats(0.01, 0.999))
def test_top_p_keeps_the_smallest_nucleus(logits, p):
    left = kept(filter_top_p(jnp.asarray(logits), p), logits)
    probabilities = softmax(logits)
    assert left.any()
    assert probabilities[left].min() > probabilities[~left].max(initial=0)
    assert probabilities[left].sum() > p - 1e-5
    assert probabilities[left].sum() - probabilities[left].min() < p + 1e-5


@given(logits=scores, p=st.floats(0.01, 0.99))
def test_min_p_compares_with_the_best(logits, p):
    left = kept(filter_min_p(jnp.asarray(logits), p), logits)
    ratio = softmax(logits) / softmax(logits).max()
    clear = np.abs(ratio - p) > 1e-5
    np.testing.assert_array_equal(left[clear], (ratio >= p)[clear])


def test_filters_work_on_each_row():
    logits = jnp.array([[0.0, 1.0, 2.0], [5.0, 1.0, 4.0]])
    np.testing.assert_array_equal(
        kept(filter_top_k(logits, 1), logits), [[False, False, True], [True, False, False]]
    )
    np.testing.assert_array_equal(
        kept(filter_top_p(logits, 0.7), logits), [[False, True, True], [True, False, False]]
    )
    np.testing.assert_array_equal(
        kept(filter_min_p(logits, 0.3), logits), [[False, True, True], [True, False, True]]
    )


def test_min_p_zero_and_defaults_keep_all():
    logits = jnp.array([0.0, -20.0, 3.0])
    np.testing.assert_array_equal(filter_min_p(logits, 0.0), logits)
    np.testing.assert_array_equal(filter_logits(logits, Sampling()), logits)


def test_temperature_divides():
    logits = jnp.array([0.0, -2.0, 3.0])
    np.testing.assert_allclose(filter_logits(logits, Sampling(temperature=0.5)), logits / 0.5)


def test_temperature_zero_leaves_the_best():
    logits = jnp.array([[0.0, 4.0, 3.0]])
    left = kept(filter_logits(logits, Sampling(temperature=0.0, top_k=3)), logits)
    np.testing.assert_array_equal(left, [[False, True, False]])


def test_nucleus_is_taken_after_temperature():
    logits = jnp.array([2.0, 1.0, 0.0])
    hot = filter_logits(logits, Sampling(temperature=10.0, top_p=0.6))
    cold = filter_logits(logits, Sampling(temperature=0.1, top_p=0.6))
    assert np.isfinite(hot).sum() == 2
    assert np.isfinite(cold).sum() == 1


def test_filters_combine():
    logits = jnp.array([4.0, 3.9, 3.8, 0.0])
    filtered = filter_logits(logits, Sampling(top_k=2, top_p=0.99, min_p=0.5))
    np.testing.assert_array_equal(np.isfinite(filtered), [True, True, False, False])


@pytest.mark.parametrize("temperature", [1e-39, 1e-300, 1e39, 1e308])
def test_extreme_temperatures_are_limits(temperature):
    """Where float32 has no such temperature, or no such quotient."""
    logits = jnp.array([0.5, 4.0, -1e4, 3.0])
    probabilities = jax.nn.softmax(filter_logits(logits, Sampling(temperature)))
    expected = [0.0, 1.0, 0.0, 0.0] if temperature < 1 else [0.25] * 4
    np.testing.assert_allclose(probabilities, expected)


def test_a_nucleus_that_reaches_its_probability_is_whole():
    logits = jnp.log(jnp.array([0.5, 0.25, 0.25]))
    assert np.isfinite(filter_top_p(logits, 0.5)).tolist() == [True, False, False]


NAN = float("nan")


@pytest.mark.parametrize(
    "wrong",
    [
        *({name: NAN} for name in ("temperature", "top_p", "min_p")),
        *({"temperature": temperature} for temperature in (-0.1, float("inf"))),
        *({"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}, {"min_p": -0.1}, {"min_p": 1.1}),
    ],
    ids=str,
)
def test_impossible_sampling(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampling(**wrong)


def test_the_strictest_sampling_and_that_it_cannot_be_changed():
    logits = jnp.array([0.0, 2.0, 1.0])
    for strictest in (Sampling(top_k=1), Sampling(top_p=1e-9), Sampling(min_p=1.0)):
        assert np.isfinite(filter_logits(logits, strictest)).tolist() == [False, True, False]
    # Programs are compiled for each.
    assert hash(Sampling(min_p=0.5)) == hash(Sampling(1.0, 0, 1.0, 0.5))


def test_a_choice_depends_on_the_row_and_the_position_alone():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(3, VOCAB)), jnp.float32)
    keys, sampling = jax.random.split(jax.random.key(0), 3), Sampling(temperature=0.5, top_k=4)
    left = filter_logits(logits, sampling)
    for position, places in ((7, [7, 7, 7]), (jnp.array([1, 7, 2]), [1, 7, 2])):
        chosen = choose(logits, keys, jnp.asarray(position), sampling)
        expected = [
            jax.random.categorical(jax.random.fold_in(key, place), row)
            for key, place, row in zip(keys, places, left, strict=True)
        ]
        np.testing.assert_array_equal(chosen, expected)
        assert chosen.dtype == jnp.int32
    coldest = choose(logits, keys, jnp.asarray(7), Sampling(temperature=0.0))
    np.testing.assert_array_equal(coldest, logits.argmax(axis=-1))
    assert coldest.dtype == jnp.int32


def test_the_most_probable_token_is_the_first_of_equals_and_never_beyond_the_vocabulary():
    logits = jnp.array([[0.0, 2.0, 2.0, 1.0], [-jnp.inf] * 4, [3.0, 0.0, 0.0, 3.0]])
    np.testing.assert_array_equal(most_probable(logits), np.argmax(logits, axis=-1))
    assert most_probable(jnp.array([0.0, jnp.nan, 1.0])) == 2
