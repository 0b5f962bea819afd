"""Parameters from another run, instead of random ones: `config.init`.

Every parameter is accounted for: loaded, made anew, or left in the checkpoint. What is neither
expected to be new nor found as it should be stops the run.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from transformer.config import owner
from transformer.errors import ConfigError, WorkdirError
from transformer.training.layers import laid_out
from transformer.training.selection import by_path, compiled_pattern, from_paths

# Fields of a model that change how it computes or begins, not which parameters it has.
_FREE = ("dropout_rate", "dtype", "remat", "attention", "num_outputs", "vocab_size", "name")
_FREE += ("position_init", "channels", "scan_layers")


@dataclasses.dataclass(frozen=True)
class Initialization:
    """Fields of `config.init`.

    Attributes:
        workdir: the run to take parameters and tokenizer from; empty begins with random ones.
        checkpoint: `best`, `last`, a step, or `last:N`; see `training.runs.open_run`.
        fresh: pattern of the parameters that are made anew even if the run has them: the head of
            another job. Empty takes all that the run has.
        new: pattern of the parameters that the run may lack.
    """

    workdir: str = ""
    checkpoint: str = "best"
    fresh: str = "^output/"
    new: str = "^(output|pooler|masked_token|next_sentence|decoder|lora)/"

    def check(self) -> None:
        """Refuses values that cannot work.

        Raises:
            ConfigError: naming the field.
        """
        compiled_pattern(self.fresh, "init.fresh")
        compiled_pattern(self.new, "init.new")


def check_same_model(config: Any, source: Any) -> None:
    """Refuses a model whose parameters cannot be those of another run.

    Args:
        config: of this run.
        source: of the run to begin from.

    Raises:
        ConfigError: saying which flags make it the same.
    """
    name, workdir = source.model.name, config.init.workdir
    free = _FREE + getattr(owner("model", name), "ADAPTABLE", ())
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
) -> tuple[Any, str]:
    """Parameters to begin with.

    Args:
        new: random ones, on the devices where they belong.
        saved: those of the other run.
        options: of the config.
        refit: makes a saved parameter, by path, fit a model of another size, if it can.

    Returns:
        The parameters, and a text that accounts for each: what was loaded, what is new, what was
        not used.

    Raises:
        WorkdirError: if a parameter is missing or of another shape and is not expected to be new,
            or if nothing fits.
    """
    fresh = compiled_pattern(options.fresh, "init.fresh") if options.fresh else None
    may_lack = compiled_pattern(options.new, "init.new") if options.new else None
    wanted = by_path(new)
    # The layout of layers is that of this run, whichever the other has.
    found = by_path(laid_out(saved, scanned=any("/layers/" in path for path in wanted)))
    loaded, refitted, made, problems = {}, [], [], []
    for path, leaf in wanted.items():
        theirs = found.get(path)
        if theirs is not None and theirs.shape != leaf.shape and refit is not None:
            other = refit(path, theirs)
            if other.shape == leaf.shape:
                theirs = other
                refitted.append(path)
        if fresh is not None and fresh.search(path):
            made.append(path)
        elif theirs is None:
            made.append(path)
            if may_lack is None or not may_lack.search(path):
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
    return from_paths({**wanted, **loaded}), "\n".join(lines)


def _summary(paths: list[str]) -> str:
    """The modules that paths belong to, with the number of parameters in each."""
    counts: dict[str, int] = {}
    for path in paths:
        module = path.split("/")[0]
        counts[module] = counts.get(module, 0) + 1
    return ", ".join(f"{module} ({count})" for module, count in counts.items()) or "-"
