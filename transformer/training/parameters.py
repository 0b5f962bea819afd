"""Reads parameters from the checkpoints of any run."""

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding
from ml_collections import ConfigDict

from transformer.checks import whole_number
from transformer.errors import CheckpointError, ConfigError, WorkdirError
from transformer.fields import shown
from transformer.training.checkpoints import Checkpoints
from transformer.training.lora import merged
from transformer.training.notes import (
    CONFIG_FILE,
    FOLDER,
    newest_notes,
    of_one_run,
    require_config,
    require_files,
)
from transformer.training.precision import narrowed, widened
from transformer.training.saved_runs import read_run
from transformer.training.sections import build
from transformer.types import Facts, Params


class Parameters(NamedTuple):
    """Parameters as they were saved.

    Attributes:
        params: the parameters to evaluate with.
        step: the step of the checkpoint; of several, the newest.
        metadata: the metadata of that checkpoint.
    """

    params: Params
    step: int
    metadata: Facts


def read_parameters(workdir: Path, checkpoint: str = "best", *, merge: bool = True) -> Parameters:
    """Reads all parameters of a run as they were saved.

    Args:
        workdir: the run folder.
        checkpoint: `best` (lowest validation loss), `last`, a step, or `last:N`, the mean of the
            newest N (Vaswani et al. 2017, section 6.1).
        merge: whether to merge adapters into the kernels.

    Raises:
        WorkdirError: if the folder is not a run or has no such checkpoint.
        CheckpointError: if the checkpoint cannot be read.
    """
    config = read_run(workdir)
    found = restore_parameters(workdir, config, checkpoint, None)
    if not merge:
        return found
    return found._replace(params=merged(found.params, build("lora", config.lora)))


def restore_parameters(
    workdir: Path, config: ConfigDict, name: str, shapes: Params | None
) -> Parameters:
    """Restores parameters of given shapes (None: any); of several checkpoints, their mean.

    They are float32, also where the run keeps them in bfloat16.

    If the best or the newest is requested and cannot be read, the next one takes its place, which
    is reported on stderr.
    """
    if not (workdir / FOLDER).is_dir():
        raise WorkdirError(
            f"{workdir} has no checkpoint yet: train first. There is no folder {workdir / FOLDER}."
        )
    item = "average" if config.train.ema_decay > 0 else "params"
    if shapes is not None and item == "params":
        shapes = narrowed(shapes, config.train.parameter_dtype)
    with Checkpoints(workdir, read_only=True) as checkpoints:
        errors: list[CheckpointError] = []
        choices = _choices(checkpoints, name, workdir)
        for steps in choices:
            try:
                found = _mean(checkpoints, steps, item, shapes)
            except CheckpointError as error:
                errors.append(error)
                continue
            if errors:
                reasons = " ".join(map(str, errors))
                _say(f"{reasons} The checkpoint of step {found.step} is used in its place.")
            notes, newest = checkpoints.notes(found.step), newest_notes(workdir)
            # Tokenizers can be large, and `read_run` has already compared them with the newest.
            if newest is None or not of_one_run(notes, newest):
                require_config(config, notes, workdir / CONFIG_FILE)
                require_files(workdir, notes)
            return found
        tried = {step for steps in choices for step in steps}
        others = [step for step in checkpoints.whole_steps() if step not in tried]
    hint = f" There are others, of the steps {', '.join(map(str, others))}." if others else ""
    raise CheckpointError(f"{' '.join(map(str, errors))}{hint}")


def _mean(
    checkpoints: Checkpoints, steps: Sequence[int], item: str, shapes: Params | None
) -> Parameters:
    """The mean of an item over several checkpoints.

    Raises:
        CheckpointError: if one of them is damaged.
    """
    place = SingleDeviceSharding(jax.local_devices()[0])
    if shapes is None:
        shapes = checkpoints.saved_shapes(steps[-1], item)
    wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes)
    restored = checkpoints.restore(steps[-1], {item: wanted})
    total = widened(restored.state[item])
    for step in steps[:-1]:
        more = widened(checkpoints.restore(step, {item: wanted}).state[item])
        total = jax.tree.map(jnp.add, total, more)
    if len(steps) > 1:
        total = jax.tree.map(lambda x: x / len(steps), total)
    return Parameters(total, steps[-1], restored.metadata)


def _choices(checkpoints: Checkpoints, name: str, workdir: Path) -> list[list[int]]:
    """The steps that a name selects, oldest first, followed by those that may replace them."""
    steps = sorted({*checkpoints.steps(), *checkpoints.damaged()})
    if not steps:
        raise WorkdirError(f"{workdir} has no checkpoint yet: train first.")
    for strange in checkpoints.strange:
        _say(f"{workdir / FOLDER / strange} is no checkpoint: its name is not a step.")
    if name == "best":
        # One of the damaged checkpoints might be the best.
        for error in checkpoints.damaged().values():
            _say(f"{error} It is left out.")
        whole = checkpoints.best_first()
        if checkpoints.best_step() is None and len(steps) > 1:
            _say(
                f"No checkpoint of {workdir} carries a validation loss, so that none is the best: "
                f"the newest is used, of step {steps[-1]}."
            )
        return [[step] for step in whole or steps[::-1]]
    if name == "last":
        return [[step] for step in steps[::-1]]
    known = ", ".join(map(str, steps))
    last, colon, count = name.partition(":")
    number = whole_number(count)
    if last == "last" and colon and number:
        if number > len(steps):
            raise WorkdirError(
                f"{workdir} has {len(steps)} checkpoints, of the steps {known}, fewer than the "
                f"{count} to average. config.train.keep_last says how many are kept."
            )
        return [steps[-number:]]
    step = whole_number(name)
    if step is None:
        raise ConfigError(f"--checkpoint is {shown(name)}: give best, last, last:N or a step.")
    if step not in steps:
        raise WorkdirError(f"{workdir} has no checkpoint of step {name}, only of: {known}.")
    return [[step]]


# Printed once per process, because several scripts open a run more than once.
@functools.cache
def _say(text: str) -> None:
    print(text, file=sys.stderr)
