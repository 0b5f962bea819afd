import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import assert_trees_close, normal
from transformer.ops.losses import (
    IGNORED,
    binary_cross_entropy,
    cross_entropy,
    linear_cross_entropy,
    summed,
)

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


def test_of_equals_the_first_is_the_guess():
    scores = jnp.array([[2.0, 2, 2, 2, 2], [1, 3, 0, 3, 3], [0, 1, 2, 2, 1]])
    labels = jnp.tile(jnp.arange(5), (3, 1)).T
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


def test_the_gradient_of_all_logits_is_one_expression(rng, labels):
    """Without a scatter, before which a GPU writes out what comes before."""
    gradient = jax.grad(lambda x: cross_entropy(x, labels).objective.sum())
    assert "scatter" not in str(jax.make_jaxpr(gradient)(normal(rng, 2, 5, VOCAB)))


def test_bfloat16_logits_are_scored_in_float32(rng, labels):
    logits = normal(rng, 2, 5, VOCAB).astype(jnp.bfloat16)
    losses = cross_entropy(logits, labels)
    expected = cross_entropy(logits.astype(jnp.float32), labels)
    assert {x.dtype for x in losses} == {jnp.dtype("float32")}
    assert_trees_close(losses, expected, rtol=1e-6)


OPTIONS = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.1, "z_loss": 0.01},
    "capped": {"logit_cap": 2.0},
}


def with_gradients(score, *args):
    """Sums, and gradients of what the objective becomes behind the loss."""

    @jax.jit
    def both(*args):
        def total(*args):
            losses = score(*args)
            return 0.5 * losses.objective**2, losses

        return jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)(*args)

    return both(*args)


@pytest.fixture(scope="module", params=OPTIONS)
def whole(request):
    """Options, the arrays that are scored, and what comes out of all logits."""
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
        return summed(cross_entropy(logits, jnp.asarray(labels), **options))

    expected = with_gradients(score, *arrays)
    return OPTIONS[request.param], arrays, jnp.asarray(labels), expected


@pytest.mark.parametrize(
    ("chunks", "shards", "positions"), [(1, 1, 1), (2, 1, 1), (5, 2, 1), (9, 1, 5), (1, 2, 5)]
)
def test_of_the_output_layer_is_of_its_logits(whole, chunks, shards, positions):
    options, arrays, labels, expected = whole

    def score(features, kernel, bias):
        shared = {"num_shards": shards, "num_position_shards": positions}
        return linear_cross_entropy(
            features, kernel, labels, bias, num_chunks=chunks, **shared, **options
        )

    assert_trees_close(with_gradients(score, *arrays), expected, rtol=1e-5, atol=1e-5)


def test_columns_after_the_vocabulary_count_for_nothing(whole):
    options, arrays, labels, expected = whole

    def score(features, kernel, bias):
        # Larger than any other logit.
        kernel = jnp.pad(kernel, ((0, 0), (0, 5)), constant_values=9.0)
        return linear_cross_entropy(
            features, kernel, labels, bias, num_chunks=2, vocab_size=VOCAB, **options
        )

    assert_trees_close(with_gradients(score, *arrays), expected, rtol=1e-5, atol=1e-5)


def test_a_table_is_a_kernel_turned(whole):
    options, (features, kernel, bias), labels, expected = whole

    def score(features, table, bias):
        # Two more rows stand for no token.
        table, sizes = jnp.pad(table, ((0, 2), (0, 0))), {"num_chunks": 2, "vocab_size": VOCAB}
        return linear_cross_entropy(
            features, table, labels, bias, is_table=True, **sizes, **options
        )

    (objective, losses), gradients = with_gradients(score, features, kernel.T, bias)
    found = (objective, losses), (gradients[0], gradients[1].T, gradients[2])
    assert_trees_close(found, expected, rtol=1e-5, atol=1e-5)


def test_without_bias_and_with_numbers_of_the_program(rng, labels):
    features, kernel = normal(rng, 2, 5, 6), normal(rng, 6, VOCAB)

    @jax.jit
    def gradients(numbers):
        def total(features, kernel):
            losses = linear_cross_entropy(features, kernel, labels, num_chunks=3, **numbers)
            return losses.objective, losses

        return jax.grad(total, argnums=(0, 1), has_aux=True)(features, kernel)

    numbers = {"label_smoothing": 0.1, "z_loss": 0.01}
    found, losses = gradients({name: jnp.asarray(number) for name, number in numbers.items()})

    def total(features, kernel):
        return summed(cross_entropy(features @ kernel, labels, **numbers)).objective

    expected = jax.grad(total, argnums=(0, 1))(features, kernel)
    assert_trees_close(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(losses.objective, total(features, kernel), rtol=1e-5)


def test_only_the_objective_has_a_gradient(rng, labels):
    def total(features):
        losses = linear_cross_entropy(features, normal(rng, 6, VOCAB), labels, num_chunks=2)
        return losses.nll + losses.correct

    np.testing.assert_array_equal(jax.grad(total)(normal(rng, 2, 5, 6)), 0)


def compiled(loss, vocab):
    shapes = (
        jax.ShapeDtypeStruct((1, 2048, 8), jnp.float32),
        jax.ShapeDtypeStruct((8, vocab), jnp.float32),
        jax.ShapeDtypeStruct((1, 2048), jnp.int32),
    )

    def total(features, kernel, labels):
        return loss(features, kernel, labels).objective

    return jax.jit(jax.grad(total, argnums=(0, 1))).lower(*shapes).compile()


def of_layer(features, kernel, labels):
    return linear_cross_entropy(features, kernel, labels, num_chunks=kernel.shape[1] // 128)


def of_logits(features, kernel, labels):
    return summed(cross_entropy(features @ kernel, labels))


def test_memory_does_not_grow_with_the_logits():
    # Copies of the kernel may grow with V; logits, 256 times larger, must not.
    logits_growth = 3 * 1024 * 2048 * 4

    def growth(loss):
        sizes = (compiled(loss, vocab).memory_analysis() for vocab in (4096, 1024))
        larger, smaller = (size.temp_size_in_bytes for size in sizes)
        return larger - smaller

    assert growth(of_layer) < logits_growth / 20
    assert growth(of_logits) >= logits_growth


def test_logits_are_computed_once(rng, labels):
    """Products: the logits, and the gradients of features and kernel; each once in the loop."""

    def total(features, kernel):
        return linear_cross_entropy(features, kernel, labels, num_chunks=3).objective

    arrays = normal(rng, 2, 5, 6), normal(rng, 6, VOCAB)
    program = str(jax.make_jaxpr(jax.grad(total, argnums=(0, 1)))(*arrays))
    assert program.count("dot_general") == 3
    assert str(jax.make_jaxpr(total)(*arrays)).count("dot_general") == 1


def test_nothing_as_large_as_a_table_is_turned(rng, labels):
    """Or a GPU keeps the table and its moments turned in a step, and turns them around it."""

    def total(features, table):
        options = {"is_table": True, "num_chunks": 3}
        return linear_cross_entropy(features, table, labels, **options).objective

    program = jax.make_jaxpr(jax.grad(total, argnums=(0, 1)))(
        normal(rng, 2, 5, 6), normal(rng, VOCAB, 6)
    )
    assert "6,11]" not in str(program)


def test_what_is_visited_and_added_up(rng, labels):
    arrays = normal(rng, 2, 5, 6), normal(rng, 6, VOCAB)

    def program(num_chunks=2, **shards):
        def total(features, kernel):
            losses = linear_cross_entropy(features, kernel, labels, num_chunks=num_chunks, **shards)
            return losses.objective

        return str(jax.make_jaxpr(jax.grad(total, argnums=(0, 1)))(*arrays))

    # Gradients of the kernel: one, and one for each device.
    assert ",6,11]" not in program()
    assert "[2,6,11]" in program(num_shards=2)
    # Devices that do not divide the examples or the positions make none; nor are chunks empty.
    assert program(num_shards=3, num_position_shards=2) == program()
    assert program(num_shards=2, num_position_shards=2) == program(num_shards=2)
    assert program(num_chunks=9) == program(num_chunks=5) != program()


def test_gradients_have_the_dtypes_of_what_they_are_of(rng, labels):
    features, kernel = normal(rng, 2, 5, 6).astype(jnp.bfloat16), normal(rng, 6, VOCAB)

    def total(features, kernel, bias):
        losses = linear_cross_entropy(
            features, kernel.astype(jnp.bfloat16), labels, bias, num_chunks=2
        )
        return losses.objective, losses

    bias = jnp.zeros(VOCAB, jnp.bfloat16)
    gradient = jax.eval_shape(jax.grad(total, (0, 1, 2), has_aux=True), features, kernel, bias)
    assert [x.dtype for x in gradient[0]] == [jnp.bfloat16, jnp.float32, jnp.bfloat16]
    assert {x.dtype for x in gradient[1]} == {jnp.dtype("float32")}


def test_yes_and_no_by_hand():
    # Log odds of 3 to 1: "yes" costs log 4/3, "no" log 4.
    logits = jnp.array([0.0, np.log(3.0), np.log(3.0), np.log(3.0), -1000.0])
    found = binary_cross_entropy(logits, jnp.array([0.3, 1.0, 0.0, 0.25, 1.0]))
    expected = [np.log(2), np.log(4 / 3), np.log(4), np.log(4) - np.log(3) / 4, 1000.0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    narrow = logits.astype(jnp.bfloat16)
    assert binary_cross_entropy(narrow, narrow).dtype == jnp.float32
