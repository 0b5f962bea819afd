"""Traces are what `transformers` gives out of its models."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from transformer.explaining.readings import Reading, Token
from transformer.explaining.tracing import trace_reading
from transformer.interop.opening import read_published
from transformer.interop.published import read_source
from transformer.models.t5 import T5
from transformer.runs.opening import Run
from transformer.tasks.language_modeling import LanguageModeling
from transformer.training.selection import from_paths

pytest.importorskip("safetensors", reason="weights are read from its files")
torch = pytest.importorskip("torch", reason="torch makes the checkpoints")
transformers = pytest.importorskip("transformers", reason="transformers makes the checkpoints")

from tests.interop import published_encoders, test_decoders, test_t5, test_vit  # noqa: E402

TOKENS = np.random.default_rng(0).integers(5, 30, (1, 12)).astype(np.int32)


def ours(folder):
    """A published model, and its parameters."""
    read = read_published(folder)
    return read.family.model(**read.model), from_paths(read.params)


def traced(model, params, family, method, *inputs, **named):
    """The trace of a model for tokens or pixels."""
    run = Run(ConfigDict(), LanguageModeling(), model, params, 0, Path())
    names = ["encoder", "decoder"] if family == "encoder-decoder" else ["decoder"]
    names = names if "decoder" in family else ["encoder"]
    counts = [x.shape[1] for x in inputs[: len(names)]]
    if family == "image":
        counts = [model.num_front + model.grid**2]
    stacks = {
        name: tuple(Token("", -1, "text") for _ in range(count))
        for name, count in zip(names, counts, strict=True)
    }
    output = "next_token" if "decoder" in family else "classes"
    reading = Reading("", family, method, inputs, stacks, output, named=named)
    return trace_reading(run, reading)


def outputs_of(model, *inputs, **named):
    model.set_attn_implementation("eager")
    with torch.no_grad():
        return model(
            *map(torch.from_numpy, inputs),
            **named,
            output_attentions=True,
            output_hidden_states=True,
        )


def assert_close(ours, theirs):
    np.testing.assert_allclose(ours, theirs[0].numpy(), atol=1e-5)


def assert_same_stack(stack, attentions, hidden, *, last_is_normed):
    assert len(attentions) == len(stack.layers)
    for layer, weights in zip(stack.layers, attentions, strict=True):
        assert_close(layer["attention_weights"], weights)
    for layer, states in zip(stack.layers, hidden, strict=False):
        assert_close(layer["residual_before"], states)
    for layer, states in zip(stack.layers[:-1], hidden[1:], strict=False):
        assert_close(layer["residual_after"], states)
    last = stack.whole["final"] if last_is_normed else stack.layers[-1]["residual_after"]
    assert_close(last, hidden[-1])


@pytest.mark.parametrize("name", ["gpt2", "llama 3", "mixtral", "gemma 2"])
def test_decoders_are_theirs(name, tmp_path):
    kind, options, config = test_decoders.MODELS[name]
    model = test_decoders.theirs(kind, options, **config)
    model.save_pretrained(tmp_path)
    test_decoders.write_tokenizer(tmp_path)
    trace = traced(*ours(tmp_path), "decoder", "__call__", TOKENS)
    found = outputs_of(model, TOKENS.astype(np.int64))
    assert_close(trace.outputs, found.logits)
    if name == "gemma 2":
        assert {layer["attention_visible"].sum() for layer in trace.stacks[0].layers} == {68, 78}
    assert_same_stack(trace.stacks[0], found.attentions, found.hidden_states, last_is_normed=True)


def test_bert_is_theirs(tmp_path):
    published_encoders.publish(tmp_path, "bert", "text_classification", num_hidden_layers=2)
    model = transformers.BertForSequenceClassification.from_pretrained(tmp_path).eval()
    lengths = np.array([TOKENS.shape[1]], np.int32)
    trace = traced(*ours(tmp_path), "encoder", "classify", TOKENS, np.zeros_like(TOKENS), lengths)
    found = outputs_of(model, TOKENS.astype(np.int64))
    assert_close(trace.outputs, found.logits)
    assert_same_stack(trace.stacks[0], found.attentions, found.hidden_states, last_is_normed=True)


def test_t5_is_theirs():
    model = test_t5.theirs()
    published = read_source(test_t5.source_of(model), test_t5.T5_FAMILY)
    target = TOKENS[:, ::-1][:, :7].copy()
    segments = {"source_segments": np.ones_like(TOKENS), "target_segments": np.ones_like(target)}
    pair = T5(**published.model), from_paths(published.params)
    trace = traced(*pair, "encoder-decoder", "__call__", TOKENS, target, **segments)
    found = outputs_of(
        model, TOKENS.astype(np.int64), decoder_input_ids=torch.from_numpy(target).long()
    )
    np.testing.assert_allclose(trace.outputs, found.logits[0].numpy(), rtol=1e-5, atol=1e-4)
    encoder, decoder = trace.stacks
    assert_same_stack(
        encoder, found.encoder_attentions, found.encoder_hidden_states, last_is_normed=True
    )
    # Our last states are scaled for the tied output layer, too.
    scaled = {"final": decoder.whole["final"] * model.config.d_model**0.5}
    decoder = dataclasses.replace(decoder, whole=scaled)
    assert_same_stack(
        decoder, found.decoder_attentions, found.decoder_hidden_states, last_is_normed=True
    )
    for layer, weights in zip(decoder.layers, found.cross_attentions, strict=True):
        assert_close(layer["cross_attention_weights"], weights)


def test_vit_is_theirs(tmp_path):
    model = test_vit.theirs(**test_vit.TINY)
    folder = test_vit.saved(tmp_path, model)
    images = test_vit.pixels(12, count=1)
    trace = traced(*ours(folder), "image", "classify", images)
    found = outputs_of(model, images.transpose(0, 3, 1, 2).copy())
    assert_close(trace.outputs, found.logits)
    assert_same_stack(trace.stacks[0], found.attentions, found.hidden_states, last_is_normed=False)
