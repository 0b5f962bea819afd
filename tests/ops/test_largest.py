import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer.ops import largest as subject
from transformer.ops.largest import largest

ROWS = np.random.default_rng(0).normal(size=(3, 20_000)).astype(np.float32)
# Among the last numbers, which fill no group; several in one group; most of a row is forbidden.
ROWS[0, -5:] += 5.0
ROWS[1, 640:652] += 7.0
ROWS[2, :19_990] = -np.inf
ROWS = ROWS.reshape(3, 2, 10_000)
FLAT = ROWS.reshape(3, -1)


@pytest.mark.parametrize("count", [1, 10])
def test_the_same_as_without_groups(count):
    assert FLAT.shape[1] > subject._MANY and ROWS.shape[2] % subject._GROUP
    found = jax.jit(largest, static_argnums=1)(jnp.asarray(ROWS), count)
    for one, other in zip(found, jax.lax.top_k(FLAT, count), strict=True):
        np.testing.assert_array_equal(one, other)


def test_few_numbers_have_no_groups():
    rows = ROWS[..., :7]
    found, places = largest(jnp.asarray(rows), 3)
    expected = jax.lax.top_k(rows.reshape(3, -1), 3)
    np.testing.assert_array_equal(found, expected[0])
    np.testing.assert_array_equal(places, expected[1])


def test_a_row_without_numbers_stays_without():
    rows = jnp.full((1, 2, 10_000), jnp.nan)
    found, places = jax.jit(largest, static_argnums=1)(rows, 3)
    assert np.isnan(found).all()
    assert ((places >= 0) & (places < 20_000)).all()


def looked_at(parts, size, count=3):
    """How many numbers of a row each search looks at."""
    found = jax.make_jaxpr(largest, static_argnums=1)(jnp.zeros((1, parts, size)), count)
    return [eqn.invars[0].aval.shape[-1] for eqn in found.eqns if eqn.primitive.name == "top_k"]


def test_a_search_of_many_numbers_looks_at_few(monkeypatch):
    """The maxima of groups, then the groups that were found and the rest of each part."""
    monkeypatch.setattr(subject, "is_one_cpu", lambda: True)
    assert subject._MANY == 16_384
    assert looked_at(2, 8191) == [16_382]
    assert looked_at(2, 8192) == [256, 3 * 64]
    assert looked_at(2, 10_000) == [312, 3 * 64 + 2 * 16]
    assert looked_at(2, 10_000, 312) == [312, 312 * 64 + 2 * 16]
    assert looked_at(2, 10_000, 313) == [20_000]
