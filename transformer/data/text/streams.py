"""Token streams: tokenized once, memory-mapped, and cut into windows."""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from transformer.caches import is_whole, write_entry
from transformer.data.order import shuffled_place
from transformer.data.source import Visit, epoch_generator
from transformer.data.tokenizers.protocol import TextTokenizer
from transformer.errors import DataError
from transformer.ops.losses import IGNORED
from transformer.types import HostBatch

# Increased when tokenization changes, so that older files are not used.
_VERSION = 3
# Characters of a text that are hashed at once.
_BLOCK = 1 << 24


@runtime_checkable
class Tokens(Protocol):
    """A stream of token ids."""

    @property
    def array(self) -> np.ndarray:
        """The tokens, `[length]`."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of the text and the tokenizer they were made from."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class HeldTokens:
    """Token ids in memory, if there is no cache.

    Attributes:
        array: the tokens, `[length]`.
        fingerprint: hash of the text and the tokenizer they were made from.
    """

    array: np.ndarray
    fingerprint: str


@dataclasses.dataclass(frozen=True)
class TokenFile:
    """Token ids in an `.npy` file, memory-mapped again in each process.

    Attributes:
        path: the path of the file.
        fingerprint: hash of the text and the tokenizer it was made from.
    """

    path: Path
    fingerprint: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "_array", np.load(self.path, mmap_mode="r"))

    def __reduce__(self):
        # Reopened, not copied, in worker processes.
        return TokenFile, (self.path, self.fingerprint)

    @property
    def array(self) -> np.ndarray:
        """The tokens, `[length]`."""
        return self._array  # type: ignore[attr-defined]


def tokenize(tokenizer: TextTokenizer, text: str, cache: Path | None) -> Tokens:
    """The tokens of a text, from the cache if they were made before.

    Args:
        tokenizer: makes the tokens.
        text: what to tokenize.
        cache: folder for token files, one for each pair of text and tokenizer. Without it, or if it
            cannot be written, the tokens are held in memory.
    """
    digest = hashlib.sha256(tokenizer.identity().encode())
    for start in range(0, len(text), _BLOCK):
        digest.update(text[start : start + _BLOCK].encode())
    fingerprint = digest.hexdigest()[:32]
    path = None if cache is None else cache / f"{fingerprint}-{_VERSION}.npy"
    if path is not None and is_whole(path):
        return TokenFile(path, fingerprint)
    ids = tokenizer.encode(text)
    if tokenizer.vocab_size <= 1 << 16:
        ids = ids.astype(np.uint16)
    if path is not None and write_entry(path, lambda file: np.save(file, ids)):
        return TokenFile(path, fingerprint)
    return HeldTokens(ids, fingerprint)


@dataclasses.dataclass(frozen=True)
class TokenWindows:
    """Non-overlapping windows of a token stream, each with its next tokens.

    A batch has `tokens` and `labels`, both int32 `[b, T]`.

    Attributes:
        tokens: the stream.
        context: T, predictions per window.
        moving: whether each epoch cuts the stream at a new offset, and numbers the windows in a new
            order. Otherwise windows begin at the first token, and every prediction of the stream is
            in one of them; the last window is filled up with ignored positions.
    """

    tokens: Tokens
    context: int
    moving: bool

    def __len__(self) -> int:
        length = len(self.tokens.array) - 1
        # If there are several windows, one fewer than fits leaves room for an offset.
        return max(1, length // self.context - 1) if self.moving else -(-length // self.context)

    def batch(self, visits: Sequence[Visit]) -> HostBatch:
        """These windows."""
        return self._cut(np.array([self.start(visit) for visit in visits]))

    def padding(self, visit: Visit) -> HostBatch:
        """A window beyond the end of the stream, in which nothing is predicted."""
        return self._cut(np.array([len(self.tokens.array)]))

    def start(self, visit: Visit) -> int:
        """Where in the stream a window begins."""
        if not self.moving:
            return visit.example * self.context
        count = len(self)
        slack = len(self.tokens.array) - 1 - count * self.context
        offset, order = _offset_and_order(visit.seed, visit.epoch, slack)
        return offset + shuffled_place(visit.example, count, order) * self.context

    def _cut(self, starts: np.ndarray) -> HostBatch:
        """Windows at `starts` with their next tokens; ignored positions beyond the end."""
        tokens = self.tokens.array
        positions = starts[:, None] + np.arange(self.context + 1)[None, :]
        windows = tokens[np.minimum(positions, len(tokens) - 1)].astype(np.int32)
        labels = np.where(positions[:, 1:] < len(tokens), windows[:, 1:], IGNORED).astype(np.int32)
        return {"tokens": windows[:, :-1], "labels": labels}


@functools.lru_cache(maxsize=8)
def _offset_and_order(seed: int, epoch: int, slack: int) -> tuple[int, int]:
    """Where an epoch's first window begins, and the seed of the order of its windows."""
    random = epoch_generator(seed, epoch)
    return int(random.integers(slack + 1)), int(random.integers(1 << 31))


def require_length(tokens: Tokens, context: int, what: str) -> None:
    """Refuses a stream too short for one window.

    Raises:
        DataError: names both lengths.
    """
    if len(tokens.array) <= context:
        raise DataError(
            f"{what} has {len(tokens.array)} tokens, too few for one context of {context} and its "
            f"next token: give a longer text or a smaller --config.task.context."
        )
