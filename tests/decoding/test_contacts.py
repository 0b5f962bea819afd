"""Contacts from attention maps, and masked marginals."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import noisy_parameters
from transformer.data.proteins.mutations import parse_mutations
from transformer.data.tokenizers.residues import (
    AMINO_ACIDS,
    published_vocabulary,
    residue_tokenizer,
)
from transformer.decoding.contacts import (
    Regression,
    attention_features,
    contacts,
    fit_regression,
    own_regression,
    precision,
)
from transformer.decoding.marginals import MutationScores, masked_marginals
from transformer.errors import DataError
from transformer.models.esm import ESM
from transformer.pictures.contacts import draw_contacts
from transformer.pictures.mutations import draw_mutations
from transformer.tasks.parts.outputs import apply

MODEL = ESM(vocab_size=33, num_layers=2, num_heads=2, width=16, context=40)
SEQUENCE = "MKTAYIAKQRQISFVK"


@functools.cache
def tokenizer():
    return residue_tokenizer(published_vocabulary())


@pytest.fixture(scope="module")
def params():
    import types

    rows = jnp.zeros((1, 4), jnp.int32)
    made = types.SimpleNamespace(init=functools.partial(MODEL.init, method="fill"))
    return noisy_parameters(made, rows, rows, jnp.ones(1, jnp.int32), rows)


def test_maps_are_of_residues_alone(params):
    found = attention_features(MODEL, params, tokenizer(), SEQUENCE)
    assert found.shape == (4, 16, 16)
    with pytest.raises(DataError, match="'Mk' has 'k' behind 1 characters"):
        attention_features(MODEL, params, tokenizer(), "Mk")
    with pytest.raises(DataError, match="39 residues, and the model reads 38"):
        attention_features(MODEL, params, tokenizer(), "M" * 39)


def test_a_regression_finds_the_heads_that_see_contacts():
    pytest.importorskip("sklearn", reason="it fits the regression")
    source = np.random.default_rng(0)
    known, features = [], []
    for size in (20, 30, 40):
        truth = np.triu(source.random((size, size)) < 0.15, 6)
        truth |= truth.T
        maps = source.normal(size=(4, size, size)).astype(np.float32)
        maps[2] += 3.0 * truth
        known.append(truth)
        features.append(maps + np.swapaxes(maps, 1, 2))
    found = fit_regression(features[:2], known[:2])
    assert np.argmax(found.weight) == 2
    assert np.abs(np.delete(found.weight, 2)).max() < 0.1 * found.weight[2]
    probabilities = contacts(features[2], found)
    assert precision(probabilities, known[2]) > 0.9
    by_chance = Regression(np.array([1, 0, 0, 0], np.float32), found.bias)
    assert precision(contacts(features[2], by_chance), known[2]) < 0.5
    with pytest.raises(DataError, match="none between residues that are 6 or more apart"):
        fit_regression(features[:1], [np.zeros((20, 20), bool)])


def test_a_model_without_regression_has_none(params):
    assert own_regression({"blocks": params["blocks"]}) is None
    zeros = {"weight": np.zeros(4), "bias": np.zeros(1)}
    assert own_regression({"contact_head": zeros}) is None
    np.testing.assert_array_equal(
        own_regression(params).weight, np.asarray(params["contact_head"]["weight"])
    )


def test_marginals_mask_one_residue_at_a_time(params):
    found = masked_marginals(MODEL, params, tokenizer(), SEQUENCE)
    np.testing.assert_allclose(np.exp(found).sum(-1), 1.0, rtol=1e-5)
    ids = [0, *tokenizer().encode(SEQUENCE), 2]
    rows = np.tile(np.array(ids, np.int32), (3, 1))
    places = np.array([1, 8, 16], np.int32)
    rows[range(3), places] = 32
    lengths = np.full(3, len(ids), np.int32)
    inputs = (rows, None, lengths, places[:, None])
    logits = np.asarray(apply(MODEL, "fill", params, *inputs))
    expected = logits[:, 0] - np.log(np.exp(logits[:, 0]).sum(-1, keepdims=True))
    np.testing.assert_allclose(found[places - 1], expected, atol=1e-5)
    # What stands there makes no difference.
    other = masked_marginals(MODEL, params, tokenizer(), "W" + SEQUENCE[1:])
    np.testing.assert_allclose(other[0], found[0], atol=1e-6)
    assert np.abs(other[1] - found[1]).max() > 1e-3
    once = masked_marginals(MODEL, params, tokenizer(), SEQUENCE, masked=False)
    assert once.shape == found.shape
    assert np.abs(once - found).max() > 1e-3


def test_scores_of_mutations_are_added(params):
    scores = MutationScores(MODEL, params, tokenizer(), SEQUENCE, [0, 2])
    found = masked_marginals(MODEL, params, tokenizer(), SEQUENCE)
    m, k, t, a, g = tokenizer().encode("MKTAG")
    assert k != m
    both = parse_mutations("M1A:T3G", SEQUENCE, "here")
    expected = found[0, a] - found[0, m] + found[2, g] - found[2, t]
    np.testing.assert_allclose(scores.of(both), expected, atol=1e-5)
    assert scores.of(()) == 0.0
    assert scores.table(AMINO_ACIDS).shape == (2, 20)
    assert MutationScores(MODEL, params, tokenizer(), SEQUENCE, []).of(()) == 0.0


def test_pictures(tmp_path):
    source = np.random.default_rng(0)
    known = np.zeros((9, 9), bool)
    known[0, 7] = known[7, 0] = True
    draw_contacts(source.random((9, 9)), tmp_path / "a.png", title="$P", known=known)
    draw_contacts(source.random((9, 9)), tmp_path / "b.png")
    draw_mutations(source.normal(size=(70, 20)), "MKTAYX." * 10, AMINO_ACIDS, tmp_path / "c.png")
    for name in "abc":
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
