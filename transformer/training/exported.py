"""A trained run as a folder that the library `transformers` loads."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from transformer.config import build, with_optional_sections
from transformer.data.byte_pieces import BytePieceTokenizer
from transformer.data.pieces import EncoderTokenizer
from transformer.data.tokenizers import TOKENIZER_FILE, Tokenizer
from transformer.errors import WorkdirError
from transformer.interop.families import family_for
from transformer.interop.layout import Entry, write_entries
from transformer.interop.published import Head
from transformer.interop.safetensors_files import INDEX_FILE, MODEL_FILE, write_safetensors
from transformer.models.base_encoder_decoder import EncoderDecoder
from transformer.tasks.base_encoder import EncoderTask
from transformer.tasks.base_labels import load_labels
from transformer.training.experiment import read_config
from transformer.training.exported_sentences import write_sentences
from transformer.training.layers import unstacked
from transformer.training.runs import read_parameters
from transformer.training.selection import by_path

DTYPES: dict[str, Any] = {
    "float32": np.float32,
    "bfloat16": ml_dtypes.bfloat16,
    "float16": np.float16,
}
# What their loaders ask for; the numbers are those of PyTorch.
_METADATA = {"format": "pt"}


def export_run(
    workdir: Path,
    target: Path,
    *,
    checkpoint: str = "best",
    dtype: str = "float32",
    shard_bytes: int = 4 << 30,
) -> dict[str, Any]:
    """Writes a run's model as `config.json`, safetensors and what prepares inputs.

    Args:
        workdir: the run.
        target: the folder to make; it must be empty or missing. It is there as a whole or not.
        checkpoint: see `runs.open_run`. Adapters are worked in.
        dtype: of the numbers, a name in `DTYPES`; float32 keeps every bit.
        shard_bytes: of one file of weights at most, unless one array is larger.

    Returns:
        What `config.json` says, `num_arrays`, and `notes`: what the run does and the folder does
        not, in sentences.

    Raises:
        ConfigError: if nobody publishes such models.
        WorkdirError: if the run cannot be opened, or the target holds something.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise WorkdirError(f"{target} is not an empty folder: give a new --target.")
    config: Any = with_optional_sections(read_config(workdir))
    task, model = build("task", config.task), build("model", config.model)
    found = read_parameters(workdir, checkpoint)
    task.check_run(workdir, found.metadata["data_fingerprint"])
    params: Any = {path: np.asarray(x) for path, x in by_path(unstacked(found.params)).items()}
    labels = load_labels(workdir) if (workdir / "labels.json").exists() else ()
    model = model.clone(scan_layers=False, **_decided(model, params))
    family = family_for(config.model.name, model)
    tokenizer = task.load_tokenizer(workdir) if isinstance(task, EncoderTask) else None
    preparation = {} if tokenizer is None else {"pad": tokenizer.pad}
    sentences: Any = task.load_tokenizer(workdir) if isinstance(model, EncoderDecoder) else None
    preparation |= {} if sentences is None else {"end": sentences.end}
    head = Head(config.task.name, labels, preparation)
    content = family.config(model, head, params.keys()) | {"dtype": dtype}
    entries = [e for e in family.entries(model) if all(path in params for path in e.paths)]
    _require_all(entries, params, workdir)

    notes: tuple[str, ...] = ()
    target = target.absolute()
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        arrays = (
            (family.exported(name, model, config.task.name), array.astype(DTYPES[dtype]))
            for name, array in write_entries(entries, params)
        )
        count = _write_weights(arrays, part, shard_bytes)
        _write_json(part / "config.json", content)
        if sentences is None:
            _write_preparation(task, tokenizer, getattr(model, "context", None), workdir, part)
        else:
            notes = write_sentences(task, model, sentences, part)
        if target.exists():
            target.rmdir()
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return content | {"num_arrays": count, "notes": list(notes)}


def _decided(model: Any, params: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Fields of the model that its data decided, as its parameters show."""
    shown = {
        "vocab_size": ("token_embedding/embedding", 0),
        "num_outputs": ("output/bias", 0),
    }
    return {
        field: params[path].shape[axis]
        for field, (path, axis) in shown.items()
        if hasattr(model, field) and path in params
    }


def _require_all(entries: list[Entry], params: Mapping[str, Any], workdir: Path) -> None:
    """Refuses a model with parameters that have no place in what is published.

    Raises:
        WorkdirError: naming some.
    """
    written = {path for entry in entries for path in entry.paths}
    left = [path for path in params if path not in written]
    if left:
        raise WorkdirError(
            f"the model of {workdir} has parameters for which published models have no place: "
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
    _write_json(folder / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": where})
    return len(where)


def _write_preparation(
    task: Any, tokenizer: EncoderTokenizer | None, context: int | None, workdir: Path, folder: Path
) -> None:
    """Writes what prepares inputs: the tokenizer, or what pixels are normalised by."""
    if (workdir / TOKENIZER_FILE).exists():
        shutil.copy(workdir / TOKENIZER_FILE, folder)
        words = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": context}
        words |= _special_tokens(task, tokenizer)
        _write_json(folder / "tokenizer_config.json", words)
    if hasattr(task, "mean") and hasattr(task, "std"):
        side = {"height": task.image_size, "width": task.image_size}
        pixels = {"image_processor_type": "ViTImageProcessor", "size": side, "do_resize": True}
        pixels |= {"do_normalize": True, "do_rescale": True, "rescale_factor": 1 / 255}
        pixels |= {"image_mean": list(task.mean), "image_std": list(task.std)}
        _write_json(folder / "preprocessor_config.json", pixels)
    if getattr(task, "stop", ""):
        end = Tokenizer.load(workdir / TOKENIZER_FILE).index(task.stop)
        if end is not None:
            _write_json(folder / "generation_config.json", {"eos_token_id": end})


def _special_tokens(task: Any, tokenizer: EncoderTokenizer | None) -> dict[str, Any]:
    """Tokens that other programs ask for by what they are for."""
    if tokenizer is None:
        return {"eos_token": task.stop} if getattr(task, "stop", "") else {}
    names = tokenizer.names
    types = ["token_type_ids"] if tokenizer.second_type else []
    found = {
        "model_input_names": ["input_ids", *types, "attention_mask"],
        "pad_token": names.pad,
        "unk_token": names.unknown,
        "cls_token": names.start,
        "sep_token": names.separator,
        "mask_token": names.mask,
        "do_lower_case": tokenizer.lowercase,
    }
    if isinstance(tokenizer, BytePieceTokenizer):
        # RoBERTa calls two of them by further names.
        found |= {"bos_token": names.start, "eos_token": names.separator}
    return found


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
