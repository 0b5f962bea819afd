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
    ["", "steps", "-1 steps", "3 days", "1 2 steps", "1.5.2 steps", "five steps", "nan", "1e999"],
)
def test_no_durations(duration):
    with pytest.raises(ConfigError, match=r"config\.train\.log_every.*no duration"):
        CLOCK.steps(duration, key="train.log_every")


def test_percentages_need_a_whole():
    with pytest.raises(ConfigError) as error:
        CLOCK.steps("10%", key="train.duration")
    assert "steps, epochs, examples, tokens (" in str(error.value)


@given(count=st.integers(0, 10**9), unit=st.sampled_from(["steps", "examples", "tokens"]))
def test_rounded_up_exactly(count, unit):
    per_step = {"steps": 1, "examples": 8, "tokens": 128}[unit]
    assert CLOCK.steps(f"{count} {unit}", key="train.duration") == -(-count // per_step)
