"""Builds tokenizers of published decoders from all their files.

The rules are those of `AutoTokenizer` in the library `transformers`: `tokenizer_config.json` names
a class. The classes of our families define how to split texts, and take vocabulary and merges from
`tokenizer.json`, or from `vocab.json` and `merges.txt`. With any other class, or none, a
`tokenizer.json` is used unchanged; also if it splits texts differently than its class, which is
then reported as not used. Finally the tokens that the other files name are added.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import tokenizers
from tokenizers import models, processors

from transformer.data.reading.library_errors import in_our_words
from transformer.data.tokenizers.library import parse_tokenizer_json
from transformer.data.tokenizers.protocol import TOKENIZER_FILE
from transformer.errors import DataError
from transformer.interop.checked_values import text as text_of
from transformer.interop.side_files import (
    CONFIG,
    SETTINGS,
    SideFile,
    SideFiles,
    read_vocabulary,
    require_vocabulary,
)
from transformer.interop.tokenizers.added import read_added_tokens
from transformer.interop.tokenizers.files import merge_pairs, read_lines, read_tokenizer_text
from transformer.types import Json

_VOCABULARY, _MERGES, _SENTENCEPIECE = "vocab.json", "merges.txt", "tokenizer.model"
_AS_IT_IS = ("PreTrainedTokenizer", "TokenizersBackend")
_IRRELEVANT = {
    "model_max_length": "nothing is cut",
    **dict.fromkeys(("padding_side", "truncation_side", "truncation_strategy"), "nothing is cut"),
    "model_input_names": "how it is returned",
    "clean_up_tokenization_spaces": "it is not done to byte-pair encoding",
    "use_default_system_prompt": "of conversations",
    "sp_model_kwargs": "of tokenizer.model",
}


class Usual(NamedTuple):
    """The tokenizer class of one kind of model.

    Attributes:
        unnamed: the class if no file names one; None if a `tokenizer.json` is required.
        as_it_is: whether a `tokenizer.json` is used unchanged, whatever class is named.
        without_json: the class if there is no `tokenizer.json`, whatever class is named; None takes
            the named one.
    """

    unnamed: str | None = None
    as_it_is: bool = False
    without_json: str | None = None


class BytePairs(NamedTuple):
    """What a tokenizer of a decoder is made from.

    Attributes:
        vocabulary: tokens and their ids.
        merges: pairs of tokens, the first merged first.
        settings: `tokenizer_config.json`.
        special: special tokens by role.
    """

    vocabulary: dict[str, int]
    merges: list[tuple[str, str]]
    settings: SideFile
    special: Mapping[str, str]

    def tokenizer(self, **options: bool | str | None) -> tokenizers.Tokenizer:
        """A tokenizer that does not split texts yet.

        Args:
            **options: of the library's model.

        Raises:
            DataError: if vocabulary and merges do not fit together.
        """
        with in_our_words("the vocabulary and the merges make no tokenizer"):
            return tokenizers.Tokenizer(models.BPE(self.vocabulary, self.merges, **options))


class DecoderClass(NamedTuple):
    """A class of tokenizers of decoders, which a family defines.

    Attributes:
        make: makes a tokenizer without added tokens.
        special: default special tokens by role.
        files: whether its vocabulary may be in `vocab.json` and `merges.txt`.
        foreign: a part whose name in a `tokenizer.json` shows that the file is used unchanged.
    """

    make: Callable[[BytePairs], tokenizers.Tokenizer]
    special: Mapping[str, str]
    files: bool = False
    foreign: str | None = None


def decoder_tokenizer(
    files: SideFiles,
    folder: Path,
    classes: Mapping[str, DecoderClass],
    usual: Usual,
    vocab_size: int,
) -> tokenizers.Tokenizer:
    """The tokenizer of a published decoder.

    Args:
        files: the side files of the model.
        folder: their folder.
        classes: all known classes, by the names in the library.
        usual: the tokenizer class of this kind of model.
        vocab_size: V, of the model.

    Raises:
        DataError: if there is no tokenizer, or files contradict each other.
    """
    settings = files[SETTINGS]
    settings.irrelevant(_IRRELEVANT)
    settings.usual({"split_special_tokens": False, "errors": "replace"})
    path = folder / TOKENIZER_FILE
    place = settings if "tokenizer_class" in settings else files[CONFIG]
    if settings is place:
        files[CONFIG].irrelevant({"tokenizer_class": f"{SETTINGS} says it"})
    known = _known_class(place, classes, usual, path)
    if not path.is_file():
        if known is None or not known.files:
            raise _no_tokenizer(folder, place)
        place.get("tokenizer_class")
        added = read_added_tokens(files, {})
        names = added.names(known.special)
        found = known.make(BytePairs(*_files_of_gpt2(folder), settings, names))
        added.add_to(found, known.special, vocab_size)
        added.require_ids(found, folder)
        _put_around(found, settings, names)
        return found
    text, content = read_tokenizer_text(path)
    found = parse_tokenizer_json(text, path)
    added = read_added_tokens(files, content)
    # The tokenizer.json already adds tokens to texts; these keys are then ignored.
    settings.irrelevant(dict.fromkeys(("add_bos_token", "add_eos_token"), "tokenizer.json"))
    special: Mapping[str, str] = {}
    if known is not None and _cuts_alike(found, known):
        place.get("tokenizer_class")
        remade = known.make(BytePairs(*_parts(content, path), settings, added.names(known.special)))
        if found.post_processor is not None:
            remade.post_processor = found.post_processor
        found, special = remade, known.special
    else:
        # A class that splits texts differently than its tokenizer.json is reported as not used.
        settings.irrelevant({"legacy": "of another class"})
        settings.usual({"add_prefix_space": False})
    added.add_to(found, special, vocab_size)
    added.require_ids(found, folder)
    return found


def _cuts_alike(found: tokenizers.Tokenizer, known: DecoderClass) -> bool:
    """Whether a class splits texts like a tokenizer, apart from what settings decide."""
    if not isinstance(found.model, models.BPE):
        return False
    made = known.make(BytePairs({}, [], SideFile(Path(), {}), known.special))
    ours, theirs = (json.loads(one.to_str(), object_hook=_undecided) for one in (found, made))
    return all(ours[part] == theirs[part] for part in ("normalizer", "pre_tokenizer"))


def _undecided(part: Json) -> Json:
    """A part of a tokenizer without entries that settings decide or that affect no token."""
    decided = ("add_prefix_space", "prepend_scheme", "trim_offsets")
    return {key: value for key, value in part.items() if key not in decided}


def _known_class(
    place: SideFile, classes: Mapping[str, DecoderClass], usual: Usual, path: Path
) -> DecoderClass | None:
    """The class that rebuilds a tokenizer; None uses `tokenizer.json` unchanged.

    Args:
        place: the file that names the class.
        classes: all known classes, by name.
        usual: the tokenizer class of this kind of model.
        path: the path of the `tokenizer.json`, if there is one.
    """
    there = path.is_file()
    named = place.peek("tokenizer_class")
    if named is None:
        # Without a named class, the tokenizer.json alone decides.
        return None if there else classes.get(usual.unnamed or "")
    named = text_of(place.where, "tokenizer_class", named).removesuffix("Fast")
    foreign = classes[named].foreign if named in classes else None
    if usual.as_it_is or (foreign and there and foreign in read_tokenizer_text(path)[0]):
        named = _AS_IT_IS[0]
    if not there and usual.without_json is not None:
        named = usual.without_json
        place.irrelevant({"tokenizer_class": f"it is {named} where there is no {TOKENIZER_FILE}"})
    if named in _AS_IT_IS:
        place.get("tokenizer_class")
    return classes.get(named)


def _no_tokenizer(folder: Path, place: SideFile) -> DataError:
    there = [name for name in (_VOCABULARY, _MERGES, _SENTENCEPIECE) if (folder / name).is_file()]
    of_class = place.get("tokenizer_class")
    return DataError(
        f"{folder} has no {TOKENIZER_FILE}"
        + (f", and {' and '.join(there)}" if there else "")
        + (f" of the tokenizer_class {of_class}" if of_class else "")
        + (" cannot be read here" if there else "")
        + ": save_pretrained of the library transformers writes a tokenizer.json, which is then "
        "read; or give one with --tokenizer=tokenizer.json."
    )


def _files_of_gpt2(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Reads `vocab.json` and `merges.txt`.

    Raises:
        DataError: if one is missing or damaged.
    """
    missing = [name for name in (_VOCABULARY, _MERGES) if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{folder} has no tokenizer: expected a {TOKENIZER_FILE}, or {_VOCABULARY} and "
            f"{_MERGES}. Give another with --tokenizer=tokenizer.json."
        )
    vocabulary = read_vocabulary(folder / _VOCABULARY)
    lines = read_lines(folder / _MERGES)
    # As in GPT-2, the first line holds the version.
    pairs = [tuple(line.split()) for line in lines if line.strip() and not line.startswith("#ver")]
    if not all(len(pair) == 2 for pair in pairs):
        raise DataError(f"{folder / _MERGES} is damaged: a line has two tokens.")
    return vocabulary, pairs  # type: ignore[return-value]


def _parts(content: Json, path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a `tokenizer.json`; old files separate the parts by a space."""
    vocabulary = require_vocabulary(content["model"]["vocab"], path)
    return vocabulary, merge_pairs(content["model"].get("merges", []), path)


def _put_around(made: tokenizers.Tokenizer, settings: SideFile, special: dict[str, str]) -> None:
    """Adds special tokens before and after texts, if the settings say so."""
    parts, tokens = ["$A"], []
    if settings.flag("add_bos_token", False) and "bos_token" in special:
        parts.insert(0, special["bos_token"])
        tokens.append(special["bos_token"])
    # A token after the text would end the text that should be continued.
    settings.usual({"add_eos_token": False})
    if tokens:
        pairs = [(token, made.token_to_id(token)) for token in tokens]
        made.post_processor = processors.TemplateProcessing(single=parts, special_tokens=pairs)
