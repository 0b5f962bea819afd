import io

import rich.console

from transformer.training.metrics import Progress


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
