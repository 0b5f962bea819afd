"""Compiles programs for shapes of batches that are still to come, while the first ones train.

JAX keeps a program that was compiled ahead of time, and finds it when it is called with arrays of
such shapes. Which thread has compiled it makes no difference to its bits.
"""

import contextlib
import dataclasses
import functools
import math
import os
import sys
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import NamedTuple, cast

import jax
from jax.sharding import NamedSharding
from jaxtyping import Array

from transformer.data.order import Bucket, Order, Planned
from transformer.sharding import batch_sharding
from transformer.tasks.parts.protocol import Losses
from transformer.training.execution import Execution
from transformer.training.opened import Opened
from transformer.training.recipes import placed_numbers
from transformer.training.spending import in_background, waiting_for_compiler
from transformer.training.state import TrainState
from transformer.training.validation import validation_share
from transformer.types import Batch, HostBatch, Metrics, Params, Shapes

# More threads would wait for each other in Python, where programs are traced.
_MOST_THREADS = 4

# Makes the context in which programs are compiled and called.
Enter = Callable[[], contextlib.AbstractContextManager[object]]


class Program(NamedTuple):
    """A program for one shape of batches.

    Attributes:
        key: identifies it.
        name: for people, such as `steps of 64 x 28`.
        lower: traces it for shapes of its arguments.
    """

    key: Hashable
    name: str
    lower: Callable[[], jax.stages.Lowered]


class Ahead:
    """Who compiles which program: the main thread what it needs now, others what comes next."""

    def __init__(
        self, show: Callable[[str], None], say: Callable[[str], None], num_threads: int
    ) -> None:
        """Compiles nothing yet.

        Args:
            show: takes the names of what is being compiled; empty if nothing is.
            say: prints a message.
            num_threads: how many programs are compiled at once besides the one in use; 0 compiles
                each when it is needed.
        """
        self._show, self._say, self._num_threads = show, say, num_threads
        self._lock, self._stopped = threading.Lock(), threading.Event()
        # For each program whether it is compiled; programs that nobody has begun are not there.
        self._begun: dict[Hashable, threading.Event] = {}
        self._names: list[str] = []
        self._threads: list[threading.Thread] = []
        self._started = False

    @contextlib.contextmanager
    def using(self, key: Hashable, name: str) -> Iterator[None]:
        """Around a call that compiles a program if that has not been done; waits if it is."""
        done, is_new = self._claim(key)
        if is_new:
            with self._shown(name, done):
                yield
            return
        if not done.is_set():
            with waiting_for_compiler():
                done.wait()
        yield

    def start(self, enter: Enter, programs: Callable[[], Iterable[Program]]) -> None:
        """Begins to compile in the background; does nothing if that was done before.

        Args:
            enter: makes the context in which programs are compiled.
            programs: the programs, in the order in which they are needed.
        """
        if self._started or not self._num_threads:
            return
        self._started = True
        left = _Shared(programs)
        self._threads = [
            threading.Thread(target=self._work, args=(enter, left), name=f"compiler {number}")
            for number in range(self._num_threads)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Waits for the programs that are being compiled, and begins no further one."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _work(self, enter: Enter, left: "_Shared") -> None:
        try:
            with in_background(), enter():
                for program in left:
                    if self._stopped.is_set():
                        return
                    done, is_new = self._claim(program.key)
                    if is_new:
                        with self._shown(program.name, done):
                            program.lower().compile()
        except Exception as error:  # Whatever it is, the main thread meets it when it gets there.
            self._say(f"Nothing more is compiled ahead: {type(error).__name__}: {error}")

    def _claim(self, key: Hashable) -> tuple[threading.Event, bool]:
        """Whether a program is compiled, and whether the caller has to compile it."""
        with self._lock:
            is_new = key not in self._begun
            return self._begun.setdefault(key, threading.Event()), is_new

    @contextlib.contextmanager
    def _shown(self, name: str, done: threading.Event) -> Iterator[None]:
        """Shows a name inside `with`; then the program is there, or it has failed."""
        with self._lock:
            self._names.append(name)
            self._show(", ".join(self._names))
        try:
            yield
        finally:
            done.set()
            with self._lock:
                self._names.remove(name)
                self._show(", ".join(self._names))


class _Shared:
    """Programs that several threads take in turns; made by the first of them."""

    def __init__(self, make: Callable[[], Iterable[Program]]) -> None:
        self._make, self._lock = make, threading.Lock()
        self._programs: Iterator[Program] | None = None

    def __iter__(self) -> "_Shared":
        return self

    def __next__(self) -> Program:
        with self._lock:
            if self._programs is None:
                self._programs = iter(self._make())
            return next(self._programs)


def ahead(run: Opened, execution: Execution) -> Execution:
    """The same execution, whose programs are compiled ahead once the first one is there.

    Args:
        run: the run, alone on its devices.
        execution: executes it; its programs are compiled when they are first called.
    """
    # Several processes would have to compile in the same order.
    num_threads = 0 if jax.process_count() > 1 else min(_MOST_THREADS, max(1, _num_cores() - 1))
    compiler = Ahead(run.progress.compiling, run.progress.say, num_threads)

    def steps(state: TrainState, batches: Batch, count: int) -> tuple[TrainState, Metrics]:
        with compiler.using(*_named("steps", batches, 1)):
            state, metrics = execution.steps(state, batches, count)
        compiler.start(execution.entered, lambda: _programs(run, execution, state))
        return state, metrics

    def evaluation_step(params: Params, batch: Batch) -> Losses:
        with compiler.using(*_named("evaluation", batch, 0)):
            return execution.evaluation_step(params, batch)

    return dataclasses.replace(
        execution, steps=steps, evaluation_step=evaluation_step, close=compiler.close
    )


def _programs(run: Opened, execution: Execution, state: TrainState) -> Iterator[Program]:
    """The programs that the rest of a run needs: those of steps, then those of the evaluation.

    Args:
        run: the run.
        execution: executes it.
        state: its state after some steps, perhaps donated since; only shapes are read.
    """
    experiment = run.experiment
    state, numbers = jax.tree.map(_shape_of, state), placed_numbers(experiment)
    steps = cast(jax.stages.Wrapped, run.programs.steps)
    evaluation_step = cast(jax.stages.Wrapped, run.programs.evaluation_step)
    stacks = batch_sharding(experiment.mesh, leading_axes=1)
    limit = (experiment.train.steps_per_dispatch,)
    for index in first_steps(run.feeder.batches.order, run.step):
        stack = _shapes(run.feeder.batches[index], limit, stacks)
        # The number of steps is an argument of the program: any will do.
        lower = functools.partial(steps.lower, state, stack, 1, numbers=numbers)
        yield Program(*_named("steps", stack, 1), lower)
    where = execution.validation_sharding
    share = validation_share(execution.validation_batches, where)
    for index in first_steps(share.order):
        batch = _shapes(share[index], (), where)
        lower = functools.partial(evaluation_step.lower, numbers, state.evaluated, batch)
        yield Program(*_named("evaluation", batch, 0), lower)


def first_steps(order: Order, start: int = 0) -> list[int]:
    """The first step of each shape of batches, from a step on; each shape once.

    Args:
        order: the order of batches; only those of `Planned` differ in shape.
        start: the first step that counts.
    """
    if not isinstance(order, Planned):
        return [start] if start < len(order) else []
    found: dict[Bucket, int] = {}
    # Every epoch has all shapes; one begins in the first of these epochs and ends in the next.
    for step in range(start, min(len(order), start + 2 * order.steps_per_epoch)):
        found.setdefault(order.planned(step)[0], step)
        if len(found) == len(order.buckets):
            break
    return list(found.values())


def _named(kind: str, batch: Batch | Shapes, leading: int) -> tuple[Hashable, str]:
    """The key of a program, and its name: that of the largest array of a batch.

    Args:
        kind: what is done with the batch.
        batch: arrays or their shapes.
        leading: the number of axes before B.
    """
    # JAX sorts the names of a tree; a batch on the host has them in any order.
    shapes = {name: batch[name].shape for name in sorted(batch)}
    largest = max((shape[leading:] for shape in shapes.values()), key=math.prod)
    return (kind, *shapes.items()), f"{kind} of {' x '.join(map(str, largest))}"


def _shapes(batch: HostBatch, before: tuple[int, ...], where: NamedSharding) -> Shapes:
    """What a batch of one process becomes on its devices, with further axes before B."""
    return {
        name: jax.ShapeDtypeStruct(before + x.shape, x.dtype, sharding=where)
        for name, x in batch.items()
    }


def _shape_of(x: Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def _num_cores() -> int:
    """How many processors this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
