"""ESM: sizes, padding, token dropout, and what it refuses."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import AnyMethod, noisy_parameters
from transformer.errors import ConfigError
from transformer.models.esm import ESM
from transformer.nn.compute import Compute

TINY = ESM(vocab_size=33, num_outputs=3, num_layers=2, num_heads=2, width=16, context=20)
MASK, T = 32, 9
LENGTHS = np.array([T, 5], np.int32)
TOKENS = np.random.default_rng(0).integers(4, 24, (2, T)).astype(np.int32)
TOKENS[:, 2] = MASK
SIZES = {
    7_512_474: (6, 320, 20),
    33_501_394: (12, 480, 20),
    148_140_154: (30, 640, 20),
    651_043_254: (33, 1280, 20),
    2_839_005_634: (36, 2560, 40),
    15_129_100_194: (48, 5120, 40),
}


@pytest.mark.parametrize("expected", SIZES)
def test_numbers_of_parameters_are_the_published_ones(expected):
    num_layers, width, num_heads = SIZES[expected]
    model = ESM(
        vocab_size=33,
        num_layers=num_layers,
        width=width,
        num_heads=num_heads,
        compute=Compute(scan_layers=True),
    )
    init = functools.partial(model.init, method="fill")
    rows = jnp.zeros((1, 4), jnp.int32)
    shapes = jax.eval_shape(init, jax.random.key(0), rows, rows, jnp.ones(1, jnp.int32), rows)
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == expected


@functools.partial(jax.jit, static_argnums=0)
def states(model, params, tokens, lengths):
    return model.apply({"params": params}, tokens, None, lengths)


@pytest.fixture(scope="module")
def params():
    return noisy_parameters(TINY, jnp.asarray(TOKENS), None, jnp.asarray(LENGTHS))


def test_padding_makes_no_difference(params):
    found = states(TINY, params, TOKENS, LENGTHS)
    other = np.where(np.arange(T) < LENGTHS[:, None], TOKENS, MASK)
    again = states(TINY, params, other, LENGTHS)
    np.testing.assert_allclose(found[1, :5], again[1, :5], atol=1e-6)
    alone = states(TINY, params, TOKENS[1:, :5], LENGTHS[1:])
    np.testing.assert_allclose(found[1, :5], alone[0], atol=1e-5)


def test_the_mask_has_no_vector_and_the_others_are_scaled(params):
    """Any vector of the mask gives the same; more masks make the other vectors larger."""
    table = params["token_embedding"]["embedding"]
    changed = {**params, "token_embedding": {"embedding": table.at[MASK].set(7.0)}}
    found = states(TINY, params, TOKENS, LENGTHS)
    np.testing.assert_array_equal(found, states(TINY, changed, TOKENS, LENGTHS))
    # A token like any other without it.
    plain = TINY.clone(token_dropout=False)
    difference = states(plain, params, TOKENS, LENGTHS) - states(plain, changed, TOKENS, LENGTHS)
    assert np.abs(difference).max() > 0.1
    # One of nine tokens is masked, where 12 in a hundred were in training; one of five.
    rows = jnp.asarray(TOKENS), jnp.asarray(LENGTHS)
    kept = TINY.apply({"params": params}, *rows, method="_kept")
    expected = np.where(TOKENS == MASK, 0.0, 0.88 / np.array([[8 / 9], [4 / 5]]))
    np.testing.assert_allclose(kept, expected, rtol=1e-6)


def test_rows_of_masks_or_padding_alone_are_finite(params):
    masks = np.full((1, 4), MASK, np.int32)
    for length in (0, 4):
        assert np.isfinite(states(TINY, params, masks, np.array([length], np.int32))).all()


def test_the_mean_of_a_protein_is_over_its_own_tokens():
    model = TINY.clone(pooling="mean")
    rows = jnp.asarray(TOKENS), None, jnp.asarray(LENGTHS)
    params = noisy_parameters(AnyMethod(model, "classify"), *rows)
    found = jax.jit(functools.partial(model.apply, method="classify"))({"params": params}, *rows)
    features = np.asarray(states(model, params, rows[0], rows[2]))
    dense, output = (jax.tree.map(np.asarray, params[name]) for name in ("pooler", "output"))
    for row, length in enumerate(LENGTHS):
        mean = features[row, :length].mean(0)
        pooled = np.tanh(mean @ dense["kernel"] + dense["bias"])
        expected = pooled @ output["kernel"] + output["bias"]
        np.testing.assert_allclose(found[row], expected, atol=1e-5)


def test_the_initial_scale_is_that_of_all_kernels_of_blocks():
    model = TINY.clone(init_scale=0.5)
    rows = jnp.asarray(TOKENS), None, jnp.asarray(LENGTHS)
    blocks = jax.jit(model.init)(jax.random.key(0), *rows)["params"]["blocks"]
    kernels = [
        (path, leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(blocks)
        if "kernel" in jax.tree_util.keystr(path)
    ]
    assert len(kernels) == 2 * 6
    for path, kernel in kernels:
        assert 0.35 < np.std(kernel) < 0.65, path


def test_a_run_may_begin_from_one_with_another_pooling():
    from transformer.tasks.parts.models import Refits

    assert isinstance(TINY, Refits)
    saved = np.ones((2, 3), np.float32)
    assert TINY.refit("pooler/kernel", saved) is saved
    assert TINY.ADAPTABLE == ("pooling",)


def test_odd_heads_are_refused():
    with pytest.raises(ConfigError, match=r"width \(18\) / config.model.num_heads \(2\)"):
        TINY.clone(width=18).check()


def test_another_mask_than_the_tokenizers_is_refused(tmp_path):
    from transformer.data.tokenizers.residues import published_vocabulary, residue_tokenizer
    from transformer.tasks.masked_lm import MaskedLM

    residue_tokenizer(published_vocabulary()).save(tmp_path)
    path = tmp_path / "a.txt"
    path.write_text("MKTAYIAKQR\nGAVLIM\n")
    data = MaskedLM(next_sentence=False).load_validation([str(path)], tmp_path)
    data.check_fit(TINY)
    data.check_fit(TINY.clone(token_dropout=False, mask_token=5))
    with pytest.raises(ConfigError, match=r"mask_token is 5.*give --config.model.mask_token=32"):
        data.check_fit(TINY.clone(mask_token=5))
