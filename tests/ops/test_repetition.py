import jax
import jax.numpy as jnp
import pytest

from transformer.ops.repetition import continued_as_before

continued = jax.jit(continued_as_before, static_argnames=("longest", "count"))


@pytest.mark.parametrize(
    ("text", "longest", "guess"),
    [
        # 1 2 stood at the beginning, 2 alone later: the longer one counts.
        ([1, 2, 3, 9, 2, 4, 1, 2], 3, [3, 9, 2]),
        # Of equals the latest.
        ([1, 2, 3, 9, 2, 4, 1, 2], 1, [4, 1, 2]),
        ([5, 1, 5, 2, 5], 2, [2, 5, 2]),
        # The end of the text is followed by what followed it there.
        ([7, 8, 7, 8], 2, [7, 8, 7]),
        ([3, 3], 2, [3, 3, 3]),
        ([5, 7, 5], 1, [7, 5, 7]),
        # The beginning is compared with nothing before it.
        ([0, 4, 0, 5, 0], 3, [5, 0, 5]),
        ([2, 9, 2, 8, 1, 2], 2, [8, 1, 2]),
        ([6], 2, [6, 6, 6]),
    ],
)
def test_what_followed_the_same_tokens(text, longest, guess):
    # What stands behind a text says nothing, be it more of the same.
    for behind in (text * 8, [0] * 8, [1] * 8):
        tokens = jnp.asarray((text + behind)[:9])
        guessed = continued(tokens, jnp.asarray(len(text)), longest=longest, count=3)
        assert guessed.tolist() == guess
