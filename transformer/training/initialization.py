"""Parameters from another run, instead of random ones: `config.init`.

Every parameter is accounted for: loaded, made anew, or left in the checkpoint. What is neither
expected to be new nor found as it should be stops the run.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from transformer import models
from transformer.errors import ConfigError, WorkdirError
from transformer.limits import FilePath, Text
from transformer.nn.layouts import laid_out_like
from transformer.sections import plugin
from transformer.tasks.parts.labels import LABELS_FILE, load_labels
from transformer.training.selection import (
    ADAPTERS,
    Chooser,
    by_path,
    compiled_pattern,
    from_paths,
)

# Fields of a model that change how it computes or begins, not which parameters it has.
_FREE = ("dropout_rate", "dtype", "remat", "attention", "num_outputs", "vocab_size", "name")
_FREE += ("position_init", "channels", "scan_layers")


@dataclasses.dataclass(frozen=True)
class Initialization:
    """Fields of `config.init`.

    Attributes:
        workdir: the run to take parameters and tokenizer from; empty begins with random ones.
        checkpoint: `best`, `last`, a step, or `last:N`; see `training.runs.open_run`.
        fresh: pattern of the parameters that are made anew even if the run has them. Empty takes
            all that the run has. Left out, these are the heads that the run has in another shape,
            and output layers of labels where the run had another job or other labels; output
            layers of a vocabulary are kept.
        new: pattern of the parameters that the run may lack. Left out, these are the model's heads
            and adapters.
    """

    workdir: FilePath = ""
    checkpoint: Text = "best"
    fresh: Text | None = None
    new: Text | None = None

    def check(self) -> None:
        """Refuses values that cannot work.

        Raises:
            ConfigError: naming the field.
        """
        for field in ("fresh", "new"):
            compiled_pattern(getattr(self, field) or "", f"init.{field}")


class Heads(NamedTuple):
    """What the job decides of the parameters to begin with, where the config leaves it open.

    Attributes:
        modules: that only some jobs have.
        outputs: those of them whose outputs are labels.
        difference: in what those labels differ from the run's; empty where they do not.
    """

    modules: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    difference: str = ""


# All parameters are of the model itself.
NO_HEADS = Heads()


def heads_of(config: Any, source: Any, names: Sequence[str] | None) -> Heads:
    """The heads of a run that begins from another of the same model.

    Args:
        config: of this run.
        source: of the other.
        names: of the outputs in the order of this run's data; None where they have none.
    """
    model = plugin(models, config.model.name, "config.model.name")
    modules, outputs = (getattr(model, field, ()) for field in ("HEADS", "LABEL_HEADS"))
    theirs = Path(config.init.workdir) / LABELS_FILE
    difference = ""
    if source.task.name != config.task.name:
        difference = f"the job of the run is {source.task.name}"
    elif names is not None and theirs.exists() and load_labels(theirs.parent) != tuple(names):
        difference = "the labels of the run are others"
    return Heads(modules, outputs, difference)


def check_same_model(config: Any, source: Any) -> None:
    """Refuses a model whose parameters cannot be those of another run.

    Args:
        config: of this run.
        source: of the run to begin from.

    Raises:
        ConfigError: saying which flags make it the same.
    """
    name, workdir = source.model.name, config.init.workdir
    free = _FREE + getattr(plugin(models, name, "config.model.name"), "ADAPTABLE", ())
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
    new: Any,
    saved: Any,
    options: Initialization,
    refit: Callable[[str, Any], Any] | None = None,
    heads: Heads = NO_HEADS,
) -> tuple[Any, str]:
    """Parameters to begin with.

    Args:
        new: random ones, on the devices where they belong.
        saved: those of the other run.
        options: of the config.
        refit: makes a saved parameter, by path, fit a model of another size, if it can.
        heads: decide what the options leave open.

    Returns:
        The parameters, and a text that accounts for each: what was loaded, what is new, what was
        not used.

    Raises:
        WorkdirError: if a parameter is missing or of another shape and is not expected to be new,
            or if nothing fits.
    """
    wanted = by_path(new)
    # The layout of layers is that of this run, whichever the other has.
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
    rows = (("loaded", list(loaded)), ("new", made), ("not used", unused), ("resized", refitted))
    lines = [f"Parameters from {options.workdir}:"]
    lines += [
        f"  {word:<9}{len(paths):>4}  {_summary(paths)}"
        for word, paths in rows
        if paths or word != "resized"
    ]
    return from_paths({**wanted, **loaded}), "\n".join(lines + notes)


def _expected(
    wanted: dict[str, Any], found: dict[str, Any], options: Initialization, heads: Heads
) -> tuple[Chooser, Chooser, list[str]]:
    """Which parameters are made anew, which the run may lack, and why heads are new, for people."""
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


def _reason(module: str, wanted: dict[str, Any], found: dict[str, Any], heads: Heads) -> str:
    """Why a head that the run has is made anew: it is loaded whole or not at all."""
    if module in heads.outputs and heads.difference:
        return heads.difference
    ours, theirs = (
        {path: leaf.shape for path, leaf in flat.items() if _module(path) == module}
        for flat in (wanted, found)
    )
    return "" if ours == theirs else "that of the run has another shape"


def _matching(pattern: str, field: str) -> Chooser:
    """Chooses the paths that match a pattern, which need not match any; none if it is empty."""
    compiled = compiled_pattern(pattern, field)
    return lambda path: bool(pattern and compiled.search(path))


def _module(path: str) -> str:
    """The outermost module that a parameter belongs to."""
    return path.partition("/")[0]


def _summary(paths: list[str]) -> str:
    """The modules that paths belong to, with the number of parameters in each."""
    counts: dict[str, int] = {}
    for path in paths:
        module = _module(path)
        counts[module] = counts.get(module, 0) + 1
    return ", ".join(f"{module} ({count})" for module, count in counts.items()) or "-"
