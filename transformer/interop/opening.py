"""All families of published models, and the one that a model belongs to."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from transformer.data.reading.json_text import shown
from transformer.errors import ConfigError, DataError
from transformer.interop.families.bert import BERT_FAMILY, ROBERTA
from transformer.interop.families.gemma import GEMMA
from transformer.interop.families.gpt2 import GPT2
from transformer.interop.families.llama import LLAMA
from transformer.interop.families.marian import MARIAN
from transformer.interop.families.mixtral import MIXTRAL
from transformer.interop.families.t5 import T5_FAMILY
from transformer.interop.families.vit import DEIT, VIT
from transformer.interop.formats.gguf_models import read_gguf
from transformer.interop.formats.llama2c import read_llama2c
from transformer.interop.formats.safetensors import StoredArrays
from transformer.interop.published import Family, Published, Source, read_source
from transformer.interop.side_files import CONFIG, SideFile, SideFiles, read_json
from transformer.interop.tokenizers.files import read_tokenizer_text, with_beginning

FAMILIES = (GPT2, LLAMA, MIXTRAL, GEMMA, BERT_FAMILY, ROBERTA, VIT, DEIT, T5_FAMILY, MARIAN)
KINDS = {kind: family for family in FAMILIES for kind in family.kinds}


def open_folder(folder: Path) -> Source:
    """A model in a folder with `config.json` and safetensors, in one file or several.

    Raises:
        DataError: if a file is missing or damaged.
    """
    files = SideFiles(folder, {CONFIG: read_json(folder / CONFIG)})
    # Before anything else is opened: another model may come in other files.
    family_of(files[CONFIG])
    return Source(folder, files, StoredArrays(folder))


def family_of(config: SideFile) -> Family:
    """The family that a config is of.

    Raises:
        DataError: if it is not known here; the known ones are listed.
    """
    # The oldest BERTs do not say what they are.
    unnamed = "bert" if "type_vocab_size" in config else None
    kind = config.get("model_type", unnamed)
    if not isinstance(kind, str) or kind not in KINDS:
        raise DataError(
            f"{config.where} has model_type {shown(kind)}: what can be read are {', '.join(KINDS)}."
        )
    return KINDS[kind]


def read_published(folder: str | Path, ignore: str | None = None) -> Published:
    """Reads a folder; nothing in it is run. See `published.read_source`.

    Args:
        folder: with `config.json` and safetensors.
        ignore: pattern of the names of arrays to leave out though they are not known.
    """
    source = open_folder(Path(folder))
    return read_source(source, family_of(source.config), ignore)


def family_for(name: str, model: Any) -> Family:
    """The family that publishes a model of ours.

    Args:
        name: `config.model.name`.
        model: the model.

    Raises:
        ConfigError: if none does.
    """
    found = [family for family in FAMILIES if family.name == name and family.suits(model)]
    if not found:
        known = ", ".join(sorted({family.name for family in FAMILIES}))
        raise ConfigError(
            f"models of the kind {name!r} are not published by others: those of {known} are."
        )
    return found[0]


class Opened(NamedTuple):
    """A published model before its weights are read.

    Attributes:
        source: config and arrays.
        family: that it is of.
        tokenizer: the text of a `tokenizer.json`; None where the source has none inside.
        writing: fields of `config.task` that say how it writes; empty where side files say it.
    """

    source: Source
    family: Family
    tokenizer: str | None
    writing: Mapping[str, Any] = MappingProxyType({})


def open_published(path: Path, tokenizer: Path | None = None) -> Opened:
    """A published model.

    Args:
        path: a folder with `config.json` and safetensors, a `.gguf` file, or a `.bin` of llama2.c.
        tokenizer: a `tokenizer.json`, or the tokenizer of a `.bin`; None takes what lies beside or
            inside.

    Raises:
        DataError: if it cannot be read, or is of a model that is not known here.
    """
    if path.is_dir() or not path.exists():
        source = open_folder(path)
        text = None if tokenizer is None else read_tokenizer_text(tokenizer)[0]
        return Opened(source, family_of(source.config), text)
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
    source = Source(path, SideFiles(path, {CONFIG: model.config}), model.arrays)
    text = with_beginning(model.tokenizer, model.beginning)
    return Opened(source, family_of(source.config), text, model.writing())
