"""Token streams: tokenized once, memory-mapped, and cut into shuffled windows.

The batch of a step is a pure function of the seed and the step, so that resuming needs no more
than a number and survives a change in the number of hosts.
"""

import dataclasses
import hashlib
import math
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import grain
import numpy as np

from transformer.caches import is_whole, write_entry
from transformer.data.order import require_divisible
from transformer.data.tokenizers.text import Tokenizer
from transformer.errors import DataError
from transformer.ops.losses import IGNORED

# Of the way from text to tokens: files of another version are not those that would be made now.
_VERSION = 3
# Rounds of the block cipher behind the shuffle.
_SHUFFLE_ROUNDS = 4


# Characters of a text that are hashed at a time.
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
    """Token ids in memory, where there is no cache.

    Attributes:
        array: the tokens, `[length]`.
        fingerprint: hash of the text and the tokenizer they were made from.
    """

    array: np.ndarray
    fingerprint: str


@dataclasses.dataclass(frozen=True)
class TokenFile:
    """Token ids in an `.npy` file, memory-mapped wherever the object travels.

    Attributes:
        path: of the file.
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


def tokenize(tokenizer: Tokenizer, text: str, cache: Path | None) -> Tokens:
    """The tokens of a text, from the cache if they were made before.

    Args:
        tokenizer: makes the tokens.
        text: what to tokenize.
        cache: folder for token files, one for each pair of text and tokenizer. Without it, or if it
            cannot be written, the tokens are held in memory.
    """
    digest = hashlib.sha256(tokenizer.to_json().encode())
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
class ShuffledWindows:
    """Batches of windows of a token stream; item `step` is the batch of that step.

    Each epoch cuts the stream at a new offset into windows that do not overlap and visits all of
    them in a new order. Hosts take their slice of the same global batch.

    Attributes:
        tokens: the stream.
        context: T, predictions per window.
        batch_size: B, windows per step over all hosts.
        seed: of offsets and orders.
        num_steps: how many batches there are.
        host: index of this host.
        num_hosts: how many share the batch.
    """

    tokens: Tokens
    context: int
    batch_size: int
    seed: int
    num_steps: int
    host: int = 0
    num_hosts: int = 1

    def __post_init__(self) -> None:
        require_divisible(self.batch_size, self.num_hosts)

    @property
    def windows_per_epoch(self) -> int:
        """How many windows one pass over the stream has."""
        return max(1, (len(self.tokens.array) - 1) // self.context - 1)

    def __len__(self) -> int:
        return self.num_steps

    def __getitem__(self, step: Any) -> dict[str, np.ndarray]:
        local = self.batch_size // self.num_hosts
        first = step * self.batch_size + self.host * local
        starts = np.array([self.window_start(index) for index in range(first, first + local)])
        return _cut(self.tokens.array, starts, self.context)

    def window_start(self, index: int) -> int:
        """Where in the stream the window of global example `index` begins."""
        count = self.windows_per_epoch
        epoch, place = divmod(index, count)
        slack = len(self.tokens.array) - 1 - count * self.context
        random = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
        offset, order = random.integers(slack + 1), random.integers(1 << 31)
        if count > 1:
            place = grain.experimental.index_shuffle(
                place, max_index=count - 1, seed=int(order), rounds=_SHUFFLE_ROUNDS
            )
        return int(offset) + place * self.context


@dataclasses.dataclass(frozen=True)
class SequentialWindows:
    """Every prediction of a token stream exactly once, in order, in batches.

    The last window and the last batch are filled up with ignored positions.

    Attributes:
        tokens: the stream.
        context: T.
        batch_size: B over all hosts.
        host: index of this host.
        num_hosts: how many share each batch.
    """

    tokens: Tokens
    context: int
    batch_size: int
    host: int = 0
    num_hosts: int = 1

    def __post_init__(self) -> None:
        require_divisible(self.batch_size, self.num_hosts, "validation_batch_size")

    def __len__(self) -> int:
        return math.ceil((len(self.tokens.array) - 1) / (self.context * self.batch_size))

    def __getitem__(self, step: Any) -> dict[str, np.ndarray]:
        local = self.batch_size // self.num_hosts
        first = step * self.batch_size + self.host * local
        starts = (first + np.arange(local)) * self.context
        return _cut(self.tokens.array, starts, self.context)


def require_length(tokens: Tokens, context: int, what: str) -> None:
    """Refuses a stream too short for one window.

    Raises:
        DataError: with both lengths.
    """
    if len(tokens.array) <= context:
        raise DataError(
            f"{what} has {len(tokens.array)} tokens, too few for one context of {context} and its "
            f"next token: give a longer text or a smaller --config.task.context."
        )


def _cut(tokens: np.ndarray, starts: np.ndarray, context: int) -> dict[str, np.ndarray]:
    """Windows at `starts` with their next tokens; ignored positions beyond the end."""
    places = starts[:, None] + np.arange(context + 1)[None, :]
    windows = tokens[np.minimum(places, len(tokens) - 1)].astype(np.int32)
    labels = np.where(places[:, 1:] < len(tokens), windows[:, 1:], IGNORED).astype(np.int32)
    return {"tokens": windows[:, :-1], "labels": labels}
