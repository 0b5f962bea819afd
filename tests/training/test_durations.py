import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer.errors import ConfigError
from transformer.training.durations import Clock

CLOCK = Clock(examples_per_step=8.0, tokens_per_step=128.0, examples_per_epoch=100)


@pytest.mark.parametrize(
    ("duration", "steps"),
    [
        ("2000 steps", 2000),
        ("2000", 2000),
        ("1 step", 1),
        ("2_000 steps", 2000),
        (" 5 steps ", 5),
        ("5steps", 5),
        ("1e3 steps", 1000),
        ("0 steps", 0),
        ("2 epochs", 25),
        ("1 epoch", 13),
        ("0.5 epochs", 7),
        ("80 examples", 10),
        ("81 examples", 11),
        ("1280 tokens", 10),
        ("1281 tokens", 11),
        ("2.5e3 tokens", 20),
        ("10%", 200),
        ("10 %", 200),
        ("0.01%", 1),
        ("1e-12 steps", 1),
        ("0 epochs", 0),
    ],
)
def test_durations(duration, steps):
    assert CLOCK.steps(duration, key="train.duration", total=2000) == steps


@pytest.mark.parametrize(
    "duration",
    ["", "steps", "-1 steps", "3 days", "1 2 steps", "1.5.2 steps", "five steps", "nan"],
)
def test_no_durations(duration):
    with pytest.raises(ConfigError, match=r"config\.train\.log_every.*no duration"):
        CLOCK.steps(duration, key="train.log_every")


@pytest.mark.parametrize(
    "duration", ["1__0", "_1", "1_", "1_.5", "²", "\u0661 step", "1e", "inf", "%", "1 %s"]
)
def test_what_only_looks_like_one(duration):
    with pytest.raises(ConfigError, match=r"config\.train\.log_every.*no duration"):
        CLOCK.steps(duration, key="train.log_every")


@pytest.mark.parametrize("duration", ["1e400", "1e19 tokens", "9" * 400])
def test_longer_than_anything(duration):
    with pytest.raises(ConfigError, match=r"config\.train\.save_every is '.*: 1e\+18 at most"):
        CLOCK.steps(duration, key="train.save_every")


def test_more_than_the_whole():
    assert CLOCK.steps("100%", key="optimizer.warmup", total=8) == 8
    with pytest.raises(ConfigError, match=r"config\.optimizer\.warmup is '200%': of the run, 100%"):
        CLOCK.steps("200%", key="optimizer.warmup", total=8)


def test_percentages_need_a_whole():
    with pytest.raises(ConfigError) as error:
        CLOCK.steps("10%", key="train.duration")
    assert "steps, epochs, examples, tokens (" in str(error.value)


@given(count=st.integers(0, 10**9), unit=st.sampled_from(["steps", "examples", "tokens"]))
def test_rounded_up_exactly(count, unit):
    per_step = {"steps": 1, "examples": 8, "tokens": 128}[unit]
    assert CLOCK.steps(f"{count} {unit}", key="train.duration") == -(-count // per_step)
