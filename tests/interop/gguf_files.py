"""Writes GGUF files for tests, with nothing but `struct`."""

import struct

import numpy as np
from tokenizers import pre_tokenizers

KINDS = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 8, "Q4_K": 12, "Q6_K": 14, "BF16": 30}


def text(content):
    encoded = content.encode() if isinstance(content, str) else content
    return struct.pack("<Q", len(encoded)) + encoded


def value(content):
    """A value of metadata, after its kind."""
    if isinstance(content, bool):
        return struct.pack("<I?", 7, content)
    if isinstance(content, int):
        return struct.pack("<II", 4, content)
    if isinstance(content, float):
        return struct.pack("<If", 6, content)
    if isinstance(content, list):
        parts = [value(one) for one in content]
        kind = parts[0][:4] if parts else struct.pack("<I", 4)
        return struct.pack("<I", 9) + kind + struct.pack("<Q", len(parts)) + joined(parts, 4)
    return struct.pack("<I", 8) + text(content)


def joined(parts, start=0):
    return b"".join(part[start:] for part in parts)


def plain(array):
    return array.shape, KINDS["F32"], array.astype("<f4").tobytes()


def gguf(metadata, tensors, *, version=3, alignment=32):
    """The bytes of a file.

    Args:
        metadata: values by name; bytes stand for a kind and a value as they are.
        tensors: by name, an array, which is written as float32, or shape, kind and bytes.
        version: of the format.
        alignment: of arrays.
    """
    header = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    for name, content in metadata.items():
        header += text(name) + (content if isinstance(content, bytes) else value(content))
    body = b""
    for name, content in tensors.items():
        shape, kind, raw = plain(content) if isinstance(content, np.ndarray) else content
        body += bytes(-len(body) % alignment)
        header += text(name) + struct.pack("<I", len(shape))
        header += struct.pack(f"<{len(shape)}QIQ", *reversed(shape), kind, len(body))
        body += raw
    return header + bytes(-len(header) % alignment) + body


# A small model.

WIDTH, HIDDEN, HEADS, KEY_HEADS, HEAD = 16, 24, 4, 2, 4
METADATA = {
    "general.architecture": "llama",
    "llama.block_count": 1,
    "llama.context_length": 64,
    "llama.embedding_length": WIDTH,
    "llama.feed_forward_length": HIDDEN,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KEY_HEADS,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 100_000.0,
    "llama.rope.dimension_count": HEAD,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": [
        "<unk>",
        "<|end|>",
        *sorted(pre_tokenizers.ByteLevel.alphabet()),
        "th",
        "the",
        "Ġthe",
        "<tool>",
    ],
    "tokenizer.ggml.token_type": [2, 3, *[1] * 259, 4],
    "tokenizer.ggml.merges": ["t h", "th e", "Ġ the"],
    "tokenizer.ggml.eos_token_id": 1,
}
TOKENS = len(METADATA["tokenizer.ggml.tokens"])
SHAPES = {
    "token_embd.weight": (TOKENS, WIDTH),
    "blk.0.attn_norm.weight": (WIDTH,),
    "blk.0.attn_q.weight": (HEADS * HEAD, WIDTH),
    "blk.0.attn_k.weight": (KEY_HEADS * HEAD, WIDTH),
    "blk.0.attn_v.weight": (KEY_HEADS * HEAD, WIDTH),
    "blk.0.attn_output.weight": (WIDTH, HEADS * HEAD),
    "blk.0.ffn_norm.weight": (WIDTH,),
    "blk.0.ffn_gate.weight": (HIDDEN, WIDTH),
    "blk.0.ffn_up.weight": (HIDDEN, WIDTH),
    "blk.0.ffn_down.weight": (WIDTH, HIDDEN),
    "output_norm.weight": (WIDTH,),
}
RNG = np.random.default_rng(0)
TENSORS = {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


PIECES = {
    "<unk>": 0.0,
    "<s>": 0.0,
    "</s>": 0.0,
    **{f"<0x{byte:02X}>": 0.0 for byte in range(256)},
    "▁a": -1.0,
    "bc": -2.0,
    "ab": -3.0,
    "▁ab": -4.0,
    **dict.fromkeys("▁abc", -10.0),
}
SCORED = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.pre": None,
    "tokenizer.ggml.merges": None,
    "tokenizer.ggml.eos_token_id": None,
    "tokenizer.ggml.tokens": list(PIECES),
    "tokenizer.ggml.scores": list(PIECES.values()),
    "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * 8],
    "tokenizer.ggml.unknown_token_id": 0,
}


def write_model(path, metadata=None, tensors=None, **options):
    """Writes the small model with some things changed; None leaves one out."""
    metadata, tensors = {**METADATA, **(metadata or {})}, {**TENSORS, **(tensors or {})}
    path.write_bytes(gguf(without_none(metadata), without_none(tensors), **options))
    return path


def without_none(content):
    return {name: value for name, value in content.items() if value is not None}


def renamed(architecture):
    """The metadata of another architecture."""
    old = {name: None for name in METADATA if name.startswith("llama.")}
    new = {name.replace("llama.", f"{architecture}."): METADATA[name] for name in old}
    return {**old, **new, "general.architecture": architecture}
