import base64
import dataclasses
import functools
import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.explaining.tiny import PROMPTS
from transformer import explaining
from transformer.data.text.embeddings import Embedding
from transformer.decoding.embed import embed
from transformer.errors import ConfigError, DataError
from transformer.explaining import Ablate, Patch
from transformer.explaining.arrays import stored
from transformer.explaining.editing import PARTS
from transformer.explaining.header import LEVELS, header_and_arrays
from transformer.explaining.names import OF_LAYERS, OF_MODELS, from_transformer_lens
from transformer.explaining.names import to_transformer_lens as theirs

ALL = (*PROMPTS, "vit")


def assert_same(one, other):
    np.testing.assert_array_equal(one.outputs, other.outputs)
    for ours, others in zip(one.stacks, other.stacks, strict=True):
        for layer, same in zip(ours.layers, others.layers, strict=True):
            assert layer.keys() == same.keys()
            for name, values in layer.items():
                np.testing.assert_array_equal(values, same[name], err_msg=name)


def again(trace, edits):
    """The same prompt, with edits."""
    return explaining.trace(trace.run, trace.reading.prompt, trace.reading.target, edits=edits)


# ------------------------------------------------------------------------------------- traces


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ALL)
def test_outputs_are_the_models(name, trace_of):
    trace = trace_of(name)
    reading = trace.reading
    lengths = [len(tokens) for tokens in reading.stacks.values()]
    # Without padding, and without what is said of it.
    inputs = [jnp.asarray(x) for x in reading.inputs]
    if reading.family == "encoder":
        inputs[:2] = (x[:, : lengths[0]] for x in inputs[:2])
    elif reading.family != "image":
        inputs = [x[:, :length] for x, length in zip(inputs, lengths, strict=True)]
    apply = jax.jit(functools.partial(trace.run.model.apply, method=reading.method))
    found = apply({"params": trace.run.params}, *inputs)
    found = found[0] if isinstance(found, tuple) else found
    np.testing.assert_allclose(trace.outputs, found[0], atol=2e-5)


@pytest.mark.parametrize("name", ALL)
def test_every_activation_has_its_shape(name, trace_of):
    trace = trace_of(name)
    known = {*OF_LAYERS, "feed_forward_router", "attention_visible", "cross_attention_visible"}
    for stack in trace.stacks:
        count = len(stack.tokens)
        for layer in stack.layers:
            assert layer.keys() <= known
            assert len({"feed_forward_hidden", "feed_forward_router"} & layer.keys()) == 1
            weights = layer["attention_weights"]
            assert weights.shape[1:] == (count, count)
            np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-5)
            assert np.all(weights[:, ~layer["attention_visible"][0]] == 0.0)
            assert layer["residual_before"].shape == (count, trace.run.model.width)
            assert layer["attention_query"].shape[:2] == weights.shape[:2]
            assert layer["attention_mixed"].shape == layer["attention_query"].shape
            if "cross_attention_weights" in layer:
                sizes = len(trace.stacks[0].tokens)
                assert layer["cross_attention_weights"].shape[1:] == (count, sizes)
                assert layer["cross_attention_key"].shape[1] == sizes


def test_activations_are_found_by_either_name(trace_of):
    trace = trace_of("gpt")
    weights = trace["attention_weights"]
    assert weights.shape == (2, 4, 10, 10)
    np.testing.assert_array_equal(trace["attention_weights", 1], weights[1])
    np.testing.assert_array_equal(trace["blocks.1.attn.hook_pattern"], weights[1])
    np.testing.assert_array_equal(trace["hook_embed"], trace["token_embedding"])
    pair = trace_of("t5")
    np.testing.assert_array_equal(
        pair["encoder.0.attn.hook_q"], pair.stack("encoder")["attention_query", 0]
    )
    for name in OF_LAYERS:
        place = from_transformer_lens(theirs(name, 3))
        assert (place.layer, place.name, place.stack) == (3, name, None)
    for name in OF_MODELS:
        assert from_transformer_lens(theirs(name)).name == name
    assert from_transformer_lens("blocks.0.attn.hook_nothing") is None
    assert theirs("feed_forward_router", 0) is None
    with pytest.raises(ConfigError, match="no activation 'attention_wights': choose from"):
        trace["attention_wights"]
    with pytest.raises(ConfigError, match="no layer 7: there are 2"):
        trace["attention_weights", 7]
    with pytest.raises(ConfigError, match="no stack 'encoder': choose from decoder"):
        trace.stack("encoder")


def test_scanned_is_unrolled(trace_of):
    one, other = trace_of("gpt"), trace_of("gpt-scanned")
    assert other["residual_after"].shape == one["residual_after"].shape


def test_tokens_may_be_appended(run_of):
    run = run_of("gpt")
    whole = explaining.trace(run, "ROMEO: B")
    ids = [token.id for token in whole.tokens]
    assert_same(explaining.trace(run, "ROMEO:", append=ids[6:]), whole)
    pair = explaining.trace(run_of("t5"), "what light", "the")
    longer = explaining.trace(run_of("t5"), "what light", "the", append=[5, 6])
    assert [token.id for token in longer.tokens[-2:]] == [5, 6]
    assert len(longer.tokens) == len(pair.tokens) + 2


def test_models_write_targets_that_are_not_given(run_of):
    trace = explaining.trace(run_of("vaswani"), "what light")
    assert any("written by the model" in note for note in trace.reading.notes)
    # Greedily or not, each token is among those that the model finds probable.
    ids = [token.id for token in trace.tokens[1:]]
    places = (trace.outputs[:-1] > trace.outputs[np.arange(len(ids)), ids][:, None]).sum(-1)
    assert np.median(places) == 0


# -------------------------------------------------------------------------------------- edits


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ALL)
def test_changing_nothing_changes_no_bit(name, trace_of):
    trace = trace_of(name)
    assert_same(again(trace, ()), trace)
    assert_same(again(trace, [Ablate(0, head=1, factor=1.0)]), trace)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ALL)
def test_patching_with_itself_changes_no_bit(name, trace_of):
    trace = trace_of(name)
    layer = trace.stacks[-1].layers[1]
    names = [known for known in layer if not known.endswith("visible")]
    assert_same(again(trace, [Patch(trace, known, 1) for known in names]), trace)
    assert_same(again(trace, [Patch(trace, known, 0, position=1) for known in names]), trace)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ["gpt", "gpt-scanned", "gemma", "t5", "bert", "vit"])
def test_patching_the_last_stream_gives_the_other_output(name, trace_of, run_of):
    trace = trace_of(name)
    other = again(trace, [Ablate(0), Ablate(0, part="feed_forward")])
    assert np.abs(other.outputs - trace.outputs).max() > 1e-3
    patched = again(trace, [Patch(other, "residual_after", -1)])
    np.testing.assert_array_equal(patched.outputs, other.outputs)
    np.testing.assert_array_equal(patched["attention_output", -1], trace["attention_output", -1])


@pytest.mark.parametrize("name", ALL)
def test_a_part_that_is_off_adds_nothing(name, trace_of):
    trace = trace_of(name)
    parts = [part for part in PARTS if f"{part}_output" in trace.stacks[-1].layers[0]]
    for part in parts:
        changed = again(trace, [Ablate(1, part=part)])
        assert not np.any(changed[f"{part}_output", 1])
        assert np.any(changed[f"{part}_output", 0])


def test_a_model_without_all_parts_is_its_embedding(trace_of):
    for name in ("gpt", "gemma", "mixtral"):
        trace = trace_of(name)
        parts = ("attention", "feed_forward")
        changed = again(trace, [Ablate(i, part=part) for i in range(2) for part in parts])
        stream = jnp.asarray(trace["residual_before", 0])
        np.testing.assert_array_equal(changed["residual_after", 1], stream)
        model, params = trace.run.model, trace.run.params

        def score(module, stream=stream):
            return module.logits(module.final_norm(stream[None]))

        expected = nn.apply(score, model)({"params": params})[0]
        np.testing.assert_allclose(changed.outputs, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["gpt", "llama", "bert", "t5"])
def test_all_heads_off_is_attention_without_its_products(name, trace_of):
    trace = trace_of(name)
    heads = range(trace.run.model.num_heads)
    changed = again(trace, [Ablate(0, head=head) for head in heads])
    assert not np.any(changed["attention_mixed", 0])
    params = trace.run.params[trace.stacks[-1].path]["layer_0"]["attention"]["output"]
    bias = np.asarray(params.get("bias", 0.0)) * np.ones(trace.run.model.width)
    np.testing.assert_array_equal(
        changed["attention_output", 0], np.broadcast_to(bias, changed["attention_output", 0].shape)
    )
    if "bias" not in params:
        assert_same_stream(changed, again(trace, [Ablate(0)]))


def assert_same_stream(one, other):
    np.testing.assert_array_equal(one["residual_after"], other["residual_after"])
    np.testing.assert_array_equal(one.outputs, other.outputs)


def test_edits_reach_the_stack_they_name(trace_of):
    trace = trace_of("t5")
    encoder = again(trace, [Ablate(0, stack="encoder")])
    assert not np.any(encoder.stack("encoder")["attention_output", 0])
    np.testing.assert_array_equal(
        encoder.stack("decoder")["attention_query", 0], trace["attention_query", 0]
    )
    assert np.abs(encoder.outputs - trace.outputs).max() > 1e-4
    assert_same(again(trace, [Ablate(0, stack=0)]), encoder)
    cross = again(trace, [Ablate(1, head=1, part="cross_attention")])
    assert not np.any(cross["cross_attention_mixed", 1][1])
    assert np.any(cross["cross_attention_mixed", 1][0])


def test_one_position_is_patched(trace_of, run_of):
    trace = trace_of("gpt")
    other = explaining.trace(run_of("gpt"), "the east break")
    changed = again(trace, [Patch(other, "residual_before", 1, position=4)])
    np.testing.assert_array_equal(changed["residual_before", 1][4], other["residual_before", 1][4])
    np.testing.assert_array_equal(changed.outputs[:4], trace.outputs[:4])
    assert np.all(np.abs(changed.outputs[4:] - trace.outputs[4:]).max(-1) > 1e-5)
    head = again(trace, [Patch(other, "attention_mixed", 1, position=4, head=2)])
    found = head["attention_mixed", 1]
    np.testing.assert_array_equal(found[2, 4], other["attention_mixed", 1][2, 4])
    np.testing.assert_array_equal(found[:2], trace["attention_mixed", 1][:2])


# ------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "edit, message",
    [
        (Ablate(2), "no layer 2: decoder has 2"),
        (Ablate(0, head=4), "no head 4: there are 4"),
        (Ablate(0, part="router"), "no part 'router': choose from attention, feed_forward"),
        (Ablate(0, part="cross_attention"), "no part 'cross_attention'"),
        (Ablate(0, head=0, part="feed_forward"), "feed_forward has no heads"),
        (Ablate(0, stack="encoder"), "no stack 'encoder': choose from decoder"),
    ],
)
def test_edits_that_cannot_be_made(edit, message, trace_of):
    with pytest.raises(ConfigError, match=message):
        again(trace_of("gpt"), [edit])


def test_patches_that_cannot_be_made(trace_of, run_of):
    trace, other = trace_of("gpt"), explaining.trace(run_of("gpt"), "the")
    with pytest.raises(ConfigError, match="has 3 tokens and this one 10: give a position"):
        again(trace, [Patch(other, "residual_before", 0)])
    with pytest.raises(ConfigError, match="no token 5 in both prompts, which have 10 and 3"):
        again(trace, [Patch(other, "residual_before", 0, position=5)])
    with pytest.raises(ConfigError, match="no activation 'stream': choose from residual_before"):
        again(trace, [Patch(other, "stream", 0, position=0)])
    with pytest.raises(ConfigError, match="there is no head -1: there are 4, from 0"):
        again(trace, [Patch(trace, "attention_mixed", 0, head=-1)])
    with pytest.raises(ConfigError, match="residual_after has no heads: leave the head out"):
        again(trace, [Patch(trace, "residual_after", 0, head=0)])
    with pytest.raises(ConfigError, match="a model of other sizes: nothing of it fits here"):
        again(trace, [Patch(trace_of("llama"), "residual_before", 0, position=0)])


def test_keys_of_the_source_are_patched_by_its_positions(trace_of, run_of):
    """Beyond the end of a short target, too."""
    trace = trace_of("t5")
    sources = len(trace.stacks[0].tokens)
    other = explaining.trace(run_of("t5"), trace.reading.prompt[::-1], trace.reading.target)
    assert len(other.stacks[0].tokens) >= sources > len(trace.tokens)
    last = sources - 1
    changed = again(trace, [Patch(other, "cross_attention_key", 0, position=last)])
    found = changed["cross_attention_key", 0]
    np.testing.assert_array_equal(found[:, last], other["cross_attention_key", 0][:, last])
    np.testing.assert_array_equal(found[:, :last], trace["cross_attention_key", 0][:, :last])
    with pytest.raises(ConfigError, match=f"no token {sources} in both prompts"):
        again(trace, [Patch(other, "cross_attention_key", 0, position=sources)])


@pytest.mark.parametrize(
    "name, prompt, target, message",
    [
        ("gpt", "", None, "the prompt is empty"),
        ("gpt", "ROMEO 😀", None, "does not know"),
        ("gpt", "ROMEO", "JULIET", "reads one input: leave the target out"),
        ("gpt", "a\ud800", None, "the prompt"),
        ("gpt", "a" * (1 << 21), None, "at most 1,048,576 are read"),
        ("t5", " ", None, "the prompt is empty"),
        ("bert", " ", None, "the prompt is empty"),
        ("bert", "a", "b", "leave the target out"),
        ("tags", "", None, "the prompt is empty"),
        ("questions", "what light", None, "a question and a context"),
        ("masked", "", None, r"with \[MASK\] in it"),
        ("vit", "", None, "which image"),
        ("vit", "/nowhere/cat.png", None, "cat.png"),
        ("mae", "cat.png", None, "masked_images, which cannot be explained"),
    ],
)
def test_prompts_that_cannot_be_read(name, prompt, target, message, run_of):
    with pytest.raises((ConfigError, DataError), match=message):
        explaining.trace(run_of(name), prompt, target)


def test_long_prompts_are_cut_and_it_is_said(run_of):
    trace = explaining.trace(run_of("gpt"), "the east " * 8)
    assert len(trace.tokens) == 32
    assert trace.reading.notes == ("The prompt has 72 tokens and was cut to its last 32.",)
    short = explaining.trace(run_of("gpt"), "the east " * 8, most=5)
    assert "".join(token.text for token in short.tokens) == "east "
    for name in ("bert", "masked", "t5", "tags"):
        trace = explaining.trace(run_of(name), "light window " * 8, most=6)
        assert len(trace.stacks[0].tokens) <= 6
        assert any("cut" in note or "longer" in note for note in trace.reading.notes)


# ------------------------------------------------------------------------------------ vectors


def test_encoders_without_a_head_show_the_vector_of_the_text(run_of, tmp_path):
    run = run_of("masked")
    how = Embedding(prompts={"query": "light "}, default_prompt="query", include_prompt=False)
    shutil.copytree(run.workdir, tmp_path / "run")
    (tmp_path / "run" / "embedding.json").write_text(how.to_text())
    run = dataclasses.replace(run, workdir=tmp_path / "run")
    trace = explaining.trace(run, "what window breaks")
    tokenizer = run.task.load_tokenizer(run.workdir)
    texts, given = ["what window breaks"], {"prompt": how.prompt(None)}
    expected = embed(run.model, run.params, tokenizer, texts, how, **given)[0]
    np.testing.assert_allclose(trace.outputs, expected, atol=1e-5)
    header, arrays = header_and_arrays([trace], "", LEVELS[0])
    output = header["traces"][0]["output"]
    assert (output["kind"], output["pooling"]) == ("vector", "mean")
    found = stored(header["arrays"], base64.b64decode(arrays.base64()), output["vector"])
    np.testing.assert_array_equal(found, trace.outputs)
    assert_same(explaining.trace(run, "what window breaks", edits=()), trace)
    with pytest.raises(DataError, match="the prompt is empty"):
        explaining.trace(run, " ")
