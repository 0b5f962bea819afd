import io
import json
import math
import struct

import pytest
import rich.console

from transformer.pictures.curves import draw_curves
from transformer.training.metrics import MetricsWriter, Progress, read_metrics


def test_progress_on_a_terminal():
    progress = Progress(total=7)
    screen = io.StringIO()
    progress.console = rich.console.Console(
        file=screen, force_terminal=True, width=200, color_system=None
    )
    progress.start(2)
    progress.update(5, loss="1.25")
    progress.say("a line that stays [with brackets]")
    progress.close()
    assert "step 5/7" in screen.getvalue()
    assert "loss 1.25" in screen.getvalue()
    assert "a line that stays [with brackets]" in screen.getvalue()


def test_days_are_left(capsys, monkeypatch):
    times = iter([0.0, 36.0])
    monkeypatch.setattr("transformer.training.metrics.time.monotonic", lambda: next(times))
    progress = Progress(total=3001)
    progress.start(0)
    progress.update(1)
    assert capsys.readouterr().err.strip().endswith("ETA 30:00:00")


def test_progress_elsewhere(capsys):
    progress = Progress(total=7)
    progress.start(2)
    progress.update(5, loss="1.25")
    progress.update(6)
    progress.close()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("step 5/7  loss 1.25  ETA ")


def opened(workdir, step, said, **options):
    MetricsWriter(workdir, step=step, tensorboard=False, say=said.append, **options).close()
    return (workdir / "metrics.jsonl").read_bytes()


def line(step, split="train", **scalars):
    return json.dumps({"step": step, "split": split, "loss": 1.5} | scalars).encode() + b"\n"


BAD = {
    "not UTF-8": b'{"step": 2, "split": "train", "l\xffss": 1.0}',
    "zeros": b"\0" * 600,
    "not JSON": b'{"step": 2, "split": "tr',
    "two lines in one": line(1)[:-9] + line(2)[:-1],
    "no object": b"[2]",
    "brackets": b"[" * 100_000,
    "no step": b'{"split": "train"}',
    "no split": b'{"step": 2}',
    "a split of another type": b'{"step": 2, "split": ["train"]}',
    "a step that is a text": line("2")[:-1],
    "a step that is no number": line(math.nan)[:-1],
    "a step with a fraction": line(2.0)[:-1],
    "a step that is a truth": line(True)[:-1],
    "a step below zero": line(-1)[:-1],
    "a step that no array holds": line(2**63)[:-1],
    "digits": b'{"split": "train", "step": ' + b"9" * 10_000 + b"}",
    "a loss that is a text": line(2, loss="low")[:-1],
    "a loss that is a list": line(2, loss=[1.0])[:-1],
    "a loss that is nothing": line(2, loss=None)[:-1],
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_bad_line_is_kept_aside_and_the_rest_in_order(tmp_path, bad, place):
    good = [line(1), line(2)]
    content = b"".join([*good[:place], bad + b"\n", *good[place:]])
    (tmp_path / "metrics.jsonl").write_bytes(content)
    said = []
    assert [each["step"] for each in read_metrics(tmp_path, said.append)] == [1, 2]
    assert said == [f"{tmp_path / 'metrics.jsonl'}: line {place + 1} cannot be read: left out."]
    assert (tmp_path / "metrics.jsonl").read_bytes() == content
    assert opened(tmp_path, 9, said) == b"".join(good)
    assert f"line {place + 1} cannot be read; moved to metrics.unreadable.jsonl" in said[1]
    assert (tmp_path / "metrics.unreadable.jsonl").read_bytes() == bad + b"\n"
    # Once.
    opened(tmp_path, 9, said)
    assert len(said) == 2


def test_bad_lines_are_added_to_earlier_ones(tmp_path):
    path, aside = tmp_path / "metrics.jsonl", tmp_path / "metrics.unreadable.jsonl"
    said = []
    path.write_bytes(b"one\n" + line(1) + b"two\n")
    opened(tmp_path, 9, said)
    # Killed before the lines were taken out, it does not add them twice.
    path.write_bytes(b"one\n" + line(1) + b"two\n")
    opened(tmp_path, 9, said)
    path.write_bytes(line(1) + b"bad\n" * 12)
    opened(tmp_path, 9, said)
    assert aside.read_bytes() == b"one\ntwo\n" + b"bad\n" * 12
    assert "lines 1 and 3 cannot" in said[0]
    assert "lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more cannot" in said[2]


def test_the_end_that_a_kill_cut_short(tmp_path):
    """Who only reads says nothing of it: a run may be about to write it."""
    path, said = tmp_path / "metrics.jsonl", []
    path.write_bytes(line(1) + b'{"step": 2, "sp')
    assert len(read_metrics(tmp_path, said.append)) == 1
    assert said == []
    assert opened(tmp_path, 9, said) == line(1)
    assert "line 2 cannot be read" in said[0]
    # All but the line feed.
    path.write_bytes(line(1) + line(2)[:-1])
    assert opened(tmp_path, 9, said) == line(1) + line(2)


def test_lines_beyond_the_step_go(tmp_path):
    lines = [line(1), line(2, "validation"), line(2, "final"), line(3)]
    (tmp_path / "metrics.jsonl").write_bytes(b"".join(lines))
    assert opened(tmp_path, 2, []) == b"".join(lines[:3])
    assert opened(tmp_path, 2, [], again="final") == b"".join(lines[:2])


def test_a_file_that_is_right_is_not_written_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    content = line(1, loss=math.nan) + line(2, loss=math.inf, tokens=3)
    path.write_bytes(content)
    before = path.stat()
    assert opened(tmp_path, 2, []) == content
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_curves_of_what_is_finite(tmp_path):
    assert not draw_curves(read_metrics(tmp_path), tmp_path / "curves.png")
    (tmp_path / "metrics.jsonl").write_bytes(
        line(1, grad_norm=1.0, learning_rate=0.1)
        + line(2, "validation", loss=math.nan)
        + line(3, "validation")
        + line(3, "final")
        + line(4)
    )
    assert draw_curves(read_metrics(tmp_path), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 0


def events(workdir):
    """Steps and tags of all event files: records of length, checksum, content, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted((workdir / "tensorboard").iterdir()):
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + size])
            found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
            content = content[16 + size :]
    return found


def test_what_was_flushed_is_on_disk(tmp_path):
    """Nothing is closed: a kill comes."""
    writers = [
        MetricsWriter(tmp_path, step=0, tensorboard=True, say=print),
        # Within the same second it is another file.
        MetricsWriter(tmp_path, step=1, tensorboard=True, say=print),
    ]
    for step, writer in enumerate(writers, 1):
        writer.write(step, "train", {"loss": 0.5, "accuracy": 0.25})
        writer.flush()
    assert sorted(events(tmp_path)) == [
        (step, f"train/{name}", value)
        for step in (1, 2)
        for name, value in (("accuracy", 0.25), ("loss", 0.5))
    ]
    for writer in writers:
        writer.close()
