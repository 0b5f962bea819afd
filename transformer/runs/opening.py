"""Opens a trained run, given only its `--workdir`."""

import dataclasses
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from transformer.composition import config_fields, with_fields
from transformer.errors import ConfigError, WorkdirError
from transformer.fields import require_allowed
from transformer.nn.compute import for_any_shape
from transformer.tasks.parts.abilities import Tokenized
from transformer.tasks.parts.models import Model, TextEncoder
from transformer.tasks.parts.protocol import Task
from transformer.tasks.parts.tokenizers import require_same_tokenizer
from transformer.training.experiment import parameter_shapes
from transformer.training.lora import LoRA, merged
from transformer.training.parameters import read_parameters, restore_parameters
from transformer.training.saved_runs import read_run
from transformer.training.sections import build
from transformer.training.selection import by_path, from_paths
from transformer.types import Params


@dataclasses.dataclass(frozen=True)
class Run:
    """A model with the parameters of one checkpoint.

    Attributes:
        config: the resolved config that the run was trained with.
        task: the task of the run.
        model: the Linen module.
        params: the parameters with adapters merged in: the moving average if the run keeps one;
            the mean of several checkpoints if requested.
        step: the step of the checkpoint; of several, the newest.
        workdir: the run folder.
    """

    config: ConfigDict
    task: Task
    model: Model
    params: Params
    step: int
    workdir: Path

    def with_task(self, **fields: object) -> "Run":
        """Returns the run with other fields of its task, by flag name; None keeps a field.

        Raises:
            ConfigError: if the task has no such field, or the value cannot work.
        """
        given = {name: value for name, value in fields.items() if value is not None}
        if not given:
            return self
        for name in given.keys() - config_fields(type(self.task)).keys():
            raise ConfigError(f"--{name} is not for a run of the task {self.config.task.name}.")
        task = with_fields(self.task, **given)
        require_allowed("task", task)
        task.check_model(self.model)
        return dataclasses.replace(self, task=task)


def open_run(workdir: Path, checkpoint: str = "best") -> Run:
    """Restores only the parameters of a run.

    Args:
        workdir: the run folder.
        checkpoint: `best` (lowest validation loss), `last`, a step, or `last:N`, the mean of the
            newest N (Vaswani et al. 2017, section 6.1).

    Raises:
        WorkdirError: if the folder is not a run, lacks this checkpoint, or has another tokenizer.
        CheckpointError: if the checkpoint cannot be read.
    """
    config = read_run(workdir)
    task, model = build("task", config.task), build("model", config.model)
    lora: LoRA = build("lora", config.lora)
    shapes = nn.meta.unbox(parameter_shapes(model, task, lora))
    found = restore_parameters(workdir, config, checkpoint, shapes)
    require_same_tokenizer(task, workdir, found.metadata["data_fingerprint"])
    params = merged(found.params, lora)
    return Run(config, task, for_any_shape(model), params, found.step, workdir)


def open_encoder(workdir: Path, checkpoint: str = "best") -> Run:
    """Restores the text encoder of a run, without its heads; arguments as in `open_run`.

    Raises:
        ConfigError: if the model is not an encoder.
        WorkdirError: if the folder is not a run, lacks this checkpoint, or has another tokenizer.
        CheckpointError: if the checkpoint cannot be read.
    """
    config = read_run(workdir)
    task, model = build("task", config.task), build("model", config.model)
    if not (isinstance(model, TextEncoder) and isinstance(task, Tokenized)):
        raise ConfigError(f"{workdir} is a run of {config.model.name}, not a text encoder.")
    found = read_parameters(workdir, checkpoint)
    require_same_tokenizer(task, workdir, found.metadata["data_fingerprint"])
    key, tokens = jax.random.key(0), jnp.zeros((1, 1), jnp.int32)
    wanted = by_path(nn.meta.unbox(jax.eval_shape(model.init, key, tokens)["params"]))
    saved = by_path(found.params)
    for path, shape in wanted.items():
        if path not in saved or saved[path].shape != shape.shape:
            raise WorkdirError(f"{path} {list(shape.shape)} is not in the checkpoint of {workdir}.")
    params = from_paths({path: saved[path] for path in wanted})
    return Run(config, task, for_any_shape(model), params, found.step, workdir)
