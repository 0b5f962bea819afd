"""Mixtral in the layout of the library `transformers`."""

import re
from functools import partial
from pathlib import Path

import numpy as np

from transformer.errors import ConfigError
from transformer.interop.activations import activation, published_activation
from transformer.interop.decoder_configs import (
    SIZES,
    decoder_config,
    decoder_fields,
    decoder_shapes,
    rotary_fields,
)
from transformer.interop.decoder_runs import TrainedDecoder, decoder_family, decoder_run
from transformer.interop.families.llama import AROUND, canonical, rotation, tied_output
from transformer.interop.layout import (
    Arrays,
    Entry,
    Shape,
    entries,
    require_counts,
    require_sizes,
    without_layer,
)
from transformer.interop.side_files import SideFile
from transformer.interop.tokenizers.decoders import Usual
from transformer.models.mixtral import Mixtral
from transformer.types import Json

_ROUTER = {"blocks/{}/feed_forward/router": "model.layers.{}.block_sparse_moe.gate"}
_EXPERTS = re.compile(r"blocks/\{\}/feed_forward/experts/(gate|up|down)/kernel")
# Defaults of missing keys.
_USUAL = {
    **SIZES,
    "intermediate_size": 14_336,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-5,
}
# The beginning of the names of an expert's arrays.
_EXPERT = "model.layers.0.block_sparse_moe.experts."
_PARTS = {"gate": "w1", "down": "w2", "up": "w3"}


def _entries(model: Mixtral) -> list[Entry]:
    shapes = decoder_shapes(model)
    others = {}
    for path, shape in shapes.items():
        general, layer = without_layer(path)
        found = _EXPERTS.fullmatch(general)
        if found and layer is not None:
            others[path] = _experts(path, layer, found[1], shape)
    return entries(shapes, AROUND | _ROUTER, others)


def _experts(path: str, layer: int, part: str, shape: Shape) -> Entry:
    """The entry of all experts' kernels; files hold one transposed matrix per expert."""
    num_experts, inputs, outputs = shape

    def read(arrays: Arrays) -> Arrays:
        return [np.stack([array.T for array in arrays])]

    def write(arrays: Arrays) -> Arrays:
        return [kernel.T for kernel in arrays[0]]

    place = f"model.layers.{layer}.block_sparse_moe.experts"
    return Entry(
        paths=(path,),
        names=tuple(f"{place}.{expert}.{_PARTS[part]}.weight" for expert in range(num_experts)),
        shapes=((outputs, inputs),) * num_experts,
        read=read,
        write=write,
    )


def _fields(config: SideFile, where: Path, shapes: dict[str, Shape]) -> Json:
    """Fields of `config.model`."""
    config.usual({"attention_dropout": 0.0, "router_jitter_noise": 0.0})
    config.irrelevant({"output_router_logits": "what else is returned"})
    num_experts = config.whole("num_local_experts", 8)
    fields = decoder_fields(config, where, _USUAL, shapes)
    require_counts(where, shapes, {_EXPERT: ("num_local_experts", num_experts)})
    inner = ("intermediate_size", fields["feed_forward_width"], f"{_EXPERT}0.w1.weight", 0)
    require_sizes(where, shapes, (inner,))
    return {
        **fields,
        "activation": activation(config, "hidden_act", "silu"),
        "window": config.whole_or_none("sliding_window"),
        "num_experts": num_experts,
        "experts_per_token": config.whole("num_experts_per_tok", 2),
        "router_loss_scale": config.number("router_aux_loss_coef", 0.001),
        **rotary_fields(config, where, 1_000_000.0),
    }


def _config(trained: TrainedDecoder[Mixtral]) -> Json:
    model = trained.model
    if model.qkv_bias or model.head_norm:
        raise ConfigError(
            "Mixtral has neither biases nor normalised heads: config.model.qkv_bias or "
            "config.model.head_norm is True."
        )
    return {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        **decoder_config(trained),
        "hidden_act": published_activation(model.activation),
        "rope_parameters": rotation(model),
        "sliding_window": model.window,
        "num_local_experts": model.num_experts,
        "num_experts_per_tok": model.experts_per_token,
        "router_aux_loss_coef": model.router_loss_scale,
    }


FAMILIES = (
    decoder_family(
        kinds=("mixtral",),
        name="mixtral",
        model=Mixtral,
        fields=_fields,
        config=_config,
        entries=_entries,
        canonical=canonical,
        copies=tied_output,
        run=partial(decoder_run, {"mixtral": Usual(as_it_is=True)}),
    ),
)
