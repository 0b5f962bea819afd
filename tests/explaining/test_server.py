import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from transformer.errors import ConfigError, DataError
from transformer.explaining.server import Explainer, Server


@pytest.fixture(scope="module")
def server(run_of):
    explainer = Explainer([run_of("gpt")], "a run", "ROMEO: But")
    with Server(explainer, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server, method="POST", path="/trace", token=None, body=None, **headers):
    """The status, the headers and the content of an answer."""
    given = {"Host": f"127.0.0.1:{server.port}", "Origin": f"http://127.0.0.1:{server.port}"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    given = {name: value for name, value in given.items() if value is not None}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        token = server.token if token is None else token
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method, f"{path}?token={token}", content, given)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
    finally:
        connection.close()


def traces(server, **request):
    status, _, text = ask(server, body={"prompt": "ROMEO: But"} | request)
    answer = json.loads(text)
    assert status == 200 and "error" not in answer, answer
    return answer["header"]["traces"]


def test_the_page_is_served_at_its_address(server):
    assert server.url == f"http://127.0.0.1:{server.port}/?token={server.token}"
    assert server.server_address[0] == "127.0.0.1"
    status, headers, text = ask(server, "GET", "/", Origin=None)
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "connect-src 'self'" in text
    assert '"live": true' in text


def test_prompts_and_changes_are_answered(server):
    (clean,) = traces(server)
    assert (clean["prompt"], clean["edits"]) == ("ROMEO: But", [])
    first, off = traces(server, ablate=[{"layer": 1, "head": 2}])
    assert first == clean
    assert off["edits"] == ["layer 1, attention, head 2: switched off"]
    assert off["loss"] != clean["loss"]
    patch = {"prompt": "the east", "layer": 1, "part": "residual_before", "position": 2}
    _, patched = traces(server, patch=patch)
    assert patched["edits"] == ["layer 1, residual before, token 2: taken from 'the east'"]
    (longer,) = traces(server, append=[1])
    assert len(longer["stacks"][0]["tokens"]) == len(clean["stacks"][0]["tokens"]) + 1
    (longer,) = traces(server, append=1)
    assert longer["prompt"] == "ROMEO: But" + longer["stacks"][0]["tokens"][-1]["text"]


@pytest.mark.parametrize(
    "status, request_",
    [
        (403, {"token": ""}),
        (403, {"token": "x" * 32}),
        (403, {"token": "é"}),
        (403, {"Host": "evil.example"}),
        (403, {"Host": "127.0.0.1:1"}),
        (403, {"Origin": "http://evil.example"}),
        (403, {"Origin": "null"}),
        (403, {"Origin": None}),
        (404, {"path": "/"}),
        (404, {"path": "/../../etc/passwd"}),
        (413, {"body": b"x" * (1 << 19)}),
        (413, {"Content_Length": "-1"}),
        (413, {"Content_Length": "9" * 5000}),
        (400, {"path": "http://[x"}),
        (400, {"body": b"{"}),
        (400, {"body": b"[]"}),
        (400, {"body": b"\xff"}),
        (400, {"body": b"[" * 100_000}),
    ],
)
def test_requests_of_others_are_refused(status, request_, server):
    token = request_.get("token")
    if token == "é":
        request_ = request_ | {"token": "%C3%A9"}
    found = ask(server, **{"body": {"prompt": "ROMEO"}} | request_)
    assert found[0] == status
    assert set(json.loads(found[2])) == {"error"}


@pytest.mark.parametrize(
    "request_, message",
    [
        ({"prompt": ""}, "the prompt is empty"),
        ({"prompt": 3}, "prompt is a text of up to 65,536 characters"),
        ({"prompt": "a" * 70_000}, "prompt is a text of up to"),
        ({"prompt": "😀"}, "does not know"),
        ({"promt": "a"}, "no field 'promt'"),
        ({"target": "b"}, "leave the target out"),
        ({"append": "b"}, "append is a token id"),
        ({"append": [10**6]}, "no token 1000000"),
        ({"append": True}, "append is a token id"),
        ({"ablate": {}}, "ablate is a list"),
        ({"ablate": [3]}, "ablate is an object with stack, layer, head, part"),
        ({"ablate": [{"layer": None}]}, "layer of ablate is None"),
        ({"ablate": [{"layer": 9}]}, "no layer 9: decoder has 2"),
        ({"ablate": [{"layer": 0, "factor": 2}]}, "ablate is an object with"),
        ({"ablate": [{"layer": 0, "stack": 3}]}, "no stack 3"),
        ({"patch": "x"}, "patch is an object with"),
        ({"patch": {"prompt": "a", "layer": 0, "part": "x", "position": 0}}, "no activation 'x'"),
        ({"patch": {"prompt": "a", "layer": 0, "position": 0}}, "part of patch is a text"),
    ],
)
def test_what_cannot_be_answered_is_said(request_, message, server):
    status, _, text = ask(server, body={"prompt": "ROMEO"} | request_)
    assert status == 200
    assert message in json.loads(text)["error"]


def test_mistakes_of_ours_end_one_request(server, monkeypatch, capsys):
    def fail(request):
        raise ZeroDivisionError

    monkeypatch.setattr(server.explainer, "answer", fail)
    status, _, text = ask(server, body={"prompt": "ROMEO"})
    assert (status, json.loads(text)) == (
        200,
        {"error": "the server made a mistake: ZeroDivisionError."},
    )
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_two_browsers_get_their_own_answers(server):
    prompts = ["ROMEO", "what", "light", "yonder"] * 3
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda prompt: traces(server, prompt=prompt)[0]["prompt"], prompts))
    assert found == prompts


def test_a_port_in_use_is_one_message(server):
    with pytest.raises(ConfigError, match=f"--port={server.port} cannot be used: .*in use"):
        Server(server.explainer, server.port)


def test_runs_that_cannot_be_shown_are_refused(run_of):
    with pytest.raises(DataError, match="the prompt is empty"):
        Explainer([run_of("gpt")], "", "")
    with pytest.raises(ConfigError, match="different kinds"):
        Explainer([run_of("gpt"), run_of("masked")], "", "what light")


def test_images_stay_those_of_the_command_line(run_of, picture):
    explainer = Explainer([run_of("vit")], "", str(picture[0]))
    answer = explainer.answer({"prompt": "/etc/passwd", "ablate": [{"layer": 0}]})
    assert {trace["prompt"] for trace in answer["header"]["traces"]} == {str(picture[0])}
    patch = {"prompt": "/etc/passwd", "layer": 0, "part": "residual_before"}
    assert "no other one to patch from" in explainer.answer({"patch": patch})["error"]
