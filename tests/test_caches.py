import hashlib
from pathlib import Path

import jax
import numpy as np
import pytest

from transformer import compiled_programs
from transformer.caches import cache_folder, is_whole, read_entry, write_entry


def test_the_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "transformer"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "transformer"


def test_there_may_be_no_home(monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", home)
    assert cache_folder() is None


def entry(path, content):
    assert write_entry(path, lambda file: file.write(content))
    return path


@pytest.mark.parametrize("content", [b"", b"abc", b"x" * ((1 << 20) + 5)])
def test_an_entry_is_what_was_written(tmp_path, content):
    path = entry(tmp_path / "new" / "a", content)
    assert read_entry(path) == content
    assert is_whole(path)
    assert path.read_bytes() == content + hashlib.sha256(content).digest()


def test_a_missing_entry_is_nothing_to_speak_of(tmp_path, capsys):
    assert read_entry(tmp_path / "a" / "b") is None
    assert not is_whole(tmp_path / "a" / "b")
    assert not capsys.readouterr().err


def test_every_cut_and_every_flip_is_noticed(tmp_path, capsys):
    path = entry(tmp_path / "a", b"some tokens")
    good = path.read_bytes()
    damaged = [good[:length] for length in range(len(good))]
    damaged += [good + b"\0", good * 2]
    for place in range(len(good)):
        flipped = bytearray(good)
        flipped[place] ^= 1
        damaged.append(bytes(flipped))
    for content in damaged:
        path.write_bytes(content)
        assert read_entry(path) is None
        assert not is_whole(path)
    # Once.
    assert capsys.readouterr().err == f"{path} is damaged, and is made again.\n"


def test_a_place_that_cannot_be_written_is_said_once(tmp_path, capsys):
    (tmp_path / "file").touch()
    for name in "ab":
        assert not write_entry(tmp_path / "file" / name, lambda file: file.write(b"x"))
    said = capsys.readouterr().err
    assert (
        said == f"The cache {tmp_path / 'file'} cannot be written (File exists): it is not used.\n"
    )


def test_a_full_disk_leaves_nothing(tmp_path, capsys):
    def write(file):
        file.write(b"x")
        raise OSError(28, "No space left on device")

    entry(tmp_path / "a", b"old")
    assert not write_entry(tmp_path / "a", write)
    assert "No space left on device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]
    assert read_entry(tmp_path / "a") == b"old"


def test_what_killed_processes_left_is_deleted(tmp_path):
    (tmp_path / ".old.0123.part").write_bytes(b"x" * 100)
    entry(tmp_path / "a", b"")
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Programs are kept in a folder of this test's."""
    library = compiled_programs.compilation_cache
    names = ("dir", "min_compile_time_secs", "min_entry_size_bytes")
    keys = [f"jax_{'compilation' if n == 'dir' else 'persistent'}_cache_{n}" for n in names]
    before = {key: getattr(jax.config, key) for key in keys}
    # Puts it back.
    monkeypatch.setattr(library, "get_file_cache", library.get_file_cache)
    compiled_programs.keep_programs(tmp_path)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    library.reset_cache()
    yield tmp_path
    for key, value in before.items():
        jax.config.update(key, value)
    library.reset_cache()


def test_a_damaged_program_is_compiled_again(programs, capsys):
    def run():
        def function(x):
            return x * 3.0 + 41.0

        return float(jax.jit(function)(np.float32(1)))

    assert run() == 44.0
    (file,) = programs.iterdir()
    assert file.suffix == ".program"
    first = file.stat()
    assert run() == 44.0
    again = file.stat()
    assert (again.st_ino, again.st_mtime_ns) == (first.st_ino, first.st_mtime_ns)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    assert run() == 44.0
    assert f"{file} is damaged" in capsys.readouterr().err
    assert is_whole(file)
