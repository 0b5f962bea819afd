import jax
import numpy as np
import pytest

from tests.ops.test_audio import speechlike
from transformer.data.audio.features import LogMel
from transformer.errors import ConfigError


def padded(recordings, length):
    rows = np.zeros((len(recordings), length), np.float32)
    for row, recording in zip(rows, recordings, strict=True):
        row[: len(recording)] = recording
    return rows, np.asarray([len(recording) for recording in recordings])


@pytest.mark.sampled(2)
@pytest.mark.parametrize("scaling", ["whisper", "utterance", "speech"])
@pytest.mark.parametrize("pad_seconds", [None, 1.0])
def test_features_depend_neither_on_padding_nor_on_the_batch(scaling, pad_seconds):
    section = LogMel(num_mels=20, pad_seconds=pad_seconds, scaling=scaling)
    recordings = [speechlike(8000), speechlike(5001, seed=1)]
    together, counts = jax.jit(section.__call__)(*padded(recordings, 12_000))
    # Silence that is padding by order is heard.
    assert counts.tolist() == ([50, 32] if pad_seconds is None else [100, 100])
    assert together.shape[1] == section.num_frames(12_000)
    for recording, count, found in zip(recordings, counts, together, strict=True):
        rows, num_samples = padded([recording], len(recording))
        alone, _ = section(rows, num_samples)
        valid = min(count, alone.shape[1])
        np.testing.assert_allclose(found[:valid], alone[0, :valid], atol=1e-4)


def test_integers_of_16_bits_are_pressures():
    section = LogMel(num_mels=20)
    rows, counts = padded([speechlike(2000)], 2000)
    integers = np.round(rows * 32768).astype(np.int16)
    expected = section(integers / np.float32(32768), counts)[0]
    np.testing.assert_array_equal(section(integers, counts)[0], expected)


def test_a_recording_shorter_than_a_window():
    found, counts = LogMel()(np.zeros((1, 3), np.float32), np.asarray([3]))
    assert np.isfinite(found).all()
    assert counts.tolist() == [1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"window": 401}, "even"),
        ({"window": 400, "hop": 500}, "never heard"),
        ({"pad_seconds": 0.01}, "half a window"),
    ],
)
def test_values_that_make_no_features(fields, message):
    with pytest.raises(ConfigError, match=message):
        LogMel(**fields).check()
