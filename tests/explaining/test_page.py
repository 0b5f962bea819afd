"""Every number of a page is the trace's, within what its array says of itself."""

import base64
import dataclasses
import hashlib
import json
import re

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from tests.explaining.tiny import PROMPTS, decoder, pair
from transformer import explaining
from transformer.explaining import Ablate, writing
from transformer.explaining.arrays import Arrays, stored
from transformer.explaining.header import LEVELS, header_and_arrays
from transformer.explaining.lens import lens_logits
from transformer.explaining.outputs import TEMPERATURES
from transformer.explaining.pictures import png
from transformer.explaining.scores import norms
from transformer.explaining.writing import as_data, html_of, page_of
from transformer.models.gpt import GPT
from transformer.models.t5 import T5

ALL = (*PROMPTS, "vit")


class Shown:
    """A page's header, and its arrays as the page reads them."""

    def __init__(self, header, blob):
        self.header, self._blob = json.loads(json.dumps(header)), base64.b64decode(blob)

    def __call__(self, name):
        return stored(self.header["arrays"], self._blob, name)

    def is_close(self, name, expected):
        """Whether an array holds these numbers, within its own precision."""
        about, found = self.header["arrays"][name], self(name)
        assert tuple(about["shape"]) == found.shape == expected.shape
        if about["dtype"] == "float16":
            allowed = np.maximum(np.abs(expected) * 2.0**-11, 2.0**-25)
        elif isinstance(about["scale"], str):
            allowed = 0.5 * self(about["scale"])[..., None] * (1 + 1e-6)
            allowed = allowed + np.abs(expected) * 2.0**-23
        else:
            allowed = 0.0 if about["scale"] == 1.0 else 0.5 * about["scale"] * (1 + 1e-6)
            # What lies half a step away is rounded after a product in float32.
            allowed = allowed and allowed + np.abs(expected) * 2.0**-23
        return bool(np.all(np.abs(found - expected.astype(np.float64)) <= allowed))


def shown(trace, level=0):
    header, arrays = header_and_arrays([trace], "a run", LEVELS[level])
    return Shown(header, arrays.base64())


# ------------------------------------------------------------------------------------ numbers


@pytest.mark.sampled(3)
@pytest.mark.parametrize("level", [0, 2])
@pytest.mark.parametrize("name", ALL)
def test_every_number_is_the_traces(name, level, trace_of):
    check_page(trace_of(name), level)


@pytest.mark.parametrize(
    "name, prompt, most", [("llama", "l", 3), ("llama", "light " * 6, 32), ("masked", "light", 3)]
)
def test_every_number_is_the_traces_at_every_length(name, prompt, most, run_of):
    check_page(explaining.trace(run_of(name), prompt, most=most), 0)


def test_every_number_is_the_traces_at_every_depth(tmp_path):
    run = decoder(GPT, "gpt", tmp_path / "gpt", num_layers=1, num_heads=1, width=12)
    check_page(explaining.trace(run, "what light"), 0)
    run = pair(T5, "t5", tmp_path / "t5", num_encoder_layers=1, num_decoder_layers=3)
    check_page(explaining.trace(run, "what light", "the east"), 0)


def check_page(trace, level):
    """Everything on a page against its trace."""
    page = shown(trace, level)
    (found,) = page.header["traces"]
    assert page.header["family"] == trace.reading.family
    assert found["prompt"] == trace.reading.prompt
    for stack, told in zip(trace.stacks, found["stacks"], strict=True):
        assert [t["text"] for t in told["tokens"]] == [t.text for t in stack.tokens]
        assert len(told["layers"]) == len(stack.layers)
        for layer, about in zip(stack.layers, told["layers"], strict=True):
            check_layer(page, layer, about)
            if "feed_forward_router" in layer:
                check_router(page, layer["feed_forward_router"], about["router"])
    check_lens(page, trace, found["stacks"][-1])
    check_outputs(page, trace, found["output"])


def check_layer(page, layer, about):
    for name, values in about["norms"].items():
        assert page.is_close(values, norms(layer[name]))
    for part in ("attention", "cross_attention"):
        if f"{part}_weights" not in layer:
            assert about[part] is None
            continue
        told = about[part]
        for name in ("weights", "scores", "query", "key", "value"):
            assert page.is_close(told[name], layer[f"{part}_{name}"]), name
        assert page.is_close(told["mixed_norm"], norms(layer[f"{part}_mixed"]))
        visible = layer[f"{part}_visible"][0]
        seen = np.ones_like(visible) if told["visible"] is None else page(told["visible"])
        np.testing.assert_array_equal(seen, visible)
        assert told["num_heads"] == len(layer[f"{part}_query"])
        assert told["num_key_heads"] == len(layer[f"{part}_key"])
        # Scores are what is said of them: products, scaled, capped, plus biases.
        query, key = layer[f"{part}_query"], layer[f"{part}_key"]
        group = told["num_heads"] // told["num_key_heads"]
        products = told["scale"] * np.einsum("nth,nsh->nts", query, key.repeat(group, axis=0))
        if told["cap"] is not None:
            products = told["cap"] * np.tanh(products / told["cap"])
        rest = layer[f"{part}_scores"] - products
        assert np.abs(rest).max() < 1e-4 or page.header["model"]["name"] == "t5"
        if told["window"] is not None:
            rows, columns = np.nonzero(visible)
            assert np.abs(rows - columns).max() < told["window"]
    hidden, about = layer.get("feed_forward_hidden"), about["feed_forward"]
    if hidden is not None:
        assert about["width"] == hidden.shape[1]
        units = page(about["units"])
        assert page.is_close(about["hidden"], hidden[:, units])
        assert page.is_close(about["norm"], norms(hidden))


def check_router(page, logits, about):
    probabilities = np.asarray(jax.nn.softmax(logits))
    assert np.abs(page(about["probabilities"]) - probabilities).max() < 1e-3
    best = np.argsort(-probabilities, axis=-1, kind="stable")[:, :2]
    np.testing.assert_array_equal(page(about["chosen"]), best)


def check_lens(page, trace, stack):
    if trace.reading.output not in ("next_token", "masked_tokens"):
        assert all(layer["lens"] is None for layer in stack["layers"])
        return
    for number, layer in enumerate(stack["layers"]):
        probabilities = np.asarray(jax.nn.softmax(lens_logits(trace, number)))
        ids = page(layer["lens"]["ids"])
        found = page(layer["lens"]["probabilities"])
        np.testing.assert_array_equal(ids[:, 0], probabilities.argmax(-1))
        expected = np.take_along_axis(probabilities, ids, axis=-1)
        np.testing.assert_allclose(found, expected, atol=1e-3)
    outputs = trace.outputs
    if trace.reading.output == "masked_tokens":
        probabilities = probabilities[list(trace.reading.positions)]
    np.testing.assert_allclose(probabilities, jax.nn.softmax(outputs), atol=1e-5)


def check_outputs(page, trace, output):
    outputs, kind = trace.outputs, output["kind"]
    assert kind == trace.reading.output
    if kind in ("classes", "token_classes"):
        np.testing.assert_array_equal(page(output["logits"]), outputs)
        assert len(output["names"]) == outputs.shape[-1]
        return
    if kind == "span":
        found = np.stack([page(output["start"]), page(output["end"])], axis=-1)
        np.testing.assert_array_equal(found, outputs)
        return
    ids, logits = page(output["ids"]), page(output["logits"])
    np.testing.assert_array_equal(logits, np.take_along_axis(outputs, ids, axis=-1))
    np.testing.assert_array_equal(ids[:, 0], outputs.argmax(-1))
    np.testing.assert_allclose(
        np.logaddexp(page(output["rest"]), np.log(np.exp(logits).sum(-1))),
        np.log(np.exp(outputs).sum(-1)),
        atol=1e-5,
    )
    assert output["texts"].keys() >= {str(i) for i in np.unique(ids)}
    if kind == "masked_tokens":
        assert output["positions"] == list(trace.reading.positions)
        return
    assert output["rest_at"]["temperatures"] == list(TEMPERATURES)
    sums = page(output["rest_at"]["log_sums"])
    for place, temperature in enumerate(TEMPERATURES):
        listed = np.log(np.exp(logits.astype(float) / temperature).sum(-1))
        whole = np.log(np.exp(outputs.astype(float) / temperature).sum(-1))
        np.testing.assert_allclose(np.logaddexp(sums[:, place], listed), whole, atol=1e-5)


def test_positions_are_those_of_the_model(trace_of):
    def positions(name):
        trace = trace_of(name)
        page = shown(trace)
        stacks = page.header["traces"][0]["stacks"]
        return trace, page, [stack["positions"] for stack in stacks]

    trace, page, (learned,) = positions("gpt")
    assert learned["kind"] == "learned"
    table = np.asarray(trace.run.params["position_embedding"]["embedding"])
    assert page.is_close(learned["table"], table[: len(trace.tokens)])
    trace, page, both = positions("vaswani")
    assert [each["kind"] for each in both] == ["sinusoidal", "sinusoidal"]
    first = page(both[1]["table"])[1]
    np.testing.assert_allclose(first[:2], [np.sin(1.0), np.cos(1.0)], atol=1e-3)
    trace, page, (rotary,) = positions("llama")
    assert rotary["kind"] == "rotary"
    np.testing.assert_allclose(page(rotary["angles"])[3], [3.0, 0.03], atol=1e-6)
    trace, page, both = positions("t5")
    assert [each["kind"] for each in both] == ["relative", "relative"]
    for stack, told in zip(trace.stacks, both, strict=True):
        products = np.einsum("nth,nsh->nts", stack["attention_query", 0], stack["attention_key", 0])
        assert np.abs(page(told["bias"]) - (stack["attention_scores", 0] - products)).max() < 1e-3
    trace, page, (patches,) = positions("vit")
    assert patches["kind"] == "learned"
    whole = page(patches["table"])
    # The class token and four patches have positions, two registers have none.
    assert not np.any(whole[1:3])
    image = page.header["traces"][0]["stacks"][0]["image"]
    assert (image["rows"], image["columns"], image["front"]) == (2, 2, 3)
    kinds = [token.kind for token in trace.tokens]
    assert kinds == ["class", "register", "register", *["patch"] * 4]
    assert page.header["traces"][0]["stacks"][0]["image"]["png"].startswith("data:image/png;")
    assert positions("bert")[2][0]["kind"] == "learned"


def test_layers_say_how_they_are_built(trace_of):
    def layers(name):
        return shown(trace_of(name)).header["traces"][0]["stacks"][-1]["layers"]

    assert {layer["order"] for layer in layers("gpt")} == {"pre"}
    assert {layer["order"] for layer in layers("bert")} == {"post"}
    assert {layer["order"] for layer in layers("gemma")} == {"both"}
    gemma = [layer["attention"] for layer in layers("gemma")]
    assert [layer["window"] for layer in gemma] == [3, None]
    assert [layer["cap"] for layer in gemma] == [5.0, 5.0]
    assert [layer["attention"]["window"] for layer in layers("llama")] == [4, 4]
    assert [layer["attention"]["window"] for layer in layers("questions")] == [None, 3]
    assert all(layer["attention"]["causal"] for layer in layers("t5"))
    assert not any(layer["attention"]["causal"] for layer in layers("bert"))
    assert layers("mixtral")[0]["feed_forward"]["experts"] == 3


def test_equal_arrays_are_stored_once(trace_of):
    trace = trace_of("gpt")
    one, two = (header_and_arrays([trace] * count, "", LEVELS[0])[1] for count in (1, 2))
    assert one.base64() == two.base64()


@given(
    stn.arrays(
        np.float32,
        stn.array_shapes(min_dims=1, max_dims=3, max_side=4),
        elements=st.floats(-(2.0**60), 2.0**60, width=32),
    )
)
def test_arrays_are_read_back_within_their_precision(x):
    arrays = Arrays()
    names = {"exact": arrays.exact(x), "half": arrays.half(x), "rows": arrays.rows(x)}
    page = Shown({"arrays": arrays.described}, arrays.base64())
    for name in names.values():
        assert page.is_close(name, x)
    shares = np.abs(x) / max(1.0, float(np.abs(x).max()))
    name = arrays.shares(shares)
    assert Shown({"arrays": arrays.described}, arrays.base64()).is_close(name, shares)


def test_numbers_that_are_none_stay_what_they_are():
    x = np.array([[np.nan, np.inf, 1.0], [-np.inf, 0.0, 2.0]], np.float32)
    arrays = Arrays()
    names = [arrays.exact(x), arrays.half(x), arrays.rows(x)]
    page = Shown({"arrays": arrays.described}, arrays.base64())
    for name in names:
        np.testing.assert_array_equal(page(name), x)


# --------------------------------------------------------------------------------------- page

HOSTILE = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(1)> & \u2028 \u202e"


def test_runs_side_by_side_have_names_of_their_own(trace_of):
    trace = trace_of("gpt")
    later = dataclasses.replace(trace, run=dataclasses.replace(trace.run, step=trace.run.step + 7))
    header, _ = header_and_arrays([trace, later], "two", LEVELS[0])
    where, step = trace.run.workdir, trace.run.step
    assert [shown["label"] for shown in header["traces"]] == [
        f"{where}, step {step}: {trace.reading.prompt}",
        f"{where}, step {step + 7}: {trace.reading.prompt}",
    ]
    alone, _ = header_and_arrays([trace, trace], "one", LEVELS[0])
    assert {shown["label"] for shown in alone["traces"]} == {trace.reading.prompt}


def test_nothing_of_a_run_becomes_markup(trace_of):
    trace = trace_of("bert")
    header, arrays = header_and_arrays([trace], HOSTILE, LEVELS[0])
    header["traces"][0]["prompt"] = header["traces"][0]["label"] = HOSTILE
    header["traces"][0]["output"]["names"] = [HOSTILE, "b"]
    page = html_of(header, arrays.base64())
    for own in filter(None, writing.bundle()):
        page = page.replace(own, "")
    assert "alert(1)</" not in page
    assert page.count("<script") == page.count("</script>") == 3
    assert "<!--" not in page
    assert "<img" not in page
    data = re.search(r'<script type="application/json" id="trace">(.*?)</script>', page)[1]
    assert json.loads(data)["traces"][0]["prompt"] == HOSTILE
    assert not set(data) & set("<>&\u2028\u2029")


@given(st.text())
def test_any_text_is_data(text):
    data = as_data({"text": text})
    assert data.isascii()
    assert not set(data) & set("<>&")
    assert json.loads(data)["text"] == text


def test_the_policy_allows_the_pages_own_program_only(trace_of, monkeypatch, tmp_path):
    program, style = "console.log('é')", "body { color: red }"
    (tmp_path / "explainer.js").write_text(program, "utf-8")
    (tmp_path / "explainer.css").write_text(style, "utf-8")
    monkeypatch.setattr(writing, "_PAGE", tmp_path)
    page = page_of([trace_of("vit")], "a run")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["connect-src"] == "'none'"
    assert rules["img-src"] == "data:"

    def digest(text):
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    assert rules["script-src"] == f"'sha256-{digest(program)}'"
    assert rules["style-src"] == f"'sha256-{digest(style)}'"
    assert f"<script>{program}</script>" in page
    assert f"<style>{style}</style>" in page
    assert "http" not in page.replace("http-equiv", "")


def test_pages_keep_to_their_budget_and_say_what_is_missing(trace_of):
    trace = trace_of("gpt")
    sizes = []
    for level in LEVELS:
        header, arrays = header_and_arrays([trace], "", level)
        sizes.append(len(html_of(header, arrays.base64()).encode()))
    page = page_of([trace], "", budget=sizes[0] + 2000)
    assert len(page.encode()) == sizes[0]
    assert "left out" not in page
    for size in sizes[3:]:
        page = page_of([trace], "", budget=size + 2000)
        assert len(page.encode()) <= size + 2000
        assert "values were left out" in page
    page = page_of([trace], "", budget=1000)
    assert "more than the 0.0 MB it should have" in page


def test_changes_are_told(trace_of, run_of):
    trace = trace_of("gpt")
    changed = explaining.trace(run_of("gpt"), "ROMEO: But", edits=[Ablate(1, head=2)])
    header, _ = header_and_arrays([trace, changed], "", LEVELS[0])
    assert header["traces"][0]["edits"] == []
    assert header["traces"][1]["edits"] == ["layer 1, attention, head 2: switched off"]
    assert header["traces"][0]["loss"] != header["traces"][1]["loss"]


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_png_files(channels, tmp_path):
    image = pytest.importorskip("PIL.Image", reason="Pillow reads the picture back")
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels), np.uint8)
    path = tmp_path / "x.png"
    path.write_bytes(png(pixels))
    with image.open(path) as found:
        np.testing.assert_array_equal(np.asarray(found).reshape(5, 7, channels), pixels)
