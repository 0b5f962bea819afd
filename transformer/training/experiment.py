"""Builds everything a run needs from its config: task, data, model, optimizer, shapes."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import flax.linen as nn
import jax
import optax
from jax.sharding import NamedSharding
from jaxtyping import PyTree
from ml_collections import ConfigDict

from transformer import sharding
from transformer.errors import ConfigError
from transformer.nn.compute import computing
from transformer.ops.threefry import without_loop
from transformer.sections import flattened
from transformer.tasks.parts.abilities import ChecksFit, FixesDimensions, NamesOutputs
from transformer.tasks.parts.models import Model
from transformer.tasks.parts.protocol import Dataset, Task, require_fitting
from transformer.traced import is_zero, traced_fields
from transformer.training import state as states
from transformer.training.combinations import (
    check_cast,
    check_dtype,
    check_rows,
    check_steps,
    check_vocabulary,
)
from transformer.training.durations import Clock
from transformer.training.flops import count_flops
from transformer.training.initialization import (
    Heads,
    Initialization,
    check_same_model,
    heads_of,
)
from transformer.training.lora import LoRA, is_trained, merged, with_adapters
from transformer.training.notes import FOLDER
from transformer.training.optimizers import Optimizer, make_optimizer, make_schedule
from transformer.training.options import Train
from transformer.training.precision import Precision
from transformer.training.saved_runs import read_config, read_run
from transformer.training.sections import build, check_sections, with_optional_sections
from transformer.training.selection import Chooser, chooser, everything, split
from transformer.training.shared import Shared
from transformer.types import Boxed, Params, Shapes


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The objects built from a config; none of them changes during training.

    Attributes:
        config: the resolved config, including the sizes that the data decide.
        task: the task to train.
        data: the data that the task read from disk.
        model: the Linen module.
        train: the fields of `config.train`.
        init: the fields of `config.init`.
        lora: the fields of `config.lora`.
        trained: which parameters are trained.
        mesh: the device mesh.
        clock: converts durations to steps.
        total_steps: number of steps of the run.
        warmup_steps: how many of them are warmup.
        optimizer: the Optax optimizer.
        updates: the fields of `config.optimizer`.
        boxes: shapes of all parameters with the logical names of their axes.
        precision: the dtypes in which the train state is kept.
        shapes: shapes, dtypes and shardings of the train state.
    """

    config: ConfigDict
    task: Task
    data: Dataset
    model: Model
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
    boxes: Boxed
    precision: Precision
    shapes: states.TrainState

    def steps(self, field: str) -> int:
        """A duration of `config.train` in steps, at least 1."""
        duration = self.config.train[field]
        return self.clock.steps(duration, key=f"train.{field}", total=self.total_steps)

    def warnings(self) -> list[str]:
        """Warnings about settings that are probably mistakes, shown before training begins."""
        if self.warmup_steps <= self.total_steps:
            return []
        return [
            f"warning: config.optimizer.warmup is {self.warmup_steps:,} steps, and the run has "
            f"{self.total_steps:,}: the learning rate ends at "
            f"{self.total_steps / self.warmup_steps:.1%} of config.optimizer.learning_rate. A part "
            f"of the run is --config.optimizer.warmup=10%."
        ]

    def merged(self, params: Params) -> Params:
        """The parameters of the model, with the adapters merged in."""
        return merged(params, self.lora)

    def heads(self) -> Heads:
        """Which parameters may be new when training begins from another run."""
        source = with_optional_sections(read_config(Path(self.init.workdir)))
        names = self.data.output_names() if isinstance(self.data, NamesOutputs) else None
        return heads_of(self.config, source, names)

    def example_batch(self) -> Shapes:
        """Shapes of the batch of step 0, over all hosts."""
        batches = self.data.train_batches(seed=self.train.seed, num_steps=1)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batches[0])

    def flops_per_step(self, batch: Shapes) -> int:
        """FLOPs of one training step.

        Three times the forward pass; rematerialisation does not count. Attention counts all pairs
        of positions, as is usual for MFU (Chowdhery et al. 2022, appendix B).

        Args:
            batch: shapes of the batch, over all hosts.
        """
        model = computing(self.model, attention="einsum", remat="none", vocab_multiple=1)
        return 3 * count_flops(
            lambda params, batch: self.task.losses(model, self.merged(params), batch, {}).objective,
            self.shapes.params,
            batch,
        )

    def create(self, key: jax.Array) -> states.TrainState:
        """The state before the first step."""
        params = nn.meta.unbox(initial_parameters(self.model, self.task, self.lora, key))
        return states.create(
            params,
            self.optimizer,
            key,
            average=not is_zero(self.train.ema_decay),
            trained=self.trained,
            precision=self.precision,
        )


def prepare(
    config: ConfigDict,
    workdir: Path | None = None,
    *,
    devices: Sequence[jax.Device] | None = None,
    shared: Shared | None = None,
    data: Dataset | None = None,
) -> Experiment:
    """Checks a config and builds what it describes, without allocating any parameter.

    Args:
        config: has the sections of `sections.SECTIONS`.
        workdir: an existing run folder whose tokenizer is used, if it has one.
        devices: the devices of the mesh; None takes all.
        shared: data that other runs of this process have already read.
        data: replaces the data that the task would read.

    Raises:
        ConfigError: if the config cannot work.
        DataError: if the data cannot be used.
    """
    check_sections(config)
    config = with_optional_sections(config)
    task: Task = build("task", config.task)
    train: Train = build("train", config.train)
    updates: Optimizer = build("optimizer", config.optimizer)
    # Sizes are checked once the data have decided them.
    require_fitting(task, build("model", config.model))
    mesh: jax.sharding.Mesh = build("mesh", config.mesh).make(devices)
    init: Initialization = build("init", config.init)
    lora: LoRA = build("lora", config.lora)
    check_dtype(config.model.compute.dtype)
    check_cast(train, config.model.compute.dtype, has_adapters=lora.rank > 0)
    data = _read_data(config, task, lora, workdir, shared, data)
    model = _checked_model(config, task, data, mesh)
    check_rows(data.batch_rows(), train.microbatches, mesh)

    clock = Clock(*data.pace())
    total, warmup = _durations(clock, train, updates)
    key = jax.eval_shape(lambda: jax.random.key(train.seed))
    boxed = parameter_shapes(model, task, lora)
    trained = _trained(boxed, lora, updates)
    precision = Precision(train.parameter_dtype, updates.moment_dtype)
    schedule = make_schedule(updates, warmup_steps=warmup, total_steps=total)
    optimizer = make_optimizer(updates, schedule, boxed, trained)
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
        precision=precision,
        shapes=_state_shapes(boxed, key, optimizer, train, (trained, precision), mesh),
    )


def _read_data(
    config: ConfigDict,
    task: Task,
    lora: LoRA,
    workdir: Path | None,
    shared: Shared | None,
    data: Dataset | None,
) -> Dataset:
    """Reads the data, unless they are given, and fills in the sizes that they decide.

    The tokenizer is that of this run, or of the run it begins from.
    """
    begun = _has_begun(workdir)
    # A run that has begun no longer needs the run it was initialized from.
    source = None if begun else _source(config, lora)
    begins_from = None if source is None else Path(config.init.workdir)
    if data is None and (begun or shared is None):
        data = task.load(workdir if begins_from is None else begins_from)
    elif data is None:
        key = ("data", begins_from, _without_numbers(config.task, task))
        data = shared.get_or_make(key, lambda: task.load(begins_from))
    _fill_sizes(config, task, data, source)
    return data


def _checked_model(config: ConfigDict, task: Task, data: Dataset, mesh: jax.sharding.Mesh) -> Model:
    """The model, which can do the job, with attention that its kernel can compute."""
    model: Model = build("model", config.model)
    task.check_model(model)
    if isinstance(data, ChecksFit):
        data.check_fit(model)

    def choose() -> None:
        model.chosen_attention(*task.example_inputs(model))

    # From shapes alone, as the devices need not be here.
    with jax.set_mesh(mesh):
        jax.eval_shape(choose)
    check_vocabulary(config.model.name, model)
    return model


def _has_begun(workdir: Path | None) -> bool:
    """Whether there are checkpoints. The tokenizer is written before them, so it exists then."""
    return workdir is not None and (workdir / FOLDER).is_dir()


def _fill_sizes(config: ConfigDict, task: Task, data: Dataset, source: ConfigDict | None) -> None:
    """Fills in the sizes of the model that the data decide.

    Raises:
        ConfigError: if a size in the config does not fit the data.
    """
    exact = task.EXACT_DIMENSIONS if isinstance(task, FixesDimensions) else ()
    for field, size in data.dimensions().items():
        chosen = config.model[field]
        if chosen is None:
            # An embedding table may have more rows than the tokenizer; keep its size.
            kept = source.model[field] if source is not None and field == "vocab_size" else None
            config.model[field] = max(size, kept or 0)
        elif field in exact and chosen != size:
            change = f", or have config.task.{field} bring the data to {chosen}"
            raise ConfigError(
                f"config.model.{field} is {chosen}, and the data have {size}: leave it out"
                f"{change if field in config.task else ''}."
            )
        elif chosen < size:
            raise ConfigError(
                f"config.model.{field} is {chosen}, smaller than the {size} of the data: "
                f"leave it out, or give at least {size}."
            )


def _durations(clock: Clock, train: Train, updates: Optimizer) -> tuple[int, int]:
    """The steps of the whole run, and of its warmup."""
    total = clock.steps(train.duration, key="train.duration")
    warmup = clock.steps(updates.warmup, key="optimizer.warmup", total=total)
    check_steps(**{"train.duration": total, "optimizer.warmup": warmup})
    return total, warmup


def _without_numbers(section: ConfigDict, made: Task) -> str:
    """A section as text, without the numbers that programs take as arguments."""
    numbers = traced_fields(made)
    values = flattened(section)
    return str([(key, values[key]) for key in sorted(values) if key not in numbers])


def _source(config: ConfigDict, lora: LoRA) -> ConfigDict | None:
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


def _trained(boxed: Boxed, lora: LoRA, optimizer: Optimizer) -> Chooser:
    """Which parameters are trained."""
    if lora.rank and optimizer.frozen:
        raise ConfigError(
            "config.optimizer.frozen has no effect with config.lora.rank: only the adapters and "
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


def initial_parameters(model: Model, task: Task, lora: LoRA, key: jax.Array) -> Boxed:
    """Initial parameters and new adapters, boxed with the logical names of their axes."""
    key = without_loop(key)
    boxed = model.init(key, *task.example_inputs(model), method=task.entry)["params"]
    return with_adapters(boxed, lora, jax.random.fold_in(key, 1))


@functools.lru_cache(maxsize=16)
def parameter_shapes(model: Model, task: Task, lora: LoRA) -> Boxed:
    """Shapes and dtypes of `initial_parameters`; traced once, however many runs are opened."""
    return jax.eval_shape(lambda: initial_parameters(model, task, lora, jax.random.key(0)))


def _state_shapes(
    boxed: Boxed,
    key: jax.ShapeDtypeStruct,
    optimizer: optax.GradientTransformation,
    train: Train,
    kept: tuple[Chooser, Precision],
    mesh: jax.sharding.Mesh,
) -> states.TrainState:
    """Shapes, dtypes and shardings of the train state."""
    make = functools.partial(
        states.create,
        average=not is_zero(train.ema_decay),
        trained=kept[0],
        precision=kept[1],
    )
    shapes = jax.eval_shape(
        lambda params, key: make(params, optimizer, key),
        nn.meta.unbox(boxed),
        key,
    )
    return _place(shapes, sharding.shardings_of(mesh, boxed), sharding.replicated(mesh))


def _place(shapes: states.TrainState, shardings: Params, other: NamedSharding) -> PyTree:
    """Adds shardings to shapes: whatever mirrors a parameter is sharded as the parameter.

    The optimizer's moments are recognized by their path, which ends with the parameter's path.

    Args:
        shapes: shapes of the state.
        shardings: shardings of the parameters.
        other: the sharding of everything else.
    """
    places = zip(
        jax.tree_util.tree_leaves_with_path(shapes.params), jax.tree.leaves(shardings), strict=True
    )
    known = [(jax.tree_util.keystr(path), leaf.shape, place) for (path, leaf), place in places]
    known.sort(key=lambda row: len(row[0]), reverse=True)
    leaves, structure = jax.tree_util.tree_flatten_with_path(shapes)
    placed = []
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path)
        fitting = (to for end, shape, to in known if name.endswith(end) and shape == leaf.shape)
        sharding = next(fitting, other)
        placed.append(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding))
    return jax.tree_util.tree_unflatten(structure, placed)
