"""The JSON side files of published weights, and a record of which of their keys were used.

Keys that a reader accesses count as honoured, keys passed to `irrelevant` count as without effect,
and all others are reported by name. So there is no list of supported keys to maintain, and no key
is ignored silently.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from transformer.data.reading import bounds
from transformer.data.reading.json_text import read_json_file, shown
from transformer.errors import DataError
from transformer.interop import checked_values

CONFIG = "config.json"
GENERATION = "generation_config.json"
# Side files of tokenizers.
SETTINGS, SPECIAL, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
# Known side files in a folder; one that is never opened is reported as unused.
KNOWN = (
    CONFIG,
    GENERATION,
    "preprocessor_config.json",
    "processor_config.json",
    SETTINGS,
    SPECIAL,
    ADDED,
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
)
# Files that hold a list; the indices of its items are the keys.
LISTS = ("modules.json",)
# Keys that do not affect the output of any model, and why.
IRRELEVANT: dict[str, dict[str, str]] = {
    CONFIG: {
        "_name_or_path": "where it came from",
        "transformers_version": "who wrote it",
        "dtype": "arrays say what they are",
        "torch_dtype": "arrays say what they are",
        "initializer_range": "of random weights",
        "initializer_factor": "of random weights",
        "use_cache": "speed",
        "output_attentions": "what else is returned",
        "output_hidden_states": "what else is returned",
        "return_dict": "how it is returned",
        "chunk_size_feed_forward": "memory",
        "gradient_checkpointing": "memory",
        "pretraining_tp": "how products are cut",
    },
    GENERATION: {"transformers_version": "who wrote it", "_from_model_config": "who wrote it"},
    SETTINGS: {
        **dict.fromkeys(("backend", "transformers_version"), "who wrote it"),
        **dict.fromkeys(
            (
                "is_local",
                "local_files_only",
                "name_or_path",
                "special_tokens_map_file",
                "tokenizer_file",
            ),
            "where it came from",
        ),
        **dict.fromkeys(("processor_class", "use_fast", "verbose"), "of other programs"),
    },
}


class Used(NamedTuple):
    """Which keys of one file were used; keys of nested objects are dotted.

    Attributes:
        honoured: keys that were read.
        irrelevant: keys that do not affect results.
        unused: all other keys.
    """

    honoured: tuple[str, ...]
    irrelevant: tuple[str, ...]
    unused: tuple[str, ...]


class SideFile(Mapping[str, object]):
    """The object in one JSON file, which records the keys that are read.

    Do not copy it as a whole (`{**file}`): that would count as reading every key.

    Args:
        where: the path, for messages.
        content: the object.
    """

    def __init__(self, where: Path, content: Mapping[str, object]) -> None:
        self.where = where
        self._content = dict(content)
        self._asked: set[str] = set()
        self._irrelevant: set[str] = set()
        self._inside: dict[str, SideFile] = {}

    def __getitem__(self, key: str) -> object:
        """The value of a key, which then counts as honoured."""
        value = self._content[key]
        self._asked.add(key)
        return value

    def __contains__(self, key: object) -> bool:
        """Whether there is a key, without marking it as honoured."""
        return key in self._content

    def __iter__(self) -> Iterator[str]:
        """Keys in the order of the file, without marking them as honoured."""
        return iter(self._content)

    def __len__(self) -> int:
        """The number of keys."""
        return len(self._content)

    def peek(self, key: str) -> object:
        """The value of a key without marking it as honoured; None if missing."""
        return self._content.get(key)

    def inside(self, key: str) -> "SideFile":
        """The nested object of a key, whose own keys are recorded; empty if missing.

        Raises:
            DataError: if there is something else.
        """
        if key not in self._inside:
            value = self.get(key)
            if value is not None and not isinstance(value, dict):
                checked_values.refuse(self.where, key, value, "an object")
            self._inside[key] = SideFile(self.where, value or {})
        return self._inside[key]

    def whole(
        self, key: str, usual: int | None = None, *, least: int = 1, most: int = bounds.SIZE
    ) -> int:
        """A whole number.

        Args:
            key: its key, which then counts as honoured.
            usual: the default; None if the key is required.
            least: the smallest valid value.
            most: the largest valid value.

        Raises:
            KeyError: if a required key is missing.
            DataError: if the value is not a whole number, or out of range.
        """
        value = self._found(key, usual)
        return checked_values.whole(self.where, key, value, least=least, most=most)

    def whole_or_none(
        self, key: str, usual: int | None = None, *, least: int = 1, most: int = bounds.SIZE
    ) -> int | None:
        """Like `whole`; null gives None."""
        value = self.get(key, usual)
        if value is None:
            return None
        return checked_values.whole(self.where, key, value, least=least, most=most)

    def number(
        self,
        key: str,
        usual: float | None = None,
        *,
        least: float = 0.0,
        most: float = checked_values.LARGEST,
    ) -> float:
        """A finite number; see `whole`."""
        value = self._found(key, usual)
        return checked_values.number(self.where, key, value, least=least, most=most)

    def positive(self, key: str, usual: float | None = None) -> float:
        """A finite number above 0; see `whole`."""
        return checked_values.positive(self.where, key, self._found(key, usual))

    def fraction(self, key: str, usual: float) -> float:
        """A number from 0 to 1; see `whole`."""
        return self.number(key, usual, most=1.0)

    def token(self, key: str, usual: int | None = None) -> int:
        """The id of a token; see `whole`."""
        return checked_values.token(self.where, key, self._found(key, usual))

    def flag(self, key: str, usual: bool) -> bool:
        """True or false; see `whole`."""
        return checked_values.flag(self.where, key, self.get(key, usual))

    def text(self, key: str, usual: str | None = None) -> str:
        """A text; see `whole`."""
        return checked_values.text(self.where, key, self._found(key, usual))

    def text_or_none(self, key: str) -> str | None:
        """A text; None if null or missing."""
        value = self.get(key)
        return None if value is None else checked_values.text(self.where, key, value)

    def texts(self, key: str) -> list[str]:
        """A list of texts; empty if null or missing."""
        found = self.get(key)
        found = [] if found is None else found
        return checked_values.several(self.where, key, found, checked_values.text)

    def one_of(self, key: str, usual: str, known: Iterable[str]) -> str:
        """One of several texts; see `whole`."""
        return checked_values.one_of(self.where, key, self.get(key, usual), tuple(known))

    def _found(self, key: str, usual: object) -> object:
        return self[key] if usual is None else self.get(key, usual)

    def irrelevant(self, keys: Mapping[str, str]) -> None:
        """Records keys that do not affect results.

        Args:
            keys: the reasons, by key.
        """
        self._irrelevant |= keys.keys() & self._content.keys()

    def usual(self, values: Mapping[str, object]) -> None:
        """Marks keys as honoured whose values match what we do anyway; others stay unused.

        Args:
            values: what we do, by key; null matches, too.
        """
        for key, value in values.items():
            if key in self._content and self._content[key] in (None, value):
                self._asked.add(key)

    def same(self, names: Mapping[str, str]) -> None:
        """Refuses aliases of keys whose values contradict.

        Args:
            names: maps each alias to the key that is read.

        Raises:
            DataError: names the first contradicting alias.
        """
        self.only({other: self.get(name) for other, name in names.items() if other in self})

    def only(self, values: Mapping[str, object]) -> None:
        """Refuses unsupported values.

        Args:
            values: the only supported value, by key; it is also the default.

        Raises:
            DataError: names the first key with another value.
        """
        for key, known in values.items():
            found = self.get(key, known)
            # 1 and 1.0 are equal here, but True and 1 are not.
            if found != known or isinstance(found, bool) != isinstance(known, bool):
                raise DataError(
                    f"{self.where} has {key}: {shown(found)}, and only {known!r} can be read here."
                )

    def used(self) -> Used:
        """Which keys have been used so far."""
        honoured, irrelevant, unused = [], [], []
        for key in self._content:
            if key in self._inside:
                parts = self._inside[key].used()
                for found, more in zip((honoured, irrelevant, unused), parts, strict=True):
                    found += [f"{key}.{name}" for name in more]
            elif key in self._irrelevant:
                irrelevant.append(key)
            else:
                (honoured if key in self._asked else unused).append(key)
        return Used(tuple(honoured), tuple(irrelevant), tuple(unused))


class SideFiles:
    """The side files of one published model, each read on first access.

    Args:
        folder: the folder of the files, or the single file of a model.
        given: contents of files by name, if already known; without a folder there are no others.
    """

    def __init__(
        self, folder: Path, given: Mapping[str, Mapping[str, object]] | None = None
    ) -> None:
        self._folder = folder
        self._opened = {
            name: self._new(folder if folder.is_file() else folder / name, name, content)
            for name, content in (given or {}).items()
        }

    def __contains__(self, name: str) -> bool:
        """Whether there is such a file."""
        return name in self._opened or (self._folder / name).is_file()

    def __getitem__(self, name: str) -> SideFile:
        """A file by its name; empty if missing.

        Raises:
            DataError: if it is not a JSON object.
        """
        if name not in self._opened:
            path = self._folder / name
            content = read_json(path, is_list=name in LISTS) if path.is_file() else {}
            self._opened[name] = self._new(path, name, content)
        return self._opened[name]

    def _new(self, where: Path, name: str, content: Mapping[str, object]) -> SideFile:
        file = SideFile(where, content)
        file.irrelevant(IRRELEVANT.get(name, {}))
        return file

    def used(self) -> dict[str, Used]:
        """Which keys of each file have been used; none of a file that was never opened."""
        unopened = [name for name in KNOWN if name in self and name not in self._opened]
        return {name: file.used() for name, file in self._opened.items() if len(file)} | {
            name: Used((), (), ("*",)) for name in unopened
        }


def read_json(path: Path, *, is_list: bool = False) -> dict[str, object]:
    """Reads the object in a JSON file.

    Args:
        path: the file.
        is_list: whether the file holds a list; its indices, from 0, become the keys.

    Raises:
        DataError: if the file holds anything else.
    """
    content = read_json_file(path)
    if is_list and isinstance(content, list):
        return {str(place): item for place, item in enumerate(content)}
    if is_list or not isinstance(content, dict):
        raise DataError(f"{path} is no JSON {'list' if is_list else 'object'}.")
    return content


def read_vocabulary(path: Path) -> dict[str, int]:
    """Reads tokens and their ids from a JSON file; empty if it does not exist.

    Raises:
        DataError: if the file holds anything else.
    """
    content = read_json(path) if path.is_file() else {}
    return require_vocabulary(content, path)


def require_vocabulary(content: object, where: Path) -> dict[str, int]:
    """Checks that the content of a file maps tokens to ids.

    Raises:
        DataError: if it does not.
    """
    if not isinstance(content, dict):
        raise DataError(f"{where} is no vocabulary: an object with tokens and their ids.")
    for name, index in content.items():
        checked_values.token(where, shown(name), index)
    return content
