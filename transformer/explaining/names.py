"""The names of activations, and those that TransformerLens has for them.

Activations of a layer, T tokens and S keys; heads come before tokens:

    residual_before             [T, D]     the stream before the layer
    residual_before_cross       [T, D]     before cross-attention, if the layer has it
    residual_middle             [T, D]     before the feed-forward part
    residual_after              [T, D]     after the layer
    attention_query             [N, T, H]  as it is multiplied by keys: rotated and normalised
    attention_key               [K, S, H]  likewise
    attention_value             [K, S, H]
    attention_scores            [N, T, S]  scaled, capped and with biases, before the mask
    attention_visible           [1, T, S]  booleans: which keys each query may see
    attention_weights           [N, T, S]  their softmax over visible keys
    attention_mixed             [N, T, H]  the weighted mean of values
    attention_output            [T, D]     what attention adds to the stream
    cross_attention_...                    likewise, if the layer has cross-attention
    feed_forward_hidden         [T, F]     after the activation (and the gate)
    feed_forward_router         [T, E]     logits of experts, in place of `hidden`
    feed_forward_output         [T, D]     what the feed-forward part adds to the stream

Activations outside of layers are `token_embedding` (`frame_embedding` of recordings),
`position_embedding` and `final`, the output after the last normalisation. Encoders of recordings
with an output layer for CTC have `alignment` [R, V + 1], the probability of each vector's token,
the last of none. Several vectors of a long recording may share a token (`explaining/pooling.py`);
`alignment` has them all.
"""

import re
from typing import NamedTuple

# Our names of a layer's activations, with the names of TransformerLens after `blocks.N.`.
# There, heads come after tokens, and scores have the mask in them.
OF_LAYERS = {
    "residual_before": "hook_resid_pre",
    "residual_before_cross": "hook_resid_mid_cross",
    "residual_middle": "hook_resid_mid",
    "residual_after": "hook_resid_post",
    "attention_query": "attn.hook_q",
    "attention_key": "attn.hook_k",
    "attention_value": "attn.hook_v",
    "attention_scores": "attn.hook_attn_scores",
    "attention_weights": "attn.hook_pattern",
    "attention_mixed": "attn.hook_z",
    "attention_output": "hook_attn_out",
    "cross_attention_query": "cross_attn.hook_q",
    "cross_attention_key": "cross_attn.hook_k",
    "cross_attention_value": "cross_attn.hook_v",
    "cross_attention_scores": "cross_attn.hook_attn_scores",
    "cross_attention_weights": "cross_attn.hook_pattern",
    "cross_attention_mixed": "cross_attn.hook_z",
    "cross_attention_output": "hook_cross_attn_out",
    "feed_forward_hidden": "mlp.hook_post",
    "feed_forward_output": "hook_mlp_out",
}
# The same outside of layers.
OF_MODELS = {
    "token_embedding": "hook_embed",
    "position_embedding": "hook_pos_embed",
    "final": "ln_final.hook_out",
}
# Where rotary positions are used, TransformerLens has two names; ours are the rotated ones.
_ROTATED = {"attn.hook_rot_q": "attention_query", "attn.hook_rot_k": "attention_key"}
_THEIRS = re.compile(r"(blocks|encoder|decoder)\.(\d+)\.(.+)")


class Place(NamedTuple):
    """An activation.

    Attributes:
        stack: `encoder` or `decoder`; None means the last stack.
        layer: its layer; None means that it is outside of layers.
        name: our name.
    """

    stack: str | None
    layer: int | None
    name: str


def from_transformer_lens(name: str) -> Place | None:
    """The activation that TransformerLens calls by this name; None if there is none."""
    of_models = {theirs: ours for ours, theirs in OF_MODELS.items()}
    if name in of_models:
        return Place(None, None, of_models[name])
    found = _THEIRS.fullmatch(name)
    if found is None:
        return None
    stack, layer, rest = found.groups()
    of_layers = {theirs: ours for ours, theirs in OF_LAYERS.items()} | _ROTATED
    if rest not in of_layers:
        return None
    return Place(None if stack == "blocks" else stack, int(layer), of_layers[rest])


def to_transformer_lens(name: str, layer: int | None = None, stack: str = "blocks") -> str | None:
    """The name in TransformerLens of one of our activations; None if it has none."""
    if layer is None:
        return OF_MODELS.get(name)
    theirs = OF_LAYERS.get(name)
    return None if theirs is None else f"{stack}.{layer}.{theirs}"


def axes_of(name: str) -> str:
    """What the axes of an activation are: `heads`, `pairs`, `flat` or `tokens`.

    As the model has them: `heads` is `[B, T, N, H]`, `pairs` is `[B, N, T, S]`, `flat` is
    `[B T, E]`, and `tokens` is `[B, T, D]`.
    """
    last = name.rpartition("attention_")[2] if "attention_" in name else name
    if last in ("query", "key", "value", "mixed"):
        return "heads"
    if last in ("scores", "weights", "visible"):
        return "pairs"
    return "flat" if name == "feed_forward_router" else "tokens"
