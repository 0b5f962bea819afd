"""Beam search against all outputs there are, and against the same search in plain Python."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import noisy_parameters
from transformer.decoding.beam import Settings, beam_search
from transformer.models.t5 import T5
from transformer.models.vaswani import Vaswani
from transformer.nn.compute import computing
from transformer.ops.search_rules import length_penalty

V, L, END = 4, 5, 0
# All beginnings that have not ended, 1 + 3 + 9 + 27 + 81.
PREFIXES = [text for n in range(L) for text in itertools.product(range(1, V), repeat=n)]
SOURCES = jnp.asarray(np.random.default_rng(3).integers(1, V, (3, 6)), jnp.int32)
LENGTHS = jnp.array([3, 6, 5])
MODEL = Vaswani(
    vocab_size=V,
    num_encoder_layers=1,
    num_decoder_layers=2,
    num_heads=2,
    width=8,
    feed_forward_width=16,
    norm_order="pre",
    dropout_rate=0.0,
)
# Its biases depend on where keys stand, and its outputs begin with another token than the end.
RELATIVE = T5(
    vocab_size=V,
    num_encoder_layers=1,
    num_decoder_layers=2,
    num_heads=2,
    head_dim=3,
    width=8,
    feed_forward_width=16,
    num_buckets=4,
    max_distance=4,
    tie_embeddings=False,
    dropout_rate=0.0,
    begin_id=2,
)
# Against float64, log probabilities of whole outputs are up to 1e-5 off in float32, cached or read
# at once; in float64 both are the same to 1e-13.
TOLERANCE = 4e-5
SCANNED, POST = computing(MODEL, scan_layers=True), MODEL.clone(norm_order="post")


@functools.cache
def params_of(model):
    """Seeds whose best outputs depend on the source; `test_the_examples_are_not_trivial`."""
    if model is MODEL:
        return {name: unstacked(part) for name, part in params_of(SCANNED).items()}
    if model is RELATIVE:
        return noisy_parameters(model, SOURCES, SOURCES, seed=30, scale=0.8)
    seed, spread = (28, 1.0) if model is POST else (30, 2.0)
    params = noisy_parameters(model, SOURCES, SOURCES, seed=seed, scale=0.5)
    table = jax.tree.map(lambda x: spread * x, params["token_embedding"])
    return {**params, "token_embedding": table}


def unstacked(part):
    if "layers" not in part:
        return part
    count = len(jax.tree.leaves(part)[0])
    layers = part["layers"]
    return {f"layer_{i}": jax.tree.map(lambda x, i=i: x[i], layers) for i in range(count)}


@functools.cache
def next_log_probs(model):
    """For each source, the log probabilities of what may follow each beginning, all at once."""
    texts = np.zeros((len(PREFIXES), L), np.int32)
    for row, prefix in enumerate(PREFIXES):
        texts[row, 1 : 1 + len(prefix)] = prefix
    texts[:, 0] = model.begin_token() or END
    places = np.array([len(prefix) for prefix in PREFIXES])
    params = params_of(model)

    @jax.jit
    def score(source, length):
        source = jnp.broadcast_to(source, (len(texts), 6))
        valid = jnp.broadcast_to(jnp.arange(6) < length, source.shape).astype(jnp.int32)
        logits = model.apply(
            {"params": params},
            source,
            jnp.asarray(texts),
            source_segments=valid,
            target_segments=jnp.ones_like(texts),
        )
        return jax.nn.log_softmax(logits[jnp.arange(len(texts)), places])

    tables = [np.asarray(score(*row), np.float64) for row in zip(SOURCES, LENGTHS, strict=True)]
    return [dict(zip(PREFIXES, table, strict=True)) for table in tables]


def penalty(length, alpha):
    return ((5 + length) / 6) ** alpha


def search(model=MODEL, sources=SOURCES, lengths=LENGTHS, limits=(L, L, L), params=None, **options):
    options = {"beam_size": 3, "alpha": 0.6, "num_return": 3, **options}
    return jax.device_get(
        beam_search(
            model,
            params_of(model) if params is None else params,
            sources,
            lengths,
            jnp.asarray(limits),
            Settings(END, num_tokens=V, max_length=L, begin=model.begin_token(), **options),
        )
    )


def outputs(found, row):
    """The texts of a row, best first, without the padding behind them."""
    made = zip(found.tokens[row].tolist(), found.lengths[row].tolist(), strict=True)
    texts = [tuple(tokens[:length]) for tokens, length in made if length]
    for text, tokens in zip(texts, found.tokens[row].tolist(), strict=False):
        assert text[-1] == END
        assert END not in text[:-1]
        assert not any(tokens[len(text) :])
    return texts


def check(found, row, expected):
    """Compares with (score, log probability, text), best first."""
    assert outputs(found, row) == [text for _, _, text in expected]
    count = len(expected)
    for actual, place in ((found.scores, 0), (found.log_probs, 1)):
        np.testing.assert_allclose(
            actual[row, :count], [x[place] for x in expected], atol=TOLERANCE
        )
        assert np.isneginf(actual[row, count:]).all()


def every_output(table, alpha, limit=L):
    """All texts of at most `limit` tokens, best first."""
    found = []
    for prefix in PREFIXES:
        text = (*prefix, END)
        if len(text) <= limit:
            log_prob = sum(table[text[:place]][token] for place, token in enumerate(text))
            found.append((log_prob / penalty(len(text), alpha), log_prob, text))
    return sorted(found, reverse=True)


def slow_search(table, limit, beam_size, alpha, num_return):
    """The search as `beam_search` describes it, one row, no cache and no shortcut."""
    beams, ended = [(0.0, ())], []
    for length in range(1, limit + 1):
        allowed = range(V) if length < limit else [END]
        extended = [
            (log_prob + table[text][token], (*text, token))
            for log_prob, text in beams
            for token in allowed
        ]
        extended.sort(reverse=True)
        for log_prob, text in extended[:beam_size]:
            if text[-1] == END:
                ended.append((log_prob / penalty(length, alpha), log_prob, text))
        beams = [beam for beam in extended if beam[1][-1] != END][:beam_size]
        if beam_size == 1 and ended:
            break
    return sorted(ended, reverse=True)[:num_return]


def test_length_penalty():
    np.testing.assert_allclose(length_penalty(jnp.array([1.0, 7.0]), 1.0), [1.0, 2.0])
    np.testing.assert_allclose(length_penalty(jnp.array([1.0, 7.0]), 0.0), [1.0, 1.0])
    np.testing.assert_allclose(length_penalty(jnp.array(19.0), 0.5), 2.0)


@pytest.mark.parametrize("model", [MODEL, POST, RELATIVE], ids=["pre", "post", "relative"])
def test_the_examples_are_not_trivial(model):
    """Best outputs differ by source and penalty, and greedy search finds none of them."""
    best = set()
    for table in next_log_probs(model):
        best |= {every_output(table, alpha)[0][2] for alpha in (0.0, 0.6, 2.0)}
        assert slow_search(table, L, 1, 0.6, 1)[0] != every_output(table, 0.6)[0]
    assert len(best) >= 4
    assert len({len(text) for text in best}) >= 4
    if model is MODEL:
        assert max(len(set(text)) for text in best) > 2


@pytest.mark.parametrize(("model", "alpha"), [(MODEL, 0.0), (MODEL, 2.0), (RELATIVE, 0.6)])
def test_a_beam_that_holds_everything_finds_the_best_of_all(model, alpha):
    found = search(model, beam_size=128, alpha=alpha)
    for row, table in enumerate(next_log_probs(model)):
        check(found, row, every_output(table, alpha)[:3])


CASES = {
    "greedy": (MODEL, 1, 0.6),
    "two, long outputs": (MODEL, 2, 2.0),
    "three": (MODEL, 3, 0.6),
    # Here two outputs end before better ones would.
    "post, two": (POST, 2, 1.0),
    "relative positions, three": (RELATIVE, 3, 1.0),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("limits", [(5, 5, 5), (1, 4, 2), (3, 1, 4)], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_search_is_the_slow_search(case, limits):
    model, beam_size, alpha = CASES[case]
    found = search(model, limits=limits, beam_size=beam_size, alpha=alpha, num_return=beam_size)
    for row, table in enumerate(next_log_probs(model)):
        check(found, row, slow_search(table, limits[row], beam_size, alpha, beam_size))
        texts = outputs(found, row)
        assert len(set(texts)) == len(texts)
        assert sorted(found.scores[row], reverse=True) == found.scores[row].tolist()


@pytest.mark.parametrize("case", CASES)
def test_log_probs_are_those_of_the_text_read_at_once(case):
    """The caches of the search against one pass without any."""
    model, beam_size, alpha = CASES[case]
    found = search(model, beam_size=beam_size, alpha=alpha, num_return=beam_size)
    for row, table in enumerate(next_log_probs(model)):
        for rank, text in enumerate(outputs(found, row)):
            expected = sum(table[text[:place]][token] for place, token in enumerate(text))
            np.testing.assert_allclose(found.log_probs[row, rank], expected, atol=TOLERANCE)


def test_scanned_is_unrolled():
    assert_same(search(SCANNED), search(MODEL))


def test_one_beam_is_greedy():
    found = search(beam_size=1, num_return=1)
    for row, table in enumerate(next_log_probs(MODEL)):
        text = ()
        while len(text) < L - 1 and (token := int(table[text].argmax())) != END:
            text += (token,)
        assert outputs(found, row) == [(*text, END)]


def test_fewer_outputs_are_the_first_of_more():
    one, three = search(num_return=1), search(num_return=3)
    for name in one._fields:
        np.testing.assert_allclose(getattr(one, name), getattr(three, name)[:, :1], atol=1e-6)


def assert_same(one, other):
    np.testing.assert_array_equal(one.tokens, other.tokens)
    np.testing.assert_array_equal(one.lengths, other.lengths)
    np.testing.assert_allclose(one.log_probs, other.log_probs, atol=1e-5)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)


def test_a_row_is_the_same_alone_in_any_order_and_with_any_padding():
    together = search()
    order = np.array([2, 0, 1])
    moved = search(sources=SOURCES[order], lengths=LENGTHS[order])
    assert_same(moved, jax.tree.map(lambda x: x[order], together))
    # What is behind a source, and how much of it.
    behind = jnp.where(jnp.arange(6) < LENGTHS[:, None], SOURCES, V - 1)
    assert_same(search(sources=behind), together)
    longer = jnp.pad(SOURCES, ((0, 0), (0, 3)))
    for row in range(3):
        one = slice(row, row + 1)
        alone = search(sources=longer[one], lengths=LENGTHS[one], limits=(L,))
        assert_same(alone, jax.tree.map(lambda x, one=one: x[one], together))


def test_rows_without_source_have_no_output():
    together, found = search(), search(lengths=LENGTHS.at[1].set(0))
    assert outputs(found, 1) == []
    assert found.lengths[1].tolist() == [0, 0, 0]
    rows = np.array([0, 2])
    assert_same(*(jax.tree.map(lambda x: x[rows], each) for each in (found, together)))


def test_same_shapes_compile_nothing():
    search()
    before = beam_search._cache_size()
    search(sources=SOURCES[::-1], lengths=jnp.array([1, 2, 6]), limits=(2, 5, 3))
    assert beam_search._cache_size() == before


def test_a_model_that_gives_no_number_ends_too():
    """A run that has diverged finds nothing; it does not search for ever."""
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, params_of(MODEL))
    found = search(params=broken)
    assert not found.lengths.any()
