import collections
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.words import WORDS
from transformer.data.order import Batches, Epochs, InOrder
from transformer.data.text.documents import DocumentTokens, SentencePairs, tokenize_documents
from transformer.data.text.masking import Masking, num_predictions
from transformer.errors import ConfigError, DataError
from transformer.ops.losses import IGNORED


def make_data(lengths):
    """Documents of sentences of these lengths; every token tells its place."""
    count = sum(sum(document) for document in lengths)
    ids = iter(range(WORDS.first, WORDS.first + count))
    documents = [
        [" ".join(str(next(ids)) for _ in range(length)) for length in document]
        for document in lengths
    ]
    return tokenize_documents(WORDS, documents)


def make(
    data,
    context=16,
    *,
    next_sentence=True,
    seed=3,
    num_steps=1000,
    rate=0.15,
    batch_size=4,
    **fields,
):
    fields = {"masking": Masking(rate=rate), **fields}
    pairs = SentencePairs(data, WORDS, context, next_sentence=next_sentence, **fields)
    if num_steps is None:
        return Batches(pairs, InOrder(len(pairs), batch_size, seed))
    return Batches(pairs, Epochs(len(pairs), batch_size, seed, num_steps))


LENGTHS = st.lists(st.lists(st.integers(1, 20), min_size=1, max_size=12), min_size=2, max_size=6)
random = np.random.default_rng(0)
SOME = make_data([random.integers(1, 9, random.integers(1, 30)).tolist() for _ in range(12)])


def originals(batch):
    """The tokens of a batch before they were masked."""
    tokens = batch["tokens"].copy()
    for row, (positions, labels) in enumerate(
        zip(batch["positions"], batch["labels"], strict=True)
    ):
        used = labels != IGNORED
        tokens[row, positions[used]] = labels[used]
    return tokens


def segments(batch):
    """A, B and the label of every row that is not empty; B is None where there is none."""
    found = []
    for row, tokens in enumerate(originals(batch)):
        length = batch["lengths"][row]
        assert (tokens[length:] == WORDS.pad).all()
        assert (batch["token_types"][row, length:] == 0).all()
        is_next = batch["is_next"][row]
        if not length:
            assert is_next == IGNORED
            assert (batch["labels"][row] == IGNORED).all()
            continue
        assert tokens[0] == WORDS.start
        assert tokens[length - 1] == WORDS.separator
        ends = np.flatnonzero(tokens == WORDS.separator)
        types = batch["token_types"][row, :length]
        np.testing.assert_array_equal(types, np.arange(length) > ends[0])
        parts = np.split(tokens[1 : length - 1], ends[:-1] - 1)
        first, second = parts[0], parts[1][1:] if len(parts) > 1 else None
        # Whatever was drawn, the tokens of a segment follow each other.
        for part in (first, second):
            if part is not None:
                assert len(part) > 0
                np.testing.assert_array_equal(np.diff(part), 1)
        found.append(
            (first - WORDS.first, None if second is None else second - WORDS.first, is_next)
        )
    return found


def document_of(data, place):
    starts = data.sentences[data.documents]
    return int(np.searchsorted(starts, place, side="right")) - 1


@given(lengths=LENGTHS, context=st.integers(8, 20), seed=st.integers(0, 99))
def test_pairs(lengths, context, seed):
    data = make_data([[1, 1], *lengths])
    batches = make(data, context, seed=seed)
    for step in range(2):
        batch = batches[step]
        assert {array.dtype for array in batch.values()} == {np.dtype("int32")}
        assert batch["tokens"].shape == batch["token_types"].shape == (4, context)
        assert batch["labels"].shape == (4, num_predictions(context, 0.15))
        for first, second, is_next in segments(batch):
            follows = second[0] == first[-1] + 1
            other = document_of(data, second[0]) != document_of(data, first[0])
            if is_next == 1:
                assert follows
                assert not other
            else:
                assert is_next == 0
                assert other
            for part in (first, second):
                assert document_of(data, part[0]) == document_of(data, part[-1])


@given(lengths=LENGTHS, context=st.integers(8, 20))
def test_whole_chunks_hold_every_token_once(lengths, context):
    data = make_data(lengths)
    batches = make(data, context, next_sentence=False, num_steps=None)
    rows = []
    for step in range(len(batches)):
        for chunk, none, is_next in segments(batches[step]):
            assert none is None
            assert is_next == IGNORED
            rows.append(chunk)
    assert len(rows) == len(batches.source)
    np.testing.assert_array_equal(np.concatenate(rows), np.arange(len(data.tokens)))
    ends, room = set(data.sentences.tolist()), context - 2
    document_ends = set(data.sentences[data.documents].tolist())
    for chunk in rows:
        stop = int(chunk[-1]) + 1
        assert document_of(data, chunk[0]) == document_of(data, chunk[-1])
        # Chunks end with a sentence, and the next would not fit; only long sentences are cut.
        sentence = int(np.searchsorted(data.sentences, stop))
        if stop in ends and stop not in document_ends:
            following = data.sentences[sentence + 1] - data.sentences[sentence]
            assert len(chunk) + min(following, room) > room
        if stop not in ends:
            assert data.sentences[sentence] - data.sentences[sentence - 1] > room
            assert len(chunk) + room > room


def test_an_epoch_visits_every_chunk_once():
    batches = make(SOME, 40)
    count = len(batches.source)
    steps = range(4 * math.ceil(count / 4))
    rows = [row for step in steps for row in segments(batches[step])]
    starts = [int(first[0]) for first, _, _ in rows]
    epochs = [starts[epoch * count : (epoch + 1) * count] for epoch in range(4)]
    assert len(set(epochs[0])) == count
    assert len({str(sorted(epoch)) for epoch in epochs}) == 1
    assert len({str(epoch) for epoch in epochs}) == 4
    # The same chunk is cut elsewhere, masked elsewhere and asked other questions.
    cuts, answers = collections.defaultdict(set), collections.defaultdict(set)
    for first, _, is_next in rows:
        cuts[first[0]].add(len(first))
        answers[first[0]].add(int(is_next))
    assert np.mean([len(found) > 1 for found in cuts.values()]) > 0.5
    assert np.mean([len(found) > 1 for found in answers.values()]) > 0.5


def test_chunks_of_a_token_are_left_out_of_pairs():
    data = make_data([[1], [2, 3], [13, 1]])
    pairs, whole = (make(data, next_sentence=pair) for pair in (True, False))
    assert len(pairs.source) == 2
    assert len(whole.source) == 3


def rows_of(batches, steps):
    return [row for step in range(steps) for row in segments(batches[step])]


def test_half_of_the_pairs_are_random():
    rows = rows_of(make(SOME, batch_size=50), 8)
    answers = [is_next for _, _, is_next in rows]
    assert abs(sum(answers) - 200) < 4.5 * math.sqrt(100)


def test_random_segments_look_like_true_ones():
    # Sentences of 1 to 8 tokens in documents much longer than a row.
    random = np.random.default_rng(1)
    data = make_data([random.integers(1, 9, 80).tolist() for _ in range(10)])
    starts, ends = set(data.sentences[:-1].tolist()), set(data.sentences[1:].tolist())
    rows = rows_of(make(data, 35, batch_size=100), 6)
    by_answer = {
        answer: [(first, second) for first, second, is_next in rows if is_next == answer]
        for answer in (0, 1)
    }
    lengths, totals = [], []
    for pairs in by_answer.values():
        lengths.append(np.array([len(second) for _, second in pairs]))
        totals.append(np.array([len(first) + len(second) for first, second in pairs]))
        whole = [second[0] in starts and second[-1] + 1 in ends for _, second in pairs]
        # Few sentences are cut where a short one was to be replaced.
        assert np.mean(whole) > 0.97
    for random_ones, true_ones in (lengths, totals):
        spread = np.sqrt(random_ones.var() / len(random_ones) + true_ones.var() / len(true_ones))
        assert abs(random_ones.mean() - true_ones.mean()) < 4 * spread
        assert random_ones.max() <= 32


def test_random_segments_come_from_all_other_sentences():
    data = make_data([[4] * 10, [4] * 40, [4] * 10])
    rows = rows_of(make(data, 19, batch_size=100), 5)
    found = collections.Counter()
    for first, second, is_next in rows:
        if not is_next and document_of(data, first[0]) == 0:
            found[document_of(data, second[0])] += 1
    total = sum(found.values())
    assert set(found) == {1, 2}
    assert abs(found[1] - 0.8 * total) < 4.5 * math.sqrt(0.16 * total)


def test_a_single_sentence_is_halved():
    data = make_data([[13], [13, 13], [30]])
    rows = rows_of(make(data), 12)
    assert {len(first) + len(second) for first, second, _ in rows} == {13, 4}
    for first, second, is_next in rows:
        assert len(first) == (len(first) + len(second)) // 2
        if not is_next:
            # It ends as the true half does: with a sentence, or where a long one is cut.
            assert (second[-1] + 1) in {13, 26, 39, 52, 65, 69}


def test_a_sentence_too_long_for_the_room_is_cut():
    # What follows A has one token, and all sentences of the other document have nine.
    data = make_data([[9, 1], [9, 9]])
    rows = rows_of(make(data, 14), 10)
    cut = [second for first, second, is_next in rows if not is_next and first[0] == 0]
    assert cut
    assert {len(second) for second in cut} == {1}


def test_random_segments_fill_their_room_from_documents_that_end():
    data = make_data([[4] * 10, [4] * 10])
    rows = rows_of(make(data, 19, batch_size=50), 4)
    for first, second, _ in rows:
        # Four sentences fit; the last chunk of a document has two.
        last = first[0] % 40 >= 32
        assert len(first) + len(second) == (8 if last else 16)


def test_random_segments_end_with_their_document():
    data = make_data([[2, 2, 2, 2]] * 4)
    found = set()
    for first, second, is_next in rows_of(make(data, 40, batch_size=50), 4):
        assert first[-1] // 8 == first[0] // 8
        assert second[-1] // 8 == second[0] // 8
        assert len(first) + len(second) == 8
        found.add((int(is_next), len(second)))
    assert found == {(answer, length) for answer in (0, 1) for length in (2, 4, 6)}
    # There is room for more than any other document has.
    data = make_data([[2] * 8, [2, 2], [2, 2]])
    for first, second, is_next in rows_of(make(data, 40, batch_size=50), 2):
        if not is_next and first[0] == 0:
            assert document_of(data, second[0]) == document_of(data, second[-1]) > 0
            assert len(second) == min(4, 16 - len(first))


def test_one_document_has_other_chunks():
    data = make_data([[3] * 10])
    rows = rows_of(make(data, 12, batch_size=100), 4)
    for first, second, is_next in rows:
        chunk = first[0] // 9
        if not is_next:
            assert second[0] // 9 != chunk
            assert second[-1] // 9 != chunk


def test_too_little_for_pairs():
    data = make_data([[3, 3]])
    with pytest.raises(DataError, match="6 tokens, too few for pairs"):
        make(data)
    assert len(make(data, next_sentence=False).source) == 1
    with pytest.raises(DataError, match="2 tokens, too few for pairs"):
        make(make_data([[1], [1]]))
    with pytest.raises(ConfigError, match=r"config\.task\.max_length is 4"):
        make(data, 4)
    with pytest.raises(ConfigError, match="does not divide over 3 hosts"):
        make(SOME).of_host(0, 3)


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def variants(test):
    test = pytest.mark.parametrize("next_sentence", [True, False])(test)
    return pytest.mark.parametrize("num_steps", [1000, None])(test)


@variants
def test_hosts_together_are_one_host(next_sentence, num_steps):
    fields = {"next_sentence": next_sentence, "num_steps": num_steps}
    whole = make(SOME, **fields)
    parts = [whole.of_host(host, 4) for host in range(4)]
    for step in (9, 0, 4):
        expected, batches = whole[step], [part[step] for part in parts]
        together = {name: np.concatenate([batch[name] for batch in batches]) for name in expected}
        assert_same(together, expected)


@variants
def test_the_seed_decides(next_sentence, num_steps):
    fields = {"next_sentence": next_sentence, "num_steps": num_steps}
    assert_same(make(SOME, **fields)[5], make(SOME, **fields)[5])
    other = make(SOME, seed=4, **fields)[5]
    assert (make(SOME, **fields)[5]["positions"] != other["positions"]).any()


@pytest.mark.parametrize("next_sentence", [True, False])
def test_a_pass_in_order(next_sentence):
    for batch_size in (4, 7):
        batches = make(SOME, next_sentence=next_sentence, num_steps=None, batch_size=batch_size)
        count = len(batches.source)
        assert len(batches) == math.ceil(count / batch_size)
        found = [batches[step] for step in range(len(batches))]
        rows = [row for batch in found for row in segments(batch)]
        assert len(rows) == count
        starts = [int(first[0]) for first, _, _ in rows]
        assert starts == sorted(set(starts))
        assert {len(batch["tokens"]) for batch in found} == {batch_size}


def test_predictions():
    batches = make(SOME, 32, rate=0.2, batch_size=50)
    batch = batches[0]
    assert len(batches) == 1000
    predicted = (batch["labels"] != IGNORED).sum(axis=1)
    np.testing.assert_array_equal(predicted, np.maximum(1, np.rint(0.2 * (batch["lengths"] - 3))))
    assert (batch["labels"][batch["labels"] != IGNORED] >= WORDS.first).all()
    changed = batch["tokens"][batch["tokens"] != originals(batch)]
    assert np.isin(WORDS.mask, changed)
    assert not np.isin([WORDS.pad, WORDS.unknown, WORDS.start, WORDS.separator], changed).any()


def test_unknown_words_are_not_predicted():
    data = make_data([[3, 3], [3, 3]])
    tokens = data.tokens.copy()
    tokens[::2] = WORDS.unknown
    batch = make(DocumentTokens(tokens, data.sentences, data.documents), rate=1.0)[0]
    assert (batch["labels"] != IGNORED).sum() > 0
    assert WORDS.unknown not in batch["labels"]


def test_whole_words_are_masked_together():
    masking = Masking(rate=0.4, mask_fraction=1.0, random_fraction=0.0, whole_words=True)
    batch = make(SOME, 32, next_sentence=False, masking=masking, batch_size=20)[0]
    tokens, hidden = originals(batch), batch["tokens"] == WORDS.mask
    inside = WORDS.continues[tokens[:, 1:]] & ~WORDS.special[tokens[:, :-1]]
    inside &= ~WORDS.special[tokens[:, 1:]]
    assert inside.sum() > 50
    np.testing.assert_array_equal(hidden[:, 1:][inside], hidden[:, :-1][inside])
