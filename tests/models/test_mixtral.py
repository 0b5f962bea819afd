import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.mixtral import get_config
from tests.common import assert_trees_close, noisy_parameters
from transformer.decoding.sample import generate
from transformer.errors import ConfigError
from transformer.fields import require_allowed
from transformer.models.llama import Llama
from transformer.models.mixtral import Mixtral
from transformer.nn.compute import Compute
from transformer.nn.mixture import active_parameters
from transformer.ops.logits import Sampling
from transformer.tasks.language_modeling import LanguageModeling
from transformer.training.sections import build

TINY = {
    "vocab_size": 11,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "width": 16,
    "context": 16,
    "feed_forward_width": 24,
    "num_experts": 4,
}
TOKENS = jnp.asarray(np.random.default_rng(0).integers(11, size=(2, 9)))
BATCH = {"tokens": TOKENS, "labels": jnp.roll(TOKENS, -1, axis=1).at[0, -1].set(-100)}
TASK = LanguageModeling(context=9)


@pytest.fixture(scope="module")
def params():
    return noisy_parameters(Mixtral(**TINY), TOKENS)


def stacked(params):
    layers = [params["blocks"][f"layer_{index}"] for index in range(2)]
    layers = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
    return {**params, "blocks": {"layers": layers}}


def test_published_count():
    model = build("model", get_config("mixtral-8x7b").model)
    shapes = nn.meta.unbox(jax.eval_shape(model.init, jax.random.key(0), TOKENS))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 46_702_792_704
    assert active_parameters(shapes["params"], model.experts_per_token) == 12_879_925_248


def test_default_has_the_active_parameters_of_a_llama():
    config = get_config().model
    config.vocab_size = 65
    model = build("model", config)
    shapes = nn.meta.unbox(jax.eval_shape(model.init, jax.random.key(0), TOKENS))["params"]
    llama = Llama(vocab_size=65, num_layers=4, num_heads=4, num_kv_heads=2, width=128)
    whole = sum(
        leaf.size for leaf in jax.tree.leaves(jax.eval_shape(llama.init, jax.random.key(0), TOKENS))
    )
    routers = 4 * 128 * 8
    assert active_parameters(shapes, 2) - routers == whole


def test_scanned_and_recomputed_is_unrolled(params):
    def run(params, **fields):
        model = Mixtral(**TINY, **fields)

        @jax.jit
        def losses(params):
            found = TASK.losses(model, params, BATCH, {})
            return found.objective, found

        return jax.grad(losses, has_aux=True)(params)

    gradients, losses = run(params)
    found, same = run(stacked(params), compute=Compute(scan_layers=True, remat="full"))
    assert_trees_close(same, losses, rtol=1e-5)
    assert_trees_close(found, stacked(gradients), rtol=1e-3, atol=1e-4)


def test_cached_is_whole(params):
    model, params = Mixtral(**TINY, compute=Compute(scan_layers=True)), stacked(params)
    whole, _ = jax.jit(model.apply)({"params": params}, TOKENS)
    step = jax.jit(
        lambda token, position, cache: model.apply(
            {"params": params}, token, positions=position, cache=cache
        )
    )
    cache = model.empty_cache(2, 16)
    for place in range(TOKENS.shape[1]):
        positions = jnp.full((2, 1), place)
        logits, cache = step(TOKENS[:, place : place + 1], positions, cache)
        np.testing.assert_allclose(logits[:, 0], whole[:, place], atol=1e-5)


def test_routers_losses_enter_the_objective_and_nothing_else(params):
    @jax.jit
    def losses(params):
        scales = {"router_loss_scale": 0.0}, {"router_loss_scale": 0.5, "router_z_loss_scale": 0.25}
        return [TASK.losses(Mixtral(**TINY, **fields), params, BATCH, {}) for fields in scales]

    plain, scaled = losses(params)
    weight = 17  # One of 18 labels is ignored.
    assert scaled.weight == weight
    means = scaled.means()
    assert set(means) == {"loss", "accuracy", "router_balance", "router_z"}
    assert 2 < means["router_balance"] < 4 and means["router_z"] > 0
    np.testing.assert_allclose(plain.objective, plain.metrics["loss"], rtol=1e-6)
    np.testing.assert_array_equal(scaled.metrics["loss"], plain.metrics["loss"])
    own = 0.5 * means["router_balance"] + 0.25 * means["router_z"]
    np.testing.assert_allclose(scaled.objective, plain.objective + weight * own, rtol=1e-5)


def padded(tokens, rows, length, fill):
    """Rows of `fill` below and columns of it behind."""
    shape = ((0, rows - tokens.shape[0]), (0, length - tokens.shape[1]))
    return jnp.pad(tokens, shape, constant_values=fill)


@pytest.mark.parametrize("capacity_factor", [None, 0.6])
def test_padding_takes_no_place_and_counts_nowhere(params, capacity_factor):
    model = Mixtral(**TINY, capacity_factor=capacity_factor, router_z_loss_scale=0.1)
    labels = TOKENS[:, ::-1]

    @jax.jit
    def run(tokens, labels):
        batch = {"tokens": tokens, "labels": labels}
        losses = TASK.losses(model, params, batch, {})
        valid = labels != -100
        return losses, model.apply({"params": params}, tokens, valid=valid)[0]

    losses, logits = run(TOKENS, labels)
    found, same = run(padded(TOKENS, 4, 13, fill=3), padded(labels, 4, 13, fill=-100))
    np.testing.assert_allclose(same[:2, :9], logits, atol=1e-5)
    assert_trees_close(found, losses, rtol=1e-5)


def test_ragged_prompts_are_written_as_if_alone(params):
    """Also where experts had few places in training."""
    model = Mixtral(**TINY, capacity_factor=0.5)
    options = {"max_new_tokens": 6, "sampling": Sampling(temperature=0.0), "seed": 0, "chunk": 6}
    prompts = [np.array([1, 2, 3, 4, 5, 6, 7]), np.array([8, 9]), np.array([10, 1, 2])]
    together = np.concatenate(list(generate(model, params, prompts, **options)), axis=1)
    for prompt, written in zip(prompts, together, strict=True):
        (alone,) = generate(model, params, [prompt], **options)
        np.testing.assert_array_equal(written, alone[0])


def test_the_objective_spreads_tokens(params):
    """A few steps on the routers alone: the balance loss falls."""
    model = Mixtral(**TINY, router_loss_scale=1.0)

    @jax.jit
    @jax.value_and_grad
    def balance(params):
        losses = TASK.losses(model, params, BATCH, {})
        return losses.objective - losses.metrics["loss"]

    values = []
    for _ in range(5):
        value, gradients = balance(params)
        values.append(float(value))
        params = jax.tree.map(lambda p, g: p - 0.01 * g, params, gradients)
    assert values[-1] < values[0]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"num_experts": 0}, "config.model.num_experts"),
        ({"experts_per_token": 0}, "config.model.experts_per_token"),
        ({"experts_per_token": 5}, "more than config.model.num_experts"),
        ({"capacity_factor": 0.0}, "config.model.capacity_factor"),
        ({"router_loss_scale": -0.1}, "config.model.router_loss_scale"),
        ({"router_z_loss_scale": -0.1}, "config.model.router_z_loss_scale"),
        ({"head_dim": 3}, "odd"),
    ],
)
def test_values_that_cannot_work(fields, said):
    with pytest.raises(ConfigError, match=said):
        require_allowed("model", Mixtral(**{**TINY, **fields}))
