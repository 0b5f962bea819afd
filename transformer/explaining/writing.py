"""Writes a page: one HTML file that needs nothing else and can ask for nothing."""

import base64
import hashlib
import html
import json
import math
from collections.abc import Sequence
from pathlib import Path

from transformer.errors import ConfigError
from transformer.explaining.header import LEVELS, header_and_arrays
from transformer.explaining.traces import Trace
from transformer.nn.encoder_decoder import AnyEncoderDecoder
from transformer.runs.opening import Run
from transformer.types import Json

# A page should be smaller than this, in bytes.
BUDGET = 3_000_000
# Bytes of a page besides its program, its style, its header and its arrays.
_FRAME = 2_000
# Bounds for how many tokens a page shows.
_FEWEST, _MOST = 16, 512
_PAGE = Path(__file__).parent / "page"
# Shown until the page's own program is there.
_STAND_IN = 'document.body.append(document.getElementById("trace").textContent);'
# What JSON may not contain inside HTML: it would end the element, or break the line of a script.
_ESCAPED = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def page_of(traces: Sequence[Trace], title: str, *, budget: int = BUDGET) -> str:
    """A page that shows traces, with as much as fits the budget.

    Args:
        traces: what to show, side by side.
        title: what the page is called.
        budget: how many bytes the page should have at most. A page that cannot be so small has a
            note that says so.
    """
    return html_of(*packed(traces, title, budget=budget))


def packed(
    traces: Sequence[Trace], title: str, *, budget: int = BUDGET, live: bool = False
) -> tuple[Json, str]:
    """The header of a page and its arrays in base64; arguments as in `page_of`."""
    room = budget - sum(len(part.encode()) for part in bundle()) - _FRAME
    for fidelity in LEVELS:
        header, arrays = header_and_arrays(traces, title, fidelity, live=live)
        blob = arrays.base64()
        size = len(as_data(header)) + len(blob)
        if size <= room:
            return header, blob
    header["notes"].append(
        f"The page has {(size + budget - room) / 1e6:.1f} MB, more than the {budget / 1e6:.1f} MB "
        f"it should have, with all that can be left out left out."
    )
    return header, blob


def require_one_family(traces: Sequence[Trace]) -> None:
    """Refuses traces that one page cannot show.

    Raises:
        ConfigError: if the models are of different families.
    """
    families = sorted({trace.reading.family for trace in traces})
    if len(families) > 1:
        raise ConfigError(
            f"the runs are of different kinds ({', '.join(families)}): only like can be shown side "
            f"by side."
        )


def most_tokens(run: Run, budget: int = BUDGET) -> int:
    """The most tokens of a stack for which the weights of all heads fit half of a page."""
    model = run.model
    if isinstance(model, AnyEncoderDecoder):
        # The decoder has weights of two kinds.
        depth = model.num_encoder_layers + 2 * model.num_decoder_layers
    else:
        depth = model.num_layers
    weights = budget * 3 / 4 / 2
    return max(_FEWEST, min(_MOST, math.isqrt(int(weights / (depth * model.num_heads)))))


def html_of(header: Json, arrays: str, *, connect: str = "'none'") -> str:
    """A page as HTML.

    Its content security policy forbids every request, and every script and style but its own.

    Args:
        header: what the page shows; any text in it is data.
        arrays: the arrays in base64.
        connect: where the page may send requests: a source of the policy.
    """
    script, style = bundle()
    policy = (
        f"default-src 'none'; script-src 'sha256-{_digest(script)}'; "
        f"style-src 'sha256-{_digest(style)}'; img-src data:; connect-src {connect}; "
        f"base-uri 'none'; form-action 'none'"
    )
    title = html.escape(str(header["title"]))
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        f'<script type="application/json" id="trace">{as_data(header)}</script>\n'
        f'<script type="text/plain" id="arrays">{arrays}</script>\n'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def bundle() -> tuple[str, str]:
    """The program and the style of the page."""
    script, style = _PAGE / "explainer.js", _PAGE / "explainer.css"
    if not script.exists():
        return _STAND_IN, ""
    return script.read_text("utf-8"), style.read_text("utf-8")


def as_data(value: Json) -> str:
    """JSON that can stand inside an HTML element: it has no character that could end it."""
    return json.dumps(value, allow_nan=False).translate(_ESCAPED)


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
