"""Documents of sentences, and the pairs of segments that BERT is pretrained on.

A sentence is any stretch of text, as in Devlin et al. 2018, section 3; here it is a line. Texts are
cut only between sentences, so that only the meaning shows whether two segments belong together.
"""

import bisect
import dataclasses
import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from transformer.data.source import Visit
from transformer.data.text.masking import Masking, mask_tokens, num_predictions
from transformer.data.tokenizers.pieces import EncoderTokenizer
from transformer.errors import ConfigError, DataError
from transformer.ops.losses import IGNORED
from transformer.types import HostBatch

# The number of draws for a random second segment before a sentence that is too long is cut.
_TRIES = 8


class DocumentTokens(NamedTuple):
    """Documents as token ids.

    Attributes:
        tokens: `[n]` uint16 or int32, of all sentences one after another.
        sentences: `[m + 1]`, where each sentence begins in `tokens`, and the end of the last.
        documents: `[d + 1]`, where each document begins in `sentences`, and the end of the last.
    """

    tokens: np.ndarray
    sentences: np.ndarray
    documents: np.ndarray


def split_documents(text: str) -> list[list[str]]:
    """The sentences of each document: one a line, with blank lines between documents.

    Only line feeds end a line: other separators of Unicode may stand inside of sentences.

    Raises:
        DataError: if there is none.
    """
    lines = (line.strip() for line in text.split("\n"))
    documents = [list(group) for full, group in itertools.groupby(lines, bool) if full]
    if not documents:
        raise DataError(
            "the text has no documents: write one sentence a line, and a blank line between "
            "documents."
        )
    return documents


def tokenize_documents(
    tokenizer: EncoderTokenizer, documents: Iterable[Sequence[str]]
) -> DocumentTokens:
    """The tokens of documents, without sentences and documents that have none.

    Raises:
        DataError: if nothing is left.
    """
    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.int32
    ids: list[np.ndarray] = []
    counts: list[int] = []
    for document in documents:
        found = [ids.astype(dtype) for ids in tokenizer.encode_sentences(document)]
        found = [sentence for sentence in found if len(sentence)]
        if found:
            ids += found
            counts.append(len(found))
    if not ids:
        raise DataError("the documents have no tokens: give a text with words in it.")
    lengths = [len(sentence) for sentence in ids]
    return DocumentTokens(np.concatenate(ids), _offsets(lengths), _offsets(counts))


@dataclasses.dataclass(frozen=True)
class SentencePairs:
    """Rows for the pretraining of BERT.

    Documents are cut once into chunks of whole sentences, as many as fit. With `next_sentence` a
    row is `[CLS] A [SEP] B [SEP]` (Devlin et al. 2018, section 3.1 and appendix A.2): A the first
    sentences of a chunk, a random number of them, and B either its others or sentences from a
    random place of another document. Otherwise a row is `[CLS] chunk [SEP]` (the DOC-SENTENCES of
    Liu et al. 2019, section 4.2). Segments and masks are drawn anew for each visit.

    The form of a random B must not give it away. It is as close as sentences allow to a possible
    length of the true B, and begins and ends as that does: with whole sentences, or within a
    sentence if a chunk is a single sentence and therefore halved.

    A batch holds `tokens` and `token_types`, `[b, T]`; `lengths`, `[b]`, without padding;
    `positions` and `labels`, `[b, M]`, as in `Masked`; `is_next`, `[b]`: 1 if B follows A, 0 if it
    is random, `IGNORED` if rows have one segment. All are int32.

    Attributes:
        data: the documents.
        tokenizer: the tokenizer of the documents.
        context: T, the number of tokens of a row.
        masking: how tokens are masked.
        next_sentence: whether rows have two segments.
    """

    data: DocumentTokens
    tokenizer: EncoderTokenizer
    context: int
    masking: Masking
    next_sentence: bool

    def __post_init__(self) -> None:
        least = 4 + self.tokenizer.separators
        if self.context < least:
            raise ConfigError(
                f"config.task.max_length is {self.context}: a row of two segments of one token and "
                f"its special tokens has {least}."
            )
        chunks = self._chunks
        if len(chunks.first) == 0 or (self.next_sentence and chunks.others(0) == 0):
            raise DataError(
                f"the documents have {len(self.data.tokens)} tokens, too few for pairs of "
                f"segments: give a longer text or a smaller --config.task.max_length."
            )

    def __len__(self) -> int:
        return len(self._chunks.first)

    def batch(self, visits: Sequence[Visit]) -> HostBatch:
        """These chunks, with segments and masks drawn for each visit."""
        shape = len(visits), self.context
        tokens = np.full(shape, self.tokenizer.pad, np.int32)
        token_types = np.zeros(shape, np.int32)
        lengths = np.zeros(len(visits), np.int32)
        is_next = np.full(len(visits), IGNORED, np.int32)
        generators = [visit.generator() for visit in visits]
        for row, (visit, generator) in enumerate(zip(visits, generators, strict=True)):
            if self.next_sentence:
                *segments, is_next[row] = self._segments(visit.example, generator)
            else:
                segments = [self._chunk(visit.example)]
            tokens[row, 0] = self.tokenizer.start
            filled = 1
            for kind, segment in enumerate(segments):
                if kind:
                    between = self.tokenizer.separators - 1
                    tokens[row, filled : filled + between] = self.tokenizer.separator
                    filled += between
                stop = filled + len(segment)
                tokens[row, filled:stop] = segment
                tokens[row, stop] = self.tokenizer.separator
                token_types[row, filled : stop + 1] = kind * self.tokenizer.second_type
                filled = stop + 1
            lengths[row] = filled

        masked = mask_tokens(
            tokens,
            ~self.tokenizer.special[tokens],
            self.masking,
            mask=self.tokenizer.mask,
            random_ids=self._random_ids,
            continues=self.tokenizer.continues,
            generator=generators,
        )
        return {
            **masked._asdict(),
            "token_types": token_types,
            "lengths": lengths,
            "is_next": is_next,
        }

    def padding(self, visit: Visit) -> HostBatch:
        """An empty row without predictions."""
        slots = num_predictions(self.context, self.masking.rate)
        return {
            "tokens": np.full((1, self.context), self.tokenizer.pad, np.int32),
            "positions": np.zeros((1, slots), np.int32),
            "labels": np.full((1, slots), IGNORED, np.int32),
            "token_types": np.zeros((1, self.context), np.int32),
            "lengths": np.zeros(1, np.int32),
            "is_next": np.full(1, IGNORED, np.int32),
        }

    @functools.cached_property
    def _random_ids(self) -> np.ndarray:
        return np.flatnonzero(~self.tokenizer.special)

    @functools.cached_property
    def _chunks(self) -> "_Chunks":
        room = self.context - 2
        if self.next_sentence:
            return _cut(self.data, room - self.tokenizer.separators, 2)
        return _cut(self.data, room, 1)

    def _chunk(self, example: int) -> np.ndarray:
        """The tokens of a chunk."""
        sentences, first, last = self._chunks.sentences, self._chunks.first, self._chunks.last
        return self.data.tokens[sentences[first[example]] : sentences[last[example]]]

    def _segments(
        self, example: int, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """A, B, and whether B follows A."""
        chunks, chunk = self._chunks, self._chunk(example)
        first, last = chunks.first[example], chunks.last[example]
        is_next = generator.random() < 0.5
        halved = last - first == 1
        if halved:
            split = len(chunk) // 2
        else:
            split = chunks.sentences[generator.integers(first + 1, last)] - chunks.sentences[first]
        if is_next:
            return chunk[:split], chunk[split:], 1
        # If the next sentence did not fit, the true B might have been a little longer.
        room = (len(chunk) if halved else chunks.room[example]) - split
        start, end = chunks.random_segment(example, int(room), generator, whole=not halved)
        return chunk[:split], self.data.tokens[start:end], 0


class _Chunks(NamedTuple):
    """Documents cut into C chunks of whole sentences.

    Attributes:
        sentences: `[m + 1]`, as in `DocumentTokens`, but none is longer than a chunk may be.
        documents: `[d + 1]`, in those sentences.
        first: `[C]`, the first sentence of each chunk.
        last: `[C]`, one past its last sentence.
        room: `[C]`, tokens it might have had: as many as it has where its document ends.
    """

    sentences: np.ndarray
    documents: np.ndarray
    first: np.ndarray
    last: np.ndarray
    room: np.ndarray

    def others(self, chunk: int) -> int:
        """The number of sentences with which a random segment for a chunk may begin."""
        low, high = self._own(chunk)
        return len(self.sentences) - 1 - (high - low)

    def random_segment(
        self, chunk: int, room: int, generator: np.random.Generator, *, whole: bool
    ) -> tuple[int, int]:
        """Where a random segment for a chunk begins and ends in the tokens.

        Args:
            chunk: which.
            room: tokens of the segment at most.
            generator: random numbers for the place.
            whole: takes whole sentences; otherwise, as many tokens as there is room for, which
                end with a sentence.
        """
        sentences = self.sentences
        for _ in range(_TRIES):
            place, low, high = self._random_sentence(chunk, generator)
            if not whole:
                end = int(sentences[place + 1])
                return max(int(sentences[low]), end - room), end
            stop = bisect.bisect_right(sentences, sentences[place] + room, place, high + 1) - 1
            if stop == high:
                # Fewer sentences follow than there is room for: some of those before come along.
                place = bisect.bisect_left(sentences, sentences[high] - room, low, place)
            if stop > place:
                return int(sentences[place]), int(sentences[stop])
        return int(sentences[place]), int(sentences[place]) + room

    def _random_sentence(self, chunk: int, generator: np.random.Generator) -> tuple[int, int, int]:
        """A sentence of another document, and between which sentences its segment may lie.

        All sentences of other documents are as likely, and so B says nothing about its document.
        """
        own_low, own_high = self._own(chunk)
        place = int(generator.integers(self.others(chunk)))
        if place < own_low:
            document = bisect.bisect_right(self.documents, place) - 1
            return place, int(self.documents[document]), min(own_low, self._end(document))
        place += own_high - own_low
        document = bisect.bisect_right(self.documents, place) - 1
        return place, max(own_high, int(self.documents[document])), self._end(document)

    def _end(self, document: int) -> int:
        return int(self.documents[document + 1])

    def _own(self, chunk: int) -> tuple[int, int]:
        """The sentences that are excluded from random segments: those of the document.

        If there is only one document, those of the chunk.
        """
        if len(self.documents) == 2:
            return int(self.first[chunk]), int(self.last[chunk])
        document = bisect.bisect_right(self.documents, self.first[chunk]) - 1
        return int(self.documents[document]), self._end(document)


def _cut(data: DocumentTokens, longest: int, least: int) -> _Chunks:
    """Cuts each document into chunks of as many whole sentences as fit.

    Args:
        data: the documents; sentences longer than a chunk are split.
        longest: tokens of a chunk at most.
        least: chunks of fewer tokens are left out.
    """
    lengths = np.diff(data.sentences)
    parts = -(-lengths // longest)
    before = _offsets(parts)
    sentences = np.repeat(data.sentences[:-1], parts)
    sentences += longest * (np.arange(len(sentences)) - np.repeat(before[:-1], parts))
    sentences = np.append(sentences, data.sentences[-1])
    documents = before[data.documents]

    first, last, room = [], [], []
    place = 0
    for end in documents[1:].tolist():
        while place < end:
            stop = bisect.bisect_right(sentences, sentences[place] + longest, place, end + 1) - 1
            length = int(sentences[stop] - sentences[place])
            if length >= least:
                first.append(place)
                last.append(stop)
                room.append(length if stop == end else longest)
            place = stop
    return _Chunks(sentences, documents, np.array(first), np.array(last), np.array(room))


def _offsets(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """The start of each segment when segments of these lengths are concatenated, and the end."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
