import json
import os
import stat

import pytest

from transformer import files


def test_what_was_there_is_kept_until_all_is_written(tmp_path):
    path = tmp_path / "note.txt"
    path.write_text("old", "utf-8")
    with pytest.raises(RuntimeError), files.replacing(path) as file:
        file.write(b"ne")
        file.flush()
        assert path.read_text("utf-8") == "old"
        raise RuntimeError
    assert path.read_text("utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_content_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    events = []
    monkeypatch.setattr(os, "fsync", lambda handle: events.append(os.fstat(handle).st_mode))
    replace = type(tmp_path).replace
    monkeypatch.setattr(
        type(tmp_path), "replace", lambda *paths: (events.append("renamed"), replace(*paths))[1]
    )
    files.write_text(tmp_path / "note.txt", "new")
    file, renamed, folder = events
    assert stat.S_ISREG(file)
    assert renamed == "renamed"
    assert stat.S_ISDIR(folder)


def test_equal_content_is_not_written_again(tmp_path):
    path = tmp_path / "labels.json"
    files.write_json(path, ["é", 1])
    first = path.stat()
    files.write_json(path, ["é", 1])
    assert path.stat() == first
    assert path.read_text("utf-8") == '[\n  "é",\n  1\n]\n'
    files.write_json(path, ["é", 2])
    assert path.stat().st_ino != first.st_ino
    assert json.loads(path.read_text("utf-8")) == ["é", 2]


def test_modes_are_those_of_other_files(tmp_path):
    (tmp_path / "usual").write_text("", "utf-8")
    files.write_bytes(tmp_path / "ours", b"x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode
    (tmp_path / "ours").chmod(0o600)
    files.write_bytes(tmp_path / "ours", b"y")
    assert (tmp_path / "ours").stat().st_mode & 0o777 == 0o600
