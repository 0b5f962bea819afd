"""The codec: what a code depends on, sounds that come back, and its file."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import assert_trees_equal, noisy_parameters
from transformer.data.audio.features import LogMel
from transformer.decoding.vocoder import require_invertible, samples_of
from transformer.errors import ConfigError, DataError
from transformer.interop.formats.safetensors import write_safetensors
from transformer.models.sound_codec import SoundCodec
from transformer.tasks.parts.codec import CODEC_FILE, Codec, read_codec
from transformer.tasks.parts.outputs import apply

pytest.importorskip("safetensors", reason="keeps the codec")
FRAMES = np.random.default_rng(0).normal(size=(2, 24, 6)).astype(np.float32)
FEATURES = LogMel(sampling_rate=2000, num_mels=6, window=64, hop=32, scaling="whisper")


@pytest.fixture(scope="module")
def model():
    sizes = {"width": 8, "num_heads": 2, "feed_forward_width": 8, "num_layers": 1, "window": 2}
    return SoundCodec(num_features=6, levels=(4, 3), kernel_size=3, **sizes)


@pytest.fixture(scope="module")
def params(model):
    return noisy_parameters(model, FRAMES[:1], scale=0.8)


@pytest.fixture(scope="module")
def codec(model, params):
    return Codec(model, params, FEATURES)


def test_what_is_trained_is_what_codes_give_back(model, params):
    codes = apply(model, "encode", params, FRAMES)
    assert codes.shape == (2, 12)
    assert len(np.unique(codes)) > 3
    found = apply(model, "decode", params, codes)
    np.testing.assert_allclose(found, apply(model, "__call__", params, FRAMES), atol=1e-5)


def test_a_code_depends_on_its_neighbourhood_alone(model, params):
    """And so do frames: a code more or less far away changes nothing."""
    changed = FRAMES.copy()
    changed[:, 16:] = 3.0
    codes, others = (apply(model, "encode", params, frames) for frames in (FRAMES, changed))
    np.testing.assert_array_equal(codes[:, :6], others[:, :6])
    assert (np.asarray(codes) != others).any()
    found, other = (apply(model, "decode", params, one) for one in (codes, codes[:, :8]))
    np.testing.assert_allclose(found[:, :12], other[:, :12], atol=1e-5)
    assert not np.allclose(found[:, 14:16], other[:, 14:16], atol=1e-3)


def test_silence_behind_a_recording_changes_no_code(codec):
    samples = (np.random.default_rng(1).normal(size=900) * 5000).astype(np.int16)
    alone, both = codec.encode([samples])[0], codec.encode([samples, samples[:300].repeat(5)])
    np.testing.assert_array_equal(alone, both[0])
    assert (len(both[0]), len(both[1])) == (15, 24)


def test_a_tone_keeps_its_pitch():
    """From the spectrogram alone: the phases are found."""
    features = LogMel(num_mels=40, window=512, hop=128, scaling="whisper")
    tone = np.sin(2 * np.pi * 500.0 * np.arange(8192) / 16_000).astype(np.float32) * 0.5
    frames, _ = features(tone[None], np.array([8192]))
    found = samples_of(np.asarray(frames[0]), features)
    assert len(found) == 8192
    loudest = np.abs(np.fft.rfft(found[1000:5096])).argmax() * 16_000 / 4096
    assert loudest == pytest.approx(500.0, abs=20.0)
    assert np.square(found).mean() == pytest.approx(np.square(tone).mean(), rel=0.5)


def test_the_file_holds_all(codec, tmp_path):
    codec.save(tmp_path)
    found = read_codec(tmp_path)
    assert (found.model, found.features, found.digest) == (
        codec.model,
        codec.features,
        codec.digest,
    )
    assert_trees_equal(found.params, codec.params)


def test_a_damaged_file_is_refused(codec, params, tmp_path):
    with pytest.raises(DataError, match=r"configs/audio_tokens.py"):
        read_codec(tmp_path)
    other = dataclasses.replace(codec, model=codec.model.clone(width=16))
    other.save(tmp_path)
    with pytest.raises(DataError, match="not those of its model"):
        read_codec(tmp_path)
    for about in ("", "[]", '{"model": {}, "features": {}}'):
        write_safetensors({"a": np.zeros(1)}, tmp_path / CODEC_FILE, {"codec": about})
        with pytest.raises(DataError, match=r"codec.safetensors"):
            read_codec(tmp_path)


def test_values_that_make_no_codec_are_refused():
    for fields, message in (
        ({"levels": ()}, "levels"),
        ({"levels": (256, 256, 2)}, "131,072"),
        ({"kernel_size": 4}, "odd number"),
        ({"num_heads": 3}, "num_heads"),
    ):
        with pytest.raises(ConfigError, match=message):
            SoundCodec(**fields).check()
    for fields in ({"scaling": "utterance"}, {"pad_seconds": 3.0}, {"hop": 40}):
        with pytest.raises(ConfigError, match="features"):
            require_invertible(dataclasses.replace(FEATURES, **fields))


def test_no_frames_of_nothing(model, params):
    """One frame is enough."""
    assert apply(model, "__call__", params, jnp.zeros((1, 1, 6))).shape == (1, 1, 6)
