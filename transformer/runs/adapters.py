"""Saves adapters without their model, and merges them into it later."""

import json
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from transformer.errors import ConfigError, DataError, WorkdirError
from transformer.interop.formats.safetensors import (
    read_metadata,
    read_safetensors,
    write_safetensors,
)
from transformer.runs.folders import require_new, write_run
from transformer.tasks.parts.abilities import Tokenized
from transformer.tasks.parts.labels import LABELS_FILE
from transformer.training.lora import ADAPTERS, LoRA, merged
from transformer.training.parameters import read_parameters
from transformer.training.saved_arrays import fingerprints
from transformer.training.saved_runs import read_run
from transformer.training.sections import build, saved_config, with_optional_sections
from transformer.training.selection import by_path, compiled_pattern, from_paths
from transformer.types import ByPath


class Saved(NamedTuple):
    """How many numbers were written, and how many the whole model has."""

    adapter: int
    model: int


def save_adapter(workdir: Path, path: Path, checkpoint: str = "best") -> Saved:
    """Writes the adapters of a run and its other trained parameters to a safetensors file.

    Args:
        workdir: the folder of a run with `config.lora.rank`.
        path: the file to write.
        checkpoint: as in `runs.open_run`.

    Raises:
        ConfigError: if the run has no adapters.
    """
    config = read_run(workdir)
    lora: LoRA = build("lora", config.lora)
    if not lora.rank:
        raise ConfigError(f"{workdir} has no adapters: config.lora.rank is 0.")
    found = read_parameters(workdir, checkpoint, merge=False)
    flat = by_path(found.params)
    trained, base = _divided(flat, lora)
    labels = workdir / LABELS_FILE
    metadata = {
        "config": json.dumps(config.to_dict()),
        "labels": labels.read_text("utf-8") if labels.exists() else "[]",
        "base": json.dumps(_prints(base)),
        "data_fingerprint": found.metadata["data_fingerprint"],
    }
    write_safetensors({name: np.asarray(x) for name, x in trained.items()}, path, metadata)
    return Saved(sum(x.size for x in trained.values()), sum(x.size for x in base.values()))


def merge_adapter(base: Path, adapter: Path, workdir: Path, checkpoint: str = "best") -> None:
    """Writes a run with adapters merged into the model's parameters.

    Args:
        base: the run that the adapters were trained from.
        adapter: a file written by `save_adapter`.
        workdir: the folder to create.
        checkpoint: which checkpoint of `base`.

    Raises:
        DataError: if the file holds no adapters.
        WorkdirError: if they belong to other parameters, or the folder is not empty.
    """
    require_new(workdir)
    metadata = read_metadata(adapter)
    if not {"config", "labels", "base", "data_fingerprint"} <= metadata.keys():
        raise DataError(f"{adapter} was not written by scripts/adapters.py: it has no config.")
    config = with_optional_sections(saved_config(json.loads(metadata["config"])))
    lora: LoRA = build("lora", config.lora)
    trained = {name: jnp.asarray(x) for name, x in read_safetensors(adapter).items()}
    prints = json.loads(metadata["base"])
    theirs = by_path(read_parameters(base, checkpoint).params)
    kept = {path: x for path, x in theirs.items() if path in prints}
    found = _prints(kept)
    different = [path for path in prints if found.get(path) != prints[path]]
    if different:
        raise WorkdirError(
            f"{adapter} was trained from other parameters than those of {base} ({different[0]} "
            f"differs or is missing): give the run, and the --checkpoint, that config.init named."
        )
    params = merged(from_paths({**kept, **trained}), lora)
    config.lora.rank = 0
    config.init.workdir = ""
    # If there was a moving average, the merged parameters are the average; keep no second one.
    config.train.ema_decay = 0.0
    task: Tokenized = build("task", config.task)
    write_run(
        workdir,
        config,
        params,
        tokenizer=task.load_tokenizer(base),
        labels=tuple(json.loads(metadata["labels"])),
        fingerprint=metadata["data_fingerprint"],
    )


def _prints(flat: ByPath) -> dict[str, int]:
    """A fingerprint of each parameter, by path."""
    return {path.removeprefix("/"): value for path, value in fingerprints(flat).items()}


def _divided(flat: ByPath, lora: LoRA) -> tuple[ByPath, ByPath]:
    """Splits parameters into those that were trained and the others."""
    also = compiled_pattern(lora.trained, "lora.trained")
    trained = {
        path: x
        for path, x in flat.items()
        if path.startswith(f"{ADAPTERS}/") or (lora.trained and also.search(path))
    }
    return trained, {path: x for path, x in flat.items() if path not in trained}
