"""The common result of reading other libraries' model files."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from transformer.interop.layout import Stored
from transformer.types import Json


class ForeignArray(NamedTuple):
    """One array that has not been read from its file.

    Attributes:
        shape: the shape of the array.
        read: reads it as float32.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


class ForeignArrays(Stored):
    """The arrays of a model.

    Args:
        arrays: the unread arrays.
    """

    def __init__(self, arrays: Mapping[str, ForeignArray]) -> None:
        self._arrays = dict(arrays)

    def __getitem__(self, name: str) -> np.ndarray:
        """Reads one array."""
        return self._arrays[name].read()

    def __iter__(self) -> Iterator[str]:
        """Names, in the order of the file."""
        return iter(self._arrays)

    def __len__(self) -> int:
        """The number of arrays."""
        return len(self._arrays)

    def __contains__(self, name: object) -> bool:
        """Whether there is such an array; none is read."""
        return name in self._arrays

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an array, without reading the array."""
        return self._arrays[name].shape


class ForeignModel(NamedTuple):
    """A model from another library's file, converted to the conventions of `transformers`.

    Attributes:
        config: the content of `config.json`.
        arrays: float32 arrays under the names of `transformers`, each read on access.
        tokenizer: the text of a `tokenizer.json` of the library `tokenizers`. It adds no special
            token before or after a text.
        beginning: the token that precedes every prompt; None if there is none.
        first: the token that begins a text without a prompt; None if the file names none.
        ends: the tokens that end a text.
    """

    config: Json
    arrays: ForeignArrays
    tokenizer: str
    beginning: int | None
    first: int | None
    ends: tuple[int, ...]

    def writing(self) -> Json:
        """Fields of `config.task` about generation; the files do not say how to sample."""
        return {"stop_ids": self.ends, "begin": self.first}


def split_into_halves(array: np.ndarray, num_heads: int) -> np.ndarray:
    """Orders the rows of a query or key projection for rotary positions over half-heads.

    Rotary positions rotate pairs of features. The first Llama files pair neighbours, features 2i
    and 2i + 1 of a head; `transformers` pairs features i and i + H / 2. The two differ only in the
    order of rows.

    Args:
        array: an array [N * H, D], or [N * H] for a bias, with pairs of neighbours.
        num_heads: N.
    """
    pairs = array.reshape(num_heads, -1, 2, *array.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(array.shape)
