"""Reports the results of a sweep: a table, `results.csv`, a picture and a page."""

import base64
import csv
import html
import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import rich.console
import rich.table

from transformer.files import write_text
from transformer.pictures.sweep import draw_report
from transformer.scoring.correlation import rank_correlation
from transformer.sweeps.folder import Folder
from transformer.sweeps.trials import shown_value
from transformer.types import Facts, Json

Row = Json


def collect(folder: Folder) -> list[Row]:
    """The notes of all trials, the best first, then those without a result."""

    def order(row: Row) -> tuple[bool, float, str]:
        # Only losses of finished trials are comparable.
        return (not _has_result(row), row.get("validation_loss", math.inf), row["id"])

    return sorted(folder.statuses(), key=order)


def keys_of(rows: Sequence[Row]) -> list[str]:
    """All keys that trials override, in order of first occurrence."""
    return list(dict.fromkeys(key for row in rows for key in row["overrides"]))


def best_of(rows: Sequence[Row]) -> Row | None:
    """The finished trial with the lowest validation loss."""
    return rows[0] if rows and _has_result(rows[0]) else None


def show_table(rows: Sequence[Row]) -> None:
    """Prints a table of the trials on standard output."""
    table = rich.table.Table()
    keys = keys_of(rows)
    for name in _heads(keys):
        table.add_column(name, justify="left" if name in ("trial", "status") else "right")
    for row in rows:
        table.add_row(*_cells(row, keys, decimals=4, longest=60))
    _print(table)


def show_plan(plan: Facts) -> None:
    """Prints what would be trained."""
    rows = plan["trials"]
    keys = keys_of(rows)
    table = rich.table.Table("trial", *keys, "steps")
    for row in rows:
        values = (_text(row["overrides"].get(key)) for key in keys)
        table.add_row(row["id"], *values, str(row["total_steps"]))
    _print(table)
    print(f"{len(rows)} trials, {plan['programs']} programs to compile.")


def _print(table: rich.table.Table) -> None:
    console = rich.console.Console(highlight=False)
    if not console.is_terminal:
        # Do not wrap lines in a pipe.
        console.width = 200
    console.print(table)


def write_report(
    folder: Folder, rows: Sequence[Row], importance: Mapping[str, float] | None
) -> Path:
    """Writes `results.csv`, `report.png` and `report.html`; returns the page.

    Args:
        folder: the folder of the sweep.
        rows: the result of `collect`.
        importance: the importance of each key, if a search knows it.
    """
    write_text(folder.path / "results.csv", _csv(rows))
    curves = {row["id"]: folder.losses(row["id"]) for row in rows}
    picture = folder.path / "report.png"
    ended = [row for row in rows if _has_result(row)]
    varied = [
        key for key in keys_of(rows) if len({repr(row["overrides"].get(key)) for row in ended}) > 1
    ]
    weights, title = importance, "Importance (Optuna)"
    if not weights:
        weights = {key: order_with_loss(ended, key) for key in varied}
        title = "|rank correlation| with the loss"
    draw_report(rows, ended, varied, curves, weights, title, picture)
    page = folder.path / "report.html"
    write_text(page, _page(folder.path.absolute().name, rows, picture.read_bytes()))
    return page


def order_with_loss(ended: Sequence[Row], key: str) -> float:
    """The absolute value of Spearman's correlation of a key and the loss; 0 without an order."""
    values = [row["overrides"].get(key) for row in ended]
    if len(values) < 3 or any(
        isinstance(x, bool) or not isinstance(x, int | float) for x in values
    ):
        return 0.0
    losses = [row["validation_loss"] for row in ended]
    return abs(rank_correlation(np.array(values, np.float64), np.array(losses, np.float64)))


def _csv(rows: Sequence[Row]) -> str:
    keys = keys_of(rows)
    scores = list(dict.fromkeys(name for row in rows for name in row.get("scores", {})))
    facts = ("status", "step", "validation_loss", "seconds", "error")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", *keys, *facts, *scores])
    for row in rows:
        writer.writerow(
            [
                row["id"],
                *(row["overrides"].get(key, "") for key in keys),
                *(row.get(fact, "") for fact in facts),
                *(row.get("scores", {}).get(name, "") for name in scores),
            ]
        )
    return text.getvalue()


def _page(name: str, rows: Sequence[Row], picture: bytes) -> str:
    keys, best = keys_of(rows), best_of(rows)
    lines = []
    for row in rows:
        cells = (f"<td>{html.escape(cell)}</td>" for cell in _cells(row, keys, decimals=6))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    command = ""
    if best is not None:
        command = f"<h2>The best, alone</h2>\n<pre>{html.escape(best['command'])}</pre>\n"
    image = base64.b64encode(picture).decode()
    head = "".join(f"<th>{html.escape(text)}</th>" for text in _heads(keys))
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{html.escape(name)}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; }}
img {{ max-width: 100%; }}
pre {{ background: #f3f3f0; overflow-x: auto; padding: 0.8em; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
td, th {{ border-bottom: 1px solid #ddd; padding: 0.2em 0.9em 0.2em 0; text-align: left; }}
</style>
<h1>{html.escape(name)}</h1>
<p>{html.escape(counted(rows))}</p>
<img alt="Curves, losses by value, parallel coordinates, importance"
 src="data:image/png;base64,{image}">
{command}<h2>Trials</h2>
<table>
<tr>{head}</tr>
{chr(10).join(lines)}
</table>
</html>
"""


def counted(rows: Sequence[Row]) -> str:
    """A sentence with the number of trials of each status."""
    states = [row["status"] for row in rows]
    parts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    return f"{len(rows)} trials" + (f": {', '.join(parts)}." if parts else ".")


def _heads(keys: Sequence[str]) -> list[str]:
    return ["trial", *keys, "status", "step", "validation loss"]


def _cells(
    row: Row, keys: Sequence[str], *, decimals: int, longest: int | None = None
) -> list[str]:
    """The cells of a trial below `_heads`; errors are cut to one line of at most `longest`."""
    status, loss = row["status"], row.get("validation_loss")
    if error := row.get("error"):
        shown = textwrap.shorten(error.splitlines()[0], longest) if longest else error
        status = f"{status}: {shown}"
    values = (_text(row["overrides"].get(key)) for key in keys)
    measured = "" if loss is None else f"{loss:.{decimals}f}"
    return [row["id"], *values, status, str(row.get("step", "")), measured]


def _has_result(row: Row) -> bool:
    return row["status"] == "done" and "validation_loss" in row


def _text(value: object) -> str:
    return "" if value is None else shown_value(value)
