import hashlib
import json
import os
import time

import numpy as np
import pytest

from tests.data.image_files import class_folders, colours, encoded, write_files
from transformer.caches import cache_folder
from transformer.data.images import checks as image_checks
from transformer.data.images.labelled import draw_held_out
from transformer.data.images.reading import read_evaluation_images, read_images
from transformer.errors import ConfigError, DataError

GREY = encoded(colours(3, 3)[..., 0])
CUT_OFF = encoded(colours(32, 32), "JPEG")[:-100]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def write(tmp_path):
    return lambda files: write_files(tmp_path / "set", files)


@pytest.fixture
def decodes(monkeypatch):
    """Grows by one for each file that is decoded to check it."""
    seen = []

    def count(content, channels):
        seen.append(content)
        return decode(content, channels)

    decode = image_checks.decode
    monkeypatch.setattr(image_checks, "decode", count)
    return seen


def test_a_folder_for_each_class(write):
    files = class_folders("dog", "a cat", count=10)
    files["dog/deep/er/x.PNG"] = encoded(colours(7, 2, seed=9))
    path = write({**files, "dog/.hidden.png": b"", "dog/.hidden/a.png": b"", ".git/a.png": b""})
    train, validation = read_images(path)
    assert train.names == validation.names == ("a cat", "dog")
    assert np.bincount(train.labels).tolist() == [9, 10]
    assert np.bincount(validation.labels).tolist() == [1, 1]
    assert train.labels.dtype == np.int32
    assert train.notes == validation.notes == ()
    named = [*train.source.files, *validation.source.files]
    assert sorted(named) == sorted(files)
    for part in (train, validation):
        for index, (file, label) in enumerate(zip(part.source.files, part.labels, strict=True)):
            assert file.split("/")[0] == part.names[label]
            if file.endswith("PNG"):
                np.testing.assert_array_equal(part.source[index], colours(7, 2, seed=9))


def test_the_same_images_are_held_out_each_time(write):
    path = write(class_folders("a", "b", count=20))
    first, second = read_images(path), read_images(path)
    assert first[1].source.files == second[1].source.files
    assert [part.digest for part in first] == [part.digest for part in second]
    assert first[0].digest != first[1].digest


@pytest.mark.parametrize("name", ["val", "valid", "validation", "test", "Test"])
def test_parts_of_a_set(write, name):
    files = class_folders("a", "b", prefix="train/") | class_folders("a", "b", prefix=f"{name}/")
    train, validation = read_images(write(files))
    assert (len(train.labels), len(validation.labels)) == (4, 4)
    assert validation.source.root.endswith(name)
    assert train.source.files == ["a/0.png", "a/1.png", "b/0.png", "b/1.png"]


def test_validation_comes_before_test_and_evaluation_takes_the_test(write):
    files = {}
    for part in ("train", "val", "test"):
        files |= class_folders("a", "b", prefix=f"{part}/")
    path = write(files)
    assert read_images(path)[1].source.root.endswith("val")
    found = read_evaluation_images(path, ("b", "c", "a"), channels=1, broken="refuse")
    assert found.source.root.endswith("test")
    assert found.labels.tolist() == [2, 2, 0, 0]
    assert found.names == ("b", "c", "a")
    assert found.source[0].shape == (3, 4, 1)


def test_a_train_folder_alone(write):
    train, validation = read_images(write(class_folders("a", "b", prefix="train/")))
    assert (len(train.labels), len(validation.labels)) == (3, 1)


def test_a_class_may_be_called_train(write):
    assert read_images(write(class_folders("train", "car")))[0].names == ("car", "train")


def test_a_path_for_validation(write, tmp_path):
    path = write(class_folders("a", "b"))
    other = write_files(tmp_path / "other", class_folders("a", "b", count=3, prefix="val/"))
    train, validation = read_images(path, validation_path=other)
    assert (len(train.labels), len(validation.labels)) == (4, 6)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "set does not exist: give a folder with"),
        ({"readme.txt": b"x"}, "has no images: give a folder with"),
        ({"a.png": GREY}, "images, but no folder for each class"),
        (class_folders("a") | {"b/x.txt": b"", "b/y.heic": b""}, r"class b: .*b/x.txt, b/y.heic"),
        (class_folders("a", prefix="train/") | class_folders("b"), "train.*others.*b.*Move"),
        (class_folders("a", prefix="val/"), "for validation, but none for training"),
        ({"train/x.png": GREY, "val/x.png": GREY}, "train has no folder for each class"),
        (
            class_folders("a", prefix="train/")
            | class_folders("a", prefix="val/")
            | class_folders("a", prefix="valid/"),
            "both for validation",
        ),
        (
            class_folders("a", "b", "c", prefix="train/") | class_folders("a", "d", prefix="val/"),
            r"only .*train has b, c; only .*val has d",
        ),
        (
            class_folders("a", "b", prefix="train/")
            | class_folders("a", prefix="val/")
            | {"val/b/.x": b""},
            r"val has no images of the class b",
        ),
        (class_folders("a", "b", count=1), "none can be held out"),
    ],
)
def test_folders_that_make_no_set(write, files, message):
    with pytest.raises(DataError, match=message):
        read_images(write(files))


def test_classes_that_the_model_does_not_know(write):
    with pytest.raises(DataError, match='has no "cats": did you mean "cat"'):
        read_evaluation_images(
            write(class_folders("cats")), ("cat", "dog"), channels=3, broken="refuse"
        )


def test_other_files(write, tmp_path):
    path = write(class_folders("a") | {"readme.txt": b"", "a/Thumbs.db": b""})
    assert "2 other files were not read: readme.txt, a/Thumbs.db" in read_images(path)[0].notes[0]
    file = write_files(tmp_path / "file", {"a.zip": b"PK"})
    with pytest.raises(DataError, match=r"ending '.zip': give .*npz"):
        read_images(f"{file}/a.zip")


def test_channels(write, tmp_path):
    grey = write_files(tmp_path / "grey", {f"a/{number}.png": GREY for number in range(3)})
    train, _ = read_images(grey)
    assert (train.source[0].shape, train.notes) == ((3, 3, 1), ())
    train, _ = read_images(grey, channels=3)
    assert train.source[0].shape == (3, 3, 3)
    assert "3 of 3 images were converted to RGB: 3 grey (a/0.png" in train.notes[0]
    mixed = write(class_folders("a", count=4) | {"a/grey.png": GREY})
    train, validation = read_images(mixed)
    assert {image.shape[2] for part in (train, validation) for image in [part.source[0]]} == {3}
    assert "1 of 5 images were converted to RGB: 1 grey (a/grey.png)" in train.notes[0]
    assert read_images(mixed, channels=1)[0].digest != train.digest


def test_broken_files(write):
    bad = {"a/x.jpg": CUT_OFF, "a/y.png": b"", "b/z.gif": b"GIF89a"}
    path = write(class_folders("a", "b", count=5) | bad)
    with pytest.raises(DataError, match=r"a/x.jpg cannot .*truncated.*2 more of 13.*broken=skip"):
        read_images(path)
    train, validation = read_images(path, broken="skip")
    assert len(train.labels) + len(validation.labels) == 10
    assert "3 of 13 images are broken and were left out: a/x.jpg, a/y.png, b/z.gif" in str(
        train.notes
    )
    with pytest.raises(ConfigError, match=r"'refuse'.*'skip'"):
        read_images(path, broken="keep")


def test_a_class_with_broken_files_only(write):
    path = write(class_folders("a") | {"b/x.jpg": CUT_OFF})
    with pytest.raises(DataError, match="all images of the class b are broken"):
        read_images(path, broken="skip")


def test_links_are_followed_but_not_in_a_circle(write, tmp_path):
    path = write(class_folders("a"))
    elsewhere = tmp_path / "elsewhere"
    write_files(elsewhere, {"deep/x.png": GREY, "y.png": GREY})
    (elsewhere / "again").symlink_to(elsewhere)
    (tmp_path / "set" / "b").symlink_to(elsewhere)
    train, validation = read_images(path)
    assert np.bincount(np.concatenate([train.labels, validation.labels])).tolist() == [2, 2]


def test_good_files_are_decoded_once(write, decodes, tmp_path):
    path = write(class_folders("a", "b") | {"a/x.jpg": CUT_OFF})
    first = read_images(path, broken="skip")
    assert len(decodes) == 5
    second = read_images(path, broken="skip")
    # Only what is broken.
    assert len(decodes) == 6
    assert [(part.digest, part.notes) for part in first] == [
        (part.digest, part.notes) for part in second
    ]
    (tmp_path / "set" / "a" / "0.png").write_bytes(GREY)
    third = read_images(path, broken="skip")
    assert len(decodes) == 8
    assert third[0].digest != first[0].digest or third[1].digest != first[1].digest


def test_another_file_of_the_same_size_and_time(write, decodes, tmp_path):
    contents = [b"P5 2 2 255 " + bytes([value] * 4) for value in (1, 2)]
    path = write({"a/0.pgm": contents[0], "a/1.pgm": contents[0]})
    file = tmp_path / "set" / "a" / "0.pgm"
    state = file.stat()
    first = read_images(path)
    # The clock of files may be coarse.
    time.sleep(0.02)
    file.write_bytes(contents[1])
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    second = read_images(path)
    assert len(decodes) == 3
    assert {part.digest for part in first} != {part.digest for part in second}


def remembered():
    (memory,) = (cache_folder() / "images").glob("*.json")
    return memory


def opened(content):
    return json.loads(content[:-32])


def sealed(value):
    content = json.dumps(value).encode()
    return content + hashlib.sha256(content).digest()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-10],
        lambda content: b"\xff\xfe",
        lambda content: b"[]",
        lambda content: b"[" * 100_000,
        # What is whole may be nonsense, too.
        lambda content: sealed({**opened(content), "version": "0"}),
        lambda content: sealed({**opened(content), "files": [1]}),
        lambda content: sealed({**opened(content), "files": {"a/0.png": [1, 2, 3]}}),
        lambda content: sealed([]),
        lambda content: content.replace(b'"RGB"', b"5"),
    ],
)
def test_a_damaged_memory_is_not_used(write, decodes, damage):
    path = write(class_folders("a"))
    first = read_images(path)
    memory = remembered()
    memory.write_bytes(damage(memory.read_bytes()))
    assert read_images(path)[0].digest == first[0].digest
    assert len(decodes) == 4
    read_images(path)
    assert len(decodes) == 4


def test_no_place_for_a_memory(write, decodes, tmp_path):
    (tmp_path / "cache").write_bytes(b"a file")
    path = write(class_folders("a"))
    read_images(path)
    read_images(path)
    assert len(decodes) == 4


def test_an_interrupted_check_goes_on(write, decodes, monkeypatch):
    path = write(class_folders("a", count=4))
    monkeypatch.setattr(image_checks, "_BLOCK", 2)
    inner = image_checks.decode

    def interrupted(content, channels):
        if len(decodes) >= 2:
            raise KeyboardInterrupt
        return inner(content, channels)

    with monkeypatch.context() as patch:
        patch.setattr(image_checks, "decode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            read_images(path)
    read_images(path)
    assert len(decodes) == 4


def test_nothing_is_printed(write, capsys):
    read_images(write(class_folders("a")))
    assert capsys.readouterr() == ("", "")


def test_arguments(write):
    path = write(class_folders("a", "b"))
    with pytest.raises(ConfigError, match="channels is 4"):
        read_images(path, channels=4)
    for fraction in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="validation_fraction"):
            read_images(path, validation_fraction=fraction)


@pytest.mark.parametrize("count", [1, 7, 20, 50])
def test_each_class_gives_its_share(count):
    sizes = np.array([1, 2, 5, 12, 30, 50])
    labels = np.repeat(np.arange(6, dtype=np.int32), sizes)
    train, held_out = draw_held_out(labels, count)
    assert sorted([*train, *held_out]) == list(range(100))
    assert len(held_out) == count
    given = np.bincount(labels[held_out], minlength=6)
    assert (given < sizes).all()
    # But for the class that would lose its last one, no share is off by one or more.
    assert (abs(given - sizes * count / 100) < 1)[1:].all()
    again = draw_held_out(labels, count)
    np.testing.assert_array_equal(again[1], held_out)
    assert count == 1 or list(draw_held_out(labels, count, seed=1)[1]) != list(held_out)


def test_a_small_fraction_of_many_small_classes():
    labels = np.repeat(np.arange(40, dtype=np.int32), 3)
    _, held_out = draw_held_out(labels, 12)
    assert len(held_out) == 12
    assert np.bincount(labels[held_out]).max() == 1


def test_more_than_can_be_held_out():
    train, held_out = draw_held_out(np.array([0, 0, 1, 2], np.int32), 4)
    assert (len(train), len(held_out)) == (3, 1)
