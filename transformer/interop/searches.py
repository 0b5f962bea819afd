"""Reads and writes the search settings of published encoder-decoders.

The settings follow `generate` of the library `transformers`, including defaults. Keys of features
that we lack, such as sampling with several beams, are not read and so reported by name.
"""

from pathlib import Path
from typing import NamedTuple

from transformer.data.reading import bounds
from transformer.errors import ConfigError, DataError
from transformer.fields import require_allowed
from transformer.interop.checked_values import (
    LARGEST,
    SMALLEST,
    refuse,
    several,
    token,
    token_ids,
)
from transformer.interop.side_files import CONFIG, GENERATION, SideFile, SideFiles
from transformer.limits import MOST_IDS
from transformer.ops.search_rules import Search
from transformer.types import Json

# Keys with these values have no effect.
_NOTHING: dict[str, object] = {
    "num_return_sequences": 1,
    "do_sample": False,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "remove_invalid_values": False,
    "renormalize_logits": False,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "guidance_scale": 1,
    "token_healing": False,
    "low_memory": False,
    "output_scores": False,
    "output_logits": False,
    "return_dict_in_generate": False,
    "is_assistant": False,
    **dict.fromkeys(
        (
            "exponential_decay_length_penalty",
            "sequence_bias",
            "constraints",
            "force_words_ids",
            "max_time",
            "stop_strings",
            "penalty_alpha",
            "dola_layers",
            "watermarking_config",
            "use_mtp",
        )
    ),
}
# Keys that matter only when tokens are sampled.
_OF_SAMPLING = (
    *("temperature", "top_k", "top_p", "top_h", "min_p"),
    *("typical_p", "epsilon_cutoff", "eta_cutoff"),
)
_WITHOUT_EFFECT = {
    "pad_token_id": "what stands behind outputs",
    "cache_implementation": "memory",
    "cache_config": "memory",
    "max_cache_len": "memory",
    "compile_config": "speed",
    "disable_compile": "speed",
    "prefill_chunk_size": "memory",
    "num_assistant_tokens": "of an assistant",
    "num_assistant_tokens_schedule": "of an assistant",
    "assistant_confidence_threshold": "of an assistant",
    "assistant_lookbehind": "of an assistant",
    "assistant_early_exit": "of an assistant",
    "target_lookbehind": "of an assistant",
    "prompt_lookup_num_tokens": "of an assistant",
    "max_matching_ngram_size": "of an assistant",
    "use_cache": "speed",
    "output_attentions": "what else is returned",
    "output_hidden_states": "what else is returned",
}
# Keys that are read; `config.json` is ignored if there is a separate file.
_HONOURED = (
    *("num_beams", "length_penalty", "early_stopping", "max_length", "max_new_tokens"),
    *("min_length", "min_new_tokens", "no_repeat_ngram_size", "repetition_penalty"),
    *("bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id"),
    *("forced_eos_token_id", "eos_token_id", "bos_token_id"),
)
# The default number of new tokens.
_USUAL_LENGTH = 20


class Searches(NamedTuple):
    """The search settings of a published model: fields of `config.task`.

    Attributes:
        beam_size: number of hypotheses.
        length_penalty: exponent of the length.
        search: further rules.
    """

    beam_size: int
    length_penalty: float
    search: Search


def search_files(files: SideFiles) -> SideFile:
    """The file with search settings: `generation_config.json`, or else `config.json`."""
    if GENERATION not in files:
        return files[CONFIG]
    reason = f"{GENERATION} says it"
    files[CONFIG].irrelevant(dict.fromkeys((*_HONOURED, *_NOTHING, *_OF_SAMPLING), reason))
    return files[GENERATION]


def begin_of(files: SideFiles) -> int:
    """The token that begins every output.

    Raises:
        DataError: if no file has it, or two files disagree.
    """
    said = search_files(files)
    found = said.get("decoder_start_token_id")
    if found is None:
        found = said.get("bos_token_id")
    of_model = files[CONFIG].get("decoder_start_token_id")
    if found is None:
        refuse(said.where, "decoder_start_token_id", found, "the token that begins outputs")
    found = token(said.where, "decoder_start_token_id", found)
    if of_model is not None and of_model != found:
        raise DataError(
            f"{files[CONFIG].where} has decoder_start_token_id {of_model!r}, and outputs begin "
            f"with {found}: only models that begin both alike can be read here."
        )
    return found


def read_searches(files: SideFiles, end: int, longest: int | None) -> Searches:
    """Reads how a model searches.

    Args:
        files: the side files of the model.
        end: the token that the tokenizer appends to texts.
        longest: the maximum number of tokens of an output, including the one that begins it, for
            which the model has positions; None if unlimited.

    Raises:
        DataError: if outputs end with another token, or a value is invalid.
    """
    said = search_files(files)
    said.irrelevant(_WITHOUT_EFFECT)
    said.usual(_NOTHING)
    if "do_sample" not in said.used().unused:
        said.irrelevant(dict.fromkeys(_OF_SAMPLING, "nothing is drawn"))
    try:
        ends = _tokens(said, "eos_token_id")
        if end not in ends:
            raise DataError(
                f"{said.where} has eos_token_id: {said.get('eos_token_id')}, and texts end with "
                f"the token {end} of the tokenizer (eos_token): they do not belong together."
            )
        size = said.whole_or_none("num_beams", most=bounds.BEAMS) or 1
        early = _value(said, "early_stopping", False)
        if early != "never" and type(early) is not bool:
            refuse(said.where, "early_stopping", early, "true, false or 'never'")
        search = Search(
            kind="transformers",
            early_stopping=str(early).lower(),
            max_new_tokens=_most(said, longest),
            min_new_tokens=_least(said),
            no_repeat_ngram_size=_count(said, "no_repeat_ngram_size"),
            repetition_penalty=_number(said, "repetition_penalty", 1.0, least=SMALLEST),
            unwritten=_unwritten(said, ends),
            unwritten_first=_tokens(said, "begin_suppress_tokens"),
            forced_first=_tokens(said, "forced_bos_token_id"),
            forced_last=_tokens(said, "forced_eos_token_id"),
            more_ends=tuple(token for token in ends if token != end),
        )
        require_allowed("task.search", search)
        penalty = _number(said, "length_penalty", 1.0, least=-LARGEST)
        return Searches(size, penalty, search)
    except ConfigError as error:
        raise DataError(f"{said.where} says of searches what cannot be read: {error}") from None


def _value(said: SideFile, key: str, usual: object) -> object:
    found = said.get(key)
    return usual if found is None else found


def _tokens(said: SideFile, key: str) -> tuple[int, ...]:
    """One token, several, or none.

    Raises:
        DataError: if the value is anything else.
    """
    return token_ids(said.where, key, said.get(key))


def _most(said: SideFile, longest: int | None) -> int:
    """Maximum number of new tokens of an output; `max_length` also counts the first token."""
    new, whole = said.get("max_new_tokens"), said.get("max_length")
    if new is None and whole is None:
        return _USUAL_LENGTH if longest is None else min(_USUAL_LENGTH, longest - 1)
    key = "max_length" if new is None else "max_new_tokens"
    found = said.whole(key, least=0, most=bounds.LENGTH) - (new is None)
    if found < 1:
        raise DataError(f"{said.where} has {key}: {said[key]}, which leaves no room for an output.")
    return found


def _least(said: SideFile) -> int:
    """Minimum number of new tokens before the end."""
    if said.get("min_new_tokens") is not None:
        return _count(said, "min_new_tokens")
    # Some files write -1 for "no minimum".
    least = said.whole_or_none("min_length", least=-1, most=bounds.LENGTH) or 0
    return max(0, least - 1)


def _count(said: SideFile, key: str) -> int:
    """A whole number, by default 0."""
    return said.whole_or_none(key, least=0, most=bounds.LENGTH) or 0


def _number(said: SideFile, key: str, usual: float, *, least: float) -> float:
    """A number; null means the default."""
    return usual if said.get(key) is None else said.number(key, least=least)


def _unwritten(said: SideFile, ends: tuple[int, ...]) -> str:
    """Sequences that outputs may not contain."""
    given = _value(said, "bad_words_ids", [])
    sequences = several(said.where, "bad_words_ids", given, _sequence)
    if len(sequences) > MOST_IDS:
        refuse(said.where, "bad_words_ids", given, f"at most {MOST_IDS} lists of tokens")
    # The end token itself is never forbidden.
    found = [sequence for sequence in sequences if sequence not in [[end] for end in ends]]
    found += [[token] for token in _tokens(said, "suppress_tokens")]
    return ";".join(",".join(map(str, sequence)) for sequence in found)


def _sequence(where: Path, key: str, value: object) -> list[int]:
    if not value:
        refuse(where, key, value, "a list of tokens")
    return several(where, key, value, token)


def written_searches(found: Searches, *, begin: int, end: int, max_new_tokens: int) -> Json:
    """The content of `generation_config.json`, which `read_searches` reads.

    Args:
        found: the search settings.
        begin: the token that begins outputs.
        end: the token that ends texts.
        max_new_tokens: maximum number of tokens of an output, including its end.
    """
    search = found.search
    content: Json = {
        "decoder_start_token_id": begin,
        "pad_token_id": begin,
        "eos_token_id": [end, *search.more_ends] if search.more_ends else end,
        "num_beams": found.beam_size,
        "length_penalty": found.length_penalty,
        # The library also counts the token that begins an output.
        "max_length": max_new_tokens + 1,
    }
    if found.beam_size > 1:
        content["early_stopping"] = {"false": False, "true": True}.get(
            search.early_stopping, search.early_stopping
        )
    optional = {
        "min_new_tokens": search.min_new_tokens,
        "no_repeat_ngram_size": search.no_repeat_ngram_size,
        "bad_words_ids": [list(sequence) for sequence in search.sequences()],
        "begin_suppress_tokens": list(search.unwritten_first),
    }
    content |= {key: value for key, value in optional.items() if value not in (None, 0, [])}
    for key, tokens in (
        ("forced_bos_token_id", search.forced_first),
        ("forced_eos_token_id", search.forced_last),
    ):
        if tokens:
            content[key] = tokens[0] if len(tokens) == 1 else list(tokens)
    if search.repetition_penalty != 1.0:
        content["repetition_penalty"] = search.repetition_penalty
    return content
