"""Texts from CTC: the most probable outputs, and where in a recording each token is.

In this file, R is the vectors of a recording, V the vocabulary. One token, the blank, stands for
none; a run of one token, without a blank inside, writes it once (Graves et al. 2006, section 3.1).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

# Tokens that are less probable than this at a place begin nothing there.
_LEAST = math.log(1e-4)
_NEVER = -math.inf


class Prefix(NamedTuple):
    """An output, and the log of its probability, in nats."""

    ids: tuple[int, ...]
    log_prob: float


class Span(NamedTuple):
    """Where a token is.

    Attributes:
        begin: its first place.
        end: the place behind its last one.
        log_prob: the mean log probability of the token at these places.
    """

    begin: int
    end: int
    log_prob: float


def prefix_search(log_probs: Float[np.ndarray, "R V"], blank: int, size: int) -> list[Prefix]:
    """The most probable outputs, best first (Hannun et al. 2014, algorithm 1).

    The probability of an output is the sum over its alignments, as far as those stay in the beam.

    Args:
        log_probs: of each token at each place.
        blank: the token that stands for none.
        size: how many outputs are kept at each place.
    """
    # Of each output so far: the log probabilities of alignments that end with a blank, or without.
    beams: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, _NEVER)}
    for row in log_probs:
        usual = float(row[blank])
        likely = [(int(t), float(row[t])) for t in np.flatnonzero(row > _LEAST) if t != blank]
        following: dict[tuple[int, ...], tuple[float, float]] = {}

        def add(ids: tuple[int, ...], with_blank: float, without: float) -> None:
            before = following.get(ids, (_NEVER, _NEVER))  # noqa: B023
            following[ids] = (_sum(before[0], with_blank), _sum(before[1], without))  # noqa: B023

        for ids, (with_blank, without) in beams.items():
            whole = _sum(with_blank, without)
            # The same output: another blank, or the last token once more.
            add(ids, whole + usual, without + float(row[ids[-1]]) if ids else _NEVER)
            for token, log_prob in likely:
                repeats = bool(ids) and token == ids[-1]
                add((*ids, token), _NEVER, (with_blank if repeats else whole) + log_prob)
        best = sorted(following.items(), key=lambda item: (-_sum(*item[1]), item[0]))
        beams = dict(best[:size])
    return [Prefix(ids, _sum(*ends)) for ids, ends in beams.items()]


def align(log_probs: Float[np.ndarray, "R V"], ids: Sequence[int], blank: int) -> list[Span] | None:
    """Where each token is in the most probable alignment; None if there are too few places.

    Args:
        log_probs: of each token at each place.
        ids: the tokens, in order.
        blank: the token that stands for none.
    """
    if not len(ids):
        return []
    # Blanks before, between and behind the tokens.
    states = np.full(2 * len(ids) + 1, blank)
    states[1::2] = ids
    may_skip = np.zeros(len(states), bool)
    may_skip[3::2] = states[3::2] != states[1:-2:2]
    best = np.full(len(states), _NEVER)
    best[0] = 0.0
    came_from = np.zeros((len(log_probs), len(states)), np.int64)
    for place, row in enumerate(log_probs):
        options = np.full((3, len(states)), _NEVER)
        options[0] = best
        options[1, 1:] = best[:-1]
        options[2, 2:] = np.where(may_skip[2:], best[:-2], _NEVER)
        if place == 0:
            # The first place is a blank or the first token.
            options[:] = _NEVER
            options[0, 0] = options[0, 1] = 0.0
        step = options.argmax(axis=0)
        came_from[place] = np.arange(len(states)) - step
        best = np.take_along_axis(options, step[None], axis=0)[0] + row[states]
    state = len(states) - 1 if best[-1] >= best[-2] else len(states) - 2
    if best[state] == _NEVER:
        return None
    path = np.zeros(len(log_probs), np.int64)
    for place in range(len(log_probs) - 1, -1, -1):
        path[place] = state
        state = came_from[place, state]
    return [_span(log_probs, path, number, token) for number, token in enumerate(ids)]


def _span(
    log_probs: Float[np.ndarray, "R V"], path: Int[np.ndarray, " R"], number: int, token: int
) -> Span:
    places = np.flatnonzero(path == 2 * number + 1)
    mean = float(log_probs[places, token].mean())
    return Span(int(places[0]), int(places[-1]) + 1, mean)


def _sum(first: float, second: float) -> float:
    """The log of the sum of two probabilities, given their logs."""
    larger, smaller = max(first, second), min(first, second)
    return larger if smaller == _NEVER else larger + math.log1p(math.exp(smaller - larger))
