"""Where the time of a run goes, and what a trace says of its operations."""

import time

import jax
import jax.numpy as jnp
import pytest

from transformer.errors import ConfigError
from transformer.training.profiling import Profiler, Span, alone
from transformer.training.spending import KINDS, Spending


def test_each_second_is_counted_once():
    begin, spending = time.monotonic(), Spending()
    with spending.on("steps"):
        time.sleep(0.03)
        with spending.on("data"):
            time.sleep(0.02)
        jax.jit(lambda x: jnp.sin(x) + time.monotonic_ns() % 7)(1.0)
    scalars = spending.scalars()
    total = time.monotonic() - begin
    assert scalars["steps_time"] >= 0.03
    assert 0.02 <= scalars["data_time"] < total - 0.03
    assert scalars["compiling_time"] > 0
    seconds = [scalars[f"{kind}_time"] for kind in KINDS]
    assert sum(seconds) == pytest.approx(total, abs=0.02)
    assert scalars["goodput"] == pytest.approx(scalars["steps_time"] / sum(seconds), rel=0.1)
    assert "steps " in str(spending)


def test_what_an_operation_calls_is_not_its_own_time():
    events = [(0.0, 10.0, "while"), (1.0, 4.0, "dot"), (4.0, 6.0, "add"), (12.0, 14.0, "dot")]
    assert alone(events) == {"while": 5, "dot": 5, "add": 2}


def test_a_trace_lies_within_its_steps(tmp_path):
    profiler = Profiler(Span.of("4:3"), tmp_path, 10, print)
    assert [profiler.next_stop(step) for step in (0, 4, 6, 7)] == [4, 7, 7, None]
    with pytest.raises(ConfigError, match="ends after step 11, and the run has 10 steps"):
        Profiler(Span.of("4:7"), tmp_path, 10, print)
    for text in ("4", "a:1", "3:0", "-1:2", ""):
        with pytest.raises(ConfigError, match="write STEP:COUNT"):
            Span.of(text)
