"""Whisper in the layout of the library `transformers`."""

from pathlib import Path

import jax.numpy as jnp
import tokenizers
from tokenizers import decoders, pre_tokenizers

from transformer.data.audio.prompts import require_marks
from transformer.errors import DataError
from transformer.interop.activations import activation, published_activation
from transformer.interop.dictation_runs import (
    TrainedDictation,
    dictation_run,
    write_dictation_files,
)
from transformer.interop.family import Family, Head
from transformer.interop.layout import (
    Entry,
    Shape,
    entries,
    parameter_shapes,
    require_counts,
    require_heads,
    require_sizes,
    same,
    single,
)
from transformer.interop.side_files import SideFile
from transformer.interop.tokenizers.decoders import BytePairs, DecoderClass
from transformer.models.whisper import Whisper
from transformer.types import Json

# Options that our model lacks: keys and their only supported value.
_ONLY = {"is_encoder_decoder": True, "tie_word_embeddings": True}
# Keys that do not affect outputs, and why; and keys that do not with these values.
_IRRELEVANT = {
    "architectures": "arrays say what there is",
    "alignment_heads": "of times of words",
    "bos_token_id": "decoder_start_token_id says it",
    "classifier_proj_size": "of another head",
    "decoder_layerdrop": "in training only, and of the publisher's",
    "encoder_layerdrop": "in training only, and of the publisher's",
    "id2label": "of another head",
    "init_std": "of random weights",
    "label2id": "of another head",
    "pad_token_id": "what stands behind texts",
    "problem_type": "of another head",
    "scale_embedding": "the library reads it and does nothing",
    "use_weighted_layer_sum": "of another head",
}
_USUAL = {"attention_dropout": 0.0, "activation_dropout": 0.0, "apply_spec_augment": False}
_OF_MASKS = tuple(
    f"mask_{axis}_{what}"
    for axis in ("time", "feature")
    for what in ("prob", "length", "min_masks")
)
_ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}
_END = "<|endoftext|>"


def _fields(config: SideFile, where: Path, shapes: dict[str, Shape]) -> Json:
    """Fields of `config.model`; refuses what our model does not support."""
    config.irrelevant(_IRRELEVANT)
    config.usual(_USUAL)
    if not config.peek("apply_spec_augment"):
        config.irrelevant(dict.fromkeys(_OF_MASKS, "nothing is masked"))
    config.only(_ONLY)
    config.same({"hidden_size": "d_model", "num_hidden_layers": "encoder_layers"})
    for alias in ("num_attention_heads", "num_key_value_heads"):
        config.same({alias: "encoder_attention_heads"})
    usual = {"attention_heads": 6, "ffn_dim": 1536}
    for what, count in usual.items():
        sides = [config.whole(f"{side}_{what}", count) for side in ("encoder", "decoder")]
        if sides[0] != sides[1]:
            raise DataError(
                f"{where} has encoder_{what} {sides[0]} and decoder_{what} {sides[1]}: only stacks "
                f"that are alike can be read here."
            )
    found = {
        "vocab_size": config.whole("vocab_size", 51_865),
        "num_encoder_layers": config.whole("encoder_layers", 4),
        "num_decoder_layers": config.whole("decoder_layers", 4),
        "num_heads": config.whole("encoder_attention_heads", usual["attention_heads"]),
        "width": config.whole("d_model", 384),
        "feed_forward_width": config.whole("encoder_ffn_dim", usual["ffn_dim"]),
        "activation": activation(config, "activation_function", "gelu"),
        "dropout_rate": config.fraction("dropout", 0.0),
        "num_features": config.whole("num_mel_bins", 80),
        "source_context": config.whole("max_source_positions", 1500),
        "context": config.whole("max_target_positions", 448, least=4),
    }
    heads, width = found["num_heads"], found["width"]
    require_heads(where, ("encoder_attention_heads", heads), ("d_model", width))
    sizes = (
        ("vocab_size", found["vocab_size"], "model.decoder.embed_tokens.weight", 0),
        ("d_model", width, "model.decoder.embed_tokens.weight", 1),
        ("encoder_ffn_dim", found["feed_forward_width"], "model.encoder.layers.0.fc1.weight", 0),
        ("num_mel_bins", found["num_features"], "model.encoder.conv1.weight", 1),
        ("max_source_positions", found["source_context"], _POSITIONS, 0),
        ("max_target_positions", found["context"], "model.decoder.embed_positions.weight", 0),
    )
    require_sizes(where, shapes, sizes)
    counts = {
        f"model.{side}.layers.": (f"{side}_layers", found[f"num_{side}_layers"])
        for side in ("encoder", "decoder")
    }
    require_counts(where, shapes, counts)
    return found


def _config(trained: TrainedDictation[Whisper]) -> Json:
    """Writes what `_fields` reads."""
    model, marks = trained.model, require_marks(trained.tokenizer)
    stack = {"attention_heads": model.num_heads, "ffn_dim": model.feed_forward_width}
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "vocab_size": model.vocab_size,
        "d_model": model.width,
        "encoder_layers": model.num_encoder_layers,
        "decoder_layers": model.num_decoder_layers,
        **{f"{side}_{what}": x for side in ("encoder", "decoder") for what, x in stack.items()},
        "activation_function": published_activation(model.activation, "gelu_new"),
        "dropout": model.dropout_rate,
        **_USUAL,
        "num_mel_bins": model.num_features,
        "max_source_positions": model.source_context,
        "max_target_positions": model.context,
        "median_filter_width": trained.task.windows.median_width,
        "decoder_start_token_id": marks.start,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), marks.end),
        **_ONLY,
    }


_POSITIONS = "model.encoder.embed_positions.weight"


def _entries(model: Whisper) -> list[Entry]:
    frames = jnp.zeros((1, 2, model.num_features or 1))
    # In the order of the names of the stacks.
    depths = {
        "num_decoder_layers": model.num_decoder_layers,
        "num_encoder_layers": model.num_encoder_layers,
    }
    tokens = jnp.zeros((1, 2), jnp.int32)
    shapes = parameter_shapes(model, Whisper.__call__, frames, tokens, depths=depths)
    others = {
        "encoder_positions": same("encoder_positions", _POSITIONS, shapes["encoder_positions"])
    }
    for number in (1, 2):
        path = f"front/convolution_{number - 1}/kernel"
        shape = shapes[path]
        # Outputs, inputs, places in theirs; the reverse in ours.
        name = f"model.encoder.conv{number}.weight"
        others[path] = single(path, name, shape, shape[::-1], (2, 1, 0))
    return entries(shapes, _modules(), others)


def _modules() -> dict[str, str]:
    """Maps our modules to the published ones."""
    found = {
        "token_embedding": "model.decoder.embed_tokens",
        "decoder_positions": "model.decoder.embed_positions",
        "front/convolution_0": "model.encoder.conv1",
        "front/convolution_1": "model.encoder.conv2",
    }
    attentions = {
        "encoder": {"attention": "self_attn"},
        "decoder": {"attention": "self_attn", "cross_attention": "encoder_attn"},
    }
    for stack, names in attentions.items():
        ours, theirs = f"{stack}/{{}}", f"model.{stack}.layers.{{}}"
        for attention, name in names.items():
            found[f"{ours}/{attention}_norm"] = f"{theirs}.{name}_layer_norm"
            for part, their_part in _ATTENTION.items():
                found[f"{ours}/{attention}/{part}"] = f"{theirs}.{name}.{their_part}"
        found[f"{ours}/feed_forward_norm"] = f"{theirs}.final_layer_norm"
        found[f"{ours}/feed_forward/up"] = f"{theirs}.fc1"
        found[f"{ours}/feed_forward/down"] = f"{theirs}.fc2"
        found[f"{stack}_norm"] = f"model.{stack}.layer_norm"
    return found


def _canonical(name: str) -> str:
    """Adds the prefix that models without an output layer leave out."""
    return f"model.{name}" if name.startswith(("encoder.", "decoder.")) else name


def _tokenizer(parts: BytePairs) -> tokenizers.Tokenizer:
    made = parts.tokenizer()
    spaced = parts.settings.flag("add_prefix_space", False)
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced)
    made.decoder = decoders.ByteLevel()
    return made


FAMILIES = (
    Family(
        kinds=("whisper",),
        name="whisper",
        model=Whisper,
        fields=_fields,
        config=_config,
        entries=_entries,
        head=lambda files, paths: Head("transcription", ()),
        run=dictation_run,
        beside=write_dictation_files,
        canonical=_canonical,
        copies=lambda model: {"proj_out.weight": "model.decoder.embed_tokens.weight"},
        tokenizers={
            "WhisperTokenizer": DecoderClass(
                _tokenizer,
                dict.fromkeys(("unk_token", "bos_token", "eos_token"), _END),
                files=True,
            )
        },
    ),
)
