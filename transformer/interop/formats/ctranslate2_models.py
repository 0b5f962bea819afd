"""Converts translators and Whisper in CTranslate2's folders to the layout of `transformers`."""

import re
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from transformer.data.reading.json_text import shown
from transformer.errors import DataError
from transformer.interop.formats.ctranslate2 import CTranslate2File, read_ctranslate2_file
from transformer.interop.formats.ctranslate2_layers import (
    KINDS,
    SIDES,
    Settings,
    layers,
    matrix,
    read_tokens,
    require_all_used,
    require_numbers,
    stacks,
    whole,
)
from transformer.interop.formats.foreign import ForeignArray, ForeignArrays
from transformer.ops.positions import sinusoidal
from transformer.types import Json

MODEL_FILE = "model.bin"
# The tables of tokens by their names in `transformers`, that of the decoder first.
_TABLE = "decoder/embeddings/weight"
_TRANSLATOR_TABLES = {
    _TABLE: "model.shared.weight",
    "encoder/embeddings_0/weight": "model.encoder.embed_tokens.weight",
    "decoder/projection/weight": "lm_head.weight",
}
_WHISPER_TABLES = {
    _TABLE: "model.decoder.embed_tokens.weight",
    "decoder/projection/weight": "proj_out.weight",
}
_POSITIONS = tuple(f"{side}/position_encodings/encodings" for side in SIDES)
_OUTPUT_BIAS = "decoder/projection/bias"
# What layer normalisations add to the variance, in CTranslate2 and in the models that are read.
_EPSILON = 1e-5
# The largest error of positions that are stored in half precision, here with 8 bits.
_POSITION_ERROR = 4e-3
_PAD = "<pad>"
_END_OF_TEXT, _START, _NO_TIMES = "<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"
_TASKS = ("transcribe", "translate")
# Whisper's models with fewer tokens know English only.
_MULTILINGUAL_TOKENS = 51865
_LANGUAGE = re.compile(r"<\|[a-z]{2,4}\|>")


class Converted(NamedTuple):
    """A model in the conventions of `transformers`.

    Attributes:
        config: the content of `config.json`.
        generation: the content of `generation_config.json`.
        arrays: its arrays, each read when it is asked for.
        vocabulary: the tokens and their numbers.
    """

    config: Json
    generation: Json
    arrays: ForeignArrays
    vocabulary: dict[str, int]


def read_ctranslate2(folder: Path) -> Converted:
    """Reads a model; its arrays stay in the file until they are asked for.

    Args:
        folder: the folder of `model.bin`, `config.json` and the vocabulary.

    Raises:
        DataError: if a file is missing or damaged, or the model is unknown here.
    """
    file = read_ctranslate2_file(folder / MODEL_FILE)
    known = {"WhisperSpec": (3, _whisper), "TransformerSpec": (7, _translator)}
    if file.specification not in known:
        raise DataError(
            f"{file.path} is a {file.specification}: what can be read are {', '.join(known)}."
        )
    revision, convert = known[file.specification]
    if file.revision != revision:
        raise DataError(
            f"{file.path} is a {file.specification} of revision {file.revision}, and revision "
            f"{revision} is read: convert the model again."
        )
    return convert(folder, file, Settings(folder))


def _translator(folder: Path, file: CTranslate2File, settings: Settings) -> Converted:
    """Marian: normalised behind each part, one table of tokens, sines and cosines.

    Outputs begin with a vector of zeros, for which `transformers` has the token `<pad>`, the last
    one; CTranslate2 leaves it out.
    """
    numbers = {f"{side}/pre_norm": 0 for side in SIDES}
    numbers |= {"decoder/start_from_zero_embedding": 1}
    require_numbers(file, numbers)
    tokens = read_tokens(folder, "shared_vocabulary")
    pad, width = matrix(file, _TABLE)
    if len(tokens) != pad or _PAD in tokens:
        raise DataError(
            f"{folder} has {len(tokens):,} tokens and a table of {pad:,}: a name for each is "
            f"expected, and none that is {_PAD}."
        )
    vocabulary = {**{token: index for index, token in enumerate(tokens)}, _PAD: pad}
    end = _translator_end(settings, vocabulary)
    arrays = layers(file)
    for theirs, ours in _TRANSLATOR_TABLES.items():
        # The others are mostly aliases of the first.
        if theirs == _TABLE or file.originals.get(theirs, _TABLE) != file.originals[_TABLE]:
            arrays[ours] = _with_zeros(file, theirs)
    if _OUTPUT_BIAS in file.tensors:
        arrays["final_logits_bias"] = _as_row(_with_zeros(file, _OUTPUT_BIAS))
    longest = min(_require_sines(file, name, width) for name in _POSITIONS)
    scales = [f"{side}/scale_embeddings" for side in SIDES]
    scaled = {_is_scaled(file, name, width) for name in scales}
    if len(scaled) > 1:
        raise DataError(f"{file.path} scales the tokens of one side only: both, or none.")
    require_all_used(file, [*_TRANSLATOR_TABLES, _OUTPUT_BIAS, *_POSITIONS, *numbers, *scales])
    ids = {"decoder_start_token_id": pad, "pad_token_id": pad, "eos_token_id": end}
    config = {
        **settings.rest(),
        "model_type": "marian",
        "vocab_size": pad + 1,
        "d_model": width,
        "scale_embedding": scaled.pop(),
        "max_position_embeddings": longest,
        **stacks(file),
        **ids,
    }
    generation = {"bad_words_ids": [[pad]], "max_length": longest, **ids}
    return Converted(config, generation, ForeignArrays(arrays), vocabulary)


def _translator_end(settings: Settings, vocabulary: dict[str, int]) -> int:
    """The number of the token that ends texts.

    Raises:
        DataError: if the settings ask for what is not read here.
    """
    settings.only("layer_norm_epsilon", _EPSILON)
    settings.only("add_source_bos", False)
    settings.only("multi_query_attention", False)
    # Our tokenizer ends every source; and outputs begin with zeros, whatever the first token is.
    for key in ("add_source_eos", "bos_token", "decoder_start_token"):
        settings.take(key)
    end, unknown = settings.take("eos_token", "</s>"), settings.take("unk_token", "<unk>")
    for token, usual in ((end, "</s>"), (unknown, "<unk>")):
        if token != usual or token not in vocabulary:
            raise DataError(f"{settings.path} names the token {shown(token)}: expected {usual!r}.")
    return vocabulary["</s>"]


def _whisper(folder: Path, file: CTranslate2File, settings: Settings) -> Converted:
    """Whisper: normalised before each part, two convolutions, stored positions."""
    numbers = {f"{side}/pre_norm": 1 for side in SIDES}
    numbers |= {"decoder/start_from_zero_embedding": 0, "decoder/scale_embeddings": 0}
    require_numbers(file, numbers)
    tokens = read_tokens(folder, "vocabulary")
    size, width = matrix(file, _TABLE)
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if len(tokens) != size or not {_END_OF_TEXT, _START, _NO_TIMES} <= vocabulary.keys():
        raise DataError(
            f"{folder} has {len(tokens):,} tokens and a table of {size:,}: a name for each is "
            f"expected, and {_END_OF_TEXT}, {_START} and {_NO_TIMES} among them."
        )
    names = {
        f"encoder/{part}/{kind}": f"model.encoder.{part}.{kind}"
        for part in ("conv1", "conv2")
        for kind in ("weight", "bias")
    }
    for side, positions in zip(SIDES, _POSITIONS, strict=True):
        names[positions] = f"model.{side}.embed_positions.weight"
        for kind in ("gamma", "beta"):
            names[f"{side}/layer_norm/{kind}"] = f"model.{side}.layer_norm.{KINDS[kind]}"
    tables = {
        theirs: ours
        for theirs, ours in _WHISPER_TABLES.items()
        if theirs == _TABLE or file.originals.get(theirs, _TABLE) != file.originals[_TABLE]
    }
    require_all_used(file, [*_WHISPER_TABLES, *names, *numbers])
    arrays = _without_key_biases(file, layers(file)) | whole(file, names | tables)
    first = file.tensors.get("encoder/conv1/weight")
    if first is None or len(first.shape) != 3:
        raise DataError(f"{file.path} lacks the array encoder/conv1/weight of three axes.")
    ids = {
        "decoder_start_token_id": vocabulary[_START],
        "eos_token_id": vocabulary[_END_OF_TEXT],
        "bos_token_id": vocabulary[_END_OF_TEXT],
        "pad_token_id": vocabulary[_END_OF_TEXT],
    }
    positions = [matrix(file, name)[0] for name in _POSITIONS]
    config = {
        "model_type": "whisper",
        "vocab_size": size,
        "d_model": width,
        "num_mel_bins": first.shape[1],
        "max_source_positions": positions[0],
        "max_target_positions": positions[1],
        "scale_embedding": False,
        **stacks(file),
        **ids,
    }
    generation = _whisper_generation(settings, vocabulary, positions[1]) | ids
    return Converted(settings.rest() | config, generation, ForeignArrays(arrays), vocabulary)


def _whisper_generation(settings: Settings, vocabulary: dict[str, int], longest: int) -> Json:
    """The content of `generation_config.json`, as OpenAI's models have it."""
    multilingual = len(vocabulary) >= _MULTILINGUAL_TOKENS
    found: Json = {
        "max_length": longest,
        "is_multilingual": multilingual,
        "no_timestamps_token_id": vocabulary[_NO_TIMES],
    }
    renamed = {
        "suppress_ids": "suppress_tokens",
        "suppress_ids_begin": "begin_suppress_tokens",
        "alignment_heads": "alignment_heads",
    }
    for theirs, ours in renamed.items():
        value = settings.take(theirs)
        if value is not None:
            found[ours] = value
    # Also English models have tokens of languages; they do not use them.
    settings.take("lang_ids")
    if multilingual:
        found["lang_to_id"] = {
            token: index
            for token, index in vocabulary.items()
            if index > vocabulary[_START] and _LANGUAGE.fullmatch(token)
        }
        found["task_to_id"] = {
            task: vocabulary[f"<|{task}|>"] for task in _TASKS if f"<|{task}|>" in vocabulary
        }
    return found


def _with_zeros(file: CTranslate2File, name: str) -> ForeignArray:
    """An array with a row of zeros added, for the token that CTranslate2 leaves out."""
    rows, *others = file.tensors[name].shape or (0,)

    def read() -> np.ndarray:
        return np.concatenate([file.read(name), np.zeros((1, *others), np.float32)])

    return ForeignArray((rows + 1, *others), read)


def _as_row(array: ForeignArray) -> ForeignArray:
    """A vector as a matrix of one row."""
    return ForeignArray((1, *array.shape), lambda: array.read()[None])


def _is_scaled(file: CTranslate2File, name: str, width: int) -> bool:
    """Whether the vectors of tokens are multiplied by the square root of their width.

    Raises:
        DataError: if they are multiplied by another number.
    """
    value = file.number(name)
    # A flag says whether to scale by the square root, and a fraction by what.
    if value is None or (isinstance(value, int) and value in (0, 1)):
        return value != 0
    if not np.isclose(value, [1.0, width**0.5], rtol=1e-3).any():
        raise DataError(f"{file.path} has {name} {value}: 1 or the root of {width} can be read.")
    return not np.isclose(value, 1.0)


def _require_sines(file: CTranslate2File, name: str, width: int) -> int:
    """The number of positions, if they are those that our model computes.

    Raises:
        DataError: if they are others, or missing.
    """
    count, found = matrix(file, name)
    if found == width and not width % 2:
        expected = np.asarray(sinusoidal(jnp.arange(count), width, interleaved=False))
        if np.abs(file.read(name) - expected).max() <= _POSITION_ERROR:
            return count
    raise DataError(
        f"{file.path}: {name} are other positions than the sines and cosines of Marian, which are "
        f"read here."
    )


def _without_key_biases(
    file: CTranslate2File, arrays: dict[str, ForeignArray]
) -> dict[str, ForeignArray]:
    """Whisper has no biases of keys; fused layers have zeros for them.

    Raises:
        DataError: if they are not zero.
    """
    for name in [name for name in arrays if name.endswith("k_proj.bias")]:
        if arrays[name].read().any():
            raise DataError(f"{file.path}: {name} is not zero, and Whisper has no such bias.")
        del arrays[name]
    return arrays
