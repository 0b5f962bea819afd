"""Exports a trained run as a folder that the library `transformers` can load."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

from transformer.checks import require_writable_folder
from transformer.composition import config_fields
from transformer.errors import ConfigError, WorkdirError
from transformer.files import making_folder, write_json
from transformer.interop.family import Trained
from transformer.interop.formats.safetensors import INDEX_FILE, MODEL_FILE, write_safetensors
from transformer.interop.layout import Entry, write_entries
from transformer.interop.opening import family_for
from transformer.nn.compute import computing
from transformer.nn.layouts import unstacked
from transformer.tasks.parts.labels import load_labels
from transformer.tasks.parts.models import Model
from transformer.tasks.parts.tokenizers import require_same_tokenizer
from transformer.training.parameters import read_parameters
from transformer.training.saved_runs import read_run
from transformer.training.sections import build
from transformer.training.selection import by_path
from transformer.types import Json

DTYPES: dict[str, type[np.generic]] = {
    "float32": np.float32,
    "bfloat16": ml_dtypes.bfloat16,
    "float16": np.float16,
}
# Their loaders require this entry; it marks arrays in PyTorch's format.
_METADATA = {"format": "pt"}


def export_run(
    workdir: Path,
    target: Path,
    *,
    checkpoint: str = "best",
    dtype: str = "float32",
    shard_bytes: int = 4 << 30,
) -> Json:
    """Writes a run's model as `config.json`, safetensors and the files that prepare inputs.

    Args:
        workdir: the run folder.
        target: the folder to create; must be empty or missing. It is written completely or not at
            all.
        checkpoint: see `runs.open_run`. Adapters are merged.
        dtype: dtype of the weights, a name in `DTYPES`; float32 keeps every bit.
        shard_bytes: maximum size of one file of weights, unless a single array is larger.

    Returns:
        The content of `config.json`, `num_arrays`, and `notes`: sentences about what the run does
        but the exported folder does not.

    Raises:
        ConfigError: if there is no published format for the model, or a number is too large for
            the dtype.
        WorkdirError: if the run cannot be opened, or the target is not empty.
    """
    require_writable_folder(target, "--target")
    if target.exists() and any(target.iterdir()):
        raise WorkdirError(f"{target} is not an empty folder: give a new --target.")
    config = read_run(workdir)
    task, model = build("task", config.task), build("model", config.model)
    found = read_parameters(workdir, checkpoint)
    require_same_tokenizer(task, workdir, found.metadata["data_fingerprint"])
    params = {path: np.asarray(x) for path, x in by_path(unstacked(found.params)).items()}
    labels = load_labels(workdir) if (workdir / "labels.json").exists() else ()
    model = computing(model, scan_layers=False).clone(**_decided(model, params))
    family = family_for(config.model.name, model)
    trained = Trained(config.task.name, task, model, frozenset(params), labels, workdir)
    content = family.config(trained) | {"dtype": dtype}
    entries = [e for e in family.entries(model) if all(path in params for path in e.paths)]
    _require_all(entries, params, workdir)

    with making_folder(target) as part:
        arrays = (
            (name, _converted(name, array, dtype))
            for name, array in (
                (family.exported(ours, model, config.task.name), array)
                for ours, array in write_entries(entries, params)
            )
        )
        count = _write_weights(arrays, part, shard_bytes)
        write_json(part / "config.json", content)
        notes = family.beside(trained, part)
    return content | {"num_arrays": count, "notes": notes}


def _converted(name: str, array: np.ndarray, dtype: str) -> np.ndarray:
    """Converts an array to another dtype.

    Raises:
        ConfigError: if a number is too large for the dtype.
    """
    # NumPy would warn of numbers that overflow to infinity; they are refused below.
    with np.errstate(over="ignore"):
        result = array.astype(DTYPES[dtype])
    lost = np.isfinite(array) & ~np.isfinite(result.astype(np.float32))
    if lost.any():
        raise ConfigError(
            f"{name} has the number {array[lost][0]:g}, which is too large for {dtype}: export as "
            f"bfloat16 or float32."
        )
    return result


def _decided(model: Model, params: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Fields of the model that its data decided, read off its parameters."""
    shown = {
        "vocab_size": ("token_embedding/embedding", 0),
        "num_outputs": ("output/bias", 0),
    }
    known = config_fields(type(model))
    return {
        field: params[path].shape[axis]
        for field, (path, axis) in shown.items()
        if field in known and path in params
    }


def _require_all(entries: list[Entry], params: Mapping[str, np.ndarray], workdir: Path) -> None:
    """Refuses a model with parameters that the published format cannot hold.

    Raises:
        WorkdirError: names some of them.
    """
    written = {path for entry in entries for path in entry.paths}
    left = [path for path in params if path not in written]
    if left:
        raise WorkdirError(
            f"the model of {workdir} has parameters that published models do not have: "
            f"{', '.join(left[:5])}."
        )


def _write_weights(arrays: Iterator[tuple[str, np.ndarray]], folder: Path, shard_bytes: int) -> int:
    """Writes one file, or several with an index; returns the number of arrays."""
    shards: list[tuple[Path, list[str]]] = []
    total, size = 0, 0
    held: dict[str, np.ndarray] = {}

    def write() -> None:
        path = folder / f"part-{len(shards)}.safetensors"
        write_safetensors(held, path, _METADATA)
        shards.append((path, list(held)))
        held.clear()

    for name, array in arrays:
        if held and size + array.nbytes > shard_bytes:
            write()
            size = 0
        held[name] = array
        size += array.nbytes
        total += array.nbytes
    write()
    if len(shards) == 1:
        shards[0][0].rename(folder / MODEL_FILE)
        return len(shards[0][1])
    where = {}
    for index, (path, names) in enumerate(shards, 1):
        name = f"model-{index:05}-of-{len(shards):05}.safetensors"
        path.rename(folder / name)
        where |= dict.fromkeys(names, name)
    write_json(folder / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": where})
    return len(where)
