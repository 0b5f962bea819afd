import gzip
import io
import json
import os
import threading
import tracemalloc
import zipfile

import numpy as np
import pytest

from transformer.data.images.decoding import read_image_file
from transformer.data.images.reading import read_images
from transformer.data.labels.squad import read_squad
from transformer.data.labels.tables import read_labelled_texts
from transformer.data.pairs.texts import read_text_pairs
from transformer.data.reading import bounds
from transformer.data.reading.content import read_content
from transformer.data.reading.json_text import loads
from transformer.data.reading.text import IncomingLines, read_text
from transformer.errors import DataError

# Of the limit here; no file of a test is large.
SMALL = 1 << 20
BOMB = r"becomes more than [\d,]+ bytes when it is unpacked.*: if it is meant, unpack it yourself"


@pytest.fixture(autouse=True)
def limits(monkeypatch):
    monkeypatch.setattr(bounds, "UNPACKED_BYTES", SMALL)


def bomb(content=b"a" * 1000, times=20_000, head=b""):
    """1,000 times as much as it is."""
    return gzip.compress(head + content * times)


def peak(function):
    """The most bytes that Python held at once in a call."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused(function, *arguments, match, **named):
    with pytest.raises(DataError, match=match):
        function(*arguments, **named)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("a.txt.gz", read_text),
        ("a.jsonl.gz", read_labelled_texts),
        ("a.tsv.gz", read_labelled_texts),
        ("a.json", read_squad),
        ("a.jsonl.gz", lambda path: read_text_pairs(str(path), "", "config.task.train")),
    ],
)
def test_compressed_texts_that_are_far_larger(tmp_path, name, read):
    path = tmp_path / name
    path.write_bytes(bomb())
    most = peak(lambda: refused(read, path, match=f"{name} {BOMB}"))
    assert most < 16 * SMALL


def test_compressed_texts_that_are_as_large_as_texts_are(tmp_path, monkeypatch):
    monkeypatch.setattr(bounds, "UNPACKED_BYTES", 1000)
    text = "\n".join(f"the {number}th sentence, which is none" for number in range(2000))
    path = tmp_path / "a.txt"
    for content in (gzip.compress(text.encode()), text.encode()):
        path.write_bytes(content)
        assert read_text(path) == text
    # Several in one file are one text.
    path.write_bytes(gzip.compress(b"a\n") + gzip.compress(b"b\n"))
    assert read_text(path) == "a\nb\n"


def test_small_files_may_be_of_repetitions(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"ab\n" * 300_000))
    assert len(read_text(path)) == 900_000


def test_images_in_an_idx_file_that_is_far_larger(tmp_path):
    head = bytes([0, 0, 8, 3]) + np.array([20_000, 10, 100], ">u4").tobytes()
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(bomb(b"\0" * 1000, head=head))
    labels = bytes([0, 0, 8, 1]) + np.array([20_000], ">u4").tobytes() + bytes(20_000)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    refused(read_images, str(tmp_path), match=f"train-images-idx3-ubyte.gz {BOMB}")


def npz(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def array_file(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def header(text):
    text = text.encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


LABELS = array_file(np.zeros(4, np.uint8))


def test_images_in_an_npz_file_that_is_far_larger(tmp_path):
    images = array_file(np.zeros((20_000, 10, 100), np.uint8))
    path = npz(tmp_path / "a.npz", {"images": images, "labels": LABELS})
    refused(
        read_images, str(path), match=r"a.npz: 'images' becomes more.*save it with numpy.savez,"
    )


@pytest.mark.parametrize(
    "content",
    [
        header("[" * 5000),
        header("{'descr': '|u1', 'fortran_order': False, 'shape': " + "(" * 5000),
        header("(" * 900),
        header("-" * 900 + "1"),
        header("{'descr': '|u1', 'fortran_order': False, 'shape': (9, 9), }" + " " * 60_000),
        header("{'descr': '|u1', 'fortran_order': False, 'shape': (10000000000000, 9, 9), }"),
        header("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 9, 9), }"),
        header("{'descr': '|u1', 'fortran_order': False, 'shape': (1" + "0" * 300 + ",), }"),
        header("{'descr': '|u1', 'fortran_order': False, 'shape': 'abc', }"),
        header("{'descr': [['x']], 'fortran_order': False, 'shape': (4, 2, 2), }"),
        header("{'descr': '|O', 'fortran_order': False, 'shape': (4, 2, 2), }"),
        header("{'descr': '|u1', 'fortran_order': False, 'shape': (4, 2, 2), }\n") + b"\0" * 15,
        b"\x93NUMPY\x09\x00",
        b"\x93NUMPY\x01\x00\xff",
        b"",
        b"\x80\x04N.",
    ],
    ids=lambda content: ascii(content[:60]),
)
def test_headers_of_arrays(tmp_path, content):
    path = npz(tmp_path / "a.npz", {"images": content, "labels": LABELS})
    refused(read_images, str(path), match="a.npz: 'images'")


@pytest.mark.parametrize("content", [header("[" * 5000), b"PK\x03\x04", b"", b"\x80\x04N."])
def test_what_is_no_archive(tmp_path, content):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    refused(read_images, str(path), match=r"a.npz is no .npz file")


@pytest.mark.parametrize("depth", [65, 900, 5000, 100_000])
@pytest.mark.parametrize("pair", ["[]", ('{"a":', "}")])
def test_deep_json(tmp_path, depth, pair):
    text = pair[0] * depth + "0" * (pair[1] == "}") + pair[1] * depth
    with pytest.raises(ValueError, match="more than 64 brackets"):
        loads(text)
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "a", "label": "b", "source": "c", "target": {text}}}\n', "utf-8")
    deep = "a.jsonl.*more than 64 brackets within each other"
    refused(read_labelled_texts, path, match=deep)
    refused(read_text_pairs, str(path), "", "config.task.train", match=deep)
    refused(read_squad, path, match=deep)


def test_json_of_usual_depth():
    content = {"a": [{"b": [[1, 2.5, None, "x"]]}] * 3}
    assert loads(json.dumps(content)) == content
    assert loads("[" * 64 + "]" * 64) is not None
    assert loads("1") == 1


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/urandom", "/dev/null"])
def test_devices_have_no_end(path):
    refused(read_text, path, match=f"{path} is a device")
    refused(read_image_file, path, 3, match=f"{path} cannot be used as an image")


def test_a_text_is_read_up_to_what_no_text_has(tmp_path):
    path = tmp_path / "a.txt"
    with path.open("wb") as file:
        file.write(b"two\nlines\n")
        # Takes no place on the disk.
        file.truncate(1 << 36)
    most = peak(lambda: refused(read_text, path, match=r"a.txt, line 3 has a NUL byte"))
    assert most < 32 << 20


def test_pipes_are_read_up_to_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(bounds, "PIPED_BYTES", 1000)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def piped(content):
        writer = threading.Thread(target=pipe.write_bytes, args=(content,))
        writer.start()
        try:
            return read_text(pipe)
        finally:
            writer.join()

    assert piped(b"a text") == "a text"
    refused(piped, b"a" * 1001, match="pipe gives more than 1,000 bytes: write them into a file")


def test_lines_that_never_end(monkeypatch):
    monkeypatch.setattr("transformer.data.reading.bounds.LINE_BYTES", 1 << 17)
    long = b"a\n" + b"b" * (1 << 18)
    lines = IncomingLines(io.BytesIO(long), "the input")
    assert next(lines) == "a"
    refused(next, lines, match="line 2 of the input has more than 131,072 bytes")


def test_image_files_of_any_size(tmp_path, monkeypatch):
    monkeypatch.setattr(bounds, "IMAGE_BYTES", 1000)
    path = tmp_path / "a.png"
    path.write_bytes(bytes(1001))
    refused(read_image_file, path, 3, match="it has 1,001 bytes, more than 1,000")


def test_paths_of_no_files(tmp_path):
    for name, reason in [("none", "does not exist"), (".", "is a folder"), ("x" * 300, "too long")]:
        with pytest.raises(DataError, match=reason):
            read_content(tmp_path / name, "a text file")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    refused(read_text, loop, match="loop cannot be read: Too many levels")
