"""Generation settings of language models: `generation_config.json`, or an older `config.json`.

As in `generate` of the library `transformers`, one file counts as a whole: if there is a
`generation_config.json`, `config.json` is ignored, even for the tokens that end texts. Missing keys
have that library's defaults.
"""

from transformer.data.reading import bounds
from transformer.interop.checked_values import LARGEST, token, token_ids
from transformer.interop.side_files import CONFIG, GENERATION, SideFile, SideFiles
from transformer.ops.logits import Sampling
from transformer.types import Json

_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
# Defaults of keys for features that we lack; with these values the features are off.
_USUAL = {
    "num_beams": 1,
    "num_beam_groups": 1,
    "num_return_sequences": 1,
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "length_penalty": 1.0,
    "early_stopping": False,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "diversity_penalty": 0.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "min_length": 0,
    "min_new_tokens": 0,
    "remove_invalid_values": False,
    "renormalize_logits": False,
    "token_healing": False,
    "low_memory": False,
    **dict.fromkeys(
        (
            "max_length",
            "max_time",
            "stop_strings",
            "top_h",
            "bad_words_ids",
            "forced_bos_token_id",
            "forced_eos_token_id",
            "exponential_decay_length_penalty",
            "suppress_tokens",
            "begin_suppress_tokens",
            "sequence_bias",
            "guidance_scale",
            "watermarking_config",
            "penalty_alpha",
            "dola_layers",
            "constraints",
            "force_words_ids",
        )
    ),
}
_IRRELEVANT = {
    **dict.fromkeys(
        (
            "use_cache",
            "cache_implementation",
            "cache_config",
            "max_cache_len",
            "prefill_chunk_size",
            "compile_config",
            "disable_compile",
            "continuous_batching_config",
            "use_mtp",
        ),
        "speed",
    ),
    **dict.fromkeys(
        (
            "output_attentions",
            "output_hidden_states",
            "output_scores",
            "output_logits",
            "return_dict_in_generate",
        ),
        "what else is returned",
    ),
    **dict.fromkeys(
        (
            "is_assistant",
            "num_assistant_tokens",
            "num_assistant_tokens_schedule",
            "assistant_confidence_threshold",
            "prompt_lookup_num_tokens",
            "max_matching_ngram_size",
            "assistant_early_exit",
            "assistant_lookbehind",
            "target_lookbehind",
            "assistant_ensemble_weight",
            "speculation_type",
        ),
        "of a second model that guesses ahead",
    ),
    "decoder_start_token_id": "of encoder-decoders",
}


def writing_fields(files: SideFiles) -> Json:
    """Reads the fields of `config.task` about generation.

    Args:
        files: the side files of the model.

    Raises:
        DataError: if a key has a value of another type.
    """
    said = files[GENERATION] if GENERATION in files else files[CONFIG]
    if said is not files[CONFIG]:
        known = dict.fromkeys([key for key in _TOKENS if key in said], "the other file says it")
        files[CONFIG].irrelevant(known)
        files[CONFIG].usual(dict.fromkeys(_TOKENS))
    said.irrelevant(_IRRELEVANT)
    said.usual(_USUAL)
    fields: Json = {
        "stop_ids": _ends(said),
        "begin": _token(said, "bos_token_id", said.get("bos_token_id")),
        "pad": _token(said, "pad_token_id", said.get("pad_token_id")),
        "temperature": 0.0,
    }
    if said.get("max_new_tokens") is not None:
        fields["max_new_tokens"] = said.whole("max_new_tokens", least=0, most=bounds.LENGTH)
    chosen = ("temperature", "top_k", "top_p", "min_p")
    if not said.flag("do_sample", False):
        said.irrelevant(dict.fromkeys(chosen, "do_sample is off"))
        return fields
    return fields | {
        "temperature": _number(said, "temperature", 1.0),
        # Null means the default.
        "top_k": 50 if said.get("top_k") is None else said.whole("top_k", least=0),
        "top_p": _number(said, "top_p", 1.0),
        "min_p": _number(said, "min_p", 0.0),
    }


def _ends(said: SideFile) -> tuple[int, ...]:
    """The tokens that end a text; there may be several."""
    found = said.get("eos_token_id")
    found = found if isinstance(found, list) else [found]
    # Some files write -1 for "none".
    given = [token for token in found if token is not None and token != -1]
    return token_ids(said.where, "eos_token_id", given)


def _token(said: SideFile, key: str, value: object) -> int | None:
    """The id of a token; -1, which some files use for "none", gives None."""
    if value is None or value == -1:
        return None
    return token(said.where, key, value)


def _number(said: SideFile, key: str, usual: float) -> float:
    """A number of sampling; null means the default."""
    most = 1.0 if key in ("top_p", "min_p") else LARGEST
    return usual if said.get(key) is None else said.number(key, most=most)


def sampling_config(sampling: Sampling) -> Json:
    """Writes the sampling settings that `writing_fields` reads."""
    if sampling.temperature == 0:
        return {"do_sample": False}
    found: Json = {
        "do_sample": True,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
    }
    return found | ({"min_p": sampling.min_p} if sampling.min_p else {})
