import jax.numpy as jnp
import numpy as np

from transformer.ops.spec_augment import hidden


def test_runs_of_frames_and_bands_are_fractions_of_what_is_valid():
    frames = jnp.ones((2, 8, 4))
    # Of eight frames 2 and 3 are hidden, and 7; of four 1, and none.
    times = jnp.array([[[0.25, 0.5], [0.875, 1.0]], [[0.25, 0.5], [0.5, 0.5]]])
    # Of four bands 0; 1 to 3.
    bands = jnp.array([[[0.0, 0.25]], [[0.25, 1.0]]])
    kept = np.ones((2, 8, 4))
    kept[0, [2, 3, 7]] = kept[1, 1] = 0
    lengths = jnp.array([8, 4])
    np.testing.assert_array_equal(hidden(frames, lengths, time_masks=times), kept)
    kept[0, :, 0] = kept[1, :, 1:] = 0
    found = hidden(frames, lengths, time_masks=times, frequency_masks=bands)
    np.testing.assert_array_equal(found, kept)
    np.testing.assert_array_equal(hidden(frames, lengths), frames)


def test_borders_are_rounded():
    # From 1.2 to 2.2, and from 1.6 to 2.6.
    for run, kept in (([0.3, 0.55], [1, 0, 1, 1]), ([0.4, 0.65], [1, 1, 0, 1])):
        found = hidden(jnp.ones((1, 4, 1)), jnp.array([4]), time_masks=jnp.array([[run]]))
        assert found[0, :, 0].tolist() == kept
