"""Initialization from the parameters of another run: `config.init`.

Every parameter is accounted for: loaded, made anew, or left in the checkpoint. A parameter that is
neither expected to be new nor found with the right shape stops the run.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array
from ml_collections import ConfigDict

from transformer import models
from transformer.errors import ConfigError, WorkdirError
from transformer.limits import FilePath, Text
from transformer.nn.layouts import laid_out_like
from transformer.sections import plugin
from transformer.tasks.parts.labels import LABELS_FILE, load_labels
from transformer.tasks.parts.models import HasHeads, Refits
from transformer.training.selection import (
    ADAPTERS,
    Chooser,
    by_path,
    compiled_pattern,
    from_paths,
)
from transformer.types import ByPath, Params

# Fields of a model that change how it computes or is initialized, but not which parameters it has.
_FREE = ("compute", "dropout_rate", "num_outputs", "vocab_size", "name", "channels")
# What parameters begin with where they are not taken over.
_FREE += ("init_scale", "position_init", "position_init_scale")


@dataclasses.dataclass(frozen=True)
class Initialization:
    """What training begins from; its fields are `config.init`.

    Attributes:
        workdir: the run to take parameters and tokenizer from; empty begins with random parameters.
        checkpoint: `best`, `last`, a step, or `last:N`; see `training.runs.open_run`.
        fresh: pattern of the parameters that are made anew even if the run has them. Empty loads
            all that the run has. Left out, it selects heads of another shape than in the run, and
            output layers of labels if the run had another job or other labels; output layers of a
            vocabulary are kept.
        new: pattern of the parameters that the run may lack. Left out, it selects the model's
            heads and adapters.
    """

    workdir: FilePath = ""
    checkpoint: Text = "best"
    fresh: Text | None = None
    new: Text | None = None

    def check(self) -> None:
        """Refuses values that cannot work."""
        compiled_pattern(self.fresh or "", "init.fresh")
        compiled_pattern(self.new or "", "init.new")


class Heads(NamedTuple):
    """Which parameters the job lets differ from the other run, if the config does not say.

    Attributes:
        modules: modules that only some jobs have.
        outputs: those modules whose outputs are labels.
        difference: how those labels differ from the run's; empty if they are the same.
    """

    modules: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    difference: str = ""


# All parameters belong to the model itself.
NO_HEADS = Heads()


def heads_of(config: ConfigDict, source: ConfigDict, names: Sequence[str] | None) -> Heads:
    """The heads of a run that begins from another run of the same model.

    Args:
        config: the config of this run.
        source: the config of the other run.
        names: the names of the outputs in the order of this run's data; None if they have none.
    """
    model = plugin(models, config.model.name, "config.model.name")
    modules, outputs = (model.HEADS, model.LABEL_HEADS) if isinstance(model, HasHeads) else ((), ())
    theirs = Path(config.init.workdir) / LABELS_FILE
    difference = ""
    if source.task.name != config.task.name:
        difference = f"the job of the run is {source.task.name}"
    elif names is not None and theirs.exists() and load_labels(theirs.parent) != tuple(names):
        difference = "the labels of the run are others"
    return Heads(modules, outputs, difference)


def check_same_model(config: ConfigDict, source: ConfigDict) -> None:
    """Refuses a model that cannot take over the parameters of another run.

    Args:
        config: the config of this run.
        source: the config of the run to begin from.

    Raises:
        ConfigError: lists the flags that make the model the same.
    """
    name, workdir = source.model.name, config.init.workdir
    model = plugin(models, name, "config.model.name")
    free = _FREE + (model.ADAPTABLE if isinstance(model, Refits) else ())
    if config.model.name != name:
        raise ConfigError(
            f"config.init.workdir is {workdir}, a run of the model {name}, and config.model.name "
            f"is {config.model.name}: a model can only begin from one of its own kind."
        )
    other = {
        f"config.model.{key}": source.model[key]
        for key in sorted(source.model)
        if key not in free and key in config.model and config.model[key] != source.model[key]
    }
    if other:
        # No flag can say None.
        advice = [f"leave out {key}" for key, value in other.items() if value is None]
        flags = [f"--{key}={value}" for key, value in other.items() if value is not None]
        if flags:
            advice.append(f"add {' '.join(flags)}")
        raise ConfigError(
            f"the model of config.init.workdir, {workdir}, is another than config.model: to begin "
            f"from it, {' and '.join(advice)}"
        )


def initialized(
    new: Params,
    saved: Params,
    options: Initialization,
    refit: Callable[[str, Array], Array] | None = None,
    heads: Heads = NO_HEADS,
) -> tuple[Params, str]:
    """The parameters at which training begins.

    Args:
        new: random parameters, on their devices.
        saved: the parameters of the other run.
        options: `config.init`.
        refit: adapts a saved parameter, given its path, to a model of another size if possible.
        heads: the defaults for what the options leave open.

    Returns:
        The parameters, and a text that says which were loaded, which are new and which were not
        used.

    Raises:
        WorkdirError: if a parameter that is not expected to be new is missing or has another
            shape, or if nothing fits.
    """
    wanted = by_path(new)
    # Convert the other run's layout of layers to that of this run.
    found = by_path(laid_out_like(saved, new))
    is_fresh, may_lack, notes = _expected(wanted, found, options, heads)
    loaded, refitted, made, problems = {}, [], [], []
    for path, leaf in wanted.items():
        theirs = found.get(path)
        if theirs is not None and theirs.shape != leaf.shape and refit is not None:
            other = refit(path, theirs)
            if other.shape == leaf.shape:
                theirs = other
                refitted.append(path)
        if is_fresh(path):
            made.append(path)
        elif theirs is None:
            made.append(path)
            if not may_lack(path):
                problems.append(f"  {path} {list(leaf.shape)} is not in the run")
        elif theirs.shape != leaf.shape or theirs.dtype != leaf.dtype:
            problems.append(
                f"  {path} is {theirs.dtype}{list(theirs.shape)} in the run, "
                f"{leaf.dtype}{list(leaf.shape)} here"
            )
        else:
            loaded[path] = jax.device_put(np.asarray(theirs), leaf.sharding)
    if problems or not loaded:
        raise WorkdirError(
            f"the parameters of {options.workdir} do not fit:\n"
            + "\n".join(problems or ["  none of them is wanted here"])
            + "\nWhere a parameter should be made anew, config.init.new or config.init.fresh must "
            "match its path."
        )
    unused = [path for path in found if path not in loaded]
    rows = {"loaded": list(loaded), "new": made, "not used": unused, "resized": refitted}
    return from_paths({**wanted, **loaded}), _account(options.workdir, rows, notes)


def _account(workdir: str, rows: dict[str, list[str]], notes: list[str]) -> str:
    """A report of what became of each parameter."""
    lines = [f"Parameters from {workdir}:"]
    lines += [
        f"  {word:<9}{len(paths):>4}  {_summary(paths)}"
        for word, paths in rows.items()
        if paths or word != "resized"
    ]
    return "\n".join(lines + notes)


def _expected(
    wanted: ByPath, found: ByPath, options: Initialization, heads: Heads
) -> tuple[Chooser, Chooser, list[str]]:
    """Which parameters are made anew, which the run may lack, and messages why heads are new."""
    reasons: dict[str, str] = {}
    if options.fresh is None:
        both = {_module(path) for path in wanted} & {_module(path) for path in found}
        whys = {name: _reason(name, wanted, found, heads) for name in heads.modules if name in both}
        reasons = {module: why for module, why in whys.items() if why}
        is_fresh = _one_of(reasons)
    else:
        is_fresh = _matching(options.fresh, "init.fresh")
    if options.new is None:
        may_lack = _one_of((*heads.modules, ADAPTERS))
    else:
        may_lack = _matching(options.new, "init.new")
    return is_fresh, may_lack, [f"  {module} is new: {why}." for module, why in reasons.items()]


def _one_of(modules: Iterable[str]) -> Chooser:
    """Chooses the parameters of some modules."""
    names = frozenset(modules)
    return lambda path: _module(path) in names


def _reason(module: str, wanted: ByPath, found: ByPath, heads: Heads) -> str:
    """Why a head that the run has is made anew; a head is loaded whole or not at all."""
    if module in heads.outputs and heads.difference:
        return heads.difference
    ours, theirs = (
        {path: leaf.shape for path, leaf in flat.items() if _module(path) == module}
        for flat in (wanted, found)
    )
    return "" if ours == theirs else "that of the run has another shape"


def _matching(pattern: str, field: str) -> Chooser:
    """Chooses the paths that match a pattern, possibly none; an empty pattern chooses none."""
    compiled = compiled_pattern(pattern, field)
    return lambda path: bool(pattern and compiled.search(path))


def _module(path: str) -> str:
    """The outermost module that a parameter belongs to."""
    return path.partition("/")[0]


def _summary(paths: list[str]) -> str:
    """The modules of the paths, with the number of parameters in each."""
    counts: dict[str, int] = {}
    for path in paths:
        module = _module(path)
        counts[module] = counts.get(module, 0) + 1
    return ", ".join(f"{module} ({count})" for module, count in counts.items()) or "-"
