"""Programs that are compiled before they are needed."""

import contextlib
import threading

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.runs import assert_same_run
from transformer.data.order import Bucket, Epochs, bucketed
from transformer.training import ahead as module
from transformer.training.ahead import Ahead, Program, first_steps
from transformer.training.loop import train
from transformer.training.sections import section

TIMEOUT = 20.0


class Lowered:
    """A program whose compilation begins and ends when the test wants it."""

    def __init__(self):
        self.begun, self.may_end, self.count = threading.Event(), threading.Event(), 0

    def program(self, key):
        return Program(key, f"program {key}", lambda: self)

    def compile(self):
        self.count += 1
        self.begun.set()
        assert self.may_end.wait(TIMEOUT)


@pytest.fixture
def shown():
    return []


@pytest.fixture
def compiler(shown):
    compiler = Ahead(shown.append, lambda text: shown.append(f"said: {text}"), 1)
    yield compiler
    compiler.close()


def test_a_program_is_compiled_once(compiler, shown):
    lowered = {key: Lowered() for key in "abc"}
    with compiler.using("a", "program a"):
        assert shown == ["program a"]
    programs = [each.program(key) for key, each in lowered.items()]
    compiler.start(contextlib.nullcontext, lambda: programs)
    compiler.start(contextlib.nullcontext, lambda: pytest.fail("it was started before"))
    assert lowered["b"].begun.wait(TIMEOUT)
    # Meanwhile the main thread compiles another one, and waits for the one in the background.
    with compiler.using("c", "program c"):
        assert shown[-1] == "program b, program c"
    used = []

    def use():
        with compiler.using("b", "program b"):
            used.append(lowered["b"].may_end.is_set())

    user = threading.Thread(target=use)
    user.start()
    assert not used
    lowered["b"].may_end.set()
    user.join(TIMEOUT)
    assert used == [True]
    compiler.close()
    assert [each.count for each in lowered.values()] == [0, 1, 0]
    assert shown[-1] == ""


def test_what_is_not_begun_is_left_out_at_the_end(compiler):
    lowered = [Lowered(), Lowered()]
    programs = [each.program(index) for index, each in enumerate(lowered)]
    compiler.start(contextlib.nullcontext, lambda: programs)
    assert lowered[0].begun.wait(TIMEOUT)
    threading.Timer(0.05, lowered[0].may_end.set).start()
    compiler.close()
    assert [each.count for each in lowered] == [1, 0]


def test_a_failure_is_met_where_the_program_is_needed(compiler, shown):
    def fail():
        raise RuntimeError("no memory left")

    compiler.start(contextlib.nullcontext, lambda: [Program("a", "program a", fail)])
    for thread in compiler._threads:
        thread.join(TIMEOUT)
    assert shown[-1] == "said: Nothing more is compiled ahead: RuntimeError: no memory left"
    with pytest.raises(RuntimeError, match="no memory left"), compiler.using("a", "program a"):
        fail()


def test_the_first_steps_of_each_shape():
    buckets = (Bucket(2, 4), Bucket(1, 8))
    lengths = np.array([3, 3, 4, 8, 7, 2, 8, 3])
    order = bucketed(lengths, buckets, seed=0, num_steps=40)
    shapes = [order.planned(step)[0] for step in range(40)]
    for start in range(30):
        expected = sorted(shapes.index(bucket, start) for bucket in buckets)
        assert first_steps(order, start) == expected
    assert first_steps(bucketed(lengths, buckets), 6) == []
    assert first_steps(Epochs(8, 2, 0, num_steps=9), 3) == [3]


@pytest.fixture(scope="module")
def compiled():
    """The threads that compiled each program, of this test and later ones."""
    found = []

    def listen(event, duration, fun_name="", **_):
        if event == "/jax/core/compile/backend_compile_duration":
            found.append((fun_name, threading.current_thread().name.split()[0]))

    jax.monitoring.register_event_duration_secs_listener(listen)
    return found


def test_a_run_finds_what_was_compiled_ahead(compiled, tmp_path, monkeypatch):
    path = tmp_path / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog\n" * 20)
    config = ConfigDict()
    config.model = section("model", "gpt", num_layers=1, num_heads=2, width=8, context=8)
    config.task = section(
        "task", "language_modeling", path=str(path), context=8, batch_size=4, sample_length=0
    )
    config.optimizer = section("optimizer")
    config.train = section("train", duration="3 steps", tensorboard=False)
    config.mesh, config.init, config.lora = section("mesh"), section("init"), section("lora")
    threads = {}
    for name, count in (("ahead", 2), ("needed", 1)):
        monkeypatch.setattr(module, "_num_cores", lambda count=count: count)
        if name == "needed":
            monkeypatch.setattr(Ahead, "start", lambda self, *rest: None)
        compiled.clear()
        assert train(config, tmp_path / name, curves=False)[0] == 0
        threads[name] = [
            one for one in compiled if one[0] in ("jit(steps)", "jit(evaluation_step)")
        ]
    assert threads["ahead"] == [
        ("jit(steps)", "MainThread"),
        ("jit(evaluation_step)", "compiler"),
    ]
    assert [name for name, _ in threads["needed"]] == [name for name, _ in threads["ahead"]]
    assert {thread for _, thread in threads["needed"]} == {"MainThread"}
    assert_same_run(tmp_path / "ahead", tmp_path / "needed")
