"""Trains many trials at once: one program advances all of them by the same steps.

`scan` visits the trials one after another inside of the program (`lax.map`), `vmap` computes them
together and cuts them over the devices there are. What a trial leaves in its folder is what
`training.loop` would leave there, so that either goes on where the other stopped.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from transformer.errors import ConfigError, NonFiniteLossError
from transformer.sweeps.folder import Folder
from transformer.sweeps.members import Member, open_member
from transformer.sweeps.runner import PATIENCE, Command, Say, failed, note_result
from transformer.sweeps.trials import Plan, Trial
from transformer.sweeps.vectorized import AXIS, trial_mesh, vectorized_programs
from transformer.training.finishing import (
    SAMPLED,
    VALIDATION,
    finish,
    is_finished,
    is_validated,
    summary,
    write_again,
)
from transformer.training.holding import HeldError
from transformer.training.loop import checkpoint_items, next_multiple
from transformer.training.metrics import Progress
from transformer.training.options import CHANGEABLE
from transformer.training.processes import StopRequest
from transformer.training.programs import (
    numbers_of,
    program_key,
)
from transformer.training.shared import Shared
from transformer.training.step import mean_metrics
from transformer.training.validation import make_totals


def run_population(
    trials: Sequence[Trial],
    plans: Sequence[Plan],
    folder: Folder,
    shared: Shared,
    say: Say,
    command: Command,
    *,
    vectorize: str,
    most: int,
) -> int:
    """`runner.run_grid`, many trials at once.

    Args:
        trials: of the grid.
        plans: of each.
        folder: of the sweep.
        shared: what the trials have in common.
        say: tells people.
        command: that trains a trial alone.
        vectorize: `scan` or `vmap`.
        most: trials at once.
    """
    plan_of = dict(zip((trial.id for trial in trials), plans, strict=True))
    # What is said of a trial that is tried again and again is said once.
    say = functools.cache(say)
    left = list(trials)
    while left:
        elsewhere: list[Trial] = []
        for group in _groups(left, plan_of, most):
            with contextlib.ExitStack() as claims:
                mine = []
                for trial in group:
                    if not claims.enter_context(folder.claim(trial.id)):
                        elsewhere.append(trial)
                    elif not folder.is_over(trial.id):
                        mine.append(trial)
                code, held = _run_group(mine, folder, shared, say, command, vectorize)
                elsewhere += held
                if code:
                    return code
        if len(elsewhere) == len(left):
            time.sleep(PATIENCE)
        left = elsewhere
    return 0


def _groups(
    trials: Iterable[Trial], plan_of: dict[str, Plan], most: int
) -> Iterable[Sequence[Trial]]:
    """Trials that can be advanced by one program in step with each other."""
    alike: dict[Any, list[Trial]] = {}
    for trial in trials:
        plan, config = plan_of[trial.id], trial.config.to_dict()
        pace = tuple(config["train"][field] for field in CHANGEABLE if field != "duration")
        alike.setdefault((plan.program, plan.total_steps, pace), []).append(trial)
    for group in alike.values():
        for start in range(0, len(group), most):
            yield group[start : start + most]


def _run_group(
    trials: Sequence[Trial],
    folder: Folder,
    shared: Shared,
    say: Say,
    command: Command,
    vectorize: str,
) -> tuple[int, list[Trial]]:
    """Trains trials of one program; 0 or an exit code, and those that somebody trains alone."""
    members: dict[int, list[Member]] = {}
    held: list[Trial] = []
    for trial in trials:
        try:
            member = open_member(trial, folder.begin(trial, command(trial)), shared, say)
        except HeldError as error:
            say(f"trial {trial.id}: {error}")
            held.append(trial)
            continue
        except Exception as error:
            failed(trial, folder, say, error)
            continue
        # Those that were cut off at different steps go on apart.
        members.setdefault(member.step, []).append(member)
    for step, group in sorted(members.items()):
        say(f"{len(group)} trials from step {step}, by {vectorize}:")
        for member in group:
            say(f"  {member.trial.id}: {member.trial}")
        code = _run_members(group, folder, shared, say, vectorize)
        if code:
            return code, held
    return 0, held


def _run_members(
    members: list[Member], folder: Folder, shared: Shared, say: Say, vectorize: str
) -> int:
    """Trains opened trials together and notes what became of them; 0 or an exit code."""
    started = time.monotonic()
    try:
        code, reached = _advance(members, folder, shared, say, vectorize)
    except ConfigError:
        raise
    except Exception as error:
        for member in members:
            if member.alive:
                failed(member.trial, folder, say, error)
        return 0
    finally:
        with contextlib.ExitStack() as closing:
            for member in members:
                closing.callback(member.close)
    seconds = round((time.monotonic() - started) / len(members), 2)
    for member in members:
        if member.alive:
            status = "stopped" if code else "done"
            result = summary(member.workdir, reached)
            note_result(member.trial, folder, say, status, result, seconds)
    return code


def _advance(
    members: list[Member], folder: Folder, shared: Shared, say: Say, vectorize: str
) -> tuple[int, int]:
    """Trains to the end, or until asked to stop.

    Returns:
        0 or an exit code, and the step reached.
    """
    first, step = members[0].experiment, members[0].step
    options, total = first.train, first.total_steps
    every = {name: first.steps(name) for name in ("log_every", "evaluate_every", "save_every")}
    mesh = trial_mesh(len(members) if vectorize == "vmap" else 1)
    here, everywhere = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((AXIS,), ()))
    key = (vectorize, len(members), program_key(first.config))
    steps, evaluate = shared.once(key, lambda: vectorized_programs(first, vectorize))
    state: Any = jax.device_put(
        jax.tree.map(lambda *x: jnp.stack(x), *(member.state for member in members)), here
    )
    for member in members:
        member.state = None
    numbers = jax.device_put(_stacked([numbers_of(m.experiment) for m in members]), here)
    totals = make_totals(
        functools.partial(evaluate, numbers),
        first.task.validation_batches(first.data),
        everywhere,
    )
    progress = Progress(total)
    progress.start(step)
    pending: Any = None
    with StopRequest() as stop:
        try:
            while step < total and any(member.alive for member in members):
                end = min(
                    step + options.steps_per_dispatch,
                    total,
                    *(next_multiple(step, n) for n in every.values()),
                )
                batches, count = _take(members, end - step)
                state, metrics = steps(state, jax.device_put(batches, here), count, numbers)
                _report(members, pending, folder, say)
                pending = (step, count, metrics)
                step += count
                progress.update(step)
                evaluates = step % every["evaluate_every"] == 0 or step == total
                stopping = stop.asked()
                saves = step % every["save_every"] == 0 or step == total or stopping
                if not (evaluates or saves):
                    continue
                _report(members, pending, folder, say)
                pending, losses = None, [None] * len(members)
                if evaluates:
                    limit = options.validation_batches
                    found = totals(state.evaluated, None if step == total else limit)
                    samples = step == total and limit is not None
                    sampled = totals(state.evaluated, limit) if samples else None
                    losses = _validated(members, step, found, sampled)
                if saves:
                    _save(members, state, step, losses)
                if stopping:
                    break
        finally:
            progress.close()
    if stop.signal is not None:
        return stop.exit_code, step
    _finish(members, state, step, functools.partial(totals, state.evaluated))
    return 0, step


def _finish(
    members: Sequence[Member],
    state: Any,
    step: int,
    totals: Callable[[int | None], Any],
) -> None:
    """Makes what the end of each run lacks, as the loop does.

    Args:
        members: of the population.
        state: of all, after their last step.
        step: that was reached.
        totals: of the validation batches, as many as it is given, or all.
    """
    first = members[0].experiment
    limit, silence = first.train.validation_batches, Progress(step, shown=False).say
    lacking = [
        index
        for index, member in enumerate(members)
        if member.alive and not is_validated(member.workdir, step, limit)
    ]
    if lacking:
        # Members that were restored after their last step, and whose line was lost.
        found = jax.device_get(totals(None))
        sampled = None if limit is None else jax.device_get(totals(limit))
        for index in lacking:
            own, measured = members[index], _metrics(index, found, sampled)
            write_again(own.experiment, own.workdir, step, VALIDATION, measured, silence)
    for index, member in enumerate(members):
        if member.alive and not is_finished(member.workdir, step):
            own = _one(state, index)
            finish(member.experiment, own, member.workdir, step, curves=False, say=silence)


def _take(members: Iterable[Member], count: int) -> tuple[Any, int]:
    """The next batches of all members, stacked to `[trials, most, B, ...]`."""
    taken = [member.feeder.take(count) for member in members]
    batches, counts = zip(*taken, strict=True)
    shapes = {tuple(x.shape for x in jax.tree.leaves(batch)) for batch in batches}
    if len(set(counts)) > 1 or len(shapes) > 1:
        raise ConfigError(
            "the batches of these trials differ in shape, so that they cannot be trained at once: "
            "use --vectorize=none."
        )
    return _stacked(batches), counts[0]


def _stacked(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *x: np.stack(x), *trees)


def _one(tree: Any, index: int) -> Any:
    return jax.tree.map(lambda x: x[index], tree)


def _report(members: Iterable[Member], pending: Any, folder: Folder, say: Say) -> None:
    """Writes the metrics of each; those whose losses are not finite end here."""
    if pending is None:
        return
    start, count, metrics = pending
    metrics = jax.device_get(metrics)
    for index, member in enumerate(members):
        if not member.alive:
            continue
        try:
            member.reporter.report((start, count, _one(metrics, index), None))
        except NonFiniteLossError as error:
            member.alive = False
            failed(member.trial, folder, say, error)


def _validated(
    members: Iterable[Member], step: int, totals: Any, sampled: Any
) -> list[float | None]:
    """Writes the validation metrics of each and returns the losses.

    Args:
        members: of the population.
        step: at which they were measured.
        totals: of each batch.
        sampled: the same of the batches that earlier evaluations took; None if these are they.
    """
    totals, sampled, losses = *jax.device_get((totals, sampled)), []
    for index, member in enumerate(members):
        loss = None
        if member.alive:
            loss = member.reporter.validated(step, _metrics(index, totals, sampled))
        losses.append(loss)
    return losses


def _metrics(index: int, totals: Any, sampled: Any) -> dict[str, float]:
    """Validation metrics of one member; arguments as of `_validated`, on the host."""
    metrics = mean_metrics([_one(total, index) for total in totals])
    if sampled is not None:
        metrics[SAMPLED] = mean_metrics([_one(total, index) for total in sampled])["loss"]
    return {name: float(value) for name, value in metrics.items()}


def _save(members: Iterable[Member], state: Any, step: int, losses: Sequence[Any]) -> None:
    for index, member in enumerate(members):
        if not member.alive:
            continue
        member.writer.flush()
        member.checkpoints.save(
            step,
            checkpoint_items(_one(state, index)),
            data=member.feeder.position,
            metadata=member.about,
            validation_loss=losses[index],
        )
