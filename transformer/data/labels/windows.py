"""Questions with their contexts as token ids, and answers from logits back to characters.

A context that is too long for the model is split into overlapping windows (Devlin et al. 2018,
section 4.2, and its published code). Answers keep the characters of the context throughout: they
are never put together from pieces.
"""

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from transformer.data.labels.squad import Question
from transformer.data.tokenizers.pieces import EncoderTokenizer, Pieces
from transformer.errors import ConfigError, DataError

# What a window's length adds to the context of its tokens, in the published code.
_LENGTH_WEIGHT = 0.01


class Windows(NamedTuple):
    """n windows of T tokens: `[CLS] question [SEP] part of the context [SEP]` and padding.

    The special tokens are the tokenizer's, and so is the number of `[SEP]` after the question.
    The windows of a question stand together, in the order of the context and of the questions.

    Attributes:
        tokens: `[n, T]` int32.
        token_types: `[n, T]` int8, the tokenizer's `second_type` (1 with BERT's) for the part of
            the context and its [SEP], else 0.
        lengths: `[n]` int32, tokens without padding.
        starts: `[n]` int32, place in the window of the answer's first token; 0, that of [CLS],
            where the window does not hold the whole answer (Devlin et al. 2018, section 4.3).
        ends: `[n]` int32, the same for its last token.
        questions: `[n]` int32, number of the question.
        first_chars: `[n, T]` int32, place in the context of each token's first character; -1 for
            tokens that are not of the context.
        last_chars: `[n, T]` int32, one more than the place of its last character, or -1.
        best_context: `[n, T]` bool, whether no other window shows more around this token of the
            context. Only there may an answer start.
        cut: `[q]` bool, which of the q questions were too long and were cut.
    """

    tokens: np.ndarray
    token_types: np.ndarray
    lengths: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    questions: np.ndarray
    first_chars: np.ndarray
    last_chars: np.ndarray
    best_context: np.ndarray
    cut: np.ndarray


class Found(NamedTuple):
    """A span of a context.

    Attributes:
        text: its characters, `context[start:end]`.
        start: place of the first one.
        end: one more than the place of the last one.
        score: sum of the logits of its first and last token.
    """

    text: str
    start: int
    end: int
    score: float


class Prediction(NamedTuple):
    """A model's answers to a question.

    Attributes:
        answers: the best one first; none if the context has no tokens.
        null_score: sum of both logits of [CLS], the lowest of the question's windows: each of them
            can find that an answer is not there, and all of them must.
    """

    answers: list[Found]
    null_score: float


class _Context(NamedTuple):
    """Pieces of a context, with the places of their first and last characters."""

    ids: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


def make_windows(
    tokenizer: EncoderTokenizer,
    questions: Sequence[Question],
    *,
    max_length: int,
    stride: int,
    max_question_length: int,
) -> Windows:
    """The windows of all questions; the first answer of each is the one to learn.

    White space around a question or a context is ignored; offsets refer to the whole text. An
    answer that starts or ends within a piece gets the pieces that cover it. A context without
    pieces has one window, without an answer.

    Args:
        tokenizer: makes pieces of questions and contexts.
        questions: to make windows for.
        max_length: tokens of a window, T.
        stride: pieces from the start of a window's part of the context to that of the next, so
            that two share all but `stride` of their pieces. The last window may be shorter.
        max_question_length: pieces of a question; the rest of a longer one is left out.

    Raises:
        ConfigError: if the lengths leave no room for the context, or the windows leave gaps.
        DataError: if an answer has no piece.
    """
    special = _special(tokenizer)
    least = special + 1
    if max_question_length < 1 or stride < 1 or max_length < least + max_question_length:
        raise ConfigError(
            f"config.task.max_length is {max_length}, max_question_length is {max_question_length} "
            f"and stride is {stride}: the latter two must be at least 1, and max_length at least "
            f"max_question_length + {least}, for {special} special tokens and the context."
        )
    room = max_length - max_question_length - special
    if stride > room:
        raise ConfigError(
            f"config.task.stride is {stride}: after a question of {max_question_length} pieces "
            f"there is room for {room} of the context, and windows further apart leave gaps. "
            f"At most {room}."
        )
    asked = tokenizer.encode_all([question.question.strip() for question in questions])
    # Many questions share a context.
    different = list(dict.fromkeys(question.context for question in questions))
    pieces = tokenizer.pieces([context.strip() for context in different])
    contexts = {
        context: _whole_characters(_moved(found, _blanks_before(context)), context)
        for context, found in zip(different, pieces, strict=True)
    }
    cut = np.array([len(ids) > max_question_length for ids in asked], bool)
    asked = [ids[:max_question_length] for ids in asked]
    windows = _fill(tokenizer, questions, asked, contexts, max_length, stride)
    return windows._replace(cut=cut)


def _special(tokenizer: EncoderTokenizer) -> int:
    """Special tokens of a window: one before the question, one after the context."""
    return 2 + tokenizer.separators


def _blanks_before(text: str) -> int:
    """White space that a text begins with, in characters."""
    return len(text) - len(text.lstrip())


def _moved(pieces: Pieces, count: int) -> Pieces:
    """Pieces of a text with so many further characters in front."""
    return pieces._replace(starts=pieces.starts + count, ends=pieces.ends + count)


def _whole_characters(pieces: Pieces, context: str) -> _Context:
    """The pieces with accents and variation marks after them, which the tokenizer drops.

    So an answer is not cut between a letter and its accent.
    """
    ends = pieces.ends
    if not context.isascii():
        ends = ends.copy()
        limits = [*pieces.starts[1:].tolist(), len(context)]
        for index, limit in zip(range(len(ends)), limits, strict=False):
            while ends[index] < limit and unicodedata.category(context[ends[index]]) == "Mn":
                ends[index] += 1
    return _Context(pieces.ids, pieces.starts, ends)


def _fill(
    tokenizer: EncoderTokenizer,
    questions: Sequence[Question],
    asked: Sequence[np.ndarray],
    contexts: dict[str, _Context],
    max_length: int,
    stride: int,
) -> Windows:
    rooms = np.array([max_length - len(ids) - _special(tokenizer) for ids in asked], np.int64)
    sizes = np.array([len(contexts[question.context].ids) for question in questions], np.int64)
    # Windows advance until one of them reaches the end.
    counts = 1 + np.maximum(0, -(-(sizes - rooms) // stride))
    shape = (int(counts.sum()), max_length)
    windows = Windows(
        tokens=np.full(shape, tokenizer.pad, np.int32),
        token_types=np.zeros(shape, np.int8),
        lengths=np.zeros(shape[0], np.int32),
        starts=np.zeros(shape[0], np.int32),
        ends=np.zeros(shape[0], np.int32),
        questions=np.repeat(np.arange(len(questions), dtype=np.int32), counts),
        first_chars=np.full(shape, -1, np.int32),
        last_chars=np.full(shape, -1, np.int32),
        best_context=np.zeros(shape, bool),
        cut=np.zeros(len(questions), bool),
    )
    windows.tokens[:, 0] = tokenizer.start
    row = 0
    for index, (question, ids) in enumerate(zip(questions, asked, strict=True)):
        context = contexts[question.context]
        begins = np.arange(counts[index]) * stride
        stops = np.minimum(begins + rooms[index], sizes[index])
        owners = _owners(begins, stops)
        answer = _answer_pieces(question, context)
        before = 1 + len(ids) + tokenizer.separators
        for window, (begin, stop) in enumerate(zip(begins, stops, strict=True)):
            after = before + stop - begin
            windows.tokens[row, 1 : 1 + len(ids)] = ids
            windows.tokens[row, 1 + len(ids) : before] = tokenizer.separator
            windows.tokens[row, after] = tokenizer.separator
            windows.tokens[row, before:after] = context.ids[begin:stop]
            windows.token_types[row, before : after + 1] = tokenizer.second_type
            windows.lengths[row] = after + 1
            windows.first_chars[row, before:after] = context.starts[begin:stop]
            windows.last_chars[row, before:after] = context.ends[begin:stop]
            windows.best_context[row, before:after] = owners[begin:stop] == window
            if answer is not None and begin <= answer[0] and answer[1] < stop:
                windows.starts[row] = before + answer[0] - begin
                windows.ends[row] = before + answer[1] - begin
            row += 1
    return windows


def _owners(begins: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """For each piece of a context the window that shows most of its surroundings.

    What counts is the smaller of the numbers of pieces before it and after it in the window, and,
    with a small weight, the window's length; of equal windows the first one.
    """
    owners = np.zeros(stops[-1], np.int64)
    best = np.full(stops[-1], -1.0)
    for window, (begin, stop) in enumerate(zip(begins, stops, strict=True)):
        before = np.arange(stop - begin)
        around = np.minimum(before, before[::-1]) + _LENGTH_WEIGHT * (stop - begin)
        better = around > best[begin:stop]
        owners[begin:stop][better] = window
        best[begin:stop][better] = around[better]
    return owners


def _answer_pieces(question: Question, context: _Context) -> tuple[int, int] | None:
    """The first and the last piece of the first answer; None if there is no answer to find."""
    if not question.answers or not len(context.ids):
        return None
    answer = question.answers[0]
    first = int(np.searchsorted(context.ends, answer.start, side="right"))
    last = int(np.searchsorted(context.starts, answer.start + len(answer.text), side="left")) - 1
    if first > last:
        raise DataError(
            f"question {question.id!r}: the tokenizer makes no word piece of its answer "
            f"{answer.text!r}, so that it cannot be learned: leave the question out."
        )
    return first, last


def best_answers(
    windows: Windows,
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    questions: Sequence[Question],
    *,
    max_answer_length: int,
    n_best: int,
) -> list[Prediction]:
    """The best answers by logits, compared over all windows of a question.

    An answer starts and ends within the part of the context of one window, and starts where that
    window is the one with the best context. Its score is the sum of two logits, not of
    probabilities, so that those of different windows can be compared. Published code takes the
    n_best best starts and ends of a window and what answers they give; here each window gives its
    n_best starts with the best answers, and so it misses no better answer.

    Args:
        windows: the windows of all the questions, as `make_windows` gives them.
        start_logits: `[n, T]`, of a token being the first of the answer.
        end_logits: `[n, T]`, of its being the last.
        questions: that the windows were made of.
        max_answer_length: pieces of an answer at most.
        n_best: answers of a question at most. Stretches with the same text count as one, the best.

    Returns:
        For each question its prediction. Of equal scores the earlier window comes first, in it the
        earlier start, and the shorter answer.

    Raises:
        ConfigError: if `max_answer_length` or `n_best` is not positive.
    """
    for field, value in (("max_answer_length", max_answer_length), ("n_best", n_best)):
        if value < 1:
            raise ConfigError(f"config.task.{field} is {value}: at least 1.")
    longest = min(max_answer_length, windows.tokens.shape[1])
    starts = np.where(windows.best_context, start_logits, -np.inf).astype(np.float64)
    ends = np.where(windows.first_chars >= 0, end_logits, -np.inf).astype(np.float64)
    ends = np.pad(ends, ((0, 0), (0, longest - 1)), constant_values=-np.inf)
    # [n, T, A]: logits of the A tokens that may end an answer which starts at a token.
    ends = np.lib.stride_tricks.sliding_window_view(ends, longest, axis=1)
    best = starts + ends.max(-1)
    # [n, K]: the starts worth looking at.
    chosen = np.argsort(-best, axis=1, kind="stable")[:, :n_best]
    rows = np.arange(len(chosen))[:, None]
    scores = starts[rows, chosen][..., None] + ends[rows, chosen]
    null_scores = start_logits[:, 0].astype(np.float64) + end_logits[:, 0]

    bounds = np.searchsorted(windows.questions, np.arange(len(questions) + 1))
    return [
        Prediction(
            _best_of_question(windows, scores, chosen, bounds[index : index + 2], context, n_best),
            float(null_scores[slice(*bounds[index : index + 2])].min(initial=np.inf)),
        )
        for index, (_, _, context, _) in enumerate(questions)
    ]


def _best_of_question(
    windows: Windows,
    scores: np.ndarray,
    chosen: np.ndarray,
    bounds: np.ndarray,
    context: str,
    n_best: int,
) -> list[Found]:
    """The best answers of the windows between two bounds, each text once."""
    first_window, end_window = bounds.tolist()
    of_question = scores[first_window:end_window]
    found: dict[str, Found] = {}
    for place in np.argsort(-of_question, axis=None, kind="stable"):
        window, rank, more = np.unravel_index(place, of_question.shape)
        score = float(of_question[window, rank, more])
        if len(found) == n_best or not score > -np.inf:
            break
        row = first_window + window
        token = chosen[row, rank]
        start = int(windows.first_chars[row, token])
        end = int(windows.last_chars[row, token + more])
        text = context[start:end]
        found.setdefault(text, Found(text, start, end, score))
    return list(found.values())
