"""The page with a model behind it, for one person on one machine.

The server listens on the loopback address only. Every request must carry the random token of the
printed address; `Host` must be that address (so that no other name can be made to lead here, DNS
rebinding), and `Origin` must be the page's own. Requests are short, and nothing is ever written.
"""

import contextlib
import hmac
import json
import secrets
import threading
import traceback
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from transformer.data.reading.json_text import loads
from transformer.errors import ConfigError, DataError, UserError
from transformer.explaining.editing import PARTS, Ablate, Edit, Patch
from transformer.explaining.prompts import reads_files
from transformer.explaining.traces import Trace
from transformer.explaining.tracing import trace
from transformer.explaining.writing import html_of, most_tokens, packed, require_one_family
from transformer.runs.opening import Run
from transformer.types import Json

ADDRESS = "127.0.0.1"
# Bytes of a request, characters of a prompt, tokens behind it, and changes at once.
_MOST_BYTES, _MOST_CHARACTERS, _MOST_APPENDED, _MOST_EDITS = 1 << 18, 1 << 16, 1 << 12, 1 << 10
# Seconds that a browser has to send its request.
_PATIENCE = 30.0
# Bytes of a page or an answer: nothing has to be sent by mail.
BUDGET = 16_000_000
# The fields of a request, with their defaults.
_FIELDS: Json = {"prompt": "", "target": None, "ablate": [], "patch": None, "append": None}


class Explainer:
    """Answers requests of the page: one at a time, since they share the machine.

    Attributes:
        runs: the runs that are compared; usually one.
        title: what the page is called.
        prompt: what the page shows first.
        target: the second text of that.
    """

    def __init__(
        self, runs: Sequence[Run], title: str, prompt: str, target: str | None = None
    ) -> None:
        self.runs, self.title = tuple(runs), title
        self.prompt, self.target = prompt, target
        self._lock = threading.Lock()
        header, arrays = self._packed({"prompt": prompt, "target": target})
        self._page = html_of(header, arrays, connect="'self'")

    def page(self) -> str:
        """The page as it is first shown."""
        return self._page

    def answer(self, request: Mapping[str, Any]) -> Json:
        """The header and the arrays for a request, or what is wrong with it.

        With changes (`ablate`, `patch`) there are two traces of each run: clean and changed.

        Args:
            request: `prompt`, `target`, `ablate`, `patch` and `append`, each of which may be
                missing.
        """
        try:
            with self._lock:
                header, arrays = self._packed(request)
        except UserError as error:
            return {"error": str(error)}
        return {"header": header, "arrays": arrays}

    def _packed(self, request: Mapping[str, Any]) -> tuple[Json, str]:
        traces = [each for run in self.runs for each in self._traces(run, request)]
        require_one_family(traces)
        return packed(traces, self.title, budget=BUDGET, live=True)

    def _traces(self, run: Run, request: Mapping[str, Any]) -> list[Trace]:
        asked = _checked(request)
        prompt, target = asked["prompt"], asked["target"]
        if reads_files(run):
            # A page opens no files: it stays at the one of the command line.
            prompt = self.prompt
        options = {"most": most_tokens(run, BUDGET), "append": asked["append"]}
        clean = trace(run, prompt, target, edits=(), **options)
        edits: list[Edit] = [Ablate(**each) for each in asked["ablate"]]
        if asked["patch"] is not None:
            if reads_files(run):
                raise ConfigError("a page shows one file: there is no other one to patch from.")
            other = dict(asked["patch"])
            source = trace(run, other.pop("prompt"), target, edits=(), most=options["most"])
            edits.append(Patch(source, **other))
        if not edits:
            return [clean]
        return [clean, trace(run, prompt, target, edits=edits, **options)]


def _checked(request: Mapping[str, Any]) -> Json:
    """A request with all fields, each of the right type.

    Raises:
        ConfigError: naming the field.
    """
    for name in request:
        if name not in _FIELDS:
            raise ConfigError(f"a request has no field {name!r}: it has {', '.join(_FIELDS)}.")
    asked = {**_FIELDS, **request}
    _require_text("prompt", asked["prompt"])
    if asked["target"] is not None:
        _require_text("target", asked["target"])
    append = asked["append"]
    append = [] if append is None else append if isinstance(append, list) else [append]
    if len(append) > _MOST_APPENDED or not all(_is_whole(each) for each in append):
        raise ConfigError(f"append is a token id, or a list of up to {_MOST_APPENDED:,} of them.")
    asked["append"] = append
    if not isinstance(asked["ablate"], list) or len(asked["ablate"]) > _MOST_EDITS:
        raise ConfigError(f"ablate is a list of up to {_MOST_EDITS:,} parts.")
    asked["ablate"] = [_ablation(each) for each in asked["ablate"]]
    if asked["patch"] is not None:
        asked["patch"] = _patch(asked["patch"])
    return asked


def _ablation(given: object) -> Json:
    """The arguments of an `Ablate`."""
    found = _object("ablate", given, {"stack": -1, "layer": None, "head": None, "part": PARTS[0]})
    for name in ("stack", "layer", "head"):
        if not (_is_whole(found[name]) or (name == "head" and found[name] is None)):
            raise ConfigError(f"{name} of ablate is {found[name]!r}: a whole number is needed.")
    _require_text("part of ablate", found["part"])
    return found


def _patch(given: object) -> Json:
    """The prompt and the arguments of a `Patch`."""
    usual = {"prompt": None, "stack": -1, "layer": None, "part": None, "position": None}
    found = _object("patch", given, usual)
    for name in ("prompt", "part"):
        _require_text(f"{name} of patch", found[name])
    for name in ("stack", "layer", "position"):
        if not (_is_whole(found[name]) or (name == "position" and found[name] is None)):
            raise ConfigError(f"{name} of patch is {found[name]!r}: a whole number is needed.")
    found["name"] = found.pop("part").replace("/", "_")
    return found


def _object(what: str, given: Any, usual: Json) -> Json:
    if not isinstance(given, dict) or not given.keys() <= usual.keys():
        raise ConfigError(f"{what} is an object with {', '.join(usual)}.")
    return {**usual, **given}


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 31


def _require_text(name: str, value: object) -> None:
    if not isinstance(value, str) or len(value) > _MOST_CHARACTERS:
        raise ConfigError(f"{name} is a text of up to {_MOST_CHARACTERS:,} characters.")


class Server(ThreadingHTTPServer):
    """Listens for one page.

    Attributes:
        explainer: who answers.
        token: the random part of the address.
    """

    daemon_threads: ClassVar[bool] = True

    def __init__(self, explainer: Explainer, port: int) -> None:
        """Takes a port of the loopback address.

        Args:
            explainer: who answers.
            port: which port; 0 takes a free one.

        Raises:
            ConfigError: if the port is in use, or may not be used.
        """
        self.explainer, self.token = explainer, secrets.token_urlsafe(24)
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            raise ConfigError(
                f"--port={port} cannot be used: {error.strerror}. Give another, or 0 for a free "
                f"one."
            ) from None

    @property
    def port(self) -> int:
        """The port."""
        return self.server_address[1]

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{ADDRESS}:{self.port}/?token={self.token}"


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Server
    timeout = _PATIENCE
    server_version = "explainer"
    sys_version = ""

    def do_GET(self) -> None:
        """The page."""
        if self._is_allowed("/"):
            policy = "frame-ancestors 'none'"
            self._send(HTTPStatus.OK, self.server.explainer.page(), "text/html", policy)

    def do_POST(self) -> None:
        """A trace."""
        if not self._is_allowed("/trace"):
            return
        if self.headers.get("Origin") not in self._own("http://"):
            self._refuse(HTTPStatus.FORBIDDEN, "only the page itself may ask.")
            return
        length = self.headers.get("Content-Length", "")
        short = length.isdecimal() and len(length) <= len(str(_MOST_BYTES))
        if not short or int(length) > _MOST_BYTES:
            self._refuse(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"a request has a length of up to {_MOST_BYTES:,} bytes.",
            )
            return
        try:
            request = loads(self.rfile.read(int(length)).decode("utf-8"))
            if not isinstance(request, dict):
                raise DataError("a request is a JSON object.")
        except (ValueError, UserError) as error:
            self._refuse(HTTPStatus.BAD_REQUEST, f"the request cannot be read: {error}")
            return
        try:
            answer = self.server.explainer.answer(request)
        except Exception as error:
            # A mistake of ours ends one request, and is shown where the server was started.
            traceback.print_exc()
            answer = {"error": f"the server made a mistake: {type(error).__name__}."}
        self._send(HTTPStatus.OK, json.dumps(answer, allow_nan=False), "application/json")

    def _is_allowed(self, path: str) -> bool:
        """Whether a request comes from who knows the address, by the address; answers if not."""
        try:
            address = urllib.parse.urlsplit(self.path)
            given = urllib.parse.parse_qs(address.query).get("token", [""])[0]
        except ValueError:
            self._refuse(HTTPStatus.BAD_REQUEST, "this is no address.")
            return False
        if self.headers.get("Host") not in self._own():
            self._refuse(HTTPStatus.FORBIDDEN, "this server has another name.")
        elif not hmac.compare_digest(given.encode(), self.server.token.encode()):
            self._refuse(HTTPStatus.FORBIDDEN, "the address lacks its token, or has a wrong one.")
        elif address.path != path:
            self._refuse(HTTPStatus.NOT_FOUND, "there is only one page here.")
        else:
            return True
        return False

    def _own(self, scheme: str = "") -> tuple[str, ...]:
        return tuple(f"{scheme}{name}:{self.server.port}" for name in (ADDRESS, "localhost"))

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._send(status, json.dumps({"error": why}), "application/json")

    def _send(self, status: HTTPStatus, text: str, kind: str, policy: str | None = None) -> None:
        content = text.encode("utf-8")
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        if policy is not None:
            self.send_header("Content-Security-Policy", policy)
        # A tab may be closed while the model computes.
        with contextlib.suppress(ConnectionError):
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: the address has the token in it."""


def serve(explainer: Explainer, port: int, on_ready: Callable[[str], None]) -> None:
    """Serves the page until the process ends.

    Args:
        explainer: who answers.
        port: of the loopback address; 0 takes a free one.
        on_ready: gets the address of the page.

    Raises:
        ConfigError: if the port cannot be used.
    """
    with Server(explainer, port) as server:
        on_ready(server.url)
        server.serve_forever()
