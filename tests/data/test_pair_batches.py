import collections
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer.data.order import Batches, Bucket, bucketed, make_buckets, packed
from transformer.data.pairs.batches import PackedPairs, PairRows, lay_out, pack, padding_fraction
from transformer.data.pairs.files import Sentences, TokenPairs
from transformer.ops.losses import IGNORED

LONGEST, END = 30, 0


def make_pairs(lengths):
    """Pairs whose tokens tell them apart; lengths are without the end token."""
    sides = [
        Sentences(
            [np.full(pair[side], 2 * index + side + 1) for index, pair in enumerate(lengths)], END
        )
        for side in (0, 1)
    ]
    return TokenPairs(*sides)


LENGTHS = st.lists(
    st.tuples(st.integers(1, LONGEST - 1), st.integers(1, LONGEST - 1)), min_size=1, max_size=60
)
SOME = make_pairs(np.random.default_rng(0).integers(1, LONGEST, (70, 2)).tolist())


def make(kind, pairs=SOME, *, multiple=4, batch_tokens=120, seed=3, num_steps=1000):
    if kind == "packed":
        rows = max(1, batch_tokens // LONGEST // multiple) * multiple
        source = PackedPairs(pairs, LONGEST, seed)
        return Batches(source, packed(len(source), Bucket(rows, LONGEST), seed, num_steps))
    buckets = make_buckets(
        pairs.lengths, batch_tokens=batch_tokens, longest=LONGEST, rows_multiple=multiple
    )
    rows = PairRows(pairs, buckets)
    return Batches(rows, bucketed(rows.lengths, buckets, seed, num_steps))


def both_kinds(test):
    return pytest.mark.parametrize("kind", ["bucketed", "packed"])(test)


def visited(batch):
    """The pairs of a batch, found from its tokens alone."""
    found = []
    for row in range(len(batch["source"])):
        segments = set(batch["source_segments"][row]) | set(batch["target_segments"][row])
        for segment in sorted(segments - {0}):
            source = batch["source"][row][batch["source_segments"][row] == segment]
            labels = batch["labels"][row][batch["target_segments"][row] == segment]
            assert source[-1] == labels[-1] == END
            assert len(set(source[:-1])) == len(set(labels[:-1])) == 1
            assert source[0] + 1 == labels[0]
            found.append((int(source[0] - 1) // 2, len(source) - 1, len(labels) - 1))
    return found


def epoch_of(batches, epoch):
    count = batches.order.steps_per_epoch
    return [batches[step] for step in range(epoch * count, (epoch + 1) * count)]


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


@both_kinds
@given(lengths=LENGTHS, multiple=st.integers(1, 4), batch_tokens=st.integers(1, 200))
def test_an_epoch_visits_every_pair_once(kind, lengths, multiple, batch_tokens):
    batches = make(kind, make_pairs(lengths), multiple=multiple, batch_tokens=batch_tokens)
    buckets = batches.order.batches_per_epoch
    shapes = {(bucket.rows, bucket.length) for bucket in buckets}
    padding = padding_fraction(batches.source.pairs, buckets, None)
    for epoch in (0, 1, 3):
        found, tokens, room, used = [], 0, 0, set()
        for batch in epoch_of(batches, epoch):
            found += visited(batch)
            used |= {array.shape for array in batch.values()}
            tokens += np.sum(batch["source_segments"] > 0) + np.sum(batch["labels"] != IGNORED)
            room += 2 * batch["source"].size
        assert sorted(found) == [(index, *pair) for index, pair in enumerate(lengths)]
        assert used == shapes
        np.testing.assert_allclose(padding, 1 - tokens / room, atol=1e-12)


@given(
    lengths=st.lists(st.integers(1, 300), min_size=1),
    more=st.integers(0, 50),
    batch_tokens=st.integers(1, 2000),
    multiple=st.integers(1, 16),
)
def test_buckets(lengths, more, batch_tokens, multiple):
    longest = max(lengths) + more
    options = {"batch_tokens": batch_tokens, "longest": longest, "rows_multiple": multiple}
    buckets = make_buckets(np.array(lengths), **options)
    edges = [bucket.length for bucket in buckets]
    assert edges == sorted(set(edges))
    assert max(lengths) <= edges[-1] <= longest
    places = np.searchsorted(edges, lengths)
    assert set(places) == set(range(len(edges)))
    for rows, length in buckets:
        assert rows % multiple == 0
        assert rows == multiple or rows * length <= batch_tokens
        assert (rows + multiple) * length > batch_tokens
    # No pair is in a row more than a quarter, and four tokens, longer than it must be.
    for length, place in zip(lengths, places, strict=True):
        assert edges[place] <= max(8, 1.25 * length + 4)
    # The edges are those of any other data.
    every = make_buckets(np.arange(1, longest + 1), **options)
    assert set(buckets) <= set(every)


def test_lengths_of_buckets():
    options = {"batch_tokens": 100, "longest": 30, "rows_multiple": 2}
    buckets = make_buckets(np.arange(1, 31), **options)
    assert buckets == ((12, 8), (8, 12), (6, 16), (4, 20), (2, 28), (2, 30))


@both_kinds
def test_a_step_is_the_same_whatever_was_asked_before(kind):
    count = 2 * make(kind).order.steps_per_epoch + 3
    expected = [make(kind)[step] for step in range(count)]
    batches = make(kind)
    for step in np.random.default_rng(0).integers(0, count, 3 * count):
        assert_same(batches[step], expected[step])


@both_kinds
@pytest.mark.parametrize("num_hosts", [2, 4])
def test_hosts_together_are_one_host(kind, num_hosts):
    whole = make(kind)
    parts = [whole.of_host(host, num_hosts) for host in range(num_hosts)]
    for step in range(2 * whole.order.steps_per_epoch):
        batches = [part[step] for part in parts]
        assert len({batch["source"].shape for batch in batches}) == 1
        together = {
            name: np.concatenate([batch[name] for batch in batches]) for name in whole[step]
        }
        assert_same(together, whole[step])


@both_kinds
def test_epochs_and_seeds_have_their_own_orders(kind):
    def order(seed, epoch):
        return str([visited(batch) for batch in epoch_of(make(kind, seed=seed), epoch)])

    orders = {order(seed, epoch) for seed in (3, 4) for epoch in (0, 1, 2)}
    assert len(orders) == 6
    assert order(3, 1) in orders


def test_batches_of_different_lengths_are_mixed():
    shapes = [batch["source"].shape[1] for batch in epoch_of(make("bucketed"), 0)]
    assert shapes != sorted(shapes)


def test_without_seed_pairs_stay_in_order():
    batches = make("bucketed", seed=None, num_steps=None)
    assert len(batches) == batches.order.steps_per_epoch
    found = collections.defaultdict(list)
    shapes = []
    for batch in epoch_of(batches, 0):
        shapes.append(batch["source"].shape[1])
        found[shapes[-1]] += [pair[0] for pair in visited(batch)]
    assert shapes == sorted(shapes)
    for members in found.values():
        assert members == sorted(members)


@both_kinds
def test_number_of_steps(kind):
    assert len(make(kind)) == 1000


@given(lengths=LENGTHS, open_rows=st.integers(1, 8), seed=st.integers(0, 9))
def test_packed_rows_fit_on_both_sides(lengths, open_rows, seed):
    pairs, random = make_pairs(lengths), np.random.default_rng(seed)
    order = random.permutation(len(lengths))
    rows = pack(pairs, LONGEST, order, open_rows=open_rows)
    assert sorted(pair for row in rows for pair in row) == list(range(len(lengths)))
    for row in rows:
        for side in pairs:
            assert side.lengths[row].sum() <= LONGEST


def test_packing_is_first_fit():
    pairs = make_pairs([(19, 4), (4, 19), (9, 9), (4, 4), (1, 1), (19, 19)])
    # With their ends, the first row has 25 and 25 of 30 tokens after two pairs.
    assert pack(pairs, LONGEST, np.arange(6)) == [[0, 1, 3], [2, 4], [5]]
    # With one open row, what the earlier ones have left is not looked at again.
    assert pack(pairs, LONGEST, np.arange(6), open_rows=1) == [[0, 1], [2, 3, 4], [5]]


def test_lay_out():
    pairs = TokenPairs(
        Sentences([np.array([5, 6]), np.array([7])], end=9),
        Sentences([np.array([3]), np.array([4, 2])], end=9),
    )
    batch = lay_out(pairs, [[0, 1], [1]], 3, 6, positions=True)
    expected = {
        "source": [[5, 6, 9, 7, 9, 0], [7, 9, 0, 0, 0, 0], [0] * 6],
        "source_segments": [[1, 1, 1, 2, 2, 0], [1, 1, 0, 0, 0, 0], [0] * 6],
        "source_positions": [[0, 1, 2, 0, 1, 0], [0, 1, 0, 0, 0, 0], [0] * 6],
        "target": [[9, 3, 9, 4, 2, 0], [9, 4, 2, 0, 0, 0], [0] * 6],
        "target_segments": [[1, 1, 2, 2, 2, 0], [1, 1, 1, 0, 0, 0], [0] * 6],
        "target_positions": [[0, 1, 0, 1, 2, 0], [0, 1, 2, 0, 0, 0], [0] * 6],
        "labels": [[3, 9, 4, 2, 9, IGNORED], [4, 2, 9] + [IGNORED] * 3, [IGNORED] * 6],
    }
    assert {name: array.tolist() for name, array in batch.items()} == expected
    assert {array.dtype for array in batch.values()} == {np.dtype("int32")}
    plain = lay_out(pairs, [[0, 1], [1]], 3, 6)
    assert plain.keys() == {name for name in expected if "positions" not in name}
    assert_same(plain, {name: batch[name] for name in plain})


@both_kinds
def test_batches_that_nobody_reads_any_more_are_not_kept(kind):
    pairs = make_pairs([(3, 4)] * 9)
    kept = weakref.ref(pairs.source)
    batches = make(kind, pairs)
    assert batches[0]["source"].any() and batches[999]["source"].any()
    del pairs, batches
    assert kept() is None
