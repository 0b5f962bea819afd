"""From a config to everything a run needs: task, data, model, optimizer, shapes."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import optax
from jax.sharding import NamedSharding
from jaxtyping import PyTree
from ml_collections import ConfigDict

from transformer import sharding
from transformer.errors import ConfigError, WorkdirError
from transformer.fields import config_fields
from transformer.files import scratch
from transformer.sections import flattened
from transformer.tasks.parts.protocol import Task, require_fitting
from transformer.traced import is_zero, traced_fields
from transformer.training import state as states
from transformer.training.combinations import check_dtype, check_rows, check_steps
from transformer.training.durations import Clock
from transformer.training.flops import count_flops
from transformer.training.initialization import (
    Heads,
    Initialization,
    check_same_model,
    heads_of,
)
from transformer.training.lora import LoRA, is_trained, merged, with_adapters
from transformer.training.notes import FOLDER, Notes, described, require_made_again
from transformer.training.optimizers import Optimizer, make_optimizer, make_schedule
from transformer.training.options import Train
from transformer.training.saved_runs import read_config, read_run
from transformer.training.sections import build, check_sections, with_optional_sections
from transformer.training.selection import Chooser, chooser, everything, split
from transformer.training.shared import Shared


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A config made into objects; nothing in it changes while training.

    Attributes:
        config: the resolved config: sizes that the data decides are filled in.
        task: what to train on.
        data: what the task read from disk.
        model: the Linen module.
        train: how to train.
        init: what to begin from.
        lora: adapters, if any.
        trained: which parameters are trained.
        mesh: of devices.
        clock: turns durations into steps.
        total_steps: of the run.
        warmup_steps: of them.
        optimizer: makes updates.
        updates: the fields of `config.optimizer`.
        boxes: shapes of all parameters with the logical names of their axes.
        shapes: shapes, dtypes and shardings of the train state.
    """

    config: ConfigDict
    task: Task
    data: Any
    model: Any
    train: Train
    init: Initialization
    lora: LoRA
    trained: Chooser
    mesh: jax.sharding.Mesh
    clock: Clock
    total_steps: int
    warmup_steps: int
    optimizer: optax.GradientTransformation
    updates: Optimizer
    boxes: PyTree
    shapes: states.TrainState

    def steps(self, field: str) -> int:
        """A duration of `config.train` in steps, at least 1."""
        duration = getattr(self.train, field)
        return self.clock.steps(duration, key=f"train.{field}", total=self.total_steps)

    def warnings(self) -> list[str]:
        """What is hardly meant so, for people to read before training begins."""
        if self.warmup_steps <= self.total_steps:
            return []
        return [
            f"warning: config.optimizer.warmup is {self.warmup_steps:,} steps, and the run has "
            f"{self.total_steps:,}: the learning rate ends at "
            f"{self.total_steps / self.warmup_steps:.1%} of config.optimizer.learning_rate. A part "
            f"of the run is --config.optimizer.warmup=10%."
        ]

    def merged(self, params: PyTree) -> PyTree:
        """Parameters as the model takes them, adapters worked in."""
        return merged(params, self.lora)

    def heads(self) -> Heads:
        """Which parameters may be new where training begins from another run."""
        source = with_optional_sections(read_config(Path(self.init.workdir)))
        names = getattr(self.task, "output_names", None)
        return heads_of(self.config, source, None if names is None else names(self.data))

    def example_batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of the batch of step 0, over all hosts."""
        batches = self.task.train_batches(self.data, seed=self.train.seed, num_steps=1)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batches[0])

    def flops_per_step(self, batch: Any) -> int:
        """Of one training step.

        Three times the forward pass, nothing for rematerialisation. Attention counts with all its
        pairs, as is usual for MFU (Chowdhery et al. 2022, appendix B).

        Args:
            batch: shapes of the batch, over all hosts.
        """
        plain = {"attention": "einsum", "remat": "none"}
        known = config_fields(type(self.model))
        model = self.model.clone(**{k: v for k, v in plain.items() if k in known})

        def forward(params: PyTree, batch: Any) -> Any:
            return self.task.losses(model, self.merged(params), batch, {}).objective

        return 3 * count_flops(forward, self.shapes.params, batch)

    def create(self, key: jax.Array) -> states.TrainState:
        """The state before the first step."""
        params = nn.meta.unbox(initial_parameters(self.model, self.task, self.lora, key))
        average = not is_zero(self.train.ema_decay)
        return states.create(params, self.optimizer, key, average=average, trained=self.trained)


def prepare(
    config: Any,
    workdir: Path | None = None,
    *,
    devices: Sequence[Any] | None = None,
    shared: Shared | None = None,
    data: Any = None,
) -> Experiment:
    """Checks a config and builds what it describes; no parameter is allocated yet.

    Args:
        config: a ConfigDict with the sections of `config.SECTIONS`.
        workdir: an existing run folder whose tokenizer is to be used, if it has one.
        devices: of the mesh; None takes all there are.
        shared: what other runs of this process have read already.
        data: used in place of what the task would read.

    Raises:
        ConfigError: if the config cannot work.
        DataError: if the data cannot be used.
    """
    check_sections(config)
    config = with_optional_sections(config)
    task = build("task", config.task)
    train: Train = build("train", config.train)
    updates: Optimizer = build("optimizer", config.optimizer)
    # Sizes are checked once the data have decided them.
    require_fitting(task, build("model", config.model))
    mesh: jax.sharding.Mesh = build("mesh", config.mesh).make(devices)
    init: Initialization = build("init", config.init)
    lora: LoRA = build("lora", config.lora)
    check_dtype(config.model.dtype)
    # Where there are checkpoints there is a tokenizer: it is written before them.
    begun = workdir is not None and (workdir / FOLDER).is_dir()
    # A run that has begun has all it needs of the other in its own folder.
    source = None if begun else _source(config, lora)
    # A run that has begun reads with its own tokenizer.
    folder = workdir if begun or source is None else Path(init.workdir)
    if data is None and shared is not None and not begun:
        folder = None if source is None else folder
        key = ("data", folder, _without_numbers(config.task, task))
        data = shared.get_or_make(key, lambda: task.load(folder))
    elif data is None:
        data = task.load(folder)
    for field, size in task.dimensions(data).items():
        chosen = config.model[field]
        if chosen is None:
            # A table may have more entries than the tokenizer; it keeps them.
            kept = source.model[field] if source is not None and field == "vocab_size" else None
            config.model[field] = max(size, kept or 0)
        elif chosen < size:
            raise ConfigError(
                f"config.model.{field} is {chosen}, smaller than the {size} of the data: "
                f"leave it out, or give at least {size}."
            )
        elif chosen > size and field in getattr(task, "EXACT_DIMENSIONS", ()):
            raise ConfigError(
                f"config.model.{field} is {chosen}, and the data have {size}: leave it out, or "
                f"have config.task.{field} bring the data to {chosen}."
            )
    model = build("model", config.model)
    task.check_model(model)
    model.chosen_attention(*task.example_inputs(model))  # Refuses what a kernel cannot do.
    check_rows(task.batch_rows(data), train.microbatches, mesh)

    clock = Clock(*task.pace(data))
    total = clock.steps(train.duration, key="train.duration")
    warmup = clock.steps(updates.warmup, key="optimizer.warmup", total=total)
    check_steps(**{"train.duration": total, "optimizer.warmup": warmup})

    key = jax.eval_shape(lambda: jax.random.key(train.seed))
    boxed = jax.eval_shape(lambda key: initial_parameters(model, task, lora, key), key)
    trained = _trained(boxed, lora, updates)
    schedule = make_schedule(updates, warmup_steps=warmup, total_steps=total)
    optimizer = make_optimizer(updates, schedule, boxed, trained)
    shapes = jax.eval_shape(
        lambda params, key: states.create(
            params, optimizer, key, average=not is_zero(train.ema_decay), trained=trained
        ),
        nn.meta.unbox(boxed),
        key,
    )
    placed = _place(shapes, sharding.shardings_of(mesh, boxed), sharding.replicated(mesh))
    return Experiment(
        config=config,
        task=task,
        data=data,
        model=model,
        train=train,
        init=init,
        lora=lora,
        trained=trained,
        mesh=mesh,
        clock=clock,
        total_steps=total,
        warmup_steps=warmup,
        optimizer=optimizer,
        updates=updates,
        boxes=boxed,
        shapes=placed,
    )


def _without_numbers(section: ConfigDict, made: Any) -> str:
    """What a section says beside the numbers that programs take as arguments."""
    numbers = traced_fields(made)
    values = flattened(section)
    return str([(key, values[key]) for key in sorted(values) if key not in numbers])


def _source(config: Any, lora: LoRA) -> Any:
    """The config of the run to begin from, or None."""
    if not config.init.workdir:
        if lora.rank:
            raise ConfigError(
                "config.lora.rank needs config.init.workdir: adapters are for trained parameters."
            )
        return None
    source = read_run(Path(config.init.workdir))
    check_same_model(config, source)
    return source


def _trained(boxed: PyTree, lora: LoRA, optimizer: Optimizer) -> Chooser:
    """Which parameters are trained."""
    if lora.rank and optimizer.frozen:
        raise ConfigError(
            "config.optimizer.frozen says nothing beside config.lora.rank: only the adapters and "
            "what config.lora.trained matches are trained. Leave it empty."
        )
    if lora.rank:
        return is_trained(boxed, lora)
    if not optimizer.frozen:
        return everything
    frozen = chooser(optimizer.frozen, "optimizer.frozen", boxed)
    if not split(boxed, lambda path: not frozen(path))[0]:
        raise ConfigError(
            f"config.optimizer.frozen is {optimizer.frozen!r}, which matches all parameters: "
            f"nothing would be trained."
        )
    return lambda path: not frozen(path)


def initial_parameters(model: Any, task: Task, lora: LoRA, key: jax.Array) -> PyTree:
    """Parameters in boxes that hold the logical names of their axes, new adapters among them."""
    boxed = model.init(key, *task.example_inputs(model), method=task.entry)["params"]
    return with_adapters(boxed, lora, jax.random.fold_in(key, 1))


def _place(shapes: states.TrainState, params: PyTree, elsewhere: NamedSharding) -> PyTree:
    """Shapes with shardings: what mirrors a parameter lies where the parameter lies.

    The optimizer's moments are found by the end of their path, which is that of the parameter.
    """
    by_path = {
        jax.tree_util.keystr(path): place
        for path, place in jax.tree_util.tree_leaves_with_path(params)
    }
    longest_first = sorted(by_path, key=len, reverse=True)
    shape_of = {
        jax.tree_util.keystr(path): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes.params)
    }

    def one(path: Any, leaf: Any) -> jax.ShapeDtypeStruct:
        name = jax.tree_util.keystr(path)
        found = (p for p in longest_first if name.endswith(p) and shape_of[p] == leaf.shape)
        mirrored = next(found, None)
        place = elsewhere if mirrored is None else by_path[mirrored]
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

    return jax.tree_util.tree_map_with_path(one, shapes)


def metadata_of(experiment: Experiment, workdir: Path) -> dict[str, Any]:
    """What the checkpoints of a run say of it: its data, its config, the files of its task.

    Args:
        experiment: of the run.
        workdir: its folder, in which these files are made and deleted again.
    """
    with scratch(workdir) as folder:
        experiment.task.save(experiment.data, folder)
        about = described(experiment.config, folder)
    return {"data_fingerprint": experiment.task.fingerprint(experiment.data), **about}


def require_same_run(metadata: Mapping[str, Any], workdir: Path, notes: Notes | None) -> None:
    """Refuses to go on with a run otherwise than it began.

    Args:
        metadata: from `metadata_of`.
        workdir: the run folder.
        notes: of a checkpoint; None if there is none.

    Raises:
        WorkdirError: if the data have changed, or a file is missing that is not made again.
    """
    if notes is not None:
        require_made_again(workdir, notes, metadata)
        require_same_data(metadata, notes)


def require_same_data(metadata: Mapping[str, Any], notes: Notes) -> None:
    """Refuses other data than those that a checkpoint was trained on.

    Raises:
        WorkdirError: if they are others.
    """
    if notes.metadata.get("data_fingerprint") != metadata["data_fingerprint"]:
        raise WorkdirError(
            "the data have changed since this run began, so it cannot go on as if they had not: "
            "restore them, or start again in a new --workdir."
        )
