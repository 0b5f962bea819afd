import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer.ops import audio


def speechlike(num_samples, seed=0):
    """Gliding tones and noise, louder and softer."""
    rng = np.random.default_rng(seed)
    time = np.arange(num_samples) / 16_000
    tones = sum(np.sin(2 * np.pi * (120 * k * time + 40 * time**2)) / k for k in range(1, 12))
    loudness = 0.5 + 0.5 * np.sin(2 * np.pi * 3 * time)
    noise = rng.normal(size=num_samples)
    return np.asarray(0.1 * loudness * (tones + 0.05 * noise), np.float32)


@pytest.mark.parametrize(("window", "hop"), [(400, 160), (6, 6), (7, 3)])
def test_frames_are_slices_and_adding_them_is_the_transpose(window, hop):
    samples = speechlike(1003).reshape(1, -1)

    @jax.jit
    def both(samples):
        framed, transpose = jax.vjp(lambda x: audio.frames(x, window, hop), samples)
        return framed, audio.overlap_added(framed, hop), transpose(framed)[0]

    framed, added, expected = both(samples)
    starts = range(0, 1003 - window + 1, hop)
    np.testing.assert_array_equal(framed[0], [samples[0, s : s + window] for s in starts])
    np.testing.assert_allclose(added[0], expected[0, : added.shape[1]], atol=1e-6)


def test_too_few_samples_for_a_frame():
    with pytest.raises(ValueError, match="only 5"):
        audio.frames(jnp.zeros((1, 5)), 6, 2)


@pytest.mark.parametrize("end", ["reflect", "zeros"])
def test_the_transform_of_each_frame(end):
    samples = speechlike(1000)
    mode = "reflect" if end == "reflect" else "constant"
    padded = np.pad(np.pad(samples, (200, 0), "reflect"), (0, 200), mode)
    spectrum = audio.short_time_fourier(jnp.asarray(samples)[None], 400, 160, end=end)
    assert spectrum.shape == (1, 1000 // 160 + 1, 201)
    for t, found in enumerate(spectrum[0]):
        expected = np.fft.rfft(padded[t * 160 : t * 160 + 400] * np.hanning(401)[:-1])
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_inverse_gives_the_samples_back():
    samples = speechlike(1600)[None]
    spectrum = audio.short_time_fourier(jnp.asarray(samples), 400, 100)
    back = audio.inverse_short_time_fourier(spectrum, 400, 100)
    np.testing.assert_allclose(back, samples, atol=1e-6)


@pytest.mark.parametrize("num_mels", [80, 128])
def test_filters_are_those_of_transformers(num_mels):
    utils = pytest.importorskip("transformers.audio_utils", reason="it has its own filters")
    expected = utils.mel_filter_bank(201, num_mels, 0.0, 8000.0, 16_000, "slaney", "slaney")
    filters = audio.mel_filters(num_mels, 400, 16_000)
    np.testing.assert_allclose(filters, expected, atol=1e-8, rtol=1e-6)


def test_filters_of_five_bands():
    # Corners at 0, 500, 1000, ... mel-equidistant: up to 1 kHz the scale is linear.
    filters = audio.mel_filters(5, 16, 16_000)
    assert filters.shape == (9, 5)
    assert (filters.sum(axis=0) > 0).all()
    np.testing.assert_allclose(audio.to_mel(np.asarray([0.0, 500.0, 1000.0])), [0, 7.5, 15])
    hertz = np.asarray([10.0, 700.0, 1000.0, 3000.0, 8000.0])
    np.testing.assert_allclose(audio.to_hertz(audio.to_mel(hertz)), hertz)


def test_filters_by_hand():
    # Up to 1 kHz the scale is linear: triangles of 500 Hz, at frequencies 125 Hz apart.
    tops = [[0, 0, 0], [1, 0, 0], [2, 0, 0], [1, 1, 0], [0, 2, 0], [0, 1, 1], [0, 0, 2], [0, 0, 1]]
    filters = audio.mel_filters(3, 16, 2000)
    np.testing.assert_allclose(filters, 0.002 * np.array([*tops, [0, 0, 0]]), atol=1e-9)


def test_log_mel_is_that_of_transformers():
    module = pytest.importorskip("transformers", reason="it has its own features")
    extractor = module.WhisperFeatureExtractor(feature_size=80)
    # Noise in all bands: where a band is nearly empty, float32 has fewer digits on both sides.
    noise = np.random.default_rng(0).normal(size=480_000).astype(np.float32) * 0.01
    recordings = [speechlike(480_000) + noise, speechlike(100_000, seed=1) + noise[:100_000]]
    expected = extractor(recordings, sampling_rate=16_000, return_tensors="np").input_features
    rows = np.zeros((2, 480_000), np.float32)
    for row, recording in zip(rows, recordings, strict=True):
        row[: len(recording)] = recording
    filters = audio.mel_filters(80, 400, 16_000)
    found = jax.jit(lambda x: audio.whisper_scaled(audio.log_mel(x, filters, 160)))(rows)
    np.testing.assert_allclose(found.transpose(0, 2, 1), expected, atol=1e-5)


def test_scaling_of_an_utterance_ignores_what_is_not_valid():
    logs = np.random.default_rng(0).normal(size=(2, 9, 3)).astype(np.float32) * 5 + 2
    scaled = audio.utterance_scaled(jnp.asarray(logs), jnp.asarray([9, 4]))
    np.testing.assert_allclose(scaled[0].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(scaled[1, :4].std(axis=0), 1, atol=1e-4)
    assert not scaled[1, 4:].any()


def test_scaling_of_speech_does_not_see_pauses():
    generator = np.random.default_rng(0)
    spoken = generator.uniform(-5, -3, (2, 9, 3)).astype(np.float32)
    pause = np.full((2, 20, 3), -10.0, np.float32)
    alone = audio.speech_scaled(jnp.asarray(spoken), jnp.asarray([9, 4]))
    np.testing.assert_allclose(alone[0].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(alone[1, :4].std(axis=0), 1, atol=1e-4)
    assert not alone[1, 4:].any()
    paused = jnp.concatenate([pause, spoken, pause], axis=1)
    found = audio.speech_scaled(paused, jnp.asarray([49, 24]))
    np.testing.assert_allclose(found[0, 20:29], alone[0], atol=1e-5)
    np.testing.assert_allclose(found[1, 20:24], alone[1, :4], atol=1e-5)
    # Nothing but silence is silence, and 80 dB is as quiet as it gets.
    assert not audio.speech_scaled(jnp.asarray(pause), jnp.asarray([20, 0])).any()
    deep = audio.speech_scaled(paused.at[:, :20].set(-50.0), jnp.asarray([49, 24]))
    shallow = audio.speech_scaled(paused.at[:, :20].set(-20.0), jnp.asarray([49, 24]))
    np.testing.assert_array_equal(deep, shallow)


def test_griffin_lim_finds_a_sound_with_these_magnitudes():
    samples = jnp.asarray(speechlike(4000)[None])
    magnitudes = jnp.abs(audio.short_time_fourier(samples, 400, 100))

    @functools.partial(jax.jit, static_argnames="steps")
    def distance(steps):
        found = audio.griffin_lim(magnitudes, 100, steps=steps)
        again = jnp.abs(audio.short_time_fourier(found, 400, 100))
        return jnp.linalg.norm(again - magnitudes) / jnp.linalg.norm(magnitudes)

    assert distance(30) < 0.15
    assert distance(0) > 0.3


def test_bands_are_explained_by_powers():
    filters = audio.mel_filters(20, 400, 16_000)
    power = jnp.ones((1, 2, 201))
    bands = power @ filters
    np.testing.assert_allclose(audio.mel_inverted(bands, filters) @ filters, bands, rtol=0.05)


def test_mu_law():
    samples = jnp.linspace(-1.2, 1.2, 1001)
    codes = audio.mu_law_encoded(samples)
    assert (codes.min(), codes.max()) == (0, 255)
    back = audio.mu_law_decoded(codes)
    error = jnp.abs(back - jnp.clip(samples, -1, 1))
    assert error.max() < 0.022
    assert error[jnp.abs(samples) < 0.05].max() < 0.002
    np.testing.assert_array_equal(audio.mu_law_encoded(back), codes)


def test_scales_in_numbers():
    # 1 kHz is at 15 mel; from there to 6.4 kHz are 27.
    mels, hertz = np.array([0.0, 7.5, 15.0, 42.0]), np.array([0.0, 500.0, 1000.0, 6400.0])
    np.testing.assert_allclose(audio.to_mel(hertz), mels)
    np.testing.assert_allclose(audio.to_hertz(mels), hertz)
    np.testing.assert_allclose(audio.hann(4), [0.0, 0.5, 1.0, 0.5], atol=1e-7)
    logs = jnp.array([[[0.0, -2.0], [-9.0, -1.0]]])
    np.testing.assert_allclose(audio.whisper_scaled(logs), [[[1.0, 0.5], [-1.0, 0.75]]])
    louder = audio.whisper_scaled(logs, jnp.array([2.0]))
    np.testing.assert_allclose(louder, [[[1.0, 0.5], [-0.5, 0.75]]])
    silence = audio.log_mel(jnp.zeros((1, 40)), audio.mel_filters(3, 16, 8000), 8)
    np.testing.assert_allclose(silence, np.full((1, 5, 3), -10.0), rtol=1e-6)
    powers = audio.mel_inverted(jnp.array([[[-1.0, 2.0]]]), np.eye(2, dtype=np.float32))
    np.testing.assert_allclose(powers, [[[0.0, 2.0]]], atol=1e-6)


def test_mu_law_in_numbers():
    codes = audio.mu_law_encoded(jnp.array([-2.0, -1.0, 0.0, 1.0]))
    assert codes.tolist() == [0, 0, 128, 255]
    # Of four levels: ln 2 is half of ln 4; the third stands for (4 ** (1 / 3) - 1) / 3.
    assert audio.mu_law_encoded(jnp.array([-1 / 3, 0.0, 1 / 3, 1.0]), 4).tolist() == [1, 2, 2, 3]
    found = audio.mu_law_decoded(jnp.arange(4), 4)
    np.testing.assert_allclose(found, [-1.0, -0.195800, 0.195800, 1.0], rtol=1e-5)
