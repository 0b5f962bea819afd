import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest

from tests.common import noisy_parameters
from tests.runs import answered_as_they_come
from tests.tokenizers import make_sentence_tokenizer
from transformer.composition import with_fields
from transformer.data.pairs.files import Sentences, TokenPairs
from transformer.decoding.translate import Beam, score_pairs, translate, translate_stream
from transformer.errors import ConfigError
from transformer.fields import require_allowed
from transformer.models.vaswani import Vaswani
from transformer.nn.compute import computing
from transformer.ops.search_rules import length_penalty
from transformer.pictures.alignment import cross_attention_weights, draw_alignment
from transformer.tasks.translation import Translation

LETTERS = "abcdefgh"
# In two shapes, of 8 tokens and of 12.
LINES = ["abcd", "", "hgfedcbah", "bafe", "hhhhh", "", "abcdefga", "cccg"]
BEAM = Beam(size=3, num_return=2, extra_length=3)


@pytest.fixture(scope="module")
def tokenizer():
    return make_sentence_tokenizer("character", [LETTERS], 0)


@pytest.fixture(scope="module")
def model(tokenizer):
    return Vaswani(
        vocab_size=tokenizer.vocab_size,
        num_encoder_layers=1,
        num_decoder_layers=2,
        num_heads=2,
        width=8,
        feed_forward_width=16,
        norm_order="pre",
        dropout_rate=0.0,
    )


@pytest.fixture(scope="module")
def params(model):
    return noisy_parameters(model, *[jnp.zeros((1, 4), int)] * 2, scale=0.6)


@pytest.fixture(scope="module")
def sources(tokenizer):
    return tokenizer.encode_all(LINES)


@pytest.fixture(scope="module")
def expected(model, params, tokenizer, sources):
    return translate(model, params, tokenizer, sources, BEAM)


def assert_same(one, other):
    """The same outputs; how rows are batched may change the last digits of their scores."""
    assert [[x.text for x in row] for row in one] == [[x.text for x in row] for row in other]
    for field in ("log_prob", "score"):
        numbers = [[getattr(x, field) for row in rows for x in row] for rows in (one, other)]
        np.testing.assert_allclose(*numbers, atol=1e-4)


def test_one_list_of_outputs_for_each_sentence(expected, tokenizer, sources):
    assert len(expected) == len(LINES)
    assert len({outputs[0].text for outputs in expected}) > 3
    for outputs, source in zip(expected, sources, strict=True):
        if len(source) == 0:
            assert [(x.text, len(x.ids), x.log_prob, x.score) for x in outputs] == [("", 0, 0, 0)]
            continue
        assert len(outputs) == 2
        assert outputs[0].score > outputs[1].score
        for output in outputs:
            assert output.text == tokenizer.decode(output.ids)
            assert set(output.text) <= set(LETTERS)
            length = len(output.ids) + 1
            assert length <= len(source) + 1 + BEAM.extra_length
            score = output.log_prob / float(length_penalty(jnp.array(length), 0.6))
            np.testing.assert_allclose(output.score, score, rtol=1e-5)


def test_outputs_of_a_sentence_are_different_texts(model, params, tokenizer, sources):
    """Of token sequences that are written the same the best stands for all."""
    beam = Beam(size=6, num_return=6, extra_length=3)
    everything = translate(model, params, tokenizer, sources, beam)

    class Coarse(type(tokenizer)):
        """Writes all letters but the first few alike."""

        def __init__(self):
            self.__dict__.update(tokenizer.__dict__)

        def decode(self, ids):
            return "".join("x" if letter > "c" else letter for letter in tokenizer.decode(ids))

    merged = 0
    for most in (2, 6):
        coarse = dataclasses.replace(beam, num_return=most)
        found = translate(model, params, Coarse(), sources, coarse)
        again = translate(model, params, Coarse(), sources, coarse)
        for outputs, same, all_of in zip(found, again, everything, strict=True):
            texts = [output.text for output in outputs]
            assert len(set(texts)) == len(texts)
            assert texts == [output.text for output in same]
            kinds = dict.fromkeys(Coarse().decode(output.ids) for output in all_of)
            assert texts == list(kinds)[:most]
            assert [output.score for output in outputs] == sorted(
                (output.score for output in outputs), reverse=True
            )
            merged += len(all_of) - len(kinds)
    assert merged > 0


def test_order_and_company_do_not_matter(model, params, tokenizer, sources, expected):
    order = [3, 5, 2, 0, 7, 1, 6, 4]
    moved = translate(model, params, tokenizer, [sources[i] for i in order], BEAM)
    assert_same(moved, [expected[i] for i in order])
    for index in (0, 2, 4):
        assert_same(translate(model, params, tokenizer, [sources[index]], BEAM), [expected[index]])


def test_size_of_batches_does_not_matter(model, params, tokenizer, sources, expected):
    beam = Beam(size=3, num_return=2, extra_length=3, batch_tokens=1)
    assert_same(translate(model, params, tokenizer, sources, beam), expected)


def test_progress_counts_to_all(model, params, tokenizer, sources):
    told = []
    translate(model, params, tokenizer, sources, BEAM, told.append)
    assert told == sorted(told)
    assert told[0] == 2
    assert told[-1] == len(sources)


@pytest.mark.parametrize("sources", [[], [np.array([], np.int32)] * 2], ids=["none", "empty"])
def test_nothing_to_translate(model, params, tokenizer, sources):
    outputs = translate(model, params, tokenizer, sources, BEAM)
    assert [[x.text for x in row] for row in outputs] == [[""]] * len(sources)


def test_max_length_and_the_tokenizer_limit_outputs(model, params, tokenizer, sources, expected):
    """A model may have more entries than the tokenizer; they are never chosen, however good."""
    table = params["token_embedding"]["embedding"]
    table = jnp.concatenate([table, 50.0 * table, -50.0 * table])
    larger, more = model.clone(vocab_size=len(table)), {"token_embedding": {"embedding": table}}
    beam = Beam(size=3, num_return=2, extra_length=3, max_length=2)
    (outputs,) = translate(larger, {**params, **more}, tokenizer, sources[:1], beam)
    assert max(len(output.ids) for output in expected[0]) > 2
    assert max(len(output.ids) for output in outputs) == 2
    assert all(ids < tokenizer.vocab_size for output in outputs for ids in output.ids)


def test_no_more_outputs_than_beams():
    with pytest.raises(ConfigError, match="5 outputs are more than the 4 beams"):
        Beam(size=4, num_return=5)


def cutting(tokenizer, room):
    """Encodes lines and cuts the long ones; remembers how it was called."""
    calls = []

    def encode(lines, first):
        calls.append((first, len(lines)))
        encoded = tokenizer.encode_all(lines)
        return [ids[:room] for ids in encoded], sum(len(ids) > room for ids in encoded)

    return encode, calls


@pytest.mark.parametrize("at_once", [1, 7, 100])
def test_stream_is_all_at_once(model, params, tokenizer, expected, at_once, capsys):
    encode, calls = cutting(tokenizer, 100)
    found = translate_stream(
        model, params, tokenizer, iter(LINES), BEAM, encode=encode, lines_at_once=at_once
    )
    assert_same(list(found), expected)
    assert calls == [
        (first, min(at_once, len(LINES) - first)) for first in range(0, len(LINES), at_once)
    ]
    assert capsys.readouterr() == ("", "")


def test_stream_says_how_many_were_cut(model, params, tokenizer, expected, capsys):
    encode, _ = cutting(tokenizer, 5)
    found = translate_stream(model, params, tokenizer, LINES, BEAM, encode=encode, lines_at_once=1)
    found = list(found)
    kept = [index for index, line in enumerate(LINES) if len(line) <= 5]
    assert_same([found[index] for index in kept], [expected[index] for index in kept])
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors == "2 of 8 sentences were too long and were cut.\n"


def test_stream_reads_no_more_than_it_needs(model, params, tokenizer):
    read = []

    def lines():
        for line in LINES:
            read.append(line)
            yield line

    encode, _ = cutting(tokenizer, 100)
    found = translate_stream(
        model, params, tokenizer, lines(), BEAM, encode=encode, lines_at_once=1
    )
    next(found)
    assert read == LINES[:1]


def test_stream_answers_lines_as_they_come(model, params, tokenizer, expected):
    encode, calls = cutting(tokenizer, 100)

    def found(lines):
        return translate_stream(
            model, params, tokenizer, lines, BEAM, encode=encode, lines_at_once=100
        )

    assert_same(answered_as_they_come(found, *LINES[:2]), expected[:2])
    assert calls == [(0, 1), (1, 1)]


@pytest.mark.parametrize("penalty", [float("nan"), -0.1, 9.0, float("inf")])
def test_penalties_that_are_none(penalty):
    with pytest.raises(ConfigError, match="length penalty"):
        Beam(length_penalty=penalty)
    with pytest.raises(ConfigError, match=r"config\.task\.length_penalty"):
        require_allowed("task", with_fields(Translation(), length_penalty=penalty))


def test_scores_of_pairs(model, params, tokenizer, sources, expected):
    """Those of the search for what it found; and the sums over tokens for any other pair."""
    texts = [*(ids for ids in sources if len(ids)), sources[0]]
    found = [outputs[0] for outputs in expected if len(outputs) > 1]
    targets = [*(output.ids for output in found), sources[2]]
    pairs = TokenPairs(Sentences(texts, tokenizer.end), Sentences(targets, tokenizer.end))
    log_probs, lengths = score_pairs(model, params, pairs, batch_tokens=24)
    assert lengths.tolist() == [len(ids) + 1 for ids in targets]
    np.testing.assert_allclose(log_probs[:-1], [output.log_prob for output in found], atol=1e-4)

    source, target = (side[len(targets) - 1] for side in pairs)
    inputs = jnp.asarray(source)[None], jnp.asarray(np.roll(target, 1))[None]
    logits = jax.jit(model.apply)({"params": params}, *inputs)
    by_token = jax.nn.log_softmax(logits[0])[np.arange(len(target)), target]
    np.testing.assert_allclose(log_probs[-1], by_token.sum(), atol=1e-4)


def test_cross_attention_weights(model, params, tokenizer, sources):
    source, target = sources[2], sources[0]
    weights = cross_attention_weights(model, params, source, target, tokenizer.end)
    assert weights.shape == (2, 2, len(target) + 1, len(source) + 1)
    np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-5)
    assert np.ptp(weights, axis=-1).min() > 1e-3
    assert np.abs(weights[0] - weights[1]).max() > 1e-3

    layers = [params["decoder"][f"layer_{index}"] for index in range(2)]
    stacked = {
        "encoder": {"layers": jax.tree.map(lambda x: x[None], params["encoder"]["layer_0"])},
        "decoder": {"layers": jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)},
    }
    scanned, other = computing(model, scan_layers=True), {**params, **stacked}
    looped = cross_attention_weights(scanned, other, source, target, tokenizer.end)
    np.testing.assert_allclose(looped, weights, atol=1e-5)


def test_picture(model, params, tokenizer, sources, tmp_path):
    path = tmp_path / "picture.png"
    draw_alignment(model, params, tokenizer, sources[2], sources[0], path)
    picture = matplotlib.image.imread(path)
    assert picture.ndim == 3
    assert min(picture.shape[:2]) > 100
    assert picture[..., :3].std() > 0.01
