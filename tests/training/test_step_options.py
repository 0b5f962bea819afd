"""Options of the step that must not change what is learned."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import assert_trees_close
from transformer.errors import ConfigError
from transformer.models.gpt import GPT
from transformer.models.vit import ViT
from transformer.nn.compute import computing
from transformer.tasks.language_modeling import LanguageModeling
from transformer.training.combinations import check_vocabulary
from transformer.training.optimizers import Optimizer, make_optimizer, make_schedule
from transformer.training.state import create
from transformer.training.step import Recipe, train_steps

STEPS, ROWS, LENGTH, VOCAB = 6, 4, 8, 19
TASK = LanguageModeling(context=LENGTH, batch_size=ROWS)
SIZES = {"vocab_size": VOCAB, "num_layers": 1, "num_heads": 2, "width": 8, "context": LENGTH}
MODELS = {
    "tied": GPT(**SIZES),
    "untied": GPT(**SIZES, tie_embeddings=False, output_bias=True),
}


def batches():
    """The same batch for all steps, so that it can be learned."""
    tokens = np.random.default_rng(0).integers(0, VOCAB, (ROWS, LENGTH + 1))
    tokens = np.stack([tokens.astype(np.int32)] * STEPS)
    return {"tokens": jnp.asarray(tokens[..., :-1]), "labels": jnp.asarray(tokens[..., 1:])}


def trained(model, task=TASK, **options):
    """The parameters after some steps, and the loss of each."""
    tokens = jnp.zeros((1, LENGTH), jnp.int32)
    boxed = jax.jit(model.init)(jax.random.key(0), tokens)["params"]
    config = Optimizer(learning_rate=1e-2, schedule="constant")
    schedule = make_schedule(config, warmup_steps=1, total_steps=STEPS)
    optimizer = make_optimizer(config, schedule, boxed)
    recipe = Recipe(functools.partial(task.losses, model), optimizer, schedule, **options)
    state = create(nn.meta.unbox(boxed), optimizer, jax.random.key(7), average=False)
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
    assert_trees_close(found[0], plain[1], atol=1e-5)
    np.testing.assert_allclose(found[1], plain[2], rtol=1e-5)


def test_a_vocabulary_in_tiles(plain):
    model = computing(plain[0], vocab_multiple=128)
    # In chunks of positions, and not.
    task = dataclasses.replace(TASK, vocab_chunk=7 if model.tie_embeddings else 0)
    assert_learns_alike(trained(model, task), plain)
    # Logits of 128 columns, and no other ones.
    batch = jax.tree.map(lambda x: x[0], batches())
    program = str(jax.make_jaxpr(functools.partial(task.losses, model))(plain[1], batch, {}))
    assert ",128]" in program
    assert f",{VOCAB}] = dot_general" not in program
