"""Small published models of every family and format, made by those who publish them."""

import json
import math
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.campaigns.mutations import Known

# Which of their files what is read is in; the others are side files.
WEIGHTS = (".safetensors", ".gguf")
# What a model of llama2.c is in, and its tokenizer.
BIN, BIN_TOKENIZER = "model.bin", "tokenizer.bin"


def make_all(place: Path) -> int:
    """Makes a folder for each family; imports `torch`, so that no other process has to."""
    from tests.interop import test_keys_decoder_tokenizers as tokens

    makers: dict[str, Callable[[Path], Any]] = {}
    for name, (kind, *_) in tokens.CLASSES.items():
        makers[kind] = _subject(tokens.subject, name, "tokenizer.json")
        if kind in ("gpt2", "qwen2"):
            for how in ("vocab.json", "added_tokens_decoder", "added_tokens.json"):
                makers[f"{kind}, {how}"] = _subject(tokens.subject, name, how)
    makers |= _decoders() | _encoders() | _sentences()
    makers |= {"gguf": _gguf, "gguf, scored": _scored_gguf, "llama2.c": _llama2c}
    for name, make in makers.items():
        make(place / name)
    return 0


def _subject(subject: Callable, name: str, how: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        subject(name, how, folder.parent).folder.rename(folder)

    return make


def _decoders() -> dict[str, Callable[[Path], Any]]:
    """Those whose tokenizers are not made elsewhere, and one in several files."""
    import transformers

    from tests.interop import test_keys_decoders as keys
    from tests.tokenizers import make_text_tokenizer

    def make(kind: str, **options: Any) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            name, values = keys.FAMILIES[kind]
            made = getattr(transformers, f"{name}ForCausalLM")(keys.config_class(kind)(**values))
            made.save_pretrained(folder, **options)
            text = "".join(map(chr, range(40, 90)))
            make_text_tokenizer("character", text, 0).save(folder)

        return write

    kinds = ("mistral", "mixtral", "qwen3", "gemma3_text")
    return {kind: make(kind) for kind in kinds} | {
        "llama, several files": make("llama", max_shard_size="4KB")
    }


def _encoders() -> dict[str, Callable[[Path], Any]]:
    from tests.interop import image_models
    from tests.interop import test_keys_encoders as keys

    names = {
        "bert": "classifier",
        "bert, tokenizer.json": "library",
        "bert, generic": "generic",
        "bert, added tokens": "decoder",
        "roberta": "tagger",
        "sentence-transformers": "vectors",
    }

    def make(name: str) -> Callable[[Path], None]:
        return lambda folder: keys.subject(names[name], folder.parent).folder.rename(folder)

    return {name: make(name) for name in names} | {
        "vit": lambda folder: image_models.published(folder, "ViT"),
        "deit": lambda folder: image_models.published(folder, "DeiT"),
    }


def _sentences() -> dict[str, Callable[[Path], Any]]:
    from tests.interop import sentence_folders as folders

    return {
        "t5": lambda folder: folders.write_t5(folder, generation={"num_beams": 2}),
        "t5, tokenizer.json": lambda folder: folders.write_t5(folder, library=True),
        "marian": lambda folder: folders.write_marian(folder, generation={"num_beams": 2}),
    }


def _gguf(folder: Path) -> None:
    from tests.interop.gguf_files import write_model

    folder.mkdir()
    write_model(folder / "model.gguf")


def _scored_gguf(folder: Path) -> None:
    import numpy as np

    from tests.interop.gguf_files import SCORED, WIDTH, write_model

    folder.mkdir()
    table = np.random.default_rng(1).standard_normal((len(SCORED["tokenizer.ggml.tokens"]), WIDTH))
    write_model(folder / "model.gguf", SCORED, {"token_embd.weight": table.astype(np.float32)})


def _llama2c(folder: Path) -> None:
    from tests.interop import test_llama2c as files

    folder.mkdir()
    arrays = b"".join(array.tobytes() for array in files.weights(False).values())
    (folder / BIN).write_bytes(files.header() + arrays)
    (folder / BIN_TOKENIZER).write_bytes(files.tokenizer_bytes())


def gguf_parts(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metadata and arrays of a GGUF base."""
    from tests.interop import gguf_files as files

    if name == "gguf":
        return files.METADATA, files.TENSORS
    import numpy as np

    rows = len(files.SCORED["tokenizer.ggml.tokens"])
    table = np.random.default_rng(1).standard_normal((rows, files.WIDTH)).astype(np.float32)
    metadata = files.without_none({**files.METADATA, **files.SCORED})
    return metadata, {**files.TENSORS, "token_embd.weight": table}


def beginning(content: bytes, name: str) -> int:
    """Where the arrays of a file begin: before it, a changed byte can be noticed."""
    if name.endswith(".safetensors"):
        return 8 + struct.unpack("<Q", content[:8])[0]
    if name == BIN:
        return 28
    return len(content)


def files_of(folder: Path) -> list[Path]:
    """The files of a base that are read, in order."""
    unread = ("README.md", ".gitattributes", "chat_template.jinja")
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if path.name not in unread)


def chosen(source: random.Random, folder: Path) -> Path:
    """A file, more often one of settings, in which each value is of another kind."""
    found = files_of(folder)
    often = [path.suffix == ".json" and path.name != "tokenizer.json" for path in found]
    return source.choices(found, [1 + is_often for is_often in often])[0]


def known(folder: Path) -> Known:
    """What other files of a base say, whatever one key of one file says."""
    settings, library, config = (
        json.loads((folder / name).read_bytes()) if (folder / name).is_file() else {}
        for name in ("tokenizer_config.json", "tokenizer.json", "config.json")
    )
    described = [*settings.get("added_tokens_decoder", {}).values()]
    described += library.get("added_tokens", [])
    special = {token["content"] for token in described if token.get("special")}
    return Known(frozenset(special), config.get("max_position_embeddings", math.inf))


def is_json(path: Path) -> bool:
    """Whether a file should hold JSON."""
    if path.suffix != ".json":
        return False
    json.loads(path.read_bytes())
    return True
