"""A trained run, opened again by `--workdir` alone."""

import dataclasses
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding
from ml_collections import ConfigDict

from transformer.config import build
from transformer.errors import ConfigError, WorkdirError
from transformer.tasks.base import Task
from transformer.training.checkpoints import Checkpoints
from transformer.training.experiment import initial_parameters, read_config


@dataclasses.dataclass(frozen=True)
class Run:
    """A model with the parameters of one checkpoint.

    Attributes:
        config: resolved, as the run was trained.
        task: of the run.
        model: the Linen module.
        params: the moving average where the run keeps one; the mean of several checkpoints if
            that was asked for.
        step: of the checkpoint, the newest of several.
    """

    config: ConfigDict
    task: Task
    model: Any
    params: Any
    step: int


def open_run(workdir: Path, checkpoint: str = "best") -> Run:
    """Restores the parameters of a run, and nothing else.

    Args:
        workdir: the run folder.
        checkpoint: `best` (lowest validation loss), `last`, a step, or `last:N`, the mean of the
            newest N (Vaswani et al. 2017, section 6.1).

    Raises:
        WorkdirError: if the folder is no run, has no such checkpoint, or another tokenizer.
        CheckpointError: if the checkpoint cannot be read.
    """
    config: Any = read_config(workdir)
    task, model = build("task", config.task), build("model", config.model)
    if not (workdir / "checkpoints").is_dir():
        raise WorkdirError(f"{workdir} has no checkpoint yet: train first.")
    checkpoints = Checkpoints(workdir, read_only=True)
    steps = _chosen(checkpoints, checkpoint, workdir)
    item = "average" if config.train.ema_decay > 0 else "params"
    place = SingleDeviceSharding(jax.local_devices()[0])
    key = jax.eval_shape(lambda: jax.random.key(0))
    shapes = nn.meta.unbox(jax.eval_shape(lambda key: initial_parameters(model, task, key), key))
    wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes)
    restored = checkpoints.restore(steps[-1], {item: wanted})
    total = restored.state[item]
    for step in steps[:-1]:
        more = checkpoints.restore(step, {item: wanted}).state[item]
        total = jax.tree.map(jnp.add, total, more)
    checkpoints.close()
    params = jax.tree.map(lambda x: x / len(steps), total)
    task.check_run(workdir, restored.metadata["data_fingerprint"])
    return Run(config, task, model, params, steps[-1])


def _chosen(checkpoints: Checkpoints, name: str, workdir: Path) -> list[int]:
    """The steps that a name stands for, oldest first."""
    steps = checkpoints.steps()
    if not steps:
        raise WorkdirError(f"{workdir} has no checkpoint yet: train first.")
    if name == "best":
        best = checkpoints.best_step()
        return [steps[-1] if best is None else best]
    if name == "last":
        return steps[-1:]
    known = ", ".join(map(str, steps))
    last, colon, count = name.partition(":")
    if last == "last" and colon and count.isdigit() and int(count) > 0:
        if int(count) > len(steps):
            raise WorkdirError(
                f"{workdir} has {len(steps)} checkpoints, of the steps {known}: there are no "
                f"{count} to take the mean of. config.train.keep_last says how many are kept."
            )
        return steps[-int(count) :]
    if not name.isdigit():
        raise ConfigError(f"--checkpoint is {name!r}: give best, last, last:N or a step.")
    if int(name) not in steps:
        raise WorkdirError(f"{workdir} has no checkpoint of step {name}, only of: {known}.")
    return [int(name)]
