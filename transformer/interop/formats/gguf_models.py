"""Converts Llama, Mistral, SmolLM, Qwen2 and Qwen3 in GGUF files to `transformers`' layout."""

import functools
import re
from pathlib import Path

import numpy as np
import tokenizers

from transformer.data.reading.library_errors import in_our_words
from transformer.errors import DataError
from transformer.interop.checked_values import positive, whole
from transformer.interop.formats.foreign import (
    ForeignArray,
    ForeignArrays,
    ForeignModel,
    split_into_halves,
)
from transformer.interop.formats.gguf import GgufFile, read_gguf_file
from transformer.interop.formats.tokenizers import (
    LLAMA3_SPLITTINGS,
    SPLITTINGS,
    byte_level_tokenizer,
    scored_tokenizer,
)
from transformer.types import Json

ARCHITECTURES = ("llama", "qwen2", "qwen3")

_MODULES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_EMBEDDING, _OUTPUT, _FREQUENCIES = "token_embd.weight", "output.weight", "rope_freqs.weight"
_SINGLE = {
    _EMBEDDING: "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    _OUTPUT: "lm_head.weight",
}
# Besides a factor, the constants of frequency scaling in all Llama 3.1 and 3.2, named as in
# config.json.
_LLAMA3 = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}

# Kinds of tokens: text never encodes to unknown and control tokens.
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
# SentencePiece's default ids of the tokens that begin and end a text.
_BEGINNING, _END = 1, 2


def read_gguf(path: str | Path) -> ForeignModel:
    """Reads a model; its arrays stay in the file until they are accessed.

    Args:
        path: a GGUF file, version 2 or 3.

    Raises:
        DataError: if the file is missing or damaged, or the model is unknown here.
    """
    file = read_gguf_file(path)
    architecture = file.needed("general.architecture", str)
    if architecture not in ARCHITECTURES:
        raise DataError(
            f"{path} is of the architecture {architecture!r}: known are {', '.join(ARCHITECTURES)}."
        )
    if (file.field("split.count", int) or 1) != 1:
        raise DataError(
            f"{path} is one of several files of a model: join them first, with llama.cpp's "
            f"llama-gguf-split --merge."
        )
    tokens = file.needed("tokenizer.ggml.tokens", list)
    first, ends = _ends(file, len(tokens))
    config = _config(file, architecture)
    return ForeignModel(
        config,
        _arrays(file, config),
        _tokenizer(file, tokens).to_str(pretty=True),
        first if _adds_beginning(file) else None,
        first,
        ends,
    )


def _config(file: GgufFile, architecture: str) -> Json:
    """The content of the `config.json`."""
    needed = functools.partial(_sized, file, architecture)
    if _EMBEDDING not in file.tensors:
        raise DataError(f"{file.path} lacks the array {_EMBEDDING}.")
    if file.field(f"{architecture}.expert_count", int):
        raise DataError(f"{file.path} is a mixture of experts: that is not known here.")
    width, num_heads = needed("embedding_length"), needed("attention.head_count")
    # The width of a head equals that of rotary positions, unless the file gives it separately.
    rotary = needed("rope.dimension_count", width // num_heads)
    head_dim = needed("attention.key_length", rotary)
    if {rotary, needed("attention.value_length", head_dim)} != {head_dim} or head_dim % 2:
        raise DataError(
            f"{file.path} has keys of {head_dim}, and values or rotary positions of another width: "
            f"all must have the same even one."
        )
    config = {
        "model_type": architecture,
        "vocab_size": file.tensors[_EMBEDDING].shape[0],
        "hidden_size": width,
        "intermediate_size": needed("feed_forward_length"),
        "num_hidden_layers": needed("block_count"),
        "num_attention_heads": num_heads,
        "num_key_value_heads": needed("attention.head_count_kv", num_heads),
        "head_dim": head_dim,
        "max_position_embeddings": needed("context_length"),
        "hidden_act": "silu",
        "rms_norm_eps": file.needed(f"{architecture}.attention.layer_norm_rms_epsilon", float),
        "tie_word_embeddings": _OUTPUT not in file.tensors,
        **_rotary(file, architecture, head_dim),
    }
    window = f"{architecture}.attention.sliding_window"
    if architecture == "llama":
        config["attention_bias"] = "blk.0.attn_q.bias" in file.tensors
        config["mlp_bias"] = "blk.0.ffn_up.bias" in file.tensors
        if file.field(window, int):
            config |= {"model_type": "mistral", "sliding_window": file.field(window, int)}
    elif file.field(window, int):
        raise DataError(f"{file.path} has a sliding window: in {architecture} it is not known.")
    return config


def _sized(file: GgufFile, architecture: str, name: str, default: int | None = None) -> int:
    """A size of the model."""
    name = f"{architecture}.{name}"
    if isinstance(file.metadata.get(name), list):
        raise DataError(f"{file.path}: {name} differs between layers: that is not known here.")
    size = file.field(name, int)
    size = size if size is not None else default or file.needed(name, int)
    return whole(file.path, name, size)


def _rotary(file: GgufFile, architecture: str, head_dim: int) -> Json:
    """Rotary positions: their base, and the scaling of their frequencies."""
    base = _positive(file, f"{architecture}.rope.freq_base", 10_000.0)
    scaling = file.field(f"{architecture}.rope.scaling.type", str) or "none"
    if scaling not in ("none", "linear"):
        raise DataError(
            f"{file.path} scales rotary positions by {scaling!r}: only 'linear' and llama3's are "
            f"known here."
        )
    # Older files have a separate name for it, without a type.
    name = "rope.scaling.factor" if scaling == "linear" else "rope.scale_linear"
    factor = _positive(file, f"{architecture}.{name}", 1.0)
    if factor != 1.0 and _FREQUENCIES in file.tensors:
        raise DataError(f"{file.path} scales rotary positions twice: {name} and {_FREQUENCIES}.")
    if factor != 1.0:
        return {"rope_theta": base, "rope_scaling": {"rope_type": "linear", "factor": factor}}
    if _FREQUENCIES not in file.tensors:
        return {"rope_theta": base}
    divisors = file.read(_FREQUENCIES)
    if not np.isfinite(divisors).all():
        raise DataError(f"{file.path} is damaged: {_FREQUENCIES} holds what is no number.")
    factor = float(divisors.max(initial=1.0))
    found = {"rope_type": "llama3", "factor": factor, **_LLAMA3}
    if not _are_llama3(divisors, base, head_dim, factor):
        raise DataError(
            f"{file.path} divides the frequencies of rotary positions ({_FREQUENCIES}) by other "
            f"numbers than Llama 3.1 and 3.2 do: that is not known here."
        )
    return {"rope_theta": base, "rope_scaling": found}


def _positive(file: GgufFile, name: str, usual: float) -> float:
    """A number above 0; the default if the file has 0 or nothing."""
    return positive(file.path, name, file.field(name, float) or usual)


def _are_llama3(divisors: np.ndarray, base: float, head_dim: int, factor: float) -> bool:
    """Whether frequencies are divided as in Llama 3: long waves by a factor, short ones by 1."""
    if divisors.shape != (head_dim // 2,):
        return False
    waves = 2 * np.pi * base ** (np.arange(0, head_dim, 2) / head_dim)
    low, high = _LLAMA3["low_freq_factor"], _LLAMA3["high_freq_factor"]
    share = (_LLAMA3["original_max_position_embeddings"] / waves - low) / (high - low)
    share = np.clip(share, 0.0, 1.0)
    return np.allclose(divisors, 1 / ((1 - share) / factor + share), rtol=1e-4, atol=0)


def _arrays(file: GgufFile, config: Json) -> ForeignArrays:
    """All arrays under their new names; unknown arrays keep their names."""
    # llama.cpp rotates neighbouring features, and reorders the rows of Llama for that.
    heads = {}
    if config["model_type"] in ("llama", "mistral"):
        heads["attn_q"] = config["num_attention_heads"]
        heads["attn_k"] = config["num_key_value_heads"]
    arrays = {}
    for name, tensor in file.tensors.items():
        if name == _FREQUENCIES:  # Already in the config.
            continue
        read = functools.partial(file.read, name)
        parts = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
        theirs = _SINGLE.get(name, name)
        if parts and parts[2] in _MODULES:
            theirs = f"model.layers.{parts[1]}.{_MODULES[parts[2]]}.{parts[3]}"
            num_heads = heads.get(parts[2])
            if num_heads is not None:
                if tensor.shape[0] != num_heads * config["head_dim"]:
                    raise DataError(
                        f"{file.path}: {name} has {tensor.shape[0]} rows, and its metadata ask for "
                        f"{num_heads} heads of {config['head_dim']}."
                    )
                read = functools.partial(_halved, file, name, num_heads)
        arrays[theirs] = ForeignArray(tensor.shape, read)
    return ForeignArrays(arrays)


def _halved(file: GgufFile, name: str, num_heads: int) -> np.ndarray:
    return split_into_halves(file.read(name), num_heads)


def _ends(file: GgufFile, num_tokens: int) -> tuple[int | None, tuple[int, ...]]:
    """The token that begins a text, and the tokens that end a text, a turn or a message."""
    scored = file.field("tokenizer.ggml.model", str) == "llama"
    usual = {"bos": _BEGINNING, "eos": _END} if scored else {}
    found: dict[str, int] = {}
    for name in ("bos", "eos", "eot", "eom"):
        token = file.field(f"tokenizer.ggml.{name}_token_id", int)
        token = usual.get(name) if token is None else token
        if token is None:
            continue
        if not 0 <= token < num_tokens:
            raise DataError(
                f"{file.path} is damaged: its tokenizer.ggml.{name}_token_id is {token}, and there "
                f"are {num_tokens} tokens."
            )
        found[name] = token
    return found.pop("bos", None), tuple(dict.fromkeys(found.values()))


def _adds_beginning(file: GgufFile) -> bool:
    """Whether a special token precedes prompts; llama.cpp's default if the file does not say."""
    added = file.field("tokenizer.ggml.add_bos_token", bool)
    if added is not None:
        return added
    scored = file.needed("tokenizer.ggml.model", str) == "llama"
    return scored or file.field("tokenizer.ggml.pre", str) in LLAMA3_SPLITTINGS


def _tokenizer(file: GgufFile, tokens: list) -> tokenizers.Tokenizer:
    """Builds the tokenizer of the library `tokenizers`."""
    kind = file.needed("tokenizer.ggml.model", str)
    kinds = file.field("tokenizer.ggml.token_type", list) or [0] * len(tokens)
    if not all(isinstance(token, str) for token in tokens) or len(kinds) != len(tokens):
        raise DataError(f"{file.path} is damaged: its tokens are not texts, each with its kind.")
    # Unused ids have empty tokens.
    tokens = [token or f"[EMPTY_{index}]" for index, token in enumerate(tokens)]
    if kind == "gpt2":
        tokenizer = _byte_level(file, tokens)
    elif kind == "llama":
        tokenizer = _scored(file, tokens)
    else:
        raise DataError(f"{file.path} has a tokenizer {kind!r}: known are 'gpt2' and 'llama'.")
    # Added tokens stay whole anywhere in a text.
    with in_our_words(f"{file.path} holds no tokenizer that can be built"):
        tokenizer.add_special_tokens(_added(tokens, kinds, _UNKNOWN, _CONTROL))
        tokenizer.add_tokens(_added(tokens, kinds, _USER_DEFINED))
    return tokenizer


def _added(tokens: list[str], kinds: list[int], *wanted: int) -> list[tokenizers.AddedToken]:
    """The tokens of the given kinds, as added tokens."""
    pairs = zip(tokens, kinds, strict=True)
    return [
        tokenizers.AddedToken(token, normalized=False) for token, kind in pairs if kind in wanted
    ]


def _byte_level(file: GgufFile, tokens: list[str]) -> tokenizers.Tokenizer:
    splitting = file.needed("tokenizer.ggml.pre", str)
    if splitting not in SPLITTINGS:
        raise DataError(
            f"{file.path} cuts texts into words as {splitting!r} does (tokenizer.ggml.pre): known "
            f"are {', '.join(SPLITTINGS)}."
        )
    merges = []
    for merge in file.needed("tokenizer.ggml.merges", list):
        left, _, right = str(merge).partition(" ")
        merges.append((left, right))
    return byte_level_tokenizer(tokens, merges, splitting, file.path)


def _scored(file: GgufFile, tokens: list[str]) -> tokenizers.Tokenizer:
    scores = file.needed("tokenizer.ggml.scores", list)
    if len(scores) != len(tokens) or not all(isinstance(score, float) for score in scores):
        raise DataError(f"{file.path} is damaged: its tokens need one score each.")
    unknown = file.field("tokenizer.ggml.unknown_token_id", int)
    prefix = file.field("tokenizer.ggml.add_space_prefix", bool)
    return scored_tokenizer(
        tokens,
        scores,
        file.path,
        unknown=tokens[unknown] if unknown is not None and 0 <= unknown < len(tokens) else None,
        prefix=prefix is not False,
    )
