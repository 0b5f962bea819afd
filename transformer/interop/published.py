"""Reads published checkpoints of any family."""

import functools
import re
from collections.abc import Mapping
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np

from transformer.data.reading import bounds
from transformer.data.reading.json_text import shown
from transformer.errors import ConfigError, DataError
from transformer.fields import require_allowed
from transformer.interop.checked_values import text
from transformer.interop.family import Family, Published, Source
from transformer.interop.layout import Entry, Shape, Stored, read_entries
from transformer.interop.side_files import SideFile
from transformer.nn.compute import Compute
from transformer.types import Facts, Json


def read_source(source: Source, family: Family, ignore: str | None = None) -> Published:
    """Reads a model array by array, without running any code in it.

    Args:
        source: the opened checkpoint.
        family: the family of the model.
        ignore: pattern of the names of unknown arrays to leave out.

    Raises:
        DataError: if an array is missing, unknown or has another shape, or we cannot build the
            model.
    """
    where, arrays = source.where, source.arrays
    names: dict[str, str] = {}
    replaced: list[str] = []
    # A head's layer may replace an unused layer of the encoder (RoBERTa's pooler).
    for name in sorted(arrays, key=lambda name: family.canonical(name) != name):
        canonical = family.canonical(name)
        if canonical is None:
            continue
        if canonical in names:
            replaced.append(names[canonical])
        names[canonical] = name
    shapes = {canonical: arrays.shape(name) for canonical, name in names.items()}
    fields = checked_fields(family, source, shapes)
    model = family.model(**fields)
    _take_copies(family.copies(model), names, arrays, where)
    for missing, other in family.stand_ins(model).items():
        if other in names:
            names.setdefault(missing, names[other])
    entries = _entries_of(family, model)
    whole = [entry for entry in entries if all(name in names for name in entry.names)]
    require_complete(entries, names, family.heads, where)
    used = {name for entry in whole for name in entry.names}
    left = [name for canonical, name in names.items() if canonical not in used]
    _require_known(left, family, ignore, where)
    left += replaced
    # Use host memory even if there is an accelerator: checkpoints are written from there without
    # another copy.
    host = jax.local_devices(backend="cpu")[0]
    found = read_entries(whole, arrays, names, where)
    params = {path: jax.device_put(array, host) for path, array in found}
    head = family.head(source.files, set(params))
    labels = _labels(source.config, params) if head.outputs is None else head.outputs
    return Published(family, fields, head.job, labels, params, left, head.preparation, source.files)


@functools.lru_cache(maxsize=8)
def _entries_of(family: Family, model: nn.Module) -> list[Entry]:
    """All parameters that a model can have; each model is traced once."""
    return family.entries(model)


def _labels(config: SideFile, params: Mapping[str, jax.Array]) -> tuple[str, ...]:
    """Names of the outputs, by default `LABEL_0` and so on; empty without outputs.

    Raises:
        DataError: if they are not names, or some outputs have none.
    """
    if "output/bias" not in params:
        return ()
    count = params["output/bias"].size
    names = config.get("id2label")
    if names is None:
        labels = tuple(f"LABEL_{index}" for index in range(count))
        config.only({"num_labels": count})
    else:
        expected = {str(index) for index in range(count)}
        if not isinstance(names, dict) or set(names) != expected:
            raise DataError(
                f"{config.where} has id2label {shown(names)}: expected a name for each of the "
                f"{count} outputs, numbered from 0."
            )
        labels = tuple(text(config.where, "id2label", names[str(place)]) for place in range(count))
        config.usual({"num_labels": count})
    # A contradicting label2id is not used, and reported as unused.
    numbers = config.peek("label2id")
    if isinstance(numbers, dict) and all(
        type(place := numbers.get(label)) is int and 0 <= place < count and labels[place] == label
        for label in labels
    ):
        config.get("label2id")
    return labels


def checked_fields(family: Family, source: Source, shapes: dict[str, Shape]) -> Json:
    """Fields of a model that can be built.

    Raises:
        DataError: if the config is incomplete or describes a model that we cannot build.
    """
    where = source.where if source.where.is_file() else source.where / "config.json"
    try:
        fields = family.fields(source.config, where, shapes)
        _require_fewer(fields, where, len(shapes))
        # Whether layers are scanned is chosen later.
        require_allowed("model", family.model(**fields, compute=Compute(scan_layers=True)))
    except KeyError as error:
        raise DataError(f"{where} is incomplete: there is no {error.args[0]}.") from None
    except ConfigError as error:
        raise DataError(f"{where} describes no model: {error}") from None
    return fields


def _require_fewer(fields: Facts, where: Path, there: int) -> None:
    """Refuses more layers or experts than there are arrays, before allocating anything for them.

    Raises:
        DataError: names the field.
    """
    for field in ("num_layers", "num_encoder_layers", "num_decoder_layers", "num_experts"):
        if fields.get(field, 0) > min(there, bounds.LAYERS):
            raise DataError(
                f"{where} asks for {fields[field]:,} {field.removeprefix('num_')} "
                f"(config.model.{field}), and there are {there:,} arrays: is a file missing?"
            )


def require_complete(
    entries: list[Entry], names: Mapping[str, str], heads: tuple[str, ...], where: Path
) -> None:
    """Refuses a model whose body or head is incomplete.

    Raises:
        DataError: names one of the missing arrays.
    """
    # Arrays that are computed from the config may be missing.
    entries = [entry for entry in entries if entry.paths]
    there = {
        entry.paths[0].split("/")[0]
        for entry in entries
        if any(name in names for name in entry.names)
    } & set(heads)
    missing = [
        (entry.paths[0], name)
        for entry in entries
        for name in entry.names
        if name not in names
        and (entry.paths[0].split("/")[0] in there or not entry.paths[0].startswith(heads or "\0"))
    ]
    if missing:
        (path, name), more = missing[0], len(missing) - 1
        raise DataError(
            f"{where} lacks {name} ({path} here)"
            + (f" and {more} more of the arrays" if more else ", an array")
            + " that its config.json asks for: is a file missing?"
        )


def _take_copies(
    copies: Mapping[str, str], names: dict[str, str], arrays: Stored, where: Path
) -> None:
    """Drops duplicates of arrays; a copy without its original replaces it.

    Raises:
        DataError: if copy and original differ.
    """
    for copy, original in copies.items():
        if copy not in names:
            continue
        if original in names and not np.array_equal(arrays[names[copy]], arrays[names[original]]):
            raise DataError(
                f"{where}: {names[copy]} is not {names[original]}, and the config (its key "
                f"tie_word_embeddings, or scale_decoder_outputs) says that it is."
            )
        names.setdefault(original, names[copy])
        del names[copy]


def _require_known(left: list[str], family: Family, ignore: str | None, where: Path) -> None:
    """Refuses unknown arrays, because ignoring them may change the model.

    Raises:
        DataError: names some of them.
    """
    known = [pattern for pattern in (family.not_ours, ignore) if pattern]
    strange = [name for name in left if not any(re.search(pattern, name) for pattern in known)]
    if strange:
        more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
        raise DataError(
            f"{where} holds arrays that have no place in our {family.name}: "
            f"{', '.join(strange[:5])}{more}. To go on without them, give a pattern of their names "
            f"with --ignore."
        )
