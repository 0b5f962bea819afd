import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from transformer import files
from transformer.errors import WorkdirError

ROOT = Path(__file__).parent.parent


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
    again = path.stat()
    assert (again.st_ino, again.st_mtime_ns) == (first.st_ino, first.st_mtime_ns)
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


def killed_while_writing(function, path):
    """Leaves behind what a process does that is killed while it writes."""
    code = f"""
import os, pathlib, signal
from transformer import files
with files.{function}(pathlib.Path({str(path)!r})):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode
        == -signal.SIGKILL
    )


@pytest.mark.parametrize("function", ["replacing", "making_folder"])
def test_what_killed_writers_leave_behind_is_deleted(function, tmp_path):
    path = tmp_path / "x"
    killed_while_writing(function, path)
    (left,) = tmp_path.iterdir()
    # Not what somebody writes, and not that of another file.
    with files.replacing(tmp_path / "y"):
        (other,) = set(tmp_path.iterdir()) - {left}
        with getattr(files, function)(path):
            assert not left.exists()
            there = set(tmp_path.iterdir())
            assert other in there
            assert len(there) == 2
            with files.replacing(tmp_path / "x"):
                assert there < set(tmp_path.iterdir())
            (tmp_path / "x").unlink()


def test_long_names_of_large_letters(tmp_path):
    path = tmp_path / ("🦊" * 63)
    files.write_text(path, "x")
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "disk").mkdir()
    link = tmp_path / "curves.png"
    link.symlink_to(tmp_path / "disk" / "curves.png")
    files.write_bytes(link, b"x")
    files.write_bytes(link, b"y")
    assert link.is_symlink()
    assert (tmp_path / "disk" / "curves.png").read_bytes() == b"y"


def test_what_is_no_file_is_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with files.replacing(pipe) as file:
        file.write(b"x")
    assert os.read(reader, 10) == b"x"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    with pytest.raises(IsADirectoryError):
        files.write_bytes(tmp_path, b"x")


def test_a_folder_is_made_as_a_whole_by_one(tmp_path):
    path = tmp_path / "run"
    with pytest.raises(RuntimeError), files.making_folder(path) as part:
        (part / "a").touch()
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    path.mkdir()
    with (
        pytest.raises(WorkdirError, match=r"run was empty and is no more"),
        files.making_folder(path),
        files.making_folder(path) as first,
    ):
        (first / "a").touch()
    assert list(tmp_path.iterdir()) == [path]
    assert [entry.name for entry in path.iterdir()] == ["a"]


def test_nothing_is_left_while_threads_still_write(tmp_path):
    """As those of Orbax do for a moment after one of them has found the disk full."""
    begun = threading.Event()

    def write(folder):
        with contextlib.suppress(FileNotFoundError):
            for number in range(1000):
                (folder / str(number)).write_text("x")
                begun.set()

    with pytest.raises(RuntimeError), files.making_folder(tmp_path / "new") as part:
        (part / "inner").mkdir()
        threads = [threading.Thread(target=write, args=(part / "inner",)) for _ in range(2)]
        for thread in threads:
            thread.start()
        begun.wait()
        raise RuntimeError
    for thread in threads:
        thread.join()
    assert list(tmp_path.iterdir()) == []


def test_files_that_fill_a_folder_take_the_place_of_others_or_leave_them(tmp_path):
    for keep, old in ((True, "old"), (False, "new")):
        (tmp_path / "a").write_text("old")
        with files.filling(tmp_path, keep=keep) as inner:
            (inner / "a").write_text("new")
            (inner / "b").write_text("new")
        assert [(tmp_path / name).read_text() for name in "ab"] == [old, "new"]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_no_file_takes_the_place_of_a_pipe(tmp_path):
    """Nor, where one may write there, of `/dev/null`."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WorkdirError, match="pipe is a device or a pipe"):
        files.replacing_by_path(tmp_path / "pipe").__enter__()
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert len(list(tmp_path.iterdir())) == 1
