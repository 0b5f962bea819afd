"""What encoder-decoders in CTranslate2's folders have: stacks of layers, numbers, a vocabulary."""

import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from transformer.data.reading.json_text import read_json_file, shown
from transformer.data.reading.text import read_text
from transformer.errors import DataError
from transformer.interop.formats.ctranslate2 import CTranslate2File
from transformer.interop.formats.foreign import ForeignArray
from transformer.interop.side_files import CONFIG, read_json
from transformer.types import Json

SIDES = ("encoder", "decoder")
# Names of `transformers`, by theirs. Fused layers hold several, one below the other.
_LINEAR = {
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention/linear_1": ("self_attn.out_proj",),
    "attention/linear_0": ("encoder_attn.q_proj",),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": ("encoder_attn.out_proj",),
    "ffn/linear_0": ("fc1",),
    "ffn/linear_1": ("fc2",),
}
_NORMS = {
    "self_attention/layer_norm": ("self_attn_layer_norm",),
    "attention/layer_norm": ("encoder_attn_layer_norm",),
    "ffn/layer_norm": ("final_layer_norm",),
}
_MODULES = _LINEAR | _NORMS
KINDS = {"gamma": "weight", "beta": "bias", "weight": "weight", "bias": "bias"}
_LAYER = re.compile(r"(encoder|decoder)/layer_(\d{1,6})/(\w+/\w+)/(\w+)")
# Activations by their code.
_ACTIVATIONS = ("relu", "gelu_new", "swish", "gelu", "quick_gelu")
# Numbers of a side that must have this value if they are there: what our models lack is then off.
_OFF = {
    "alibi": 0,
    "scale_alibi": 0,
    "alibi_use_positive_positions": 0,
    "multi_query_attention": 0,
    # There is one table of tokens for a side, so that nothing is merged.
    "embeddings_merge": 0,
}
# Numbers of a side that serve word alignments only.
_WITHOUT_EFFECT = ("alignment_heads", "alignment_layer")


class Settings:
    """CTranslate2's `config.json`, and which of its keys have been asked for."""

    def __init__(self, folder: Path) -> None:
        """Reads the file.

        Raises:
            DataError: if it is damaged.
        """
        self.path = folder / CONFIG
        self._content = read_json(self.path) if self.path.is_file() else {}

    def take(self, key: str, usual: object = None) -> object:
        """The value of a key; null counts as missing."""
        value = self._content.pop(key, None)
        return usual if value is None else value

    def only(self, key: str, allowed: object) -> None:
        """Refuses other values of a key than this one.

        Raises:
            DataError: names the key.
        """
        value = self.take(key, allowed)
        if value != allowed:
            raise DataError(
                f"{self.path} has {key} {shown(value)}: only {shown(allowed)} can be read here."
            )

    def rest(self) -> Json:
        """What nobody has asked for."""
        return dict(self._content)


def layers(file: CTranslate2File) -> dict[str, ForeignArray]:
    """The arrays of all layers, under the names of `transformers`; fused ones taken apart.

    Raises:
        DataError: if a fused array cannot be divided.
    """
    found: dict[str, ForeignArray] = {}
    for name in file.tensors:
        parts = _LAYER.fullmatch(name)
        if parts and parts[3] in _MODULES and parts[4] in KINDS:
            before = f"model.{parts[1]}.layers.{int(parts[2])}"
            names = [f"{before}.{module}.{KINDS[parts[4]]}" for module in _MODULES[parts[3]]]
            found |= _taken_apart(file, name, names)
    return found


def whole(file: CTranslate2File, names: Mapping[str, str]) -> dict[str, ForeignArray]:
    """Arrays that are stored as `transformers` has them.

    Args:
        file: the file.
        names: the names of `transformers`, by theirs; arrays that are not there are left out.
    """
    return {
        ours: array
        for theirs, ours in names.items()
        if theirs in file.tensors
        for array in _taken_apart(file, theirs, [ours]).values()
    }


def stacks(file: CTranslate2File) -> Json:
    """The sizes of both stacks and the activation, as in `config.json`.

    Raises:
        DataError: if a number is missing, or asks for what is not read here.
    """
    config: Json = {}
    activations = set()
    for side in SIDES:
        require_numbers(file, {f"{side}/{name}": value for name, value in _OFF.items()})
        layer = f"{side}/layer_0/ffn/linear_0/weight"
        if layer not in file.tensors:
            raise DataError(f"{file.path} lacks the array {layer}.")
        found = [parts for name in file.tensors if (parts := _LAYER.fullmatch(name))]
        config[f"{side}_layers"] = 1 + max(int(parts[2]) for parts in found if parts[1] == side)
        config[f"{side}_attention_heads"] = needed(file, f"{side}/num_heads")
        config[f"{side}_ffn_dim"] = file.tensors[layer].shape[0]
        # Whisper's encoder does not say it: it is that of the decoder.
        activations |= {file.number(f"{side}/activation")} - {None}
    if len(activations) != 1 or not activations <= set(range(len(_ACTIVATIONS))):
        raise DataError(
            f"{file.path} has the activations {sorted(activations)}: one of 0 to "
            f"{len(_ACTIVATIONS) - 1} on both sides can be read here."
        )
    return config | {"activation_function": _ACTIVATIONS[activations.pop()]}


def needed(file: CTranslate2File, name: str) -> int:
    """A whole number that must be there.

    Raises:
        DataError: if it is not, or below 1.
    """
    value = file.number(name)
    if not isinstance(value, int) or value < 1:
        raise DataError(f"{file.path} has {value} for {name}: a whole number from 1 is expected.")
    return value


def require_numbers(file: CTranslate2File, numbers: Mapping[str, int]) -> None:
    """Refuses other values of single numbers; they may be missing.

    Raises:
        DataError: names the number.
    """
    for name, value in numbers.items():
        found = file.number(name)
        if found not in (None, value):
            raise DataError(
                f"{file.path} has {name} {found}: only models with {value} can be read here."
            )


def matrix(file: CTranslate2File, name: str) -> tuple[int, int]:
    """The shape of an array of two axes.

    Raises:
        DataError: if there is no such array.
    """
    shape = file.tensors[name].shape if name in file.tensors else ()
    if len(shape) != 2:
        raise DataError(f"{file.path} lacks the array {name}, or it is no matrix.")
    return shape[0], shape[1]


def require_all_used(file: CTranslate2File, used: Iterable[str]) -> None:
    """Refuses a file with arrays or numbers that no rule here reads.

    Args:
        file: the file.
        used: the names that were read, besides those of layers and what `stacks` reads.

    Raises:
        DataError: names some of them.
    """
    numbers = (*_OFF, *_WITHOUT_EFFECT, "num_heads", "activation")
    known = {*used, *(f"{side}/{name}" for side in SIDES for name in numbers)}
    strange = []
    for name in file.tensors:
        of_array = name.removesuffix("_scale")
        parts = _LAYER.fullmatch(of_array)
        in_layer = parts is not None and parts[3] in _MODULES and parts[4] in KINDS
        if not (in_layer or name in known or (of_array in known and of_array in file.tensors)):
            strange.append(name)
    if strange:
        more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
        raise DataError(
            f"{file.path} holds what has no place in the {file.specification} that is read here: "
            f"{', '.join(strange[:5])}{more}."
        )


def read_tokens(folder: Path, name: str) -> list[str]:
    """The tokens of a vocabulary in the order of their numbers.

    Args:
        folder: the folder of the model.
        name: the file without its ending: `.json` has a list, `.txt` a token a line.

    Raises:
        DataError: if there is neither, or a token is there twice.
    """
    json_file, text_file = folder / f"{name}.json", folder / f"{name}.txt"
    if json_file.is_file():
        tokens = read_json_file(json_file)
    elif text_file.is_file():
        tokens = read_text(text_file).removesuffix("\n").split("\n")
    else:
        raise DataError(f"{folder} lacks {json_file.name} and {text_file.name}: one is needed.")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise DataError(f"{folder}: its {name} is no list of tokens.")
    if len(set(tokens)) != len(tokens):
        twice = next(token for place, token in enumerate(tokens) if token in tokens[:place])
        raise DataError(f"{folder}: its {name} has the token {shown(twice)} twice.")
    return tokens


def _taken_apart(file: CTranslate2File, name: str, names: list[str]) -> dict[str, ForeignArray]:
    """The parts of an array, which has as many rows for each."""
    shape = file.tensors[name].shape
    if not shape or shape[0] % len(names):
        raise DataError(
            f"{file.path} is damaged: {name} of the shape {list(shape)} cannot be divided by "
            f"{len(names)}."
        )
    rows = shape[0] // len(names)
    return {
        part: ForeignArray(
            (rows, *shape[1:]), functools.partial(file.read, name, rows * place, rows * (place + 1))
        )
        for place, part in enumerate(names)
    }
