"""A trained run, opened again by `--workdir` alone."""

import dataclasses
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
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
        params: the moving average where the run keeps one.
        step: of the checkpoint.
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
        checkpoint: `best` (lowest validation loss), `last`, or a step.

    Raises:
        WorkdirError: if the folder is no run or has no such checkpoint.
        CheckpointError: if the checkpoint cannot be read.
    """
    config: Any = read_config(workdir)
    task, model = build("task", config.task), build("model", config.model)
    if not (workdir / "checkpoints").is_dir():
        raise WorkdirError(f"{workdir} has no checkpoint yet: train first.")
    checkpoints = Checkpoints(workdir, read_only=True)
    step = _chosen(checkpoints, checkpoint, workdir)
    item = "average" if config.train.ema_decay > 0 else "params"
    place = SingleDeviceSharding(jax.local_devices()[0])
    key = jax.eval_shape(lambda: jax.random.key(0))
    shapes = nn.meta.unbox(jax.eval_shape(lambda key: initial_parameters(model, task, key), key))
    wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes)
    restored = checkpoints.restore(step, {item: wanted})
    checkpoints.close()
    return Run(config, task, model, restored.state[item], step)


def _chosen(checkpoints: Checkpoints, name: str, workdir: Path) -> int:
    steps = checkpoints.steps()
    if not steps:
        raise WorkdirError(f"{workdir} has no checkpoint yet: train first.")
    if name == "best":
        best = checkpoints.best_step()
        return steps[-1] if best is None else best
    if name == "last":
        return steps[-1]
    if not name.isdigit():
        raise ConfigError(f"--checkpoint is {name!r}: give best, last or a step.")
    if int(name) not in steps:
        known = ", ".join(map(str, steps))
        raise WorkdirError(f"{workdir} has no checkpoint of step {name}, only of: {known}.")
    return int(name)
