"""A kernel of `config.model.compute.attention` that cannot compute a model is refused."""

import jax
import jax.numpy as jnp
import pytest

from transformer.errors import ConfigError
from transformer.models.gemma import Gemma
from transformer.models.gpt import GPT
from transformer.nn.compute import Compute, for_any_shape
from transformer.training.sections import build, section

NO_DROPOUT, HALF = {"dropout_rate": 0.0}, {"dropout_rate": 0.0, "compute": {"dtype": "bfloat16"}}
BIAS, DROPOUT = "neither bias nor dropout", "neither dropout nor capped logits"


def asking(model, kernel, fields):
    """A section whose model asks for a kernel."""
    result = section("model", model, **fields)
    result.compute.attention = kernel
    return result


@pytest.mark.parametrize(
    ("model", "kernel", "fields", "reason"),
    [
        *((name, kernel, {"dropout_rate": 0.1}, reason)
          for name in ("gpt", "llama", "mixtral", "gemma", "bert", "vit")
          for kernel, reason in (("blockwise", BIAS), ("splash", BIAS), ("cudnn", DROPOUT))),
        *(("t5", kernel, fields, BIAS)
          for kernel in ("blockwise", "splash") for fields in (NO_DROPOUT, HALF)),
        ("t5", "cudnn", NO_DROPOUT, "not in float32"),
        ("gpt", "cudnn", NO_DROPOUT, "not in float32"),
        ("gpt", "cudnn", {**HALF, "width": 36}, "heads of 3"),
        ("gemma", "cudnn", {**HALF, "attention_cap": 50.0}, "capped"),
        ("vit", "splash", {**NO_DROPOUT, "image_size": 32}, "not multiples of 128"),
    ],
)  # fmt: skip
def test_what_a_kernel_cannot_compute_is_refused(model, kernel, fields, reason):
    config = asking(model, kernel, fields)
    with pytest.raises(
        ConfigError, match=f"config.model.compute.attention is '{kernel}'.*{reason}"
    ):
        build("model", config)


@pytest.mark.parametrize(
    ("model", "kernel", "fields"),
    [
        *((name, "blockwise", NO_DROPOUT) for name in ("gpt", "gemma", "bert", "vit", "vaswani")),
        *((name, "cudnn", HALF) for name in ("gpt", "gemma", "bert", "vit", "t5", "vaswani")),
        *((name, "splash", NO_DROPOUT) for name in ("gpt", "gemma", "bert", "vaswani")),
        ("vaswani", "blockwise", {"dropout_rate": 0.1}),  # It drops no weights of attention.
    ],
)
def test_what_a_kernel_can_compute_is_not(model, kernel, fields):
    made = build("model", asking(model, kernel, fields))
    assert made.compute.attention == kernel


def test_lengths_of_batches_are_asked_too():
    sizes = {"vocab_size": 9, "num_layers": 1, "num_heads": 2, "width": 8, "context": 64}
    model = GPT(**sizes, compute=Compute(attention="splash"))
    tokens = jnp.zeros((1, 64), int)
    with pytest.raises(ConfigError, match="64 queries and 64 keys are not multiples of 128"):
        model.chosen_attention(tokens)
    with pytest.raises(ConfigError, match="64 queries and 64 keys are not multiples of 128"):
        jax.eval_shape(model.init, jax.random.key(0), tokens)
    assert model.for_writing().compute.attention == "auto"


def test_a_capped_model_is_logged_with_what_it_uses(monkeypatch):
    monkeypatch.setattr("transformer.ops.attention.platform", lambda: "gpu")
    model = Gemma(vocab_size=9, compute=Compute(dtype="bfloat16"))
    tokens = jnp.zeros((1, 512), int)
    assert model.chosen_attention(tokens) == "cudnn"
    # Heads of 256, as published, have a backward pass on Hopper alone.
    assert model.clone(head_dim=256).chosen_attention(tokens) == "blockwise"
    monkeypatch.setattr("transformer.ops.cudnn._compute_capability", lambda: (9, 0))
    assert model.clone(head_dim=256).chosen_attention(tokens) == "cudnn"
    assert model.clone(attention_cap=50.0).chosen_attention(tokens) == "blockwise"


def test_kernels_of_other_devices():
    for kernel in ("splash", "cudnn"):
        with pytest.raises(ConfigError, match=f"'{kernel}', which does not run on cpu"):
            Compute(attention=kernel).require_platform()
        model = GPT(compute=Compute(attention=kernel))
        assert for_any_shape(model).compute.attention == "auto"
    for other in ("auto", "einsum", "blockwise"):
        Compute(attention=other).require_platform()
        model = GPT(compute=Compute(attention=other))
        assert for_any_shape(model) is model
