"""The part of `config.json` that all decoders share: sizes and rotary positions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import jax.numpy as jnp

from transformer.errors import DataError
from transformer.interop.decoder_runs import TrainedDecoder, token_ids
from transformer.interop.layout import Shape, parameter_shapes, require_counts, require_sizes
from transformer.interop.side_files import SideFile
from transformer.nn.decoder import DecoderOnly
from transformer.types import Facts, Json

# Defaults of missing keys of `config.json`.
SIZES = {
    "vocab_size": 32_000,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "hidden_size": 4096,
    "num_key_value_heads": None,
    "head_dim": None,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
# Keys that do not affect the results of a language model, and why.
IRRELEVANT = {
    "architectures": "arrays say what there is",
    **dict.fromkeys(("id2label", "label2id", "num_labels", "problem_type"), "of classifiers"),
}
# Keys that may be null; heads and width then decide.
_MAY_BE_NULL = ("num_key_value_heads", "head_dim")
# Kinds of layers in models with several kinds.
LOCAL, GLOBAL = "sliding_attention", "full_attention"


@runtime_checkable
class _Decoder(Protocol):
    """The sizes that all these decoders have."""

    vocab_size: int | None
    num_layers: int
    num_heads: int
    width: int
    context: int
    norm_epsilon: float
    tie_embeddings: bool

    def hidden_width(self) -> int:
        """F."""
        ...

    def cache_heads(self) -> tuple[int, int]:
        """K and H."""
        ...


def decoder_shapes(model: DecoderOnly) -> dict[str, Shape]:
    """The shapes of all parameters of a decoder."""
    tokens, depths = jnp.zeros((1, 2), jnp.int32), {"num_layers": model.num_layers}
    return parameter_shapes(model, type(model).__call__, tokens, depths=depths)


def decoder_fields(
    config: SideFile, where: Path, usual: Facts, shapes: Mapping[str, Shape]
) -> Json:
    """Reads the sizes that all these decoders have.

    Args:
        config: the config of the model.
        where: the path of the config, for messages.
        usual: defaults of missing keys.
        shapes: the shapes of all arrays, by name.

    Raises:
        DataError: names a key that the arrays contradict.
    """
    config.irrelevant(IRRELEVANT)
    config.usual({"is_encoder_decoder": False})
    found: Json = {}
    for key, value in usual.items():
        if isinstance(value, bool):
            found[key] = config.flag(key, value)
        elif isinstance(value, float):
            found[key] = config.number(key, value)
        elif key in _MAY_BE_NULL:
            found[key] = config.whole_or_none(key, value)
        else:
            found[key] = config.whole(key, value)
    _require_sizes(found, where, shapes)
    return {
        "vocab_size": found["vocab_size"],
        "num_layers": found["num_hidden_layers"],
        "num_heads": found["num_attention_heads"],
        "num_kv_heads": found["num_key_value_heads"],
        "head_dim": found["head_dim"],
        "width": found["hidden_size"],
        "feed_forward_width": found["intermediate_size"],
        "context": found["max_position_embeddings"],
        "norm_epsilon": found["rms_norm_eps"],
        "tie_embeddings": found["tie_word_embeddings"],
    }


def _require_sizes(found: Facts, where: Path, shapes: Mapping[str, Shape]) -> None:
    """Refuses sizes that differ from the arrays, using the names of the published config."""
    heads = found["num_attention_heads"]
    head_dim = found["head_dim"] or found["hidden_size"] // heads
    keys = (found["num_key_value_heads"] or heads) * head_dim
    table, block = "model.embed_tokens.weight", "model.layers.0"
    require_output(found["tie_word_embeddings"], where, shapes)
    require_counts(
        where, shapes, {"model.layers.": ("num_hidden_layers", found["num_hidden_layers"])}
    )
    sizes = (
        ("vocab_size", found["vocab_size"], table, 0),
        ("hidden_size", found["hidden_size"], table, 1),
        ("intermediate_size", found["intermediate_size"], f"{block}.mlp.gate_proj.weight", 0),
        ("num_attention_heads x head_dim", heads * head_dim, f"{block}.self_attn.q_proj.weight", 0),
        ("num_key_value_heads x head_dim", keys, f"{block}.self_attn.k_proj.weight", 0),
    )
    require_sizes(where, shapes, sizes)


def require_output(tied: bool, where: Path, shapes: Mapping[str, Shape]) -> None:
    """Refuses a model with neither an output layer nor a tied table.

    Raises:
        DataError: names the key.
    """
    if not tied and "lm_head.weight" not in shapes:
        raise DataError(
            f"{where} has tie_word_embeddings off (a key that is left out has the publisher's "
            f"default), and there is no output layer (lm_head.weight): is a file missing?"
        )


def rotary_fields(config: SideFile, where: Path, usual_base: float) -> Json:
    """Reads rotary positions, which newer files keep in one object and older files in two.

    Args:
        config: the config of the model; `rope_scaling` takes precedence over `rope_parameters`.
        where: the path of the config, for messages.
        usual_base: the base to assume if none is given.
    """
    if config.get("rope_scaling"):
        config.irrelevant({"rope_parameters": "rope_scaling stands above it"})
        values = config.inside("rope_scaling")
    else:
        values = config.inside("rope_parameters")
    if "rope_theta" in values:
        config.irrelevant({"rope_theta": "said where the rotation is"})
        base = values.positive("rope_theta")
    else:
        base = config.positive("rope_theta", usual_base)
    if "rope_type" in values:
        values.irrelevant({"type": "rope_type says it"})
    kind = values.get("rope_type") if "rope_type" in values else values.get("type", "default")
    found: Json = {"rope_base": base}
    if kind == "llama3":
        key = "original_max_position_embeddings"
        of_model = config.whole_or_none("max_position_embeddings")
        found |= {
            "rope_factor": values.positive("factor"),
            "rope_low_frequency": values.positive("low_freq_factor"),
            "rope_high_frequency": values.positive("high_freq_factor"),
            "rope_old_context": values.whole(key, of_model),
        }
    elif kind == "linear":
        found |= {"rope_factor": values.positive("factor"), "rope_old_context": None}
    elif kind != "default":
        raise DataError(
            f"{where} scales rotary positions by {kind!r} (rope_type in rope_scaling or "
            f"rope_parameters): only 'llama3' and 'linear' are known here."
        )
    return found


# -------------------------------------------------------------------------- ours to theirs


def decoder_config(trained: TrainedDecoder[_Decoder]) -> Json:
    """Writes what `decoder_fields` reads, and the tokens that begin and end texts."""
    model = trained.model
    num_kv_heads, head_dim = model.cache_heads()
    return {
        "vocab_size": model.vocab_size,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_heads,
        "num_key_value_heads": num_kv_heads,
        "head_dim": head_dim,
        "hidden_size": model.width,
        "intermediate_size": model.hidden_width(),
        "max_position_embeddings": model.context,
        "rms_norm_eps": model.norm_epsilon,
        "tie_word_embeddings": model.tie_embeddings,
        **token_ids(trained),
    }


def rope_parameters(base: float, factor: float | None) -> Json:
    """The object of rotary positions, which `rotary_fields` reads.

    Args:
        base: the base of frequencies.
        factor: divides all frequencies; None leaves them.
    """
    kind = {"rope_type": "default" if factor is None else "linear", "rope_theta": base}
    return kind if factor is None else {**kind, "factor": factor}
