import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.common import assert_trees_close, assert_trees_equal, normal
from transformer.composition import with_fields
from transformer.models.gpt import GPT
from transformer.ops.losses import IGNORED
from transformer.tasks.language_modeling import LanguageModeling
from transformer.tasks.parts.protocol import Losses
from transformer.training.optimizers import Optimizer, decay_mask, make_optimizer, make_schedule
from transformer.training.selection import by_path, everything, join, split
from transformer.training.state import create
from transformer.training.step import (
    Recipe,
    mean_metrics,
    parameter_groups,
    train_step,
    train_steps,
)

GPT_FIELDS = {"vocab_size": 11, "num_layers": 2, "num_heads": 2, "width": 8, "context": 5}
TASK = with_fields(LanguageModeling(), context=5, batch_size=6)


def batch_of(seed):
    """Six windows; most labels of the last two are ignored."""
    tokens = np.random.default_rng(seed).integers(0, 11, (6, 6)).astype(np.int32)
    labels = tokens[:, 1:].copy()
    labels[4:, 1:] = IGNORED
    labels[2, 3] = IGNORED
    return {"tokens": jnp.asarray(tokens[:, :-1]), "labels": jnp.asarray(labels)}


@functools.cache
def initial():
    """Parameters with the names of their axes; whether a model drops makes no difference."""
    init = jax.jit(GPT(**GPT_FIELDS).init)
    return init(jax.random.key(0), jnp.zeros((1, 5), jnp.int32))["params"]


class Training:
    """A tiny model with everything that makes a step of it."""

    def __init__(self, dropout_rate=0.0, **fields):
        self.model = GPT(**GPT_FIELDS, dropout_rate=dropout_rate)
        config = Optimizer(learning_rate=1e-2, schedule="cosine", **fields)
        self.schedule = make_schedule(config, warmup_steps=3, total_steps=20)
        self.boxed = initial()
        self.optimizer = make_optimizer(config, self.schedule, self.boxed)

    def loss(self, params, batch, rngs):
        return TASK.losses(self.model, params, batch, rngs)

    def state(self, *, average=False):
        params = nn.meta.unbox(self.boxed)
        return create(params, self.optimizer, jax.random.key(7), average=average)

    def recipe(self, **options):
        return Recipe(self.loss, self.optimizer, self.schedule, **options)

    def step(self, **options):
        return functools.partial(train_step, self.recipe(**options))


@pytest.fixture(scope="module")
def training():
    return Training()


@pytest.fixture(scope="module")
def step(training):
    return jax.jit(training.step())


@pytest.fixture(scope="module")
def stepped(training, step):
    return step(training.state(), batch_of(0))


def test_a_step_reports_the_loss_and_counts(training, stepped):
    state, metrics = stepped
    losses = jax.jit(training.loss)(training.state().params, batch_of(0), {})
    assert losses.weight == 4 * 5 + 2 - 1
    np.testing.assert_allclose(metrics["loss"], losses.metrics["loss"] / losses.weight, rtol=1e-5)
    assert state.step == 1
    np.testing.assert_allclose(metrics["learning_rate"], 1e-2 / 3, rtol=1e-6)
    np.testing.assert_array_equal(
        jax.random.key_data(state.key), jax.random.key_data(training.state().key)
    )


def test_norms_are_of_the_mean_gradient(training, stepped):
    _, metrics = stepped
    params = training.state().params

    def mean(params):
        losses = training.loss(params, batch_of(0), {})
        return losses.objective / losses.weight

    groups = parameter_groups(jax.jit(jax.grad(mean))(params))
    norms = [
        np.sqrt(sum(float(jnp.sum(x**2)) for x in jax.tree.leaves(group)))
        for group in groups.values()
    ]
    np.testing.assert_allclose(metrics["group_norms"], norms, rtol=1e-4)
    np.testing.assert_allclose(metrics["grad_norm"], np.linalg.norm(norms), rtol=1e-4)


def test_groups_are_modules_and_layers(training):
    assert set(parameter_groups(training.state().params)) == {
        "token_embedding",
        "position_embedding",
        "blocks/layer_0",
        "blocks/layer_1",
        "final_norm",
    }


def test_microbatches_change_nothing(training, stepped):
    """Although the parts have different numbers of ignored labels."""
    state, metrics = jax.jit(training.step(microbatches=3))(training.state(), batch_of(0))
    assert_trees_close(metrics, stepped[1], rtol=1e-5, atol=1e-6)
    assert_trees_close(state.params, stepped[0].params, atol=1e-6)


def draw(params, batch, rngs):
    """A loss that shows its key: the mean of squares tells equal draws from different ones."""
    drawn = jax.random.uniform(rngs["dropout"])
    return Losses(params["x"].sum(), jnp.ones(()), {"drawn": drawn, "square": drawn**2})


def drawn(steps, **options):
    optimizer = optax.sgd(0.1)
    state = create({"x": jnp.ones(2)}, optimizer, jax.random.key(0), average=False)
    recipe = Recipe(draw, optimizer, optax.constant_schedule(0.1), **options)
    rows = []
    for _ in range(steps):
        state, metrics = train_step(recipe, state, {"x": jnp.zeros((6, 1))})
        rows.append(metrics)
    return rows


def test_microbatches_have_keys_of_their_own():
    (metrics,) = drawn(1, microbatches=3)
    assert metrics["square"] - metrics["drawn"] ** 2 > 1e-3


def test_steps_have_keys_of_their_own():
    first, second = drawn(2)
    assert first["drawn"] != second["drawn"]
    assert drawn(2)[1]["drawn"] == second["drawn"]


def test_a_batch_without_labels_moves_nothing_but_decay(training, step):
    batch = {**batch_of(0), "labels": jnp.full((6, 5), IGNORED)}
    state, metrics = step(training.state(), batch)
    assert metrics["loss"] == metrics["grad_norm"] == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_single_steps_of_a_gpu_have_no_loop(training, monkeypatch):
    batches = jax.tree.map(lambda x: x[None], batch_of(0))
    run = functools.partial(train_steps, training.recipe())
    expected, losses = jax.jit(run)(training.state(), batches, 1)
    monkeypatch.setattr("transformer.training.step.platform", lambda: "gpu")
    traced = jax.jit(functools.partial(run)).trace(training.state(), batches, 1)
    assert "while" not in str(traced.jaxpr)
    state, metrics = traced.lower().compile()(training.state(), batches, 1)
    assert state.step == expected.step == 1
    assert_trees_close(state.params, expected.params, rtol=1e-5, atol=1e-6)
    assert_trees_close(metrics, losses, rtol=1e-5)


def test_division_into_calls_keeps_every_bit():
    training = Training(dropout_rate=0.3)
    batches = [batch_of(seed) for seed in range(6)]
    run = jax.jit(functools.partial(train_steps, training.recipe(ema_decay=0.9)))

    def stacked(some):
        padded = [*some, *[jax.tree.map(jnp.zeros_like, some[0])] * (6 - len(some))]
        return jax.tree.map(lambda *x: jnp.stack(x), *padded)

    expected, metrics = run(training.state(average=True), stacked(batches), 6)
    state, rows, done = training.state(average=True), [], 0
    for count in (1, 2, 3):
        state, new = run(state, stacked(batches[done : done + count]), count)
        rows.append(jax.tree.map(lambda x, count=count: x[:count], new))
        done += count
    assert run._cache_size() == 1
    assert state.step == 6
    for name in ("params", "optimizer", "average"):
        assert_trees_equal(getattr(state, name), getattr(expected, name))
    assert_trees_equal(jax.tree.map(lambda *x: jnp.concatenate(x), *rows), metrics)


def test_average_is_exponential(training):
    step = jax.jit(training.step(ema_decay=0.75))
    state = training.state(average=True)
    expected = state.params
    for seed in range(3):
        state, _ = step(state, batch_of(seed))
        expected = jax.tree.map(lambda a, p: 0.75 * a + 0.25 * p, expected, state.params)
    assert_trees_close(state.average, expected, rtol=1e-5, atol=1e-7)
    assert state.evaluated is state.average
    assert training.state().average is None
    assert training.state().evaluated is not None


def test_decay_moves_matrices_only(training, stepped):
    """Steps with and without weight decay differ in what decays, and there only."""
    without = Training(weight_decay=0.0)
    state, _ = jax.jit(without.step())(without.state(), batch_of(0))
    differs = jax.tree.map(
        lambda a, b: bool(np.any(a != b)), *map(jax.device_get, (state.params, stepped[0].params))
    )
    zero = jax.tree.map(lambda x: not np.any(x), jax.device_get(training.state().params))
    decayed = decay_mask(training.boxed)
    expected = jax.tree.map(lambda d, z: d and not z, decayed, zero)
    assert differs == expected
    assert not differs["final_norm"]["scale"]
    assert differs["token_embedding"]["embedding"]


def test_evaluation_drops_nothing(training):
    dropping = Training(dropout_rate=0.5)
    evaluate = jax.jit(dropping.loss)
    params = training.state().params
    losses = [evaluate(params, batch_of(0), {}) for _ in range(2)]
    plain = jax.jit(training.loss)(params, batch_of(0), {})
    assert_trees_equal(*losses)
    assert_trees_close(losses[0], plain, rtol=1e-5)


def test_mean_metrics_count_each_prediction_once():
    totals = [
        Losses(jnp.array(0.0), jnp.array(weight), {"loss": jnp.array(weight * loss)})
        for weight, loss in ((1.0, 4.0), (3.0, 2.0))
    ]
    np.testing.assert_allclose(mean_metrics(totals)["loss"], (4 + 3 * 2) / 4)


def test_metrics_with_weights_of_their_own():
    """Each is divided by its own weight, over all batches together."""
    totals = [
        Losses(
            jnp.array(0.0),
            jnp.array(4.0),
            {"loss": jnp.array(8.0), "exact": jnp.array(exact), "never": jnp.array(0.0)},
            {"exact": jnp.array(weight), "never": jnp.array(0.0)},
        )
        for exact, weight in ((1.0, 1.0), (1.0, 3.0))
    ]
    found = mean_metrics(totals)
    assert found == {"loss": 16 / 8, "exact": 2 / 4, "never": 0.0}
    assert totals[1].means() == {"loss": 2.0, "exact": pytest.approx(1 / 3), "never": 0.0}


class Squares:
    """Two matrices and a table, of which some are trained."""

    CONFIG = Optimizer(learning_rate=1e-2, weight_decay=0.3, clip_norm=0.1)

    def __init__(self, trained=everything):
        rng = np.random.default_rng(0)
        self.params = {
            "embedding": {"embedding": normal(rng, 5, 3)},
            "blocks": {"layer_0": {"kernel": normal(rng, 3, 4)}},
            "output": {"kernel": normal(rng, 4, 2)},
        }
        self.batches = [
            {"ids": jnp.asarray(rng.integers(0, 5, 6)), "y": normal(rng, 6, 2)} for _ in range(3)
        ]
        self.trained = trained
        self.schedule = optax.constant_schedule(1e-2)
        self.optimizer = make_optimizer(self.CONFIG, self.schedule, split(self.params, trained)[0])

    @staticmethod
    def loss(params, batch, rngs):
        x = params["embedding"]["embedding"][batch["ids"]]
        x = jnp.tanh(x @ params["blocks"]["layer_0"]["kernel"])
        squares = jnp.sum((x @ params["output"]["kernel"] - batch["y"]) ** 2)
        weight = jnp.asarray(batch["y"].shape[0], jnp.float32)
        return Losses(squares, weight, {"loss": squares}, {"loss": 2 * weight})

    def run(self, **options):
        """The state after three steps and the metrics of the last."""
        state = create(
            self.params,
            self.optimizer,
            jax.random.key(0),
            average="ema_decay" in options,
            trained=self.trained,
        )
        recipe = Recipe(self.loss, self.optimizer, self.schedule, trained=self.trained, **options)
        step, metrics = jax.jit(functools.partial(train_step, recipe)), {}
        for batch in self.batches:
            state, metrics = step(state, batch)
        return state, metrics


def above(path):
    """Trains blocks and output."""
    return not path.startswith("embedding/")


@pytest.fixture(scope="module")
def partly():
    return Squares(above).run(ema_decay=0.9)


def test_the_frozen_do_not_move(partly):
    state, _ = partly
    before = Squares().params
    assert_trees_equal(state.params["embedding"], before["embedding"])
    # An average of equal numbers would not have their last bits.
    assert_trees_equal(state.average["embedding"], before["embedding"])
    for path, leaf in by_path(split(state.params, above)[0]).items():
        assert np.all(leaf != by_path(before)[path]), path
    assert jax.tree.structure(state.params) == jax.tree.structure(before)


def test_the_frozen_have_no_optimizer_state(partly):
    shapes = {leaf.shape for leaf in jax.tree.leaves(partly[0].optimizer)}
    assert shapes == {(), (3, 4), (4, 2)}
    whole = jax.tree.leaves(Squares().optimizer.init(Squares().params))
    assert (5, 3) in {leaf.shape for leaf in whole}


def test_the_trained_move_as_if_others_had_no_gradients(partly):
    """Against Optax's own masks, around the whole optimizer, clipping included."""
    squares = Squares()
    mask = {"embedding": False, "blocks": True, "output": True}
    config = squares.CONFIG
    rule = optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            1e-2, config.beta1, config.beta2, config.epsilon, weight_decay=config.weight_decay
        ),
    )
    optimizer = optax.chain(
        optax.masked(rule, mask),
        optax.masked(optax.set_to_zero(), {name: not moves for name, moves in mask.items()}),
    )

    @jax.jit
    def step(params, state, batch):
        gradients = jax.grad(lambda p: squares.loss(p, batch, {}).objective / 6)(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    params, state = squares.params, optimizer.init(squares.params)
    average = params
    for batch in squares.batches:
        params, state = step(params, state, batch)
        average = jax.tree.map(lambda a, p: 0.9 * a + 0.1 * p, average, params)
    assert_trees_close(partly[0].params, params, rtol=1e-5, atol=1e-6)
    assert_trees_close(partly[0].average, average, rtol=1e-5, atol=1e-6)


def test_norms_are_of_what_is_trained():
    """In the order in which the groups are named."""
    squares = Squares(above)
    squares.batches = squares.batches[:1]
    _, metrics = squares.run()
    moving, kept = split(squares.params, above)

    @jax.jit
    @jax.grad
    def gradient(moving):
        return squares.loss(join(moving, kept), squares.batches[0], {}).objective / 6

    norms = {
        name: float(optax.tree.norm(group))
        for name, group in parameter_groups(gradient(moving)).items()
    }
    assert list(norms) == list(parameter_groups(moving)) == ["blocks/layer_0", "output"]
    np.testing.assert_allclose(metrics["group_norms"], list(norms.values()), rtol=1e-5)
    np.testing.assert_allclose(
        metrics["grad_norm"], np.linalg.norm(list(norms.values())), rtol=1e-5
    )


def test_microbatches_of_the_partly_frozen(partly):
    state, metrics = Squares(above).run(ema_decay=0.9, microbatches=2)
    assert_trees_close(metrics, partly[1], rtol=1e-5)
    assert_trees_close(state.params, partly[0].params, rtol=1e-5, atol=1e-6)
    assert_trees_close(state.average, partly[0].average, rtol=1e-5, atol=1e-6)
    assert_trees_equal(state.params["embedding"], partly[0].params["embedding"])


def test_chunked_scoring_is_whole_scoring(training):
    params = training.state().params
    chunked = with_fields(LanguageModeling(), context=5, batch_size=6, vocab_chunk=4, z_loss=0.01)
    whole = with_fields(LanguageModeling(), context=5, batch_size=6, z_loss=0.01)
    losses = [
        jax.jit(lambda params, task=task: task.losses(training.model, params, batch_of(0), {}))(
            params
        )
        for task in (chunked, whole)
    ]
    assert_trees_close(*losses, rtol=1e-5)
