"""Texts from CTC, against sums over all alignments."""

import itertools
import math

import numpy as np
import pytest

from transformer.decoding.ctc import align, prefix_search

BLANK = 2


def log_probs(places, seed=0, tokens=3, scale=1.2):
    values = np.random.default_rng(seed).normal(0, scale, (places, tokens))
    return values - np.log(np.exp(values).sum(axis=1, keepdims=True))


def written(path):
    """What an alignment writes."""
    return tuple(token for token, _ in itertools.groupby(path) if token != BLANK)


def alignments(values):
    """All alignments with their log probabilities."""
    for path in itertools.product(range(values.shape[1]), repeat=len(values)):
        yield path, sum(values[place, token] for place, token in enumerate(path))


@pytest.mark.parametrize("seed", range(4))
def test_an_output_has_the_sum_over_its_alignments(seed):
    values = log_probs(5, seed)
    totals = {}
    for path, log_prob in alignments(values):
        totals[written(path)] = np.logaddexp(totals.get(written(path), -np.inf), log_prob)
    found = prefix_search(values, BLANK, 1000)
    best = sorted(totals.items(), key=lambda item: -item[1])
    assert [one.ids for one in found[:8]] == [ids for ids, _ in best[:8]]
    for prefix in found[:8]:
        assert prefix.log_prob == pytest.approx(totals[prefix.ids], abs=1e-9)


def test_a_narrow_beam_keeps_the_best():
    values = log_probs(20, 1, scale=5.0)
    wide, narrow = (prefix_search(values, BLANK, size) for size in (100, 8))
    assert len(narrow) == 8
    assert narrow[0].ids == wide[0].ids
    assert narrow[0].log_prob == pytest.approx(wide[0].log_prob, abs=0.2)
    assert prefix_search(values[:0], BLANK, 4) == [((), 0.0)]


@pytest.mark.parametrize("ids", [(0,), (0, 1), (1, 1), (0, 1, 1)])
def test_tokens_are_where_the_best_alignment_has_them(ids):
    values = log_probs(6, 3)
    paths = ((log_prob, path) for path, log_prob in alignments(values) if written(path) == ids)
    _, best = max(paths)
    runs, place = [], 0
    for token, run in itertools.groupby(best):
        end = place + len(list(run))
        if token != BLANK:
            runs.append((place, end, values[place:end, token].mean()))
        place = end
    found = align(values, ids, BLANK)
    assert [(one.begin, one.end) for one in found] == [run[:2] for run in runs]
    np.testing.assert_allclose([one.log_prob for one in found], [run[2] for run in runs])


def test_too_few_places():
    values = log_probs(3)
    assert align(values, (0, 0), BLANK) is not None
    assert align(values[:2], (0, 0), BLANK) is None
    assert align(values, (), BLANK) == []
    assert math.isfinite(align(values[:1], (1,), BLANK)[0].log_prob)
