import gzip
import struct

import numpy as np
import pytest

from tests.data.image_files import colours, encoded, write_files
from transformer.data.images.reading import read_evaluation_images, read_image_file, read_images
from transformer.errors import DataError

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (20, 4, 5), dtype=np.uint8)
IN_COLOUR = RANDOM.integers(0, 256, (20, 4, 5, 3), dtype=np.uint8)
LABELS = np.arange(20) % 4


@pytest.fixture
def save(tmp_path):
    def save(**arrays):
        np.savez_compressed(tmp_path / "set.npz", **arrays)
        return str(tmp_path / "set.npz")

    return save


@pytest.fixture
def write(tmp_path):
    return lambda files: write_files(tmp_path / "set", files)


@pytest.mark.parametrize("images", [IMAGES, IMAGES[..., None], IN_COLOUR], ids=["3", "4", "RGB"])
@pytest.mark.parametrize("labels", [LABELS, LABELS[:, None].astype(np.uint64)], ids=["n", "n1"])
def test_images_without_parts(save, images, labels):
    train, validation = read_images(save(images=images, labels=labels), validation_fraction=0.2)
    assert train.names == ("0", "1", "2", "3")
    assert (len(train.source), len(validation.source)) == (16, 4)
    assert sorted(validation.labels) == [0, 1, 2, 3]
    expected = images.reshape(20, 4, 5, -1)
    found = np.concatenate([train.source.array, validation.source.array])
    assert sorted(map(bytes, found)) == sorted(map(bytes, expected))
    for image, label in zip(train.source.array, train.labels, strict=True):
        (number,) = [n for n, other in enumerate(expected) if (other == image).all()]
        assert label == LABELS[number]


def test_the_names_of_keras(save):
    path = save(x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:6], y_test=LABELS[:6])
    train, validation = read_images(path)
    np.testing.assert_array_equal(train.source.array[..., 0], IMAGES)
    np.testing.assert_array_equal(train.source[3][..., 0], IMAGES[3])
    np.testing.assert_array_equal(validation.source.array[..., 0], IMAGES[:6])
    assert validation.labels.tolist() == LABELS[:6].tolist()
    assert validation.labels.dtype == np.int32


def test_the_names_of_medmnist(save):
    arrays = {}
    for count, part in ((20, "train"), (8, "val"), (4, "test")):
        arrays |= {f"{part}_images": IMAGES[:count], f"{part}_labels": LABELS[:count, None]}
    path = save(**arrays)
    assert [len(part.source) for part in read_images(path)] == [20, 8]
    found = read_evaluation_images(path, tuple("3210"), channels=3, broken="refuse")
    assert found.labels.tolist() == [3, 2, 1, 0]
    assert found.source[0].shape == (4, 5, 3)
    assert "all 4 images were converted to RGB" in found.notes[0]


def test_grey_and_colour(save, tmp_path):
    path = save(images=IN_COLOUR[:2], labels=LABELS[:2], x=LABELS)
    grey = read_evaluation_images(path, ("0", "1"), channels=1, broken="refuse")
    for number in range(2):
        file = tmp_path / "image.png"
        file.write_bytes(encoded(IN_COLOUR[number]))
        np.testing.assert_array_equal(grey.source[number], read_image_file(file, 1))
    path = save(x_train=IMAGES, y_train=LABELS, x_test=IN_COLOUR, y_test=LABELS)
    train, validation = read_images(path)
    assert train.source.array.shape == validation.source.array.shape == (20, 4, 5, 3)
    np.testing.assert_array_equal(train.source.array[..., 1], IMAGES)
    assert "converted" in train.notes[0]
    assert validation.notes == ()


def test_a_part_of_the_images_shares_channels_as_they_do(save):
    train, validation = read_images(
        save(x_train=IMAGES, y_train=LABELS, x_test=IN_COLOUR, y_test=LABELS)
    )
    for images, whole in ((train, IMAGES[..., None]), (validation, IN_COLOUR)):
        part = images.part(0.4, seed=0)
        assert np.bincount(part.labels).tolist() == [2, 2, 2, 2]
        assert part.digest != images.digest
        for index, label in enumerate(part.labels):
            equal = np.all(part.source[index] == whole, axis=(1, 2, 3))
            assert LABELS[equal].tolist() == [label]
        assert (part.source.array.strides[-1] == 0) == (images is train)


def test_a_name_of_two_classes_says_nothing(tmp_path):
    path = write_files(tmp_path / "cranes", {"crane/1.png": encoded(colours(3, 4))})
    with pytest.raises(
        DataError, match=r"2 of the known .*'crane'.*calling it 'crane \(0\)' or 'crane \(2\)'"
    ):
        read_evaluation_images(path, ("crane", "a", "crane"), channels=3, broken="refuse")
    path = write_files(tmp_path / "one", {"crane (2)/1.png": encoded(colours(3, 4))})
    found = read_evaluation_images(path, ("crane", "a", "crane"), channels=3, broken="refuse")
    assert found.labels.tolist() == [2]


def test_the_digest_is_that_of_the_images(save):
    def digests(images, labels):
        path = save(x_train=images, y_train=labels, x_test=images[:5], y_test=labels[:5])
        return [part.digest for part in read_images(path)]

    first = digests(IMAGES, LABELS)
    assert first == digests(IMAGES.copy(), LABELS.astype(np.uint8))
    other = IMAGES.copy()
    other[:, 0, 0] ^= 1
    assert not set(first) & set(digests(other, LABELS))
    assert not set(first) & set(digests(IMAGES, 3 - LABELS))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": IMAGES}, r"holds pictures: expected .*images, labels; or x_train"),
        ({"images": IMAGES}, "has 'images' without 'labels'"),
        ({"x_train": IMAGES, "y_train": LABELS, "y_test": LABELS}, "'y_test' without 'x_test'"),
        ({"x_test": IMAGES, "y_test": LABELS}, "for test, but none for training"),
        ({"images": IMAGES, "labels": LABELS[1:]}, "20 images and 19 labels"),
        ({"images": IMAGES, "labels": LABELS / 1}, "labels are float64"),
        ({"images": IMAGES, "labels": np.eye(20, dtype=int)}, r"labels are int64 \[20, 20\]"),
        ({"images": IMAGES, "labels": LABELS - 1}, "a label is -1"),
        ({"images": IMAGES, "labels": LABELS * 10**9}, "a label is 3000000000"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "no images"),
        ({"images": IMAGES[:, :0], "labels": LABELS}, "no pixels"),
        ({"images": IMAGES / 255, "labels": LABELS}, r"float64.*\(images \* 255\)"),
        ({"images": IMAGES.astype(int), "labels": LABELS}, 'int64.*astype."uint8"'),
        ({"images": IMAGES[0], "labels": LABELS}, r"\[4, 5\]: expected \[n, height, width\]"),
        ({"images": IN_COLOUR.transpose(0, 3, 1, 2), "labels": LABELS}, r"transpose\(0, 2, 3, 1"),
        ({"images": np.zeros((2, 4, 4, 4), np.uint8), "labels": LABELS}, "C 1 or 3"),
        ({"images": IMAGES.astype(object), "labels": LABELS}, "'images' .*pickles.*any program"),
        (
            {"x_train": IMAGES, "y_train": LABELS % 3, "x_test": IMAGES, "y_test": LABELS},
            'has no "3": choose from 0, 1, 2',
        ),
    ],
)
def test_arrays_that_cannot_be_used(save, arrays, message):
    path = save(**arrays)
    with pytest.raises(DataError, match=message) as error:
        read_images(path)
    assert path in str(error.value)


def test_labels_without_images_are_told(save):
    train, _ = read_images(save(images=IMAGES, labels=LABELS + 1))
    assert train.names == tuple("01234")
    assert "no image has the label 0" in train.notes[0]


def test_damaged_npz(save, tmp_path):
    path = save(images=IMAGES, labels=LABELS)
    content = (tmp_path / "set.npz").read_bytes()
    damaged = bytearray(content)
    damaged[200:220] = bytes(20)
    # The version of ZIP that its list of contents asks for.
    place = content.index(b"PK\x01\x02")
    newer = content[: place + 6] + b"\xff" + content[place + 7 :]
    for broken in (content[:300], bytes(damaged), newer, b"", b"text", b"\x80\x04."):
        (tmp_path / "set.npz").write_bytes(broken)
        with pytest.raises(DataError, match=r"set\.npz"):
            read_images(path)
    np.save(tmp_path / "one.npy", IMAGES)
    (tmp_path / "one.npy").rename(path)
    with pytest.raises(DataError, match="a single array"):
        read_images(path)


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


MNIST = {
    "train-images-idx3-ubyte": idx(IMAGES),
    "train-labels-idx1-ubyte": idx(LABELS),
    "t10k-images-idx3-ubyte": idx(IMAGES[:7]),
    "t10k-labels-idx1-ubyte": idx(LABELS[:7]),
}


@pytest.mark.parametrize(
    "files",
    [
        MNIST,
        {f"{name}.gz": gzip.compress(content) for name, content in MNIST.items()},
        {name.replace("-idx", ".idx"): content for name, content in MNIST.items()},
        {f"emnist-{name}": content for name, content in MNIST.items()},
        {**MNIST, "train-images-idx3-ubyte.gz": b"the other one is read", "readme": b""},
    ],
    ids=["plain", "gzip", "dots", "prefix", "both"],
)
def test_idx(write, files):
    train, validation = read_images(write(files))
    np.testing.assert_array_equal(train.source.array[..., 0], IMAGES)
    np.testing.assert_array_equal(validation.source.array[..., 0], IMAGES[:7])
    assert train.labels.tolist() == LABELS.tolist()
    assert validation.labels.tolist() == LABELS[:7].tolist()


def test_idx_for_training_only(write):
    files = {name: content for name, content in MNIST.items() if name.startswith("train")}
    assert [len(part.source) for part in read_images(write(files))] == [18, 2]


IMAGE_FILE, LABEL_FILE = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({IMAGE_FILE: MNIST[IMAGE_FILE][:-1]}, "has 415 bytes and should have 416"),
        ({IMAGE_FILE: MNIST[IMAGE_FILE] + b"x"}, "has 417 bytes and should have 416"),
        ({IMAGE_FILE: MNIST[LABEL_FILE]}, "begins with 00 00 08 01, expected 00 00 08 03"),
        ({LABEL_FILE: b""}, "begins with nothing"),
        ({IMAGE_FILE: MNIST[IMAGE_FILE][:9]}, "and 3 sizes"),
        ({LABEL_FILE: idx(LABELS[:5])}, "20 images and 5 labels"),
        ({LABEL_FILE: None}, f"{IMAGE_FILE} has no labels: expected {LABEL_FILE}"),
        ({IMAGE_FILE: None}, f"{LABEL_FILE} has no images: expected {IMAGE_FILE}"),
        ({IMAGE_FILE: None, f"{IMAGE_FILE}.gz": b"\x1f\x8bx"}, "damaged gzip"),
        ({f"emnist-{IMAGE_FILE}": b""}, "files of 2 sets"),
        ({IMAGE_FILE: None, LABEL_FILE: None}, "none for training"),
    ],
)
def test_damaged_idx(write, changed, message):
    files = {name: content for name, content in {**MNIST, **changed}.items() if content is not None}
    with pytest.raises(DataError, match=message):
        read_images(write(files))


SQUARES = np.stack([colours(32, 32, seed=seed) for seed in range(5)])


def records(*heads, first=0):
    """Images of CIFAR, with the bytes before each."""
    planes = SQUARES.transpose(0, 3, 1, 2)
    return b"".join(
        bytes(head) + planes[first + number].tobytes() for number, head in enumerate(heads)
    )


CIFAR_10 = {
    "data_batch_1.bin": records([0], [2]),
    "data_batch_2.bin": records([1], [0], first=2),
    "test_batch.bin": records([1]),
    "batches.meta.txt": b"airplane\nautomobile\nbird\n\n",
    "readme.html": b"",
}
CIFAR_100 = {
    "train.bin": records([9, 0], [9, 2], [9, 1], [9, 0]),
    "test.bin": records([9, 1]),
    "fine_label_names.txt": b"airplane\nautomobile\nbird\n",
    "coarse_label_names.txt": b"vehicles\n",
}


@pytest.mark.parametrize("files", [CIFAR_10, CIFAR_100], ids=["10", "100"])
def test_cifar(write, files):
    train, validation = read_images(write(files))
    np.testing.assert_array_equal(train.source.array, SQUARES[:4])
    np.testing.assert_array_equal(validation.source.array, SQUARES[:1])
    assert train.labels.tolist() == [0, 2, 1, 0]
    assert validation.labels.tolist() == [1]
    assert train.names == validation.names == ("airplane", "automobile", "bird")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"test_batch.bin": b"x" * 3072}, "test_batch.bin has 3,072 bytes.*3,073"),
        ({"data_batch_2.bin": b""}, "data_batch_2.bin has 0 bytes"),
        ({"data_batch_1.bin": None}, "data_batch_1.bin is missing"),
        ({"batches.meta.txt": b"airplane\nbird\n"}, "2 names of classes.*labels up to 2"),
        (
            {name: None for name in CIFAR_10 if name != "readme.html"} | {"data_batch_1": b"\x80"},
            "pickles.*binary version",
        ),
    ],
)
def test_damaged_cifar(write, changed, message):
    files = {k: content for k, content in {**CIFAR_10, **changed}.items() if content is not None}
    with pytest.raises(DataError, match=message):
        read_images(write(files))


def test_cifar_without_names(write):
    files = {name: content for name, content in CIFAR_10.items() if name != "batches.meta.txt"}
    assert read_images(write(files))[0].names == ("0", "1", "2")
