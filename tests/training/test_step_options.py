"""Options of the step that must not change what is learned."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from tests.common import assert_trees_close, assert_trees_equal, noisy_parameters, normal
from transformer.composition import with_fields
from transformer.errors import ConfigError
from transformer.models.gpt import GPT
from transformer.models.vit import ViT
from transformer.nn.attention import Attention
from transformer.nn.compute import computing
from transformer.nn.norms import RMSNorm
from transformer.tasks.language_modeling import LanguageModeling
from transformer.training.combinations import check_cast, check_vocabulary
from transformer.training.optimizers import Optimizer, make_optimizer, make_schedule
from transformer.training.options import Train
from transformer.training.state import create
from transformer.training.step import Recipe, train_step, train_steps

STEPS, ROWS, LENGTH, VOCAB = 6, 4, 8, 19
TASK = with_fields(LanguageModeling(), context=LENGTH, batch_size=ROWS)
# The gradient of a key's bias is zero but for rounding, which Adam would make a step of.
SIZES = {
    "qkv_bias": False,
    "vocab_size": VOCAB,
    "num_layers": 1,
    "num_heads": 2,
    "width": 8,
    "context": LENGTH,
}
MODELS = {
    "tied": GPT(**SIZES),
    "untied": GPT(**SIZES, tie_embeddings=False, output_bias=True),
}


def batches():
    """The same batch for all steps, so that it can be learned."""
    tokens = np.random.default_rng(0).integers(0, VOCAB, (ROWS, LENGTH + 1))
    tokens = np.stack([tokens.astype(np.int32)] * STEPS)
    return {"tokens": jnp.asarray(tokens[..., :-1]), "labels": jnp.asarray(tokens[..., 1:])}


def parts(model, task=TASK, **options):
    """What makes steps of a model, and its state before the first."""
    tokens = jnp.zeros((1, LENGTH), jnp.int32)
    boxed = jax.jit(model.init)(jax.random.key(0), tokens)["params"]
    config = Optimizer(learning_rate=1e-2, schedule="constant")
    schedule = make_schedule(config, warmup_steps=1, total_steps=STEPS)
    optimizer = make_optimizer(config, schedule, boxed)
    recipe = Recipe(functools.partial(task.losses, model), optimizer, schedule, **options)
    return recipe, create(nn.meta.unbox(boxed), optimizer, jax.random.key(7), average=False)


def trained(model, task=TASK, **options):
    """The parameters after some steps, and the loss of each."""
    recipe, state = parts(model, task, **options)
    state, metrics = jax.jit(train_steps, static_argnums=0)(recipe, state, batches(), STEPS)
    return state.params, metrics["loss"]


def test_tiles_are_for_models_with_a_vocabulary():
    model = computing(ViT(), vocab_multiple=128)
    with pytest.raises(ConfigError, match=r"vocab_multiple is 128, and vit has no vocabulary"):
        check_vocabulary("vit", model)
    check_vocabulary("gpt", computing(MODELS["tied"], vocab_multiple=128))


@pytest.fixture(scope="module", params=MODELS)
def plain(request):
    model = MODELS[request.param]
    params, losses = trained(model)
    assert losses[-1] < losses[0]
    return model, params, losses


def assert_learns_alike(found, plain):
    np.testing.assert_allclose(found[1], plain[2], rtol=1e-5)
    # Adam's steps, of 1e-2 here, make much of the rounding of small gradients.
    assert_trees_close(found[0], plain[1], atol=1e-4)


def test_a_vocabulary_in_tiles(plain):
    model = computing(plain[0], vocab_multiple=128)
    # In chunks of positions, and not.
    task = with_fields(TASK, vocab_chunk=7 if model.tie_embeddings else 0)
    assert_learns_alike(trained(model, task), plain)
    # Logits of 128 columns, and no other ones.
    batch = jax.tree.map(lambda x: x[0], batches())
    program = str(jax.make_jaxpr(functools.partial(task.losses, model))(plain[1], batch, {}))
    assert ",128]" in program
    assert f",{VOCAB}] = dot_general" not in program


@pytest.mark.parametrize(("asked", "columns"), [(1, 128), (192, 384)])
def test_a_gpu_has_tiles_anyway(asked, columns, monkeypatch):
    model = computing(MODELS["tied"], vocab_multiple=asked)
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, LENGTH), jnp.int32))
    batch = jax.tree.map(lambda x: x[0], batches())
    monkeypatch.setattr("transformer.tasks.parts.losses.platform", lambda: "gpu")
    program = jax.make_jaxpr(functools.partial(TASK.losses, model))(
        nn.meta.unbox(params)["params"], batch, {}
    )
    assert f",{columns}]" in str(program)
    assert f",{VOCAB}] = dot_general" not in str(program)


def test_queries_keys_and_values_in_one_product(plain):
    assert_learns_alike(trained(computing(plain[0], fused_qkv=True)), plain)


FEW_KEYS = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 4, "use_key_bias": False}


@pytest.mark.parametrize("fields", [FEW_KEYS, {"num_heads": 2, "use_bias": False}], ids=str)
def test_one_product_has_the_parameters_of_three(fields):
    rng = np.random.default_rng(0)
    x, memory = normal(rng, 2, 5, 8), normal(rng, 2, 7, 8)
    three, one = (Attention(**fields, head_norm=RMSNorm, fused=fused) for fused in (False, True))
    params = noisy_parameters(three, x)
    for inputs in ((x,), (x, memory)):
        outputs, products = [], []
        for layer in (three, one):
            compute = jax.jit(functools.partial(layer.apply, {"params": params}))
            outputs.append(compute(*inputs)[0])
            products.append(str(jax.make_jaxpr(compute)(*inputs)).count("dot_general"))
        np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-6)
        assert products[0] - products[1] == 3 - len(inputs)
    assert_trees_equal(
        jax.jit(three.init)(jax.random.key(0), x), jax.jit(one.init)(jax.random.key(0), x)
    )


def count_casts(jaxpr, repeated=1):
    """How often kernels are converted to bfloat16 in a program, loops included."""
    count = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "convert_element_type":
            (before,) = equation.invars
            is_cast = (before.aval.dtype, equation.params["new_dtype"]) == ("float32", "bfloat16")
            # Feed-forward kernels have a shape that nothing else has.
            count += repeated * (is_cast and before.aval.shape[-2:] in ((8, 32), (32, 8)))
        repeats = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for inner in jaxprs_in_params(equation.params):
            count += count_casts(inner, repeated * repeats)
    return count


def test_matrices_are_cast_once():
    """In each microbatch, forward and again in the backward pass, or once."""
    model = computing(MODELS["untied"], dtype="bfloat16", scan_layers=True, remat="full")
    batch = jax.tree.map(lambda x: x[0], batches())
    counts, found = [], []
    for cast in (None, "bfloat16"):
        recipe, state = parts(model, microbatches=2, cast=cast)
        program = jax.make_jaxpr(functools.partial(train_step, recipe))(state, batch)
        counts.append(count_casts(program.jaxpr))
        found.append(trained(model, microbatches=2, cast=cast))
    assert counts == [8, 2]
    # Gradients of a batch are rounded once more, those of the table for example.
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-3)
    assert {x.dtype for x in jax.tree.leaves(found[1][0])} == {jnp.dtype("float32")}


def test_to_cast_to_float32_changes_nothing(plain):
    assert_learns_alike(trained(plain[0], cast="float32"), plain)


@pytest.mark.parametrize(
    ("dtypes", "has_adapters", "message"),
    [
        (("float32", "float32"), False, "compute in bfloat16"),
        (("bfloat16", "float32"), False, "compute in bfloat16"),
        (("bfloat16", "bfloat16"), False, "parameters are bfloat16"),
        (("float32", "bfloat16"), True, r"no effect with config\.lora\.rank"),
    ],
)
def test_a_cast_without_effect_is_refused(dtypes, has_adapters, message):
    kept, computed = dtypes
    with pytest.raises(ConfigError, match=message):
        check_cast(Train(parameter_dtype=kept, cast_once=True), computed, has_adapters)
    check_cast(Train(parameter_dtype=kept), computed, has_adapters)
