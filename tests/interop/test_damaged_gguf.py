"""GGUF files that are damaged, or hold what is not known: each refused with one clear message."""

import functools
import struct

import numpy as np
import pytest

from tests.interop.gguf_files import KINDS, SCORED, TOKENS, gguf, renamed, text, write_model
from transformer.errors import DataError
from transformer.interop.formats.gguf import read_gguf_file
from transformer.interop.formats.gguf_models import read_gguf


@pytest.fixture
def write(tmp_path):
    return functools.partial(write_model, tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"general.architecture": "falcon"}, "'falcon': known are llama, qwen2, qwen3"),
        ({"general.architecture": None}, "lack general.architecture"),
        ({"llama.block_count": None}, "lack llama.block_count"),
        ({"llama.block_count": "two"}, "of the kind int"),
        ({"llama.block_count": 0}, "llama.block_count is 0"),
        ({"llama.feed_forward_length": [1, 2]}, "differs between layers"),
        ({"llama.attention.head_count": 2}, "2 heads of 4"),
        ({"llama.attention.head_count_kv": 1}, "1 heads of 4"),
        ({"llama.rope.dimension_count": 2, "llama.attention.key_length": 4}, "another width"),
        ({"llama.rope.scaling.type": "yarn"}, "'yarn'"),
        ({"split.count": 3}, "one of several files"),
        ({"llama.expert_count": 8}, "mixture of experts"),
        ({**renamed("qwen2"), "qwen2.attention.sliding_window": 9}, "sliding window"),
        ({"tokenizer.ggml.model": "t5"}, "'t5': known are"),
        ({"tokenizer.ggml.pre": "tekken"}, "'tekken'"),
        ({"tokenizer.ggml.pre": None}, "lack tokenizer.ggml.pre"),
        ({"tokenizer.ggml.merges": ["t zz"]}, "no tokenizer that can be built"),
        ({"tokenizer.ggml.tokens": ["a"] * TOKENS}, "'a' twice"),
        ({"tokenizer.ggml.token_type": [1]}, "each with its kind"),
        ({"tokenizer.ggml.eos_token_id": TOKENS}, f"is {TOKENS}, and there are {TOKENS} tokens"),
        ({**SCORED, "tokenizer.ggml.scores": [1.0]}, "one score each"),
        ({"general.alignment": 0}, "general.alignment is 0"),
        ({"odd": struct.pack("<I", 77)}, "odd are of the kind 77"),
        ({"odd": struct.pack("<IIQ", 9, 9, 1)}, "odd are of the kind 9"),
        ({"odd": struct.pack("<IIQ", 9, 4, 1 << 60)}, f"claims {1 << 60} numbers of odd"),
        ({"odd": struct.pack("<IIQ", 9, 8, 1 << 60)}, f"claims {1 << 60} texts of odd"),
        ({"odd": struct.pack("<IQ", 8, 1 << 60)}, f"takes {1 << 60} bytes"),
        ({"odd": struct.pack("<I", 8) + text(b"\xff")}, "not UTF-8"),
    ],
)
def test_metadata_that_do_not_fit(write, metadata, said):
    with pytest.raises(DataError) as error:
        read_gguf(write(metadata))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"token_embd.weight": None}, "lacks the array token_embd.weight"),
        ({"odd": ((256,), KINDS["Q4_K"], b"")}, "Q4_K: known are F32, F16, BF16, Q8_0, Q4_0"),
        ({"odd": ((8,), 99, b"")}, "kind 99"),
        ({"odd": ((40,), KINDS["Q8_0"], b"")}, "blocks of 32"),
        ({"odd": ((), KINDS["F32"], b"")}, "0 axes"),
        ({"odd": ((2,) * 5, KINDS["F32"], b"")}, "5 axes"),
        ({"odd": ((2, 0), KINDS["F32"], b"")}, "odd has the shape [2, 0]"),
        ({"odd": ((8,), KINDS["F32"], bytes(31))}, "odd ends at byte"),
        ({"odd": ((1 << 62, 1 << 62), KINDS["F32"], b"")}, "odd ends at byte"),
    ],
)
def test_arrays_that_do_not_fit(write, tensors, said):
    with pytest.raises(DataError) as error:
        read_gguf(write(tensors=tensors))
    assert said in str(error.value)


def count(position, number):
    """Puts another count into the header."""
    return lambda content: content[:position] + struct.pack("<Q", number) + content[position + 8 :]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _: b"", "no GGUF file"),
        (lambda content: b"PK" + content, "no GGUF file"),
        (lambda content: content[:4] + b"\x01" + content[5:], "version 1: versions 2 and 3"),
        (lambda content: content[:4] + b"\0\0\0\x03" + content[8:], "big-endian"),
        (lambda content: content[:6], "truncated"),
        (count(8, 1 << 62), f"claims {1 << 62} arrays"),
        (count(16, 1 << 62), f"claims {1 << 62} metadata"),
    ],
)
def test_headers_that_do_not_fit(write, change, said):
    path = write()
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError) as error:
        read_gguf(path)
    assert said in str(error.value)


def test_names_that_come_twice(tmp_path):
    path = tmp_path / "model.gguf"
    content = gguf({"aa": 1, "ab": 2}, {})
    path.write_bytes(content.replace(b"ab", b"aa"))
    with pytest.raises(DataError, match="metadata 'aa' twice"):
        read_gguf_file(path)
    content = gguf({}, {"aa": np.ones(2), "ab": np.ones(2)})
    path.write_bytes(content.replace(b"ab", b"aa"))
    with pytest.raises(DataError, match="array 'aa' twice"):
        read_gguf_file(path)


def test_every_shorter_file_is_refused(tmp_path):
    content = gguf({"name": "x", "list": [1, 2], "texts": ["a", "b"]}, {"array": np.ones(3)})
    path = tmp_path / "model.gguf"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(DataError):
            read_gguf_file(path)
    path.write_bytes(content)
    np.testing.assert_array_equal(read_gguf_file(path).read("array"), np.ones(3))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_gguf(tmp_path / "none.gguf")


def test_a_file_that_became_shorter(write):
    path = write()
    model = read_gguf(path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"output_norm\.weight cannot be read"):
        model.arrays["model.norm.weight"]
