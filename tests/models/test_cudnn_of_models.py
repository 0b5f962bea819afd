"""What `auto` picks on a GPU passes JAX's own checks, for every shipped config and family.

There is no GPU: models are traced, forward and for a gradient, and what a device would be asked is
answered here. Layers are few and vocabularies small, which attention does not see.
"""

import functools
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax._src.cudnn import fused_attention_stablehlo as fused

from transformer.decoding import sample
from transformer.models.board_transformer import BoardTransformer
from transformer.models.decision_transformer import DecisionTransformer
from transformer.models.sound_codec import SoundCodec
from transformer.models.speech_encoder import SpeechEncoder
from transformer.models.whisper import Whisper
from transformer.nn.decoder import DecoderOnly
from transformer.nn.encoder_decoder import AnyEncoderDecoder, EncoderDecoder
from transformer.nn.heads import TextEncoder
from transformer.ops import attention, cudnn
from transformer.training.sections import build, section

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = {"vocab_size": 32, "num_outputs": 3, "num_layers": 1, "num_experts": 2, "channels": 3}
SMALL |= {"num_encoder_layers": 1, "num_decoder_layers": 1, "decoder_layers": 1}
SMALL |= {"num_features": 13, "num_squares": 9, "num_values": 5, "num_actions": 4, "num_turns": 9}
# Published models whose attention no shipped config has.
FAMILIES = {
    "gemma": {"num_heads": 8, "num_kv_heads": 1, "width": 2048, "head_dim": 256, "context": 8192},
    "gemma, capped": {"num_heads": 8, "num_kv_heads": 4, "width": 2304, "head_dim": 256,
                      "window": 4096, "attention_cap": 50.0, "context": 8192},
    "gemma, window in some layers": {"num_heads": 4, "num_kv_heads": 1, "width": 1152,
                                     "head_dim": 256, "window": 512, "context": 4097},
    "llama": {"num_heads": 9, "num_kv_heads": 3, "width": 576, "window": 500, "context": 2047},
    "bert": {"num_heads": 12, "width": 384, "position_offset": 2, "context": 511},
    "vit": {"num_heads": 6, "width": 384, "distillation": "two", "num_registers": 4},
    "vit, no class token": {"num_heads": 12, "width": 768, "pooling": "attention"},
    "t5": {"num_heads": 12, "width": 768, "head_dim": 64},
    "vaswani": {"num_heads": 8, "width": 512, "norm_order": "post"},
    "esm": {"num_heads": 40, "width": 2560},
    "whisper": {"num_heads": 6, "width": 384},
    "whisper, large": {"num_heads": 20, "width": 1280, "source_context": 1499, "context": 447},
}  # fmt: skip


def of_configs():
    """Sections `model` that attention tells apart, by config and variant."""
    found = {}
    for path in sorted(CONFIGS.glob("*.py")):
        if path.stem == "finetune":  # Has the model of another run.
            continue
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for variant in ("", *getattr(module, "VARIANTS", {})):
            config = module.get_config(*[variant] * bool(variant))
            length = config.task.get("max_length") or config.task.get("length") or 0
            found[f"{path.stem}:{variant}"] = (config.model, length)
    seen, different = set(), {}
    for name, (model, length) in found.items():
        sizes = ("name", "context", "window", "image_size", "patch_size", "pooling")
        head_dim = model.get("head_dim") or model.width // model.num_heads
        key = (*(model.get(size) for size in sizes), head_dim, length)
        if key not in seen:
            different[name] = (model, length)
        seen.add(key)
    return different


CASES = of_configs() | {
    f"published {name}": (section("model", name.split(",")[0], **fields), 0)
    for name, fields in FAMILIES.items()
}


@pytest.fixture
def chosen(monkeypatch):
    """A Hopper that is not there; keeps the names of what computed attention."""
    monkeypatch.setattr(attention.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(cudnn, "_compute_capability", lambda: (9, 0))
    monkeypatch.setattr(fused, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(fused, "is_cuda_compute_capability_equal", lambda text: False)
    monkeypatch.setattr(fused, "check_compute_capability", lambda text: text <= "9.0")
    names = []
    for name, function in attention.IMPLEMENTATIONS.items():

        def kept(*args, name=name, function=function, **options):
            names.append(name)
            return function(*args, **options)

        monkeypatch.setitem(attention.IMPLEMENTATIONS, name, kept)
    return names


def made(model, **fields):
    """A model of a section, with few layers."""
    plain = model.copy_and_resolve_references()
    with plain.unlocked():
        for field, value in (SMALL | fields).items():
            if field in plain:
                plain[field] = value
    return build("model", plain)


def inputs_of(model, length):
    """Methods and arguments that training calls a model with."""

    def ints(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.int32)

    rows = 2
    frames, real = jax.ShapeDtypeStruct((rows, 90, 13), jnp.float32), ints(rows, 90)
    match model:
        case DecoderOnly():
            tokens = ints(rows, model.context)
            calls = [(None, (tokens,), {}), (None, (tokens,), {"segment_ids": tokens})]
        case TextEncoder():
            tokens = ints(rows, length or model.context)
            calls = [(None, (tokens, tokens, ints(rows)), {})]
        case EncoderDecoder():
            source, target = ints(rows, length or 33), ints(rows, 29)
            packed = {"source_segments": source, "target_segments": target}
            packed |= {"source_positions": source, "target_positions": target}
            calls = [(None, (source, target), packed)]
        case Whisper():
            # A window that is filled up with silence: nothing is padding.
            window = jax.ShapeDtypeStruct((rows, 2 * model.source_context, 13), jnp.float32)
            calls = [(None, (window, ints(rows, model.context)), {})]
        case AnyEncoderDecoder():
            target = ints(rows, 29)
            named = {"source_segments": real, "target_segments": target}
            calls = [(None, (frames, target), named)]
        case SpeechEncoder():
            calls = [(None, (frames,), {"frame_segments": real})]
        case SoundCodec():
            calls = [(None, (frames,), {})]
        case BoardTransformer():
            calls = [("moves", (ints(rows, model.num_squares),), {})]
        case DecisionTransformer():
            turns = model.num_turns
            seen = ints(rows, turns, model.num_features)
            returns = jax.ShapeDtypeStruct((rows, turns), jnp.float32)
            asked = jax.ShapeDtypeStruct((rows, turns), bool)
            calls = [("decide", (ints(rows, turns), returns, asked, seen), {})]
        case _:
            size = model.image_size
            images = jax.ShapeDtypeStruct((rows, size, size, 3), jnp.float32)
            calls = [("classify", (images,), {})]
            if model.pooling == "class" and model.distillation == "none":
                patches = model.grid**2
                calls.append(("reconstruct", (images, ints(rows, patches), patches // 4), {}))
    return calls


def traced(model, method, args, named):
    """Forward, for the shapes of parameters, and for a gradient."""
    shapes = [arg for arg in args if not isinstance(arg, int)]
    plain = [arg for arg in args if isinstance(arg, int)]

    def total(params, *arrays, **named):
        result = model.apply({"params": params}, *arrays, *plain, method=method, **named)
        output = result[0] if isinstance(result, tuple) else result
        return jnp.sum(output.astype(jnp.float32))

    def gradient(key, *arrays, **named):
        params = model.init(key, *arrays, *plain, method=method, **named)["params"]
        return jax.grad(total)(params, *arrays, **named)

    jax.eval_shape(gradient, jax.eval_shape(lambda: jax.random.key(0)), *shapes, **named)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", CASES)
def test_what_auto_picks_passes_the_checks_of_jax(chosen, name):
    section, length = CASES[name]
    model = made(section, compute={"dtype": "bfloat16"}, dropout_rate=0.0)
    for method, args, named in inputs_of(model, length):
        chosen.clear()
        traced(model, method, args, named)
        wide = model.has_attention_cap() if isinstance(model, DecoderOnly) else False
        # A mask of documents in the longest rows is too large to be handed over whole.
        whole = "segment_ids" in named and 2 * model.context**2 > cudnn.LARGEST_MASK
        expected = {"blockwise"} if wide or whole else {"cudnn"}
        if section.width // section.num_heads % 8 and "head_dim" not in section:
            expected = {"einsum"}  # cuDNN takes no such heads.
        if getattr(model, "pooling", "") == "attention":
            expected = expected | {"einsum"}  # It pools by one query.
        assert set(chosen) == expected, (method, named)


@pytest.mark.parametrize("name", ["gpt2:", "published gemma, window in some layers"])
def test_a_prompt_is_read_by_what_passes_the_checks_of_jax(chosen, name):
    """With a cache, whose slots are more than the prompt's tokens, and padding behind."""
    model = made(CASES[name][0], compute={"dtype": "bfloat16"}, context=1024, dropout_rate=0.0)
    tokens = jax.ShapeDtypeStruct((2, 9), jnp.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), tokens)["params"]
    chosen.clear()
    lengths = jax.ShapeDtypeStruct((2,), jnp.int32)
    read = functools.partial(sample._read, model.for_writing(), 704, sample.as_it_is)
    jax.eval_shape(read, params, tokens, lengths)
    assert set(chosen) == {"cudnn"}


def test_a_model_in_float32_or_with_dropout_is_left_to_others(chosen):
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    for fields in ({"dropout_rate": 0.0}, {"dropout_rate": 0.1, "compute": {"dtype": "bfloat16"}}):
        model = made(section("model", "vit", num_heads=3, width=192, **fields))
        init = functools.partial(model.init, keys, method="classify")
        jax.eval_shape(init, images)
    assert set(chosen) == {"einsum"}


@pytest.mark.parametrize("scanned", [True, False])
def test_where_products_are_saved_the_kernel_runs_once(chosen, scanned):
    """Its results are those of products, which `remat=dots` does not compute again."""
    compute = {"dtype": "bfloat16", "remat": "dots", "scan_layers": scanned}
    model = made(section("model", "gpt", num_heads=2, width=16, context=8, compute=compute))
    tokens = jax.ShapeDtypeStruct((2, 8), jnp.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), tokens)["params"]

    def total(params, tokens):
        return model.apply({"params": params}, tokens)[0].astype(jnp.float32).sum()

    program = str(jax.make_jaxpr(jax.grad(total))(params, tokens))
    assert program.count("dot_product_attention_fwd_wrapper[") == 1
    assert program.count("dot_product_attention_bwd_wrapper[") == 1
