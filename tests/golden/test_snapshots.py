"""A config says tomorrow what it says today."""

import pytest

from tests.golden.snapshots import FOLDER, file_of, names, snapshot


@pytest.mark.parametrize("name", names())
def test_a_config_describes_what_it_did(name):
    written = file_of(name).read_text("utf-8")
    assert snapshot(name) == written, "python -m tests.golden.snapshots, and look at the diff"


def test_every_snapshot_is_of_a_config():
    assert set(FOLDER.glob("*.txt")) == {file_of(name) for name in names()}
