"""What a voice learns from: the words of a text, then the codes of its sound, in one row."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, Int32

from transformer.data.order import Bucket
from transformer.data.reading.json_text import parse_json
from transformer.data.source import Visit
from transformer.errors import DataError
from transformer.files import write_json
from transformer.ops.losses import IGNORED
from transformer.types import HostBatch

WORDS_FILE = "words.json"


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The tokens of a voice: first the codes of its codec, then the end, then words.

    Attributes:
        num_codes: how many codes there are.
        words: the words that it has heard, sorted.
        most_words: the words of the longest text that it has heard.
    """

    num_codes: int
    words: tuple[str, ...]
    most_words: int

    @property
    def end(self) -> int:
        """The token that ends a sound, and stands between a text and its sound."""
        return self.num_codes

    @property
    def size(self) -> int:
        """V."""
        return self.num_codes + 1 + len(self.words)

    def prompt(self, words: Sequence[str]) -> Int32[np.ndarray, " _"]:
        """What stands in front of the codes: the words and the end token.

        Raises:
            DataError: names a word that the voice has not heard.
        """
        places = {word: place for place, word in enumerate(self.words, self.num_codes + 1)}
        for word in words:
            if word not in places:
                raise DataError(
                    f"the voice has never heard the word {word!r}: it knows "
                    f"{', '.join(self.words)}."
                )
        return np.array([*(places[word] for word in words), self.end], np.int32)

    def save(self, folder: Path) -> None:
        """Writes the file `words.json`."""
        write_json(folder / WORDS_FILE, dataclasses.asdict(self))


def heard_in(texts: Sequence[str], num_codes: int) -> Vocabulary:
    """The vocabulary of these texts."""
    split = [text.split() for text in texts]
    words = tuple(sorted({word for row in split for word in row}))
    return Vocabulary(num_codes, words, max(map(len, split), default=0))


def read_vocabulary(folder: Path) -> Vocabulary:
    """The vocabulary of a run.

    Raises:
        DataError: if there is none, or its file is damaged.
    """
    path = folder / WORDS_FILE
    try:
        content = parse_json(path.read_text("utf-8"), path)
        found = Vocabulary(content["num_codes"], tuple(content["words"]), content["most_words"])
        numbers = (found.num_codes, found.most_words)
        if not all(type(one) is int and one > 0 for one in numbers):
            raise ValueError("its numbers are none")
        if not all(isinstance(word, str) for word in found.words):
            raise ValueError("its words are none")
    except FileNotFoundError:
        raise DataError(f"{folder} has no {WORDS_FILE}: it is no run of a voice.") from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{path} is damaged: {error}.") from None
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class SpokenRows:
    """Texts with the codes of their sounds: `tokens` and `labels`, int32 `[b, T]`.

    A row is the prompt of a text, its codes, and the end token. Labels are the next tokens from the
    first code on, and `IGNORED` elsewhere.

    Attributes:
        prompts: see `Vocabulary.prompt`.
        codes: of each text, the end token behind them.
        buckets: the shapes, by increasing length.
    """

    prompts: Sequence[Int32[np.ndarray, " _"]]
    codes: Sequence[Int32[np.ndarray, " _"]]
    buckets: tuple[Bucket, ...]

    def __len__(self) -> int:
        return len(self.codes)

    @functools.cached_property
    def lengths(self) -> Int[np.ndarray, " n"]:
        """The tokens that each row reads: all but the end."""
        return row_lengths(self.prompts, self.codes)

    def batch(self, visits: Sequence[Visit]) -> HostBatch:
        """A row for each visit."""
        rows = [(self.prompts[visit.example], self.codes[visit.example]) for visit in visits]
        return _laid_out(rows, self._length(visits))

    def padding(self, visit: Visit) -> HostBatch:
        """A row without labels."""
        nothing = np.zeros(0, np.int32)
        return _laid_out([(nothing, nothing)], self._length([visit]))

    def _length(self, visits: Sequence[Visit]) -> int:
        longest = max(int(self.lengths[visit.example]) for visit in visits)
        return next(bucket.length for bucket in self.buckets if bucket.length >= longest)


def row_lengths(
    prompts: Sequence[Int[np.ndarray, " _"]], codes: Sequence[Int[np.ndarray, " _"]]
) -> Int[np.ndarray, " n"]:
    """The tokens that rows read; see `SpokenRows`."""
    pairs = zip(prompts, codes, strict=True)
    return np.array([len(prompt) + len(row) - 1 for prompt, row in pairs])


def _laid_out(
    rows: Sequence[tuple[Int[np.ndarray, " _"], Int[np.ndarray, " _"]]], length: int
) -> HostBatch:
    tokens = np.zeros((len(rows), length), np.int32)
    labels = np.full((len(rows), length), IGNORED, np.int32)
    for place, (prompt, codes) in enumerate(rows):
        inputs = [*prompt, *codes[:-1]]
        tokens[place, : len(inputs)] = inputs
        first = max(0, len(prompt) - 1)
        labels[place, first : first + len(codes)] = codes
    return {"tokens": tokens, "labels": labels}
