import collections
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer.data.order import Batches, Epochs, InOrder
from transformer.data.text.spans import (
    DenoisingWindows,
    corrupt_spans,
    corrupted_lengths,
    noise_counts,
    raw_length,
    split_prefix,
)
from transformer.data.text.streams import TokenFile
from transformer.errors import ConfigError, DataError
from transformer.ops.losses import IGNORED

SENTINEL, END = 1000, 1
DENSITIES, MEANS = st.floats(0.02, 0.98), st.floats(1.0, 8.0)


def corrupt(tokens, seed=0, density=0.15, mean_span=3.0):
    return corrupt_spans(
        tokens,
        np.random.default_rng(seed),
        density=density,
        mean_span=mean_span,
        first_sentinel=SENTINEL,
        end=END,
    )


def text(length):
    """Tokens that tell their places."""
    return np.arange(10, 10 + length)


def restore(source, target):
    """The text of a source and a target, and its spans."""
    source, target = source.tolist(), target.tolist()
    assert source.pop() == target.pop() == END
    spans, order = {}, []
    for token in target:
        if token >= SENTINEL:
            order.append(token)
            spans[token] = []
        else:
            spans[order[-1]].append(token)
    assert order == [token for token in source if token >= SENTINEL]
    assert order == list(range(SENTINEL, SENTINEL + len(order)))
    return list(itertools.chain(*(spans.get(token, [token]) for token in source))), spans


@given(length=st.integers(2, 120), density=DENSITIES, mean_span=MEANS, seed=st.integers(0, 999))
def test_spans_put_back_give_the_text(length, density, mean_span, seed):
    source, target = corrupt(text(length), seed, density, mean_span)
    assert source.dtype == target.dtype == np.int32
    assert (len(source), len(target)) == corrupted_lengths(length, density, mean_span)
    restored, spans = restore(source, target)
    assert restored == text(length).tolist()
    assert all(spans.values())
    # Between two spans is a token at least; the first token is left, the last is hidden.
    kinds = (source >= SENTINEL).tolist()[:-1]
    assert not kinds[0]
    assert kinds[-1]
    assert not any(one and two for one, two in itertools.pairwise(kinds))
    hidden = round(length * density)
    if 1 <= hidden < length:
        assert sum(map(len, spans.values())) == hidden


def test_published_lengths():
    # T5 makes sources of 512 tokens of 568 and targets of 114.
    assert raw_length(512, 0.15, 3.0) == 568
    assert corrupted_lengths(568, 0.15, 3.0) == (512, 114)
    assert noise_counts(568, 0.15, 3.0) == (85, 28)


@given(source_length=st.integers(3, 150), density=DENSITIES, mean_span=MEANS)
def test_raw_length_is_the_most_that_fits(source_length, density, mean_span):
    length = raw_length(source_length, density, mean_span)
    assert corrupted_lengths(length, density, mean_span)[0] <= source_length
    longer = [corrupted_lengths(length + more, density, mean_span)[0] for more in range(1, 40)]
    assert min(longer) > source_length


def test_all_ways_to_cut_are_as_likely():
    # Of 8 tokens 4 are hidden in 2 spans: 3 ways to cut those, 3 ways to cut the others.
    found = collections.Counter(
        str(corrupt(text(8), seed, 0.5, 2.0)[0].tolist()) for seed in range(900)
    )
    assert len(found) == 9
    bound = 4.5 * math.sqrt(900 / 9)
    assert all(abs(count - 100) < bound for count in found.values())


def test_the_text_is_cut_at_all_places_alike():
    random = np.random.default_rng(0)
    cuts = collections.Counter()
    for _ in range(1000):
        source, target = split_prefix(text(6), random, end=END)
        assert source.dtype == target.dtype == np.int32
        assert source[-1] == target[-1] == END
        assert [*source[:-1], *target[:-1]] == text(6).tolist()
        cuts[len(source) - 1] += 1
    assert sorted(cuts) == [1, 2, 3, 4, 5]
    assert all(abs(count - 200) < 4.5 * math.sqrt(200) for count in cuts.values())


@pytest.mark.parametrize(
    ("length", "density", "mean_span"),
    [(1, 0.15, 3.0), (10, 0.0, 3.0), (10, 1.0, 3.0), (10, 0.15, 0.5)],
)
def test_what_cannot_be_corrupted(length, density, mean_span):
    with pytest.raises(ConfigError, match=f"{mean_span} tokens .* {density} of {length} tokens"):
        corrupted_lengths(length, density, mean_span)


def test_no_source_is_that_short():
    with pytest.raises(ConfigError, match="a source of 2 tokens is too short"):
        raw_length(2, 0.15, 3.0)


LENGTH, STREAM = 12, text(151)


def windows_of(objective="span_corruption", stream=STREAM, **fields):
    fields = {"density": 0.3, "mean_span": 2.0, **fields}
    return DenoisingWindows(stream, LENGTH, objective, SENTINEL, END, **fields)


def make(objective="span_corruption", stream=STREAM, *, num_steps=40, seed=3):
    windows = windows_of(objective, stream, moving=num_steps is not None)
    if num_steps is None:
        return Batches(windows, InOrder(len(windows), 4, seed))
    return Batches(windows, Epochs(len(windows), 4, seed, num_steps))


def both_objectives(test):
    return pytest.mark.parametrize("objective", ["span_corruption", "prefix"])(test)


def texts(batch):
    """The texts of a batch's rows, empty where the row is."""
    found = []
    for row in range(len(batch["source"])):
        parts = {}
        for side, ids in (("source", "source"), ("target", "labels")):
            segments = batch[f"{side}_segments"][row]
            count = int(segments.sum())
            assert segments.tolist() == [1] * count + [0] * (len(segments) - count)
            parts[side] = batch[ids][row, :count]
            assert (batch[ids][row, count:] == (0 if side == "source" else IGNORED)).all()
        read, written = parts["source"], parts["target"]
        # The decoder reads the end token and then what it has written.
        target = batch["target"][row]
        assert target.tolist() == [
            *([END, *written[:-1]] if len(written) else []),
            *[0] * (len(target) - len(written)),
        ]
        if not len(written):
            found.append([])
        elif (read >= SENTINEL).any():
            found.append(restore(read, written)[0])
        else:
            assert read[-1] == written[-1] == END
            found.append([*read[:-1].tolist(), *written[:-1].tolist()])
    return found


@both_objectives
def test_batches_have_one_shape(objective):
    batches = make(objective)
    shapes = {"span_corruption": (11, 7), "prefix": (12, 12)}[objective]
    assert batches.source.lengths == shapes
    assert len(batches) == 40
    for step in range(3):
        batch = batches[step]
        assert {array.dtype for array in batch.values()} == {np.dtype("int32")}
        for name, array in batch.items():
            assert array.shape == (4, shapes[not name.startswith("source")])


@both_objectives
def test_an_epoch_visits_every_window_once(objective):
    batches = make(objective)
    count = len(batches.source)
    assert count == 11
    rows = [row for step in range(11) for row in texts(batches[step])]
    offsets = set()
    for epoch in range(4):
        starts = sorted(row[0] - 10 for row in rows[epoch * count : (epoch + 1) * count])
        assert np.diff(starts).tolist() == [LENGTH] * (count - 1)
        assert starts[0] >= 0
        assert starts[-1] + LENGTH <= len(STREAM)
        offsets.add(starts[0])
    assert len(offsets) > 1
    for row in rows:
        assert row == list(range(row[0], row[0] + LENGTH))


@both_objectives
@pytest.mark.parametrize("length", [144, 145, 146, 151])
def test_a_pass_in_order(objective, length):
    batches = make(objective, text(length), num_steps=None)
    found = [batches[step] for step in range(len(batches))]
    rows = [row for batch in found for row in texts(batch)]
    tokens = [token for row in rows for token in row]
    # A token by itself is left out.
    assert tokens == text(length - (length == 145)).tolist()
    assert len(rows) == 4 * len(batches) == {144: 12, 145: 12, 146: 16, 151: 16}[length]
    again = make(objective, text(length), num_steps=None)
    for step, batch in enumerate(found):
        assert_same(again[step], batch)


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


@both_objectives
@pytest.mark.parametrize("num_steps", [40, None])
def test_hosts_together_are_one_host(objective, num_steps):
    whole = make(objective, num_steps=num_steps)
    parts = [whole.of_host(host, 4) for host in range(4)]
    for step in (3, 2, 0):
        expected, batches = whole[step], [part[step] for part in parts]
        together = {name: np.concatenate([batch[name] for batch in batches]) for name in expected}
        assert_same(together, expected)


@both_objectives
def test_epochs_differ_in_more_than_their_order(objective):
    # With one window that fills the stream, only what is hidden can differ.
    batches = make(objective, text(LENGTH))
    assert len(batches.source) == 1
    assert len({str(row) for step in range(4) for row in batches[step]["source"]}) > 4
    assert str(batches[0]) != str(make(objective, text(LENGTH), seed=4)[0])


def test_a_token_file_is_a_stream(tmp_path):
    path = tmp_path / "tokens.npy"
    np.save(path, STREAM.astype(np.uint16))
    for step in range(3):
        assert_same(make(stream=TokenFile(path, "0"))[step], make()[step])


def test_number_of_sentinels():
    batches = make()
    used = max(int(batches[step]["source"].max()) for step in range(10))
    assert used == SENTINEL + batches.source.num_sentinels - 1
    assert windows_of("prefix").num_sentinels == 0


def test_refusals():
    with pytest.raises(ConfigError, match="choose from span_corruption, prefix"):
        windows_of("other")
    with pytest.raises(DataError, match="11 tokens, too few for one window of 12"):
        windows_of(stream=text(11))
    with pytest.raises(ConfigError, match="does not divide over 3 hosts"):
        make().of_host(0, 3)
    with pytest.raises(ConfigError, match="cannot hide a fraction of 1"):
        windows_of(density=1.0)
