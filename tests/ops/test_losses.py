import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import assert_trees_close, normal
from transformer.ops.losses import IGNORED, chunked_cross_entropy, cross_entropy

VOCAB = 11


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def labels(rng):
    labels = rng.integers(0, VOCAB, (2, 5))
    labels[0, 1] = labels[1, 4] = IGNORED
    return jnp.asarray(labels)


def log_probabilities(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("z_loss", [0.0, 0.01])
def test_cross_entropy_in_numpy(rng, labels, label_smoothing, z_loss):
    logits = 3 * normal(rng, 2, 5, VOCAB)
    losses = cross_entropy(logits, labels, label_smoothing=label_smoothing, z_loss=z_loss)
    logp = log_probabilities(logits)
    log_z = np.log(np.exp(np.asarray(logits, np.float64)).sum(-1))
    for place in np.ndindex(2, 5):
        label = int(labels[place])
        if label == IGNORED:
            assert all(x[place] == 0 for x in losses)
            continue
        target = np.full(VOCAB, label_smoothing / VOCAB)
        target[label] += 1 - label_smoothing
        objective = -target @ logp[place] + z_loss * log_z[place] ** 2
        np.testing.assert_allclose(losses.objective[place], objective, rtol=1e-5)
        np.testing.assert_allclose(losses.nll[place], -logp[place][label], rtol=1e-5)
        assert losses.correct[place] == (logp[place].argmax() == label)
        assert losses.weight[place] == 1


def test_correct_counts_the_most_probable():
    logits = jnp.eye(3)[None]
    losses = cross_entropy(logits, jnp.array([[0, 1, 0]]))
    np.testing.assert_array_equal(losses.correct, [[1, 1, 0]])


@pytest.mark.parametrize("chunk_size", [0, 2, 3, 16])
def test_of_equals_the_first_is_the_guess(chunk_size):
    scores = jnp.array([[2.0, 2, 2, 2, 2], [1, 3, 0, 3, 3], [0, 1, 2, 2, 1]])
    labels = jnp.tile(jnp.arange(5), (3, 1)).T
    if chunk_size:
        features = jnp.tile(jnp.eye(3), (5, 1, 1))
        losses = chunked_cross_entropy(features, scores, labels, chunk_size=chunk_size)
    else:
        losses = cross_entropy(jnp.tile(scores, (5, 1, 1)), labels)
    expected = labels == jnp.argmax(scores, axis=-1)
    np.testing.assert_array_equal(losses.correct, expected)


def test_what_is_no_number_is_not_right():
    losses = cross_entropy(jnp.full((3, 3), jnp.nan), jnp.arange(3))
    np.testing.assert_array_equal(losses.correct, [0, 0, 0])


def test_large_logits_do_not_overflow():
    losses = cross_entropy(jnp.array([[1e4, 0.0]]), jnp.array([1]))
    np.testing.assert_allclose(losses.nll, 1e4)


def test_gradient_of_cross_entropy(rng, labels):
    logits = normal(rng, 2, 5, VOCAB)
    gradient = jax.grad(lambda x: cross_entropy(x, labels).objective.sum())(logits)
    expected = np.exp(log_probabilities(logits)) - np.asarray(jax.nn.one_hot(labels, VOCAB))
    expected[np.asarray(labels) == IGNORED] = 0
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_bfloat16_logits_are_scored_in_float32(rng, labels):
    logits = normal(rng, 2, 5, VOCAB).astype(jnp.bfloat16)
    losses = cross_entropy(logits, labels)
    expected = cross_entropy(logits.astype(jnp.float32), labels)
    assert losses.objective.dtype == jnp.float32
    assert_trees_close(losses, expected, rtol=1e-6)


OPTIONS = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.1, "z_loss": 0.01},
    "capped": {"logit_cap": 2.0},
}


def with_gradients(score, *args):
    @jax.jit
    def both(*args):
        def total(*args):
            losses = score(*args)
            return losses.objective.sum() + 0.5 * losses.nll.sum(), losses

        return jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)(*args)

    return both(*args)


@pytest.fixture(scope="module", params=OPTIONS)
def whole(request):
    """Options, the arrays that are scored, and what comes out without chunks."""
    options = dict(OPTIONS[request.param])
    cap = options.pop("logit_cap", None)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, VOCAB, (2, 5))
    labels[0, 1] = labels[1, 4] = IGNORED
    arrays = normal(rng, 2, 5, 6), normal(rng, 6, VOCAB), normal(rng, VOCAB)

    def score(features, kernel, bias):
        logits = features @ kernel + bias
        if cap is not None:
            logits = cap * jnp.tanh(logits / cap)
        return cross_entropy(logits, jnp.asarray(labels), **options)

    expected = with_gradients(score, *arrays)
    return OPTIONS[request.param], arrays, jnp.asarray(labels), expected


@pytest.mark.parametrize("chunk_size", [1, 4, 11, 16])
def test_chunked_is_whole(whole, chunk_size):
    options, arrays, labels, expected = whole

    def score(features, kernel, bias):
        return chunked_cross_entropy(
            features, kernel, labels, bias, chunk_size=chunk_size, **options
        )

    assert_trees_close(with_gradients(score, *arrays), expected, rtol=1e-5, atol=1e-5)


def test_chunked_without_bias(rng, labels):
    features, kernel = normal(rng, 2, 5, 6), normal(rng, 6, VOCAB)
    chunked = chunked_cross_entropy(features, kernel, labels, chunk_size=4)
    assert_trees_close(chunked, cross_entropy(features @ kernel, labels), rtol=1e-5, atol=1e-6)


def temporary_bytes(loss, vocab):
    shapes = (
        jax.ShapeDtypeStruct((1, 2048, 8), jnp.float32),
        jax.ShapeDtypeStruct((8, vocab), jnp.float32),
        jax.ShapeDtypeStruct((1, 2048), jnp.int32),
    )

    def total(features, kernel, labels):
        return loss(features, kernel, labels).objective.sum()

    compiled = jax.jit(jax.grad(total, argnums=(0, 1))).lower(*shapes).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_chunked_memory_does_not_grow_with_the_logits():
    def chunked(features, kernel, labels):
        return chunked_cross_entropy(features, kernel, labels, chunk_size=128)

    def whole(features, kernel, labels):
        return cross_entropy(features @ kernel, labels)

    # Copies of the kernel may grow with V; logits, 256 times larger, must not.
    logits_growth = 3 * 1024 * 2048 * 4
    growth = temporary_bytes(chunked, 4096) - temporary_bytes(chunked, 1024)
    assert growth < logits_growth / 20
    assert temporary_bytes(whole, 4096) - temporary_bytes(whole, 1024) >= logits_growth
