"""What readers of other libraries' model files hand over: what a published folder would hold."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np


class ForeignModel(NamedTuple):
    """A model of another library's file, in the words of the library `transformers`.

    Attributes:
        config: as in a `config.json`.
        arrays: float32 under the names of `transformers`, each read when it is asked for.
        tokenizer: the text of a `tokenizer.json` of the library `tokenizers`. It adds no token of
            its own before or after a text.
        beginning: the token that stands in front of every prompt; None if there is none.
        first: the token that begins a text out of nothing; None if the file names none.
        ends: the tokens that end a text.
    """

    config: dict[str, Any]
    arrays: "ForeignArrays"
    tokenizer: str
    beginning: int | None
    first: int | None
    ends: tuple[int, ...]

    def writing(self) -> dict[str, Any]:
        """Fields of `config.task` that say how it writes; how tokens are chosen, no file says."""
        return {"stop_ids": self.ends, "begin": self.first}


class ForeignArray(NamedTuple):
    """One array that is still in its file.

    Attributes:
        shape: what `read` will give.
        read: reads it as float32.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


class ForeignArrays(Mapping[str, np.ndarray]):
    """Arrays by name, read anew each time, so that memory holds one of them at a time.

    Args:
        arrays: where to find them.
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
        """The shape of an array, which is not read."""
        return self._arrays[name].shape


def split_into_halves(array: np.ndarray, num_heads: int) -> np.ndarray:
    """Orders the rows of a query or key projection for rotary positions over half-heads.

    Rotary positions turn pairs of features. The first Llama files pair neighbours, features 2i and
    2i + 1 of a head; `transformers` pairs features i and i + H / 2. The two differ in the order of
    the rows only.

    Args:
        array: of the shape [N * H, D], or [N * H] for a bias, with pairs of neighbours.
        num_heads: N.
    """
    pairs = array.reshape(num_heads, -1, 2, *array.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(array.shape)
