"""Archives of `torch.save`: the same arrays as torch reads, and nothing else from anybody."""

import io
import os
import pickle
import random
import time
import zipfile

import numpy as np
import pytest

from transformer.errors import DataError
from transformer.interop.formats.torch_archive import TorchArrays, archives

FLOATS = b"ctorch\nFloatStorage\n"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
STOP = b"."


def text(value):
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def number(value):
    return b"\x8a\x08" + value.to_bytes(8, "little", signed=True)


def storage(key="0", count=6, kind=FLOATS):
    return b"(" + text("storage") + kind + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(shape=(2, 3), strides=(3, 1), offset=0, **of_storage):
    def numbers(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    parts = storage(**of_storage) + number(offset) + numbers(shape) + numbers(strides)
    return TENSOR + b"(" + parts + b"\x89)tR"


def state(**tensors):
    items = b"".join(text(name) + value for name, value in tensors.items())
    return b"\x80\x02}(" + items + b"u" + STOP


def archive(path, content, numbers=None, compression=zipfile.ZIP_STORED, **more):
    numbers = np.arange(6, dtype="<f4").tobytes() if numbers is None else numbers
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", content)
        file.writestr("archive/data/0", numbers)
        for name, value in more.items():
            file.writestr(f"archive/{name}", value)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "pytorch_model.bin"


def test_arrays_written_by_hand(path):
    content = state(a=tensor(), b=tensor((3, 2), (1, 3)), c=tensor((), (), 4), d=tensor((0,), (1,)))
    found = TorchArrays([archive(path, content)])
    expected = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(found["a"], expected)
    np.testing.assert_array_equal(found["b"], expected.T)
    assert found["c"] == 4.0
    assert found["d"].shape == found.shape("d") == (0,)
    assert list(found) == ["a", "b", "c", "d"]


class Evil:
    def __reduce__(self):
        return os._exit, (7,)


DEEP = b"\x80\x02" + b")" + b"\x85" * 200_000 + STOP


def level(place):
    """A dict that holds the one before twice."""
    before = b"j" + place.to_bytes(4, "little")
    items = text("a") + before + text("b") + before
    return b"}(" + items + b"ur" + (place + 1).to_bytes(4, "little")


# Of 2 ** 20,000 items, if all were visited.
LAUGHS = b"\x80\x02}r" + bytes(4) + b"".join(map(level, range(20_000))) + STOP
HOSTILE = {
    "code": (pickle.dumps({"a": Evil()}, 2), "names 'posix _exit'"),
    "newer code": (pickle.dumps({"a": Evil()}, 4), "has the instruction 95"),
    "an import": (b"\x80\x02cos\nsystem\n" + STOP, "names 'os system'"),
    "an instance": (b"\x80\x02(ios\nsystem\n" + STOP, "has the instruction 69"),
    "an extension": (b"\x80\x02\x82\x01" + STOP, "has the instruction 82"),
    "a call of a dict": (b"\x80\x02})R" + STOP, "calls what is no function"),
    "arguments of a dict": (b"\x80\x02ccollections\nOrderedDict\n}\x85R" + STOP, "calls"),
    "no tensor": (state(a=text("b")), "'a', which is no tensor"),
    "no dict": (b"\x80\x02" + tensor() + STOP, "no dict of tensors"),
    "two results": (b"\x80\x02}}" + STOP, "no dict of tensors"),
    "outside": (state(a=tensor(offset=1)), "'a' lies outside"),
    "another file": (state(a=tensor(key="../0")), "'a' lies outside"),
    "more than the file": (state(a=tensor((7,), (1,), count=7)), "'a' lies outside"),
    "repeated": (state(a=tensor((1 << 40,), (0,))), "'a' lies outside"),
    "negative": (state(a=tensor((2,), (-1,), 3)), "else than sizes"),
    "many axes": (state(a=tensor((1,) * 40, (1,) * 40)), "'a' lies outside"),
    "lost axes": (state(a=tensor((2, 3), (3,))), "without shape"),
    "a key that is hashed": (b"\x80\x02})\x85}s" + STOP, "none of a dict"),
    "deep": (DEEP, "no dict of tensors"),
    "laughs": (LAUGHS, "no dict of tensors"),
    "no end": (b"\x80\x02}", "has no end"),
    "nothing": (b"", "has no end"),
    "no mark": (b"\x80\x02}t" + STOP, "damaged"),
    "an unknown memo": (b"\x80\x02h\x07" + STOP, "damaged"),
    "a long text": (b"\x80\x02X\xff\xff\xff\xff" + STOP, "ends in an argument"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_state_dict_is_refused(path, name):
    content, said = HOSTILE[name]
    with pytest.raises(DataError, match=said) as caught:
        TorchArrays([archive(path, content)])
    assert str(path) in str(caught.value)


def test_strange_archives_are_refused(path):
    for said, arguments in {
        "not compressed": {"compression": zipfile.ZIP_DEFLATED},
        "little-endian": {"byteorder": "big"},
    }.items():
        with pytest.raises(DataError, match=said):
            TorchArrays([archive(path, state(a=tensor()), **arguments)])
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(DataError, match="cannot be read as an archive"):
        TorchArrays([path])
    with pytest.raises(DataError, match="'a' of another file"):
        TorchArrays([archive(path, state(a=tensor())), path])


def test_damaged_numbers_are_refused(path):
    archive(path, state(a=tensor()))
    content = path.read_bytes()
    place = content.index(np.arange(6, dtype="<f4").tobytes())
    path.write_bytes(content[: place + 9] + b"\xff" + content[place + 10 :])
    found = TorchArrays([path])
    with pytest.raises(DataError, match="CRC"):
        found["a"]


def test_random_pickles_build_nothing_else(path):
    """Random changes of a good pickle, and random instructions: refused, or arrays in bounds."""
    source = random.Random(0)
    good = state(a=tensor(), b=tensor((3,), (2,)), c=tensor((2, 2), (1, 1), 2))
    parts = [
        b"(",
        b"}",
        b")",
        b"t",
        b"\x85",
        b"\x86",
        b"\x87",
        b"s",
        b"u",
        b"R",
        b"Q",
        b"b",
        FLOATS,
    ]
    parts += [TENSOR, storage(), tensor(), text("a"), number(3), b"\x89", b"q\x01", b"h\x01"]
    began, read = time.monotonic(), 0
    for number_of_case in range(800):
        if number_of_case % 2:
            content = (
                b"\x80\x02" + b"".join(source.choices(parts, k=source.randrange(1, 40))) + STOP
            )
        else:
            changed = bytearray(good)
            for _ in range(source.randrange(3)):
                changed[source.randrange(len(changed))] = source.randrange(256)
            content = bytes(changed)
        try:
            found = TorchArrays([archive(path, content)])
        except DataError:
            continue
        for name, array in found.items():
            assert array.shape == found.shape(name)
            assert array.size <= 24
        read += len(found) > 0
    assert read > 20
    assert time.monotonic() - began < 60


def test_arrays_are_those_of_torch(path):
    torch = pytest.importorskip("torch", reason="torch writes the archive")
    whole = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    held = {
        "whole": whole,
        "turned": whole.T[1:, ::2],
        "half": whole.half(),
        "brain": whole.to(torch.bfloat16),
        "double": whole.double(),
        "long": torch.arange(3),
        "flags": torch.tensor([True, False]),
        "parameter": torch.nn.Parameter(whole[1]),
        "number": torch.tensor(2.5),
        "none": torch.zeros(0, 3),
    }
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    for content in (held, module.state_dict(), {}):
        torch.save(content, path)
        found = TorchArrays([path])
        assert list(found) == list(content)
        for name, value in content.items():
            value = value.detach()  # noqa: PLW2901
            assert found.shape(name) == tuple(value.shape)
            exact = value.float() if value.dtype == torch.bfloat16 else value
            np.testing.assert_array_equal(found[name].astype(exact.numpy().dtype), exact.numpy())


def test_several_archives_are_one_model(tmp_path):
    for index, name in enumerate("ab"):
        archive(tmp_path / f"part-{index}.bin", state(**{name: tensor()}))
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text('{"weight_map": {"a": "part-0.bin", "b": "part-1.bin"}}')
    assert list(TorchArrays(archives(tmp_path))) == ["a", "b"]
    index.write_text('{"weight_map": {"a": "../part-0.bin"}}')
    with pytest.raises(DataError, match="none of its folder"):
        archives(tmp_path)


def test_code_in_them_would_have_run():
    """That the first case is hostile indeed."""
    names = []

    class Watched(pickle.Unpickler):
        def find_class(self, module, name):
            names.append(name)
            return print

    Watched(io.BytesIO(HOSTILE["code"][0])).load()
    assert names == ["_exit"]
