"""A live count on the terminal."""

import contextlib
from collections.abc import Callable, Iterator

import rich.console
import rich.progress


@contextlib.contextmanager
def counting(
    total: int | None, verb: str, unit: str, *, shown: bool = True
) -> Iterator[Callable[[int], None]]:
    """Shows a live count on stderr, if that is a terminal; yields the function to call with it.

    Args:
        total: the count at the end; None if it is not known.
        verb: what is done, such as `translated`.
        unit: what is counted, such as `sentences`.
        shown: False shows nothing.
    """
    console = rich.console.Console(stderr=True, highlight=False)
    done = "{task.completed:,}" if total is None else "{task.completed:,} of {task.total:,}"
    bar = rich.progress.Progress(
        rich.progress.TextColumn(f"{verb} {done} {unit}"),
        rich.progress.BarColumn(),
        rich.progress.TimeElapsedColumn() if total is None else rich.progress.TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (shown and console.is_terminal),
    )
    with bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.update(task, completed=count)
