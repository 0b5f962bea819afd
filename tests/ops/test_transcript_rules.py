import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer.ops.transcript_rules import TimestampRules, TranscriptRules

RULES = TimestampRules(end=10, no_times=14, latest_first=3)
# Times are the tokens from 15 on.
NEVER = -np.inf


@jax.jit
def ruled(scores, text):
    """Of one text; -1 behind its end."""
    step = jnp.sum(text >= 0)
    recent = jnp.full(3, -1)
    for place in range(text.shape[0]):
        grown = RULES.remembered(recent, text[place])
        recent = jnp.where(text[place] >= 0, grown, recent)
    return RULES(scores, recent, step)


def allowed(*text, scores=None):
    """With scores that prefer text to times, unless others are given."""
    if scores is None:
        scores = np.where(np.arange(25) < 15, 0.0, -9.0)
    padded = np.full(6, -1, np.int32)
    padded[: len(text)] = text
    found = ruled(jnp.asarray(scores, jnp.float32), padded)
    return np.flatnonzero(np.isfinite(found)).tolist()


TEXT, TIMES = [*range(14)], [*range(15, 25)]


def test_what_may_follow():
    assert allowed() == [15, 16, 17, 18]
    assert allowed(16) == TEXT
    assert allowed(15, 15) == TEXT
    assert allowed(16, 3) == [*TEXT, *TIMES[2:]]
    # A segment ends: a time not before it, or the end.
    assert allowed(16, 3, 19) == [*range(10, 14), *TIMES[4:]]
    assert allowed(16, 3, 19, 19) == TEXT
    assert allowed(16, 3, 19, 19, 4) == [*TEXT, *TIMES[5:]]
    assert allowed(16, 3, 24) == [*range(10, 14), 24]


def test_times_together_may_beat_every_text():
    scores = np.where(np.arange(25) < 15, 0.0, -1.0)
    assert allowed(16, 3, scores=scores) == TIMES[2:]


@pytest.mark.parametrize("seed", range(4))
def test_the_rules_are_those_of_transformers(seed):
    torch = pytest.importorskip("torch", reason="torch holds the tokens")
    process = pytest.importorskip("transformers.generation.logits_process", reason="witness")
    config = type("Config", (), {})()
    config.no_timestamps_token_id, config.eos_token_id, config.bos_token_id = 14, 10, 10
    config.max_initial_timestamp_index = 3
    theirs = process.WhisperTimeStampLogitsProcessor(config, begin_index=2)
    rng = np.random.default_rng(seed)
    text = []
    for _ in range(6):
        scores = rng.normal(size=25).astype(np.float32) * 3
        ids = torch.tensor([[7, 8, *text]])
        expected = theirs(ids, torch.from_numpy(scores)[None])[0].numpy()
        padded = np.full(6, -1, np.int32)
        padded[: len(text)] = text
        np.testing.assert_array_equal(ruled(scores, padded), expected)
        text.append(int(expected.argmax()))


def test_suppressed_tokens_and_whole_texts():
    rules = TranscriptRules(suppressed=(2, 5), suppressed_first=(3, 16), times=RULES)
    scores = np.where(np.arange(25) < 15, 0.0, -9.0)
    texts = np.zeros((3, 1, 6), np.int32)
    texts[1, 0, :3], texts[2, 0, :4] = [16, 3, 19], [16, 3, 19, 19]
    expected = [[15, 17, 18], [*range(10, 14), *TIMES[4:]], [*({*TEXT} - {2, 5})]]
    of_texts = jax.jit(rules.of_texts)
    for text, step, tokens in zip(texts, (0, 3, 4), expected, strict=True):
        given = jnp.asarray(scores, jnp.float32)[None]
        found = of_texts(given, jnp.asarray(text), jnp.asarray(step))
        assert np.flatnonzero(np.isfinite(found[0])).tolist() == sorted(tokens)


def test_texts_of_rows_and_beams():
    """Each as if it were alone, whatever stands behind its end."""
    rng = np.random.default_rng(0)
    scores = jnp.asarray(rng.normal(size=(3, 2, 25)) * 3, jnp.float32)
    texts = np.full((3, 2, 6), 24)
    texts[:, :, :3] = [[[16, 3, 4], [15, 15, 2]], [[16, 19, 1], [16, 3, 19]], [[17, 1, 18]] * 2]
    rules = TranscriptRules(times=RULES)
    of_texts = jax.jit(rules.of_texts)
    for step in range(4):
        found = of_texts(scores, jnp.asarray(texts), jnp.asarray(step))
        for place in np.ndindex(3, 2):
            text = np.where(np.arange(6) < step, texts[place], -1)
            np.testing.assert_array_equal(found[place], ruled(scores[place], text))


def test_any_first_time():
    rules = TimestampRules(end=10, no_times=14, latest_first=None)
    found = rules(jnp.zeros(25), jnp.full(3, -1), jnp.asarray(0))
    assert np.flatnonzero(np.isfinite(found)).tolist() == TIMES
    # Programs are compiled for each.
    assert hash(TranscriptRules(times=rules)) != hash(TranscriptRules(times=RULES))
