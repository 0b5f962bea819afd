"""GGUF files: the numbers of each kind of block, configs, names and tokenizers."""

import functools
import struct

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from tests.interop.gguf_files import (
    HEAD,
    HEADS,
    HIDDEN,
    KEY_HEADS,
    KINDS,
    METADATA,
    RNG,
    SCORED,
    TENSORS,
    TOKENS,
    WIDTH,
    gguf,
    renamed,
    write_model,
)
from transformer.errors import DataError
from transformer.interop.formats.gguf_blocks import dequantize
from transformer.interop.formats.gguf_models import read_gguf


def half(number):
    return struct.pack("<e", number)


def blocks(kind, raw):
    return dequantize(kind, np.frombuffer(raw, np.uint8))


def test_blocks_of_eight_bits():
    raw = half(0.5) + struct.pack("<32b", *range(-16, 16))
    np.testing.assert_array_equal(blocks("Q8_0", raw * 2), [i / 2 for i in range(-16, 16)] * 2)


def test_blocks_of_four_bits():
    # The byte i holds i below and 15 - i above.
    packed = bytes(i | (15 - i) << 4 for i in range(16))
    numbers = np.array([*range(16), *range(15, -1, -1)], np.float32)
    raw = half(-2.0) + packed
    np.testing.assert_array_equal(blocks("Q4_0", raw), -2 * (numbers - 8))
    raw = half(0.25) + half(-3.0) + packed
    np.testing.assert_array_equal(blocks("Q4_1", raw), numbers / 4 - 3)


def test_blocks_of_six_bits():
    numbers = np.random.default_rng(0).integers(-32, 32, 256)
    scales = np.arange(-8, 8)
    low, high = bytearray(128), bytearray(64)
    for index, number in enumerate(numbers + 32):
        part, row, column = index // 128, index % 128 // 32, index % 32
        low[64 * part + 32 * (row % 2) + column] |= (number & 15) << 4 * (row // 2)
        high[32 * part + column] |= (number >> 4) << 2 * row
    raw = bytes(low) + bytes(high) + struct.pack("<16b", *scales) + half(0.125)
    np.testing.assert_array_equal(blocks("Q6_K", raw), numbers * np.repeat(scales, 16) / 8)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_plain_numbers(kind):
    numbers = np.array([0.0, -1.5, 3.0, 1024.0, 2.0**-10], np.float32)
    raw = {
        "F32": numbers.astype("<f4").tobytes(),
        "F16": numbers.astype("<f2").tobytes(),
        "BF16": joined_upper_halves(numbers),
    }[kind]
    np.testing.assert_array_equal(blocks(kind, raw), numbers)


def joined_upper_halves(numbers):
    return b"".join(struct.pack("<f", number)[2:] for number in numbers)


@pytest.fixture
def write(tmp_path):
    return functools.partial(write_model, tmp_path / "model.gguf")


@pytest.mark.parametrize("version", [2, 3])
def test_a_model(write, version):
    model = read_gguf(write(version=version))
    assert model.config == {
        "model_type": "llama",
        "vocab_size": TOKENS,
        "hidden_size": WIDTH,
        "intermediate_size": HIDDEN,
        "num_hidden_layers": 1,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_HEADS,
        "head_dim": HEAD,
        "max_position_embeddings": 64,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 100_000.0,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
    }
    assert (model.beginning, model.first, model.ends) == (None, None, (1,))
    assert set(model.arrays) == {
        "model.embed_tokens.weight",
        "model.norm.weight",
        *(
            f"model.layers.0.{part}.weight"
            for part in (
                "input_layernorm",
                "post_attention_layernorm",
                *(f"self_attn.{name}_proj" for name in "qkvo"),
                *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
            )
        ),
    }
    down = "model.layers.0.mlp.down_proj.weight"
    assert model.arrays.shape(down) == (WIDTH, HIDDEN)
    np.testing.assert_array_equal(model.arrays[down], TENSORS["blk.0.ffn_down.weight"])
    with pytest.raises(KeyError):
        model.arrays["blk.0.ffn_down.weight"]


def interleaved(array, heads):
    """As the converter of llama.cpp orders rows: first halves and second halves in turn."""
    rows = array.shape[0] // heads // 2
    return array.reshape(heads, 2, rows, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def test_rows_of_queries_and_keys_are_as_in_transformers(write):
    queries, keys = TENSORS["blk.0.attn_q.weight"], TENSORS["blk.0.attn_k.weight"]
    bias = RNG.standard_normal(HEADS * HEAD).astype(np.float32)
    changed = {
        "blk.0.attn_q.weight": interleaved(queries, HEADS),
        "blk.0.attn_k.weight": interleaved(keys, KEY_HEADS),
        "blk.0.attn_q.bias": interleaved(bias, HEADS),
    }
    model = read_gguf(write(tensors=changed))
    layer = "model.layers.0.self_attn"
    np.testing.assert_array_equal(model.arrays[f"{layer}.q_proj.weight"], queries)
    np.testing.assert_array_equal(model.arrays[f"{layer}.k_proj.weight"], keys)
    np.testing.assert_array_equal(model.arrays[f"{layer}.q_proj.bias"], bias)
    assert model.config["attention_bias"]


def test_qwen3_has_norms_of_heads_and_its_rows_stay(write):
    norm = RNG.standard_normal(HEAD).astype(np.float32)
    metadata = {**renamed("qwen3"), "qwen3.attention.key_length": HEAD}
    metadata["qwen3.rope.dimension_count"] = None
    model = read_gguf(write(metadata, {"blk.0.attn_q_norm.weight": norm}))
    assert model.config["model_type"] == "qwen3"
    layer = "model.layers.0.self_attn"
    np.testing.assert_array_equal(model.arrays[f"{layer}.q_norm.weight"], norm)
    queries = TENSORS["blk.0.attn_q.weight"]
    np.testing.assert_array_equal(model.arrays[f"{layer}.q_proj.weight"], queries)


def test_quantised_arrays_an_output_layer_and_what_is_not_known(write):
    raw = b"".join(half(0.5) + bytes([row] * 32) for row in range(TOKENS % 128))
    model = read_gguf(
        write(
            {"general.alignment": 64},
            {
                "output.weight": ((TOKENS % 128, 32), KINDS["Q8_0"], raw),
                "mystery.scale": np.ones(3, np.float32),
            },
            alignment=64,
        )
    )
    assert not model.config["tie_word_embeddings"]
    expected = np.repeat(np.arange(TOKENS % 128)[:, None] / 2, 32, 1)
    np.testing.assert_array_equal(model.arrays["lm_head.weight"], expected)
    assert "mystery.scale" in model.arrays


def test_mistral_is_told_by_its_window(write):
    config = read_gguf(write({"llama.attention.sliding_window": 32})).config
    assert (config["model_type"], config["sliding_window"]) == ("mistral", 32)


def llama3_divisors(factor, old_context=8192):
    """As in `transformers`, one frequency after the other."""
    divisors = []
    for index in range(32):
        wave = 2 * np.pi * 500_000.0 ** (index / 32)
        share = (old_context / wave - 1) / 3
        divisors.append(1 / ((1 - share) / factor + share))
        if wave < old_context / 4:
            divisors[-1] = 1.0
        if wave > old_context:
            divisors[-1] = factor
    return np.array(divisors, np.float32)


WIDE = {
    "llama.rope.freq_base": 500_000.0,
    "llama.attention.head_count": 1,
    "llama.attention.head_count_kv": 1,
    "llama.rope.dimension_count": 64,
}
WIDE_TENSORS = {
    "blk.0.attn_q.weight": np.zeros((64, WIDTH)),
    "blk.0.attn_k.weight": np.zeros((64, WIDTH)),
}


def test_frequencies_of_llama3(write):
    path = write(WIDE, {**WIDE_TENSORS, "rope_freqs.weight": llama3_divisors(32.0)})
    model = read_gguf(path)
    assert model.config["rope_scaling"] == {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    assert "rope_freqs.weight" not in model.arrays


@pytest.mark.parametrize("divisors", [llama3_divisors(32.0, 4096), np.ones(5)])
def test_frequencies_of_others(write, divisors):
    path = write(WIDE, {**WIDE_TENSORS, "rope_freqs.weight": divisors})
    with pytest.raises(DataError, match="divides the frequencies"):
        read_gguf(path)


@pytest.mark.parametrize(
    "said",
    [
        {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
        {"llama.rope.scale_linear": 4.0},
    ],
)
def test_slower_rotations(write, said):
    found = read_gguf(write({**METADATA, **said})).config
    assert found["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}


def test_all_end_tokens(write):
    """Of a text and of a turn; nothing says how tokens are chosen."""
    path = write({**METADATA, "tokenizer.ggml.eot_token_id": 3, "tokenizer.ggml.eom_token_id": 1})
    assert read_gguf(path).writing() == {"stop_ids": (1, 3), "begin": None}


# Tokenizers.


def tokenizer(path):
    return tokenizers.Tokenizer.from_str(read_gguf(path).tokenizer)


def test_byte_level_tokens(write):
    found = tokenizer(write())
    encoding = found.encode("the the 12é<|end|><tool>")
    assert encoding.tokens == ["the", "Ġthe", "Ġ", "1", "2", "Ã", "©", "<|end|>", "<tool>"]
    assert found.decode(encoding.ids, skip_special_tokens=False) == "the the 12é<|end|><tool>"
    assert found.decode(encoding.ids) == "the the 12é<tool>"


GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
PUBLISHED = {
    "gpt-2": GPT2,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(True), GPT2]),
}


@pytest.fixture(scope="module", params=PUBLISHED)
def splitting(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("splitting") / "model.gguf"
    path.write_bytes(gguf({**METADATA, "tokenizer.ggml.pre": request.param}, TENSORS))
    return tokenizer(path).pre_tokenizer, PUBLISHED[request.param]


@given(
    words=st.text(st.one_of(st.sampled_from(" \n\t'ats1\uff12.é"), st.characters(codec="utf-8")))
)
def test_words_are_those_of_published_tokenizers(splitting, words):
    found, published = splitting
    expected = [word for word, _ in published.pre_tokenize_str(words)]
    assert [word for word, _ in found.pre_tokenize_str(words)] == expected


@pytest.mark.parametrize(
    ("splitting", "expected"),
    [
        ("llama-bpe", ["Don", "'T", "Ġgo", "Ġ", "123", "45", "!!\n", "ĠĠ", "Ġx"]),
        ("llama3", ["Don", "'T", "Ġgo", "Ġ", "123", "45", "!!\n", "ĠĠ", "Ġx"]),
        ("qwen2", ["Don", "'T", "Ġgo", "Ġ", *"12345", "!!\n", "ĠĠ", "Ġx"]),
        ("default", ["Don", "'", "T", "Ġgo", "Ġ", "123", "45", "!!", "\nĠĠ", "Ġx"]),
    ],
)
def test_words_of_other_tokenizers(write, splitting, expected):
    found = tokenizer(write({"tokenizer.ggml.pre": splitting})).pre_tokenizer
    words = [word for word, _ in found.pre_tokenize_str("Don'T go 12345!!\n   x")]
    assert words == [word.replace("\n", "Ċ") for word in expected]


def test_llama3_begins_prompts_and_takes_whole_words(write):
    metadata = {
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.merges": ["t h"],
        "tokenizer.ggml.bos_token_id": 0,
    }
    model = read_gguf(write(metadata))
    assert model.beginning == 0
    assert tokenizer(write(metadata)).encode("the").tokens == ["the"]
    metadata["tokenizer.ggml.add_bos_token"] = False
    assert read_gguf(write(metadata)).beginning is None


def test_scored_tokens(write):
    path = write(SCORED)
    model, found = read_gguf(path), tokenizer(path)
    assert (model.beginning, model.ends) == (1, (2,))
    encoding = found.encode("abc cab é")
    assert encoding.tokens == ["▁a", "bc", "▁", "c", "ab", "▁", "<0xC3>", "<0xA9>"]
    assert found.decode(encoding.ids) == "abc cab é"
    assert found.encode("</s>").tokens == ["</s>"]


def test_scored_tokens_without_a_space_in_front(write):
    found = tokenizer(write({**SCORED, "tokenizer.ggml.add_space_prefix": False}))
    encoding = found.encode("ab ab")
    assert encoding.tokens == ["ab", "▁ab"]
    assert found.decode(encoding.ids) == "ab ab"
    assert found.decode(found.encode(" ab").ids) == " ab"
