"""Files from elsewhere that ask for too much, or for what is none: one message, at once."""

import base64
import json
import struct
import sys

import numpy as np
import pytest

from tests.interop import checkpoints
from tests.interop.gguf_files import SCORED, gguf, write_model
from tests.interop.test_safetensors_files import raw, shards
from tests.tokenizers import make_text_tokenizer
from transformer.data.reading import bounds
from transformer.data.reading.json_text import parse_json, read_json_file
from transformer.data.reading.library_errors import PanicError, in_our_words
from transformer.data.tokenizers.library import parse_tokenizer_json
from transformer.data.tokenizers.sentencepieces import parse_pieces
from transformer.data.tokenizers.text import LibraryTextTokenizer
from transformer.errors import DataError
from transformer.interop.checked_values import is_inside
from transformer.interop.formats.gguf_models import read_gguf
from transformer.interop.formats.safetensors import StoredArrays, write_safetensors
from transformer.interop.generation import writing_fields
from transformer.interop.opening import read_published, tokenizer_classes
from transformer.interop.side_files import SideFiles
from transformer.interop.tokenizers.encoders import EncoderClass, read_encoder_tokenizer
from transformer.runs.importing import read_run

pytest.importorskip("safetensors", reason="weights are read from its files")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "-Infinity"),
        ('{"a": 1e400}', "1e400"),
        (f'{{"a": {"7" * 5000}}}', "5000 digits"),
        ('{"a": 1, "a": 2}', "'a' twice"),
        ('{"a": 1, "a": true}', "'a' twice"),
        ('{"a": "\\ud800"}', "surrogate"),
        ("[" * 100_000 + "]" * 100_000, "brackets"),
        ("[" * 100_000, "brackets"),
        ('{"a":' * 65 + "1" + "}" * 65, "brackets"),
        ("", "not JSON"),
        ('{"a": "\0"}', "not JSON"),
    ],
    ids=range(12),
)
def test_json_that_is_refused(text, said):
    with pytest.raises(DataError, match=r"f\.json") as error:
        parse_json(text, "f.json")
    assert said in str(error.value)


def test_json_that_is_read():
    # Brackets in texts are no brackets, one key may have one value twice, and numbers are large.
    text = json.dumps(
        {"a": "[" * 1000, "b": [[["\\", '"['] * 100] * 3], "c": 10**30, "d": "\U0001f600"}
    )
    text = text[:-1] + ', "c": 1' + "0" * 30 + "}"
    assert parse_json(text, "f.json") == json.loads(text)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such devices")
def test_files_without_end(tmp_path):
    (tmp_path / "config.json").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="no file"):
        read_json_file(tmp_path / "config.json")
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(bounds.TEXT_BYTES + 1)
    with pytest.raises(DataError, match="more than 104,857,600 bytes"):
        read_json_file(tmp_path / "large.json")


def with_value(folder, key, text):
    """Sets a key of a BERT's `config.json` to what a JSON text says."""
    checkpoints.write(folder)
    config = checkpoints.CONFIG | {key: "@"}
    (folder / "config.json").write_text(json.dumps(config).replace('"@"', text))
    return folder


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("hidden_size", "9223372036854775808"),
        ("hidden_size", "8.0"),
        ("hidden_size", '"8"'),
        ("num_attention_heads", "true"),
        ("num_attention_heads", "0"),
        ("num_attention_heads", "-2"),
        ("num_hidden_layers", "1000000"),
        ("num_hidden_layers", "null"),
        ("vocab_size", "4000000000"),
        ("layer_norm_eps", "-1e-12"),
        ("layer_norm_eps", "1e39"),
        ("layer_norm_eps", "1e-320"),
        ("layer_norm_eps", "NaN"),
        ("layer_norm_eps", "1" + "0" * 4000),
        ("hidden_act", '["gelu"]'),
        ("hidden_dropout_prob", '{"a": 1}'),
        ("model_type", '["bert"]'),
        ("architectures", "5"),
    ],
)
def test_values_of_a_config(tmp_path, key, text):
    folder = with_value(tmp_path, key, text)
    with pytest.raises(DataError) as error:
        read_published(folder)
    assert "config.json" in str(error.value)
    assert key in str(error.value) or "NaN" in text or len(text) > 40
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("written", "read"),
    [("12", 12), ("12.0", 12), ("-1", None), ("1e30", None), ("1e40", None), ("null", None)],
)
def test_ways_to_write_how_long_a_row_may_be(tmp_path, written, read):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    (tmp_path / "tokenizer_config.json").write_text(f'{{"model_max_length": {written}}}')
    classes = tokenizer_classes(EncoderClass)
    found = read_encoder_tokenizer(SideFiles(tmp_path), tmp_path, classes, "BertTokenizer")
    assert found.max_length == read


def test_more_ends_than_there_can_be(tmp_path):
    """Many copies of one token are one; many tokens are refused where they stand."""
    (tmp_path / "config.json").write_text("{}")
    file = tmp_path / "generation_config.json"
    file.write_text(json.dumps({"eos_token_id": [7] * 100_001}))
    assert writing_fields(SideFiles(tmp_path))["stop_ids"] == (7,)
    file.write_text(json.dumps({"eos_token_id": list(range(1001))}))
    with pytest.raises(DataError, match=r"generation_config.json: eos_token_id .* at most 1000"):
        writing_fields(SideFiles(tmp_path))


def test_rows_too_short_for_a_sentence(tmp_path):
    """The file that says so is named, unless the user asks for longer rows."""
    folder = checkpoints.write(tmp_path / "tokenizer")
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 3}')
    with pytest.raises(DataError, match=r"tokenizer_config.json: model_max_length.* 3 tokens"):
        read_run(folder)
    read_run(folder, max_length=8)
    arrays = checkpoints.arrays("pooler", "masked", "next")
    name = "bert.embeddings.position_embeddings.weight"
    arrays[name] = arrays[name][:3]
    folder = checkpoints.write(tmp_path / "model", arrays, max_position_embeddings=3)
    with pytest.raises(DataError, match=r"config.json: max_position_embeddings.* 3 tokens"):
        read_run(folder)


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({"model_type": "llama", "num_hidden_layers": 1_000_000}, "num_layers"),
        (
            {"model_type": "mixtral", "num_hidden_layers": 1, "num_local_experts": 99},
            "num_experts",
        ),
    ],
)
def test_layers_without_arrays(tmp_path, content, field):
    sizes = {"vocab_size": 4, "hidden_size": 4, "num_attention_heads": 1, "num_key_value_heads": 1}
    sizes |= {"intermediate_size": 4, "head_dim": 4, "tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(sizes | content))
    # Under names in which no layer is told.
    arrays = {"model.embed_tokens.weight": np.zeros((4, 4), np.float32)}
    write_safetensors(arrays, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=rf"config\.model\.{field}.*1 arrays"):
        read_published(tmp_path)


FIRST = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ('{"a": %s, "a": {"dtype": "I32", "shape": [2], "data_offsets": [0, 8]}}', "'a' twice"),
        ('{"a": %s, "b": {"dtype": "F32", "shape": [%s], "data_offsets": [0, 8]}}', "1001 axes"),
        ('{"a": %s, "__metadata__": {"a": NaN}}', "NaN"),
        ('{"a": %s, "b": ' + "[" * 100_000, "brackets"),
    ],
)
def test_headers_of_safetensors(tmp_path, header, said):
    values = (json.dumps(FIRST), ",".join(["1"] * 1001))[: header.count("%s")]
    text = (header % values).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(DataError, match=r"model\.safetensors") as error:
        StoredArrays(path)
    assert said in str(error.value)
    path.write_bytes(struct.pack("<Q", 1 << 62) + text)
    with pytest.raises(DataError, match="header has"):
        StoredArrays(path)


def test_an_array_in_two_files(tmp_path):
    for name in ("1.safetensors", "2.safetensors"):
        raw(tmp_path / name, {"a": FIRST}, bytes(8))
    shards(tmp_path, {"a": "1.safetensors", "b": "2.safetensors"})
    with pytest.raises(DataError, match=r"'a' twice, in 1\.safetensors and 2\.safetensors"):
        StoredArrays(tmp_path)


def test_whole_numbers_are_no_weights(tmp_path):
    folder = checkpoints.write(tmp_path)
    content = (folder / "model.safetensors").read_bytes()
    changed = content.replace(b'"dtype":"F32"', b'"dtype":"I32"', 1)
    (folder / "model.safetensors").write_bytes(changed)
    with pytest.raises(DataError, match="int32, and weights are fractions"):
        read_published(folder)


def test_names_that_lead_nowhere():
    assert is_inside("1_Pooling")
    for name in ("../a", "/a", "a/../..", "a\0", "a" * 300):
        assert not is_inside(name)


def tokenizer_json(**changed):
    content = json.loads(make_text_tokenizer("byte", "", 0).identity())
    return json.dumps(content | changed)


def test_ids_that_no_table_has_room_for():
    model = {"type": "WordLevel", "vocab": {"a": 0, "b": 4_000_000_000}, "unk_token": "a"}
    with pytest.raises(DataError, match="the id 4,000,000,000"):
        parse_tokenizer_json(tokenizer_json(model=model), "f")


def damaged():
    """A tokenizer whose compiled map of characters the library fails on."""
    compiled = base64.b64encode(bytes(8)).decode()
    normalizer = {"type": "Precompiled", "precompiled_charsmap": compiled}
    return tokenizer_json(normalizer=normalizer)


def test_panics_are_errors_like_others(tmp_path):
    with pytest.raises(PanicError, match="the library fails"):
        LibraryTextTokenizer(parse_tokenizer_json(damaged(), "f")).encode("abc")
    with pytest.raises(KeyboardInterrupt), in_our_words("f"):
        raise KeyboardInterrupt
    with pytest.raises(DataError, match="f: bare"), in_our_words("f"):
        raise Exception("bare")


def test_a_damaged_tokenizer_is_refused_when_it_is_read(tmp_path):
    path = write_model(tmp_path / "model.gguf")
    folder = tmp_path / "llama"
    model = read_gguf(path)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(model.config))
    write_safetensors(dict(model.arrays), folder / "model.safetensors")
    (folder / "tokenizer.json").write_text(damaged())
    with pytest.raises(DataError, match="llama holds a tokenizer that"):
        read_run(folder)


@pytest.mark.parametrize("score", [np.nan, np.inf])
def test_scores_that_are_no_numbers(tmp_path, score):
    piece = b"\x0a\x01a\x15" + struct.pack("<f", score)
    with pytest.raises(ValueError, match="score"):
        parse_pieces(b"\x0a" + bytes([len(piece)]) + piece)
    scores = [float(score), *SCORED["tokenizer.ggml.scores"][1:]]
    path = write_model(tmp_path / "f.gguf", SCORED | {"tokenizer.ggml.scores": scores})
    with pytest.raises(DataError, match=r"f\.gguf is damaged: its token '<unk>'"):
        read_gguf(path)


@pytest.mark.parametrize(
    "message", [b"\x0a\x00", b"\x0a\x02\x08\x01", b"\x08\x01", b"\x12\x02\x1a\x00"]
)
def test_messages_with_other_kinds_of_fields(message):
    with pytest.raises(ValueError, match=r"it|piece"):
        parse_pieces(message)


def test_a_token_so_long_that_its_merges_take_for_ever(tmp_path):
    tokens = [*SCORED["tokenizer.ggml.tokens"][:-1], "a" * 100_000]
    path = write_model(tmp_path / "f.gguf", SCORED | {"tokenizer.ggml.tokens": tokens})
    with pytest.raises(DataError, match="100000 characters"):
        read_gguf(path)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"llama.rope.freq_base": float("nan")}, "freq_base"),
        ({"llama.rope.freq_base": -1.0}, "freq_base"),
        ({"llama.block_count": struct.pack("<IQ", 10, 1 << 63)}, "block_count"),
        ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "rms_norm_eps"),
    ],
)
def test_numbers_of_gguf(tmp_path, metadata, said):
    with pytest.raises(DataError, match=said):
        read_run(write_model(tmp_path / "f.gguf", metadata))


def test_arrays_of_gguf_that_share_bytes(tmp_path):
    content = gguf({}, {"aa": np.ones(8), "ab": np.ones(8)})
    place = content.index(struct.pack("<Q", 32))
    content = content[:place] + bytes(8) + content[place + 8 :]
    (tmp_path / "f.gguf").write_bytes(content)
    from transformer.interop.formats.gguf import read_gguf_file

    with pytest.raises(DataError, match="aa and ab share bytes"):
        read_gguf_file(tmp_path / "f.gguf")
