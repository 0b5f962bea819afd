import jax.numpy as jnp
import numpy as np

from transformer.ops.alibi import alibi, alibi_slopes


def test_near_tokens_count_more():
    # Press et al. 2022, figure 3: eight heads have the slopes 1/2 to 1/256.
    np.testing.assert_allclose(alibi_slopes(8), 2.0 ** -np.arange(1, 9))
    np.testing.assert_allclose(alibi_slopes(3), [1 / 16, 1 / 256, 1 / 4])
    # Six: four of four heads, then the first and the third of eight.
    six = [1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2, 1 / 8]
    np.testing.assert_allclose(alibi_slopes(6), six)
    bias = alibi(jnp.array([[2, 3]]), jnp.arange(4)[None], 2)
    np.testing.assert_allclose(bias[0, 0] * -16, [[2, 1, 0, 1], [3, 2, 1, 0]])
    np.testing.assert_allclose(bias[0, 1] * -256, [[2, 1, 0, 1], [3, 2, 1, 0]])
