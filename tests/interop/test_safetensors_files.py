import json
import pickle
import struct
import sys

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from transformer.errors import DataError, MissingDependencyError
from transformer.interop.formats.safetensors import (
    read_metadata,
    read_safetensors,
    write_safetensors,
)

pytest.importorskip("safetensors", reason="its files are read here")


def raw(path, header, data=b""):
    """A file in the format, whatever it says."""
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def shards(folder, names):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def refused(path, *parts):
    with pytest.raises(DataError) as error:
        read_safetensors(path)
    for part in (str(path), *parts):
        assert part in str(error.value)


def test_what_is_written_is_read(tmp_path):
    arrays = {
        "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
        "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "number": np.array(3.5, np.float32),
        "empty": np.zeros((0, 4), np.float32),
        "of JAX": jnp.arange(4.0),
        "large": np.array([1 << 40, -(1 << 62)]),
        "exact": np.array([1 / 3]),
        "truth": np.array([True, False]),
    }
    path = tmp_path / "file.safetensors"
    write_safetensors(arrays, path, {"made": "here"})
    found = read_safetensors(path)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert isinstance(found[name], np.ndarray)
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)
    assert [file.name for file in tmp_path.iterdir()] == ["file.safetensors"]
    assert read_metadata(path) == {"made": "here"}
    write_safetensors({"other": np.zeros(2)}, path)
    assert list(read_safetensors(path)) == ["other"]
    assert read_metadata(path) == {}
    path.write_bytes(b"text, and more text")
    with pytest.raises(DataError, match="cannot be read as safetensors"):
        read_metadata(path)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_widened(tmp_path, dtype):
    array = np.random.default_rng(0).normal(size=(3, 4)).astype(dtype)
    write_safetensors({"half": array}, tmp_path / "model.safetensors")
    (found,) = read_safetensors(tmp_path).values()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, array.astype(np.float32))


def test_model_in_several_files(tmp_path):
    for shard in (1, 2):
        write_safetensors({f"array {shard}": np.full(2, shard)}, tmp_path / f"{shard}.safetensors")
    shards(tmp_path, {"array 1": "1.safetensors", "array 2": "2.safetensors"})
    found = read_safetensors(tmp_path)
    assert {name: array[0] for name, array in found.items()} == {"array 1": 1, "array 2": 2}
    (tmp_path / "2.safetensors").unlink()
    with pytest.raises(DataError, match=r"2\.safetensors cannot be read"):
        read_safetensors(tmp_path)


@pytest.mark.parametrize("name", ["../secret.safetensors", "..", "", "a/b.safetensors", 7, None])
def test_shards_lie_in_their_folder(tmp_path, name):
    folder = tmp_path / "model"
    folder.mkdir()
    write_safetensors({"secret": np.zeros(1)}, tmp_path / "secret.safetensors")
    shards(folder, {"array": name})
    refused(folder, "index.json", repr(name))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"weight_map": 3}',
        '{"weight_map": {"a": ["b"]}}',
        '{"weight_map": {"a": "b", "c": 1}}',
    ],
)
def test_damaged_index(tmp_path, content):
    (tmp_path / "model.safetensors.index.json").write_text(content)
    refused(tmp_path, "index.json")


class Evil:
    def __reduce__(self):
        return (sys.exit, ("a pickle was read",))


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "m.pkl"]
)
def test_pickles_are_refused(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(pickle.dumps(Evil()))
    refused(path, "pickle", "safetensors")
    refused(tmp_path, "model.safetensors", name, "not read")
    # Whatever it is called, it is read as nothing else.
    path.rename(tmp_path / "model.safetensors")
    refused(tmp_path, "cannot be read as safetensors")


def test_a_folder_may_have_any_name(tmp_path):
    folder = tmp_path / "model.ckpt"
    folder.mkdir()
    write_safetensors({"array": np.zeros(1)}, folder / "model.safetensors")
    assert list(read_safetensors(folder)) == ["array"]


def test_nothing_there(tmp_path):
    refused(tmp_path, "has no model.safetensors")
    refused(tmp_path / "model.safetensors", "does not exist")
    refused(tmp_path / "folder", "does not exist")


GOOD = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (GOOD, b"\0" * 7),
        (GOOD, b"\0" * 9),
        ({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, b"\0" * 8),
        ({"a": {"dtype": "F31", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 8),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}}, b"\0" * 16),
        ({"a": {"dtype": "F32"}}, b""),
        ([], b""),
        ({"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}, b"\0" * 2),
    ],
    ids=["cut", "too long", "shape", "dtype", "gap", "no shape", "list", "float8"],
)
def test_damaged_files(tmp_path, header, data):
    refused(raw(tmp_path / "model.safetensors", header, data))


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\xff" * 100, b"text, and more text"])
def test_other_files(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    refused(path)


def test_good_file(tmp_path):
    path = raw(tmp_path / "model.safetensors", GOOD, struct.pack("<2f", 1.5, -2.0))
    np.testing.assert_array_equal(read_safetensors(path)["a"], [1.5, -2.0])


def test_without_the_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    path = raw(tmp_path / "model.safetensors", GOOD, b"\0" * 8)
    with pytest.raises(MissingDependencyError, match="pip install"):
        read_safetensors(path)
    with pytest.raises(MissingDependencyError, match="pip install"):
        write_safetensors({}, path)
