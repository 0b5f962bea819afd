import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from tests.common import assert_trees_equal, normal
from tests.runs import SharedPrograms, assert_same_run, saved
from transformer.runs.opening import open_run
from transformer.tasks.parts.protocol import Losses
from transformer.training.experiment import prepare
from transformer.training.loop import train
from transformer.training.opened import initial_state
from transformer.training.optimizers import Optimizer, make_optimizer
from transformer.training.precision import Precision, narrowed, rounded_like, widened
from transformer.training.programs import make_programs
from transformer.training.sections import section
from transformer.training.selection import by_path
from transformer.training.state import create
from transformer.training.step import Recipe, train_steps

TEXT = "the quick brown fox jumps over the lazy dog\n" * 20
STEPS = 4


class Line:
    """A constant pull on a matrix and a vector, whose updates are smaller than half a last place.

    Each step adds 2^-11 to numbers from 1 to 2, where the last place of bfloat16 is 2^-7.
    """

    def __init__(self, precision, microbatches=1, **fields):
        rng = np.random.default_rng(0)
        params = {"kernel": 1.25 + 0.1 * normal(rng, 64, 32), "bias": jnp.ones(32)}
        config = Optimizer(learning_rate=2**-11, weight_decay=0.0, clip_norm=0.0, **fields)
        schedule = optax.constant_schedule(2**-11)
        optimizer = make_optimizer(config, schedule, params)
        self.state = create(params, optimizer, jax.random.key(3), average=True, precision=precision)
        self.recipe = Recipe(self.loss, optimizer, schedule, microbatches, ema_decay=0.5)

    @staticmethod
    def loss(params, batch, rngs):
        total = -jnp.sum(params["kernel"].astype(jnp.float32)) - jnp.sum(params["bias"])
        return Losses(total * batch["x"].sum(), batch["x"].sum(), {"loss": total})

    def after(self, steps):
        batches = {"x": jnp.ones((steps, 4))}
        return jax.jit(train_steps, static_argnums=0)(self.recipe, self.state, batches, steps)[0]


@pytest.mark.parametrize("microbatches", [1, 2])
def test_small_updates_add_up(microbatches):
    line = Line(Precision("bfloat16", "bfloat16"), microbatches)
    assert line.state.params["kernel"].dtype == jnp.bfloat16
    state = line.after(64)
    moved = widened(state.params)["kernel"] - widened(line.state.params)["kernel"]
    # 64 * 2^-11 = 2^-5, four last places.
    np.testing.assert_allclose(moved.mean(), 2**-5, rtol=0.03)
    assert float(moved.std()) > 2**-9
    np.testing.assert_allclose(state.params["bias"], 1 + 2**-5, rtol=1e-5)
    # Half of the average is the mean before, so it lags by one step.
    np.testing.assert_allclose(
        state.average["kernel"].mean() - line.state.params["kernel"].astype(float).mean(),
        2**-5 - 2**-11,
        rtol=0.03,
    )


@pytest.mark.parametrize("algorithm", ["adamw", "lion", "muon"])
def test_only_matrices_are_narrow(algorithm):
    kept = Line(Precision("bfloat16", "bfloat16"), algorithm=algorithm)
    state = kept.after(2)
    dtypes = [jax.tree.map(lambda x: x.dtype, tree) for tree in (kept.state, state)]
    assert dtypes[0] == dtypes[1]
    leaves = jax.tree.leaves((state.params, state.optimizer))
    by_dtype = {
        name: {x.shape for x in leaves if x.dtype == name} for name in ("bfloat16", "float32")
    }
    assert by_dtype["bfloat16"] == {(64, 32)}
    # Muon's coefficients are no moments.
    assert by_dtype["float32"] - {(3,)} == {(32,)}
    assert {x.dtype for x in jax.tree.leaves(state.average)} == {jnp.dtype("float32")}


def test_float32_is_not_touched():
    tree = {"kernel": jnp.ones((2, 3))}
    assert rounded_like(tree, tree, jax.random.key(0)) is tree
    assert_trees_equal(widened(tree), tree)
    moments = Line(Precision(moments="bfloat16")).state
    assert moments.params["kernel"].dtype == jnp.float32


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "text.txt"
    path.write_text(TEXT)
    config = ConfigDict()
    config.model = section("model", "gpt", num_layers=1, num_heads=2, width=8, context=8)
    config.task = section(
        "task", "language_modeling", path=str(path), context=8, batch_size=4, sample_length=0
    )
    config.optimizer = section(
        "optimizer", schedule="constant", warmup="1 steps", moment_dtype="bfloat16"
    )
    config.train = section(
        "train",
        duration=f"{STEPS} steps",
        evaluate_every="2 steps",
        parameter_dtype="bfloat16",
        tensorboard=False,
    )
    config.mesh, config.init, config.lora = section("mesh"), section("init"), section("lora")
    return config


@pytest.fixture(scope="module")
def shared():
    return SharedPrograms()


@pytest.fixture(scope="module")
def workdir(config, shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "whole"
    assert train(config, folder, shared=shared, curves=False)[0] == 0
    return folder


def test_resumed_with_the_same_bits(config, shared, workdir, tmp_path):
    config = config.copy_and_resolve_references()
    for steps in (STEPS // 2, STEPS):
        config.train.duration = f"{steps} steps"
        assert train(config, tmp_path / "run", shared=shared, curves=False)[0] == 0
    assert_same_run(tmp_path / "run", workdir, final=False)


def test_what_opens_a_run_sees_float32(workdir):
    opened, kept = by_path(open_run(workdir).params), by_path(saved(workdir)["params"])
    assert {x.dtype for x in opened.values()} == {jnp.dtype("float32")}
    assert kept["blocks/layer_0/attention/query/kernel"].dtype == jnp.bfloat16
    assert_trees_equal(opened, widened(kept))


def test_a_run_begins_from_one_of_another_dtype(config, workdir):
    wide, narrow = config.copy_and_resolve_references(), config.copy_and_resolve_references()
    wide.train.parameter_dtype = "float32"
    for begun in (wide, narrow):
        begun.init.workdir = str(workdir)
        experiment = prepare(begun)
        state = initial_state(experiment, make_programs(experiment), lambda text: None)
        expected = narrowed(open_run(workdir).params, begun.train.parameter_dtype)
        assert_trees_equal(state.params, expected)
        assert state.params["token_embedding"]["embedding"].dtype == begun.train.parameter_dtype
