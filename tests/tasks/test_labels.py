"""Classes that share a name keep their own numbers and probabilities."""

import numpy as np
import pytest

from tests.data.image_files import class_folders, write_files
from transformer.data.images.reading import read_evaluation_images
from transformer.data.labels.class_names import distinct_names
from transformer.errors import DataError
from transformer.tasks.parts.labels import class_prediction


def test_names_that_several_classes_have():
    names = ("crane", "dog", "crane", "maillot", "maillot")
    assert distinct_names(names) == ("crane (0)", "dog", "crane (2)", "maillot (3)", "maillot (4)")
    assert distinct_names(("cat", "dog")) == ("cat", "dog")
    # A name that another class would get.
    assert len(set(distinct_names(("crane", "crane", "crane (0)")))) == 3


def test_each_class_of_one_name_has_its_probability():
    scores = np.log(np.array([0.5, 0.1, 0.3, 0.1], np.float32))
    found = class_prediction(scores, ("crane", "heron", "crane", "dog")).details
    assert (found["predicted"], found["class"]) == ("crane (0)", 0)
    expected = {"crane (0)": 0.5, "crane (2)": 0.3, "heron": 0.1, "dog": 0.1}
    assert found["probabilities"].keys() == expected.keys()
    for name, probability in expected.items():
        np.testing.assert_allclose(found["probabilities"][name], probability, rtol=1e-6)


def test_folders_say_which_class_they_mean(tmp_path):
    """A folder cannot be called as another one: the number tells them apart."""
    names, read = ("crane", "dog", "crane"), {"channels": 3, "broken": "refuse"}
    folder = write_files(tmp_path / "clear", class_folders("crane (0)", "crane (2)", "dog"))
    found = read_evaluation_images(folder, names, **read)
    assert (found.names, found.labels.tolist()) == (names, [0, 0, 2, 2, 1, 1])
    folder = write_files(tmp_path / "unclear", class_folders("crane", "dog"))
    with pytest.raises(DataError, match=r"2 of .* are called 'crane'.*'crane \(0\)' or 'crane"):
        read_evaluation_images(folder, names, **read)
    folder = write_files(tmp_path / "strange", class_folders("crow", "dog"))
    with pytest.raises(DataError, match="crow"):
        read_evaluation_images(folder, names, **read)


def test_classes_of_cifar_with_one_name(tmp_path):
    record = np.arange(3073, dtype=np.uint16).astype(np.uint8)
    batches = b"".join(bytes([label]) + record[1:].tobytes() for label in (0, 1, 2))
    files = {"data_batch_1.bin": batches, "test_batch.bin": batches}
    files["batches.meta.txt"] = b"crane\ndog\ncrane\n"
    folder = write_files(tmp_path, files)
    names = ("crane", "dog", "crane")
    found = read_evaluation_images(folder, names, channels=3, broken="refuse")
    assert (found.names, found.labels.tolist()) == (names, [0, 1, 2])
