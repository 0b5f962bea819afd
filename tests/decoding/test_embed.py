import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import noisy_parameters
from tests.tokenizers import make_encoder_tokenizer
from transformer.data.text.embeddings import POOLINGS, Embedding, load_embedding
from transformer.decoding.embed import embed
from transformer.errors import ConfigError, WorkdirError
from transformer.models.bert import BERT

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d", "##e"]
CLS, SEP = 2, 3
MODEL = BERT(vocab_size=10, num_layers=1, num_heads=2, width=8, context=40, feed_forward_width=12)
# Of lengths that go up and down, one of them longer than 16 tokens; the last again is the first.
TEXTS = ["a b", "", "c d", "d e a b c d a b c d a b c d a b c", "b a", "ce", "a b"]
LONGEST = 40


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n")
    return make_encoder_tokenizer(str(path), [], vocab_size=1, lowercase=True)


@functools.cache
def parameters():
    return noisy_parameters(MODEL, jnp.zeros((1, 4), "int32"))


@jax.jit
def unpadded(tokens):
    return MODEL.apply({"params": parameters()}, tokens)


def by_hand(tokenizer, text, pooling, max_length=LONGEST, skipped=0):
    """From the states of the real tokens alone."""
    ids = [CLS, *tokenizer.pieces([text])[0].ids[: max_length - 2], SEP]
    found = np.asarray(unpadded(jnp.array([ids], "int32")))[0]
    real, places = found[skipped:], np.arange(skipped, len(ids))[:, None] + 1
    return {
        "cls": found[0],
        "max": real.max(0),
        "mean": real.mean(0),
        "mean_sqrt_len_tokens": real.sum(0) / np.sqrt(len(real)),
        "weightedmean": (real * places).sum(0) / places.sum(),
        "lasttoken": found[-1],
    }[pooling]


def vectors(tokenizer, texts=TEXTS, *, batch_size=2, prompt="", on_progress=print, **how):
    return embed(
        MODEL,
        parameters(),
        tokenizer,
        texts,
        Embedding(**{"normalize": False} | how),
        prompt=prompt,
        batch_size=batch_size,
        on_progress=on_progress,
    )


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_is_as_defined(tokenizer, pooling):
    found = vectors(tokenizer, pooling=(pooling,), batch_size=8)
    assert found.shape == (len(TEXTS), 8)
    assert found.dtype == np.float32
    for text, vector in zip(TEXTS, found, strict=True):
        np.testing.assert_allclose(vector, by_hand(tokenizer, text, pooling), atol=1e-5)


def test_several_poolings_side_by_side(tokenizer):
    found = vectors(tokenizer, pooling=("cls", "max"), batch_size=8)
    expected = [vectors(tokenizer, pooling=(name,), batch_size=8) for name in ("cls", "max")]
    np.testing.assert_allclose(found, np.concatenate(expected, axis=1), atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "weightedmean", "max", "lasttoken", "cls"])
def test_prompts_stand_in_front_and_may_be_left_out(tokenizer, pooling):
    texts, prompt = TEXTS[:1] + TEXTS[2:3], "d c "
    for include, skipped in ((True, 0), (False, 3)):
        found = vectors(
            tokenizer,
            texts,
            pooling=(pooling,),
            prompt=prompt,
            include_prompt=include,
            batch_size=8,
        )
        for text, vector in zip(texts, found, strict=True):
            expected = by_hand(tokenizer, prompt + text, pooling, skipped=skipped)
            np.testing.assert_allclose(vector, expected, atol=1e-5)


def test_how_vectors_are_made_is_kept(tmp_path):
    assert load_embedding(tmp_path) == Embedding()
    usual = Embedding(("cls", "max"), False, 9, True, {"query": "Find: "}, "query", False)
    (tmp_path / "embedding.json").write_text(usual.to_text())
    assert load_embedding(tmp_path) == usual
    assert (usual.prompt(None), Embedding().prompt(None)) == ("Find: ", "")
    with pytest.raises(ConfigError, match=r"no prompt 'other'.*query"):
        usual.prompt("other")
    (tmp_path / "embedding.json").write_text("{}")
    with pytest.raises(WorkdirError, match=r"embedding\.json is damaged"):
        load_embedding(tmp_path)


def test_normalized_vectors_have_length_one(tokenizer):
    plain, found = (vectors(tokenizer, batch_size=8, normalize=n) for n in (False, True))
    lengths = np.linalg.norm(plain, axis=1, keepdims=True)
    assert np.abs(lengths - 1).min() > 1e-3
    np.testing.assert_allclose(found, plain / lengths, atol=1e-6)


def test_vectors_come_in_the_order_of_the_texts(tokenizer):
    found = vectors(tokenizer)
    np.testing.assert_allclose(vectors(tokenizer, TEXTS[::-1]), found[::-1], atol=1e-6)
    np.testing.assert_allclose(found[0], found[-1], atol=1e-6)
    distances = np.linalg.norm(found[:-1, None] - found[None, :-1], axis=-1)
    assert (distances + np.eye(len(TEXTS) - 1) > 1e-2).all()


@pytest.mark.parametrize("batch_size", [1, 2])
def test_the_batch_size_does_not_matter(tokenizer, batch_size):
    found = vectors(tokenizer, batch_size=batch_size)
    np.testing.assert_allclose(found, vectors(tokenizer, batch_size=8), atol=1e-5)


@pytest.mark.parametrize("max_length", [4, 18])
def test_long_texts_lose_their_ends(tokenizer, max_length):
    found = vectors(tokenizer, max_length=max_length, batch_size=8)
    long = TEXTS[3]
    np.testing.assert_allclose(found[3], by_hand(tokenizer, long, "mean", max_length), atol=1e-5)
    np.testing.assert_allclose(found[0], vectors(tokenizer, batch_size=8)[0], atol=1e-5)


def test_progress_counts_texts(tokenizer):
    told = []
    vectors(tokenizer, on_progress=told.append)
    assert told == [2, 4, 6, 7]


def test_no_texts(tokenizer):
    assert vectors(tokenizer, []).shape == (0, 8)


def test_unknown_pooling(tokenizer):
    with pytest.raises(ConfigError, match=r"'median'.*cls, max, mean"):
        vectors(tokenizer, pooling=("median",))
