"""Models of Andrej Karpathy's llama2.c: `.bin` files of its first format, with their tokenizers.

The code in https://github.com/karpathy/llama2.c defines both formats: `legacy_export` in export.py
and `export` in tokenizer.py write them, run.c reads them.
"""

import functools
import math
import struct
from pathlib import Path

import numpy as np

from transformer.data.reading.content import read_bounded
from transformer.errors import DataError
from transformer.interop.formats.foreign import (
    ForeignArray,
    ForeignArrays,
    ForeignModel,
    split_into_halves,
)
from transformer.interop.formats.tokenizers import scored_tokenizer
from transformer.types import Json

_HEADER = struct.Struct("<7i")
# The first bytes of later formats: "ak42", and the version.
_LATER = struct.Struct("<Ii")
_MAGIC = 0x616B3432
_FIELDS = ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "seq_len")

# Cosines and sines of rotary positions, which are no longer read.
_COMPUTED = "freqs_cis"

_UNKNOWN, _BEGINNING = 0, 1
# The id of the first byte token, after three special tokens.
_FIRST_BYTE = 3


def read_llama2c(path: str | Path, tokenizer: str | Path) -> ForeignModel:
    """Reads a model; its arrays stay in the file until they are accessed.

    A text begins with token 1 and ends at the next token 1, as in run.c.

    Args:
        path: the file of the model, such as `stories15M.bin`.
        tokenizer: the file of its tokenizer, `tokenizer.bin`.

    Raises:
        DataError: if a file is missing or damaged, or the two do not fit together.
    """
    path = Path(path)
    header = _header(path)
    config = {
        "model_type": "llama",
        "vocab_size": abs(header["vocab_size"]),
        "hidden_size": header["dim"],
        "intermediate_size": header["hidden_dim"],
        "num_hidden_layers": header["n_layers"],
        "num_attention_heads": header["n_heads"],
        "num_key_value_heads": header["n_kv_heads"],
        "head_dim": header["dim"] // header["n_heads"],
        "max_position_embeddings": header["seq_len"],
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        # A negative size of the vocabulary means that there is an output layer.
        "tie_word_embeddings": header["vocab_size"] > 0,
    }
    text = _tokenizer(Path(tokenizer), config["vocab_size"])
    return ForeignModel(config, _arrays(path, config), text, _BEGINNING, _BEGINNING, (_BEGINNING,))


def _header(path: Path) -> dict[str, int]:
    """The sizes at the beginning of a file."""
    try:
        with path.open("rb") as file:
            content = file.read(_HEADER.size)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    if len(content) < _HEADER.size:
        raise DataError(f"{path} is no model of llama2.c: it has {len(content)} bytes only.")
    magic, version = _LATER.unpack_from(content)
    if magic == _MAGIC:
        raise DataError(
            f"{path} is of llama2.c's format {version}: only the first is read, which its "
            f"export.py writes with --version 0."
        )
    header: dict[str, int] = dict(zip(_FIELDS, _HEADER.unpack(content), strict=True))
    sizes = {**header, "vocab_size": abs(header["vocab_size"])}
    fits = min(sizes.values()) > 0 and (
        header["dim"] % (2 * header["n_heads"]) == 0
        and header["n_heads"] % header["n_kv_heads"] == 0
    )
    if not fits:
        listed = ", ".join(f"{name} {value}" for name, value in header.items())
        raise DataError(f"{path} is no model of llama2.c: its header would say {listed}.")
    return header


def _arrays(path: Path, config: Json) -> ForeignArrays:
    """All arrays; the file stores each kind for all layers together."""
    width, hidden = config["hidden_size"], config["intermediate_size"]
    heads, key_heads = config["num_attention_heads"], config["num_key_value_heads"]
    keys = key_heads * config["head_dim"]
    embedding = (config["vocab_size"], width)
    computed = (2, config["max_position_embeddings"], config["head_dim"] // 2)
    parts: list[tuple[str, tuple[int, ...], int | None]] = [
        ("model.embed_tokens.weight", embedding, None),
        ("input_layernorm", (width,), None),
        ("self_attn.q_proj", (width, width), heads),
        ("self_attn.k_proj", (keys, width), key_heads),
        ("self_attn.v_proj", (keys, width), None),
        ("self_attn.o_proj", (width, width), None),
        ("post_attention_layernorm", (width,), None),
        ("mlp.gate_proj", (hidden, width), None),
        ("mlp.down_proj", (width, hidden), None),
        ("mlp.up_proj", (hidden, width), None),
        ("model.norm.weight", (width,), None),
        (_COMPUTED, computed, None),
    ]
    if not config["tie_word_embeddings"]:
        parts.append(("lm_head.weight", embedding, None))
    # Compare the header with the size of the file before trusting it.
    counts = [1 if _is_single(name) else config["num_hidden_layers"] for name, _, _ in parts]
    numbers = sum(
        count * math.prod(shape) for count, (_, shape, _) in zip(counts, parts, strict=True)
    )
    asked, size = _HEADER.size + 4 * numbers, path.stat().st_size
    if size != asked:
        raise DataError(f"{path} has {size} bytes, and its header asks for {asked}.")
    arrays = {}
    start = _HEADER.size
    for count, (part, shape, num_heads) in zip(counts, parts, strict=True):
        for layer in range(count):
            name = part if _is_single(part) else f"model.layers.{layer}.{part}.weight"
            read = functools.partial(_read, path, start, shape, num_heads)
            arrays[name] = ForeignArray(shape, read)
            start += 4 * math.prod(shape)
    del arrays[_COMPUTED]
    return ForeignArrays(arrays)


def _is_single(part: str) -> bool:
    """Whether the part exists once, not once per layer."""
    return part == _COMPUTED or part.endswith(".weight")


def _read(path: Path, start: int, shape: tuple[int, ...], num_heads: int | None) -> np.ndarray:
    try:
        array = np.array(np.memmap(path, "<f4", "r", offset=start, shape=shape), np.float32)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from None
    return array if num_heads is None else split_into_halves(array, num_heads)


def _tokenizer(path: Path, vocab_size: int) -> str:
    """The text of a `tokenizer.json`."""
    content = read_bounded(path)
    tokens, scores = [], []
    position = 4  # Skips the length of the longest token.
    for index in range(vocab_size):
        end = position + 8
        length = struct.unpack_from("<i", content, position + 4)[0] if end <= len(content) else 0
        if length < 0 or end + length > len(content):
            raise DataError(
                f"{path} is damaged: token {index} of {vocab_size} would end at byte "
                f"{end + length}, and the file has {len(content)}."
            )
        scores.append(struct.unpack_from("<f", content, position)[0])
        try:
            token = content[end : end + length].decode("utf-8")
        except UnicodeDecodeError:
            raise DataError(f"{path} is damaged: token {index} is not UTF-8.") from None
        tokens.append(token or f"[EMPTY_{index}]")
        position = end + length
    if position != len(content):
        raise DataError(
            f"{path} has more than the model's {vocab_size} tokens, which end at byte {position} "
            f"of {len(content)}: give the model's own tokenizer."
        )
    for byte in range(256):
        index = _FIRST_BYTE + byte
        if tokens[index : index + 1] != [f"<0x{byte:02X}>"]:
            raise DataError(
                f"{path} is no tokenizer of llama2.c: token {index} must be <0x{byte:02X}>."
            )
    unknown = tokens[_UNKNOWN]
    return scored_tokenizer(tokens, scores, path, unknown=unknown, space=" ").to_str(pretty=True)
