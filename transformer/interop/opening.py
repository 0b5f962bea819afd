"""Finds the families of published models, and the family of a given model."""

import functools
import importlib
import pkgutil
from pathlib import Path
from typing import TypeVar

import flax.linen as nn

from transformer.data.reading.json_text import shown
from transformer.errors import ConfigError, DataError
from transformer.interop import families
from transformer.interop.family import Family, Published, Source
from transformer.interop.formats.ctranslate2_models import MODEL_FILE, read_ctranslate2
from transformer.interop.formats.gguf_models import read_gguf
from transformer.interop.formats.llama2c import read_llama2c
from transformer.interop.formats.safetensors import StoredArrays
from transformer.interop.published import read_source
from transformer.interop.side_files import CONFIG, GENERATION, SideFile, SideFiles, read_json
from transformer.interop.tokenizers.files import read_tokenizer_text, with_beginning

T = TypeVar("T")


@functools.cache
def all_families() -> tuple[Family, ...]:
    """All families in the files of `interop/families/`, in the order of file names."""
    names = [module.name for module in pkgutil.iter_modules(families.__path__)]
    modules = [importlib.import_module(f"{families.__name__}.{name}") for name in names]
    return tuple(family for module in modules for family in module.FAMILIES)


def tokenizer_classes(kind: type[T]) -> dict[str, T]:
    """The tokenizer classes of one kind that all families define, by the names in the library."""
    found = [item for family in all_families() for item in family.tokenizers.items()]
    return {name: known for name, known in found if isinstance(known, kind)}


def open_folder(folder: Path) -> Source:
    """Opens a folder with `config.json` and safetensors files, or with CTranslate2's `model.bin`.

    Raises:
        DataError: if a file is missing or damaged.
    """
    if (folder / MODEL_FILE).exists():
        model = read_ctranslate2(folder)
        files = SideFiles(folder, {CONFIG: model.config, GENERATION: model.generation})
        return Source(folder, files, model.arrays, vocabulary=model.vocabulary)
    files = SideFiles(folder, {CONFIG: read_json(folder / CONFIG)})
    # First of all, because an unknown model may have other files.
    family_of(files[CONFIG])
    return Source(folder, files, StoredArrays(folder))


def family_of(config: SideFile) -> Family:
    """The family of a config.

    Raises:
        DataError: if it is unknown; the message lists the known ones.
    """
    kinds = {kind: family for family in all_families() for kind in family.kinds}
    if "model_type" not in config:
        for family in all_families():
            if family.unnamed(config):
                return family
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in kinds:
        raise DataError(
            f"{config.where} has model_type {shown(kind)}: what can be read are {', '.join(kinds)}."
        )
    return kinds[kind]


def read_published(folder: str | Path, ignore: str | None = None) -> Published:
    """Reads a folder without running any code in it. See `published.read_source`.

    Args:
        folder: a folder with `config.json` and safetensors.
        ignore: pattern of the names of unknown arrays to leave out.
    """
    source = open_folder(Path(folder))
    return read_source(source, family_of(source.config), ignore)


def family_for(name: str, model: nn.Module) -> Family:
    """The family that can export one of our models.

    Args:
        name: `config.model.name`.
        model: the model.

    Raises:
        ConfigError: if there is none.
    """
    for family in all_families():
        if family.name == name and family.suits(model):
            return family
    known = ", ".join(sorted({family.name for family in all_families()}))
    raise ConfigError(
        f"models of the kind {name!r} are not published by others: those of {known} are."
    )


def open_published(path: Path, tokenizer: Path | None = None) -> Source:
    """Opens a published model without reading its weights.

    Args:
        path: a folder with `config.json` and safetensors, or with `model.bin` of CTranslate2; a
            `.gguf` file, or a `.bin` of llama2.c.
        tokenizer: a `tokenizer.json`, or the tokenizer of a `.bin`; None takes the one in the
            folder or file.

    Raises:
        DataError: if it cannot be read, or its model is unknown here.
    """
    if path.is_dir() or not path.exists():
        source = open_folder(path)
        text = None if tokenizer is None else read_tokenizer_text(tokenizer)[0]
        return source._replace(tokenizer=text)
    if path.suffix == ".gguf":
        model = read_gguf(path)
    elif path.suffix == ".bin":
        if tokenizer is None:
            raise DataError(
                f"{path} is read as a model of llama2.c, which keeps its tokenizer in a file of "
                f"its own: give --tokenizer=tokenizer.bin. Pickles are not read."
            )
        model = read_llama2c(path, tokenizer)
    else:
        raise DataError(
            f"{path} is no model that can be read: give a folder with config.json and safetensors, "
            f"a .gguf file, or a .bin of llama2.c."
        )
    files = SideFiles(path, {CONFIG: model.config})
    text = with_beginning(model.tokenizer, model.beginning)
    source = Source(path, files, model.arrays, text, model.writing())
    family_of(source.config)
    return source
