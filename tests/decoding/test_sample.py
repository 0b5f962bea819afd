import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import noisy_parameters
from tests.tokenizers import make_text_tokenizer
from transformer.decoding import sample
from transformer.decoding.sample import generate, write
from transformer.errors import DataError
from transformer.models.gpt import GPT
from transformer.nn.compute import computing
from transformer.ops.logits import Sampling

GREEDY = Sampling(temperature=0.0)
WARM = Sampling(temperature=1.5)
PROMPTS = [np.array([1, 2, 3]), np.array([4, 5, 6, 7, 8, 9, 10])]


def tokens_of(gpt, params, prompts, count, sampling=GREEDY, *, seed=0, **options):
    chunks = generate(
        gpt, params, prompts, max_new_tokens=count, sampling=sampling, seed=seed, **options
    )
    return np.concatenate(list(chunks), axis=1)


def naive(gpt, logits_of, prompt, count):
    """Greedy, one full forward pass a token; a full history goes on from its last half."""
    window, made = list(map(int, prompt)), []
    for _ in range(count):
        if len(window) >= gpt.context:
            window = window[-(gpt.context // 2) :]
        padded = np.zeros((1, gpt.context), np.int32)
        padded[0, : len(window)] = window
        token = int(logits_of(jnp.asarray(padded))[0, len(window) - 1].argmax())
        window.append(token)
        made.append(token)
    return made


def test_cached_logits_are_those_of_the_full_forward_pass(gpt, gpt_params, gpt_logits):
    rng = np.random.default_rng(0)
    tokens = jnp.asarray(rng.integers(0, 11, (2, 16)), jnp.int32)
    lengths = jnp.array([3, 7])
    full = gpt_logits(tokens)

    @jax.jit
    def step(tokens, positions, cache):
        return gpt.apply({"params": gpt_params}, tokens, positions=positions, cache=cache)

    cache = gpt.apply({"params": gpt_params}, 2, 16, method="empty_cache")
    _, cache = step(tokens[:, :8], jnp.broadcast_to(jnp.arange(8), (2, 8)), cache)
    rows, worst = jnp.arange(2)[:, None], 0.0
    for more in range(9):
        positions = (lengths + more)[:, None]
        logits, cache = step(tokens[rows, positions], positions, cache)
        worst = max(worst, float(jnp.abs(logits - full[rows, positions]).max()))
    assert worst < 1e-5, f"cached and full logits differ by up to {worst}"


@pytest.mark.parametrize("length", [1, 7, 8, 9, 15, 16, 20])
def test_greedy_is_the_naive_loop_also_past_the_context(gpt, gpt_params, gpt_logits, length):
    prompt = np.random.default_rng(length).integers(0, 11, length)
    (actual,) = tokens_of(gpt, gpt_params, [prompt], 30)
    assert actual.tolist() == naive(gpt, gpt_logits, prompt, 30)


def test_rows_of_different_lengths_are_those_of_their_own(gpt, gpt_params, gpt_logits):
    actual = tokens_of(gpt, gpt_params, PROMPTS, 9)
    for row, prompt in zip(actual, PROMPTS, strict=True):
        assert row.tolist() == naive(gpt, gpt_logits, prompt, 9)


def test_a_row_samples_the_same_in_every_batch(gpt, gpt_params):
    (alone,) = tokens_of(gpt, gpt_params, PROMPTS[:1], 9, WARM)
    together = tokens_of(gpt, gpt_params, PROMPTS, 9, WARM)
    np.testing.assert_array_equal(together[0], alone)
    assert (together[1] != alone).any()


def test_a_row_samples_the_same_in_every_batch_past_the_context(gpt, gpt_params):
    prompts = [np.arange(15) % 11, np.arange(9) % 11]
    (alone,) = tokens_of(gpt, gpt_params, prompts[:1], 40, WARM)
    together = tokens_of(gpt, gpt_params, prompts, 40, WARM)
    np.testing.assert_array_equal(together[0], alone)


@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_chunks_change_nothing(gpt, gpt_params, chunk):
    expected = tokens_of(gpt, gpt_params, PROMPTS, 20, WARM)
    actual = tokens_of(gpt, gpt_params, PROMPTS, 20, WARM, chunk=chunk)
    np.testing.assert_array_equal(actual, expected)


def test_seeds_decide(gpt, gpt_params):
    first, again, other = (
        tokens_of(gpt, gpt_params, PROMPTS, 9, WARM, seed=seed) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_samples_follow_the_probabilities(gpt, gpt_params, gpt_logits):
    prompts = [PROMPTS[0]] * 4000
    made = tokens_of(gpt, gpt_params, prompts, 1, Sampling())
    expected = jax.nn.softmax(gpt_logits(jnp.asarray(PROMPTS[0])[None])[0, -1])
    actual = np.bincount(made[:, 0], minlength=11) / len(prompts)
    np.testing.assert_allclose(actual, expected, atol=0.04)


def test_scanned_layers_generate_the_same(gpt, gpt_params):
    layers = list(gpt_params["blocks"].values())
    stacked = {"layers": jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)}
    scanned = computing(gpt, scan_layers=True)
    actual = tokens_of(scanned, {**gpt_params, "blocks": stacked}, PROMPTS, 12)
    np.testing.assert_array_equal(actual, tokens_of(gpt, gpt_params, PROMPTS, 12))


def test_steady_state_compiles_nothing(gpt, gpt_params):
    tokens_of(gpt, gpt_params, [np.array([1, 2])], 20, WARM)
    before = sample._read._cache_size(), sample._continue._cache_size()
    for length, count in ((3, 5), (5, 40), (8, 17)):
        tokens_of(gpt, gpt_params, [np.arange(length)], count, WARM, seed=length)
    assert (sample._read._cache_size(), sample._continue._cache_size()) == before


ALPHABET = "abcdefghij\n"


ALPHABET_OF_IDS = sorted(ALPHABET)


@pytest.fixture(scope="module")
def letters():
    tokenizer = make_text_tokenizer("character", ALPHABET, 0)
    assert tokenizer.vocab_size == 11
    return tokenizer


def texts(gpt, params, tokenizer, prompts, **options):
    options = {"max_new_tokens": 60, "sampling": WARM, "seed": 0, **options}
    return write(gpt, params, tokenizer, prompts, **options)


def test_text_begins_with_its_prompt_and_has_the_length_asked_for(gpt, gpt_params, letters):
    prompts = ["abc", "j\n"]
    for prompt, text in zip(prompts, texts(gpt, gpt_params, letters, prompts), strict=True):
        assert text.startswith(prompt)
        assert len(text) == len(prompt) + 60


def test_same_seed_same_text(gpt, gpt_params, letters):
    first, again, other = (
        texts(gpt, gpt_params, letters, ["abc"], seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("place", [0, 5, 14, 30])
@pytest.mark.parametrize("length", [1, 4])
def test_text_ends_before_the_stop_string(gpt, gpt_params, letters, place, length):
    (whole,) = texts(gpt, gpt_params, letters, ["abc"])
    added = whole[3:]
    stop = added[place : place + length]
    pieces = []
    (text,) = texts(
        gpt, gpt_params, letters, ["abc"], stop=stop, on_text=lambda _, piece: pieces.append(piece)
    )
    assert text == "abc" + added[: added.index(stop)]
    assert "".join(pieces) == text[3:]
    assert all(pieces)


def test_the_beginning_of_a_stop_string_that_never_comes_is_kept(gpt, gpt_params, letters):
    (whole,) = texts(gpt, gpt_params, letters, ["abc"])
    stop = whole[-2:] + "#"
    assert texts(gpt, gpt_params, letters, ["abc"], stop=stop) == [whole]


def test_each_row_stops_on_its_own(gpt, gpt_params, letters):
    wholes = texts(gpt, gpt_params, letters, ["abc", "dd"])
    stop = wholes[0][8:11]
    expected = [
        prompt + whole[len(prompt) :].split(stop)[0]
        for prompt, whole in zip(["abc", "dd"], wholes, strict=True)
    ]
    assert texts(gpt, gpt_params, letters, ["abc", "dd"], stop=stop) == expected


def test_pieces_make_the_text(gpt, gpt_params, letters):
    pieces = [[], []]
    results = texts(
        gpt,
        gpt_params,
        letters,
        ["abc", "dd"],
        on_text=lambda row, piece: pieces[row].append(piece),
    )
    assert ["abc" + "".join(pieces[0]), "dd" + "".join(pieces[1])] == results
    assert len(pieces[0]) > 1


def test_chinese_prompt(gpt, gpt_params):
    tokenizer = make_text_tokenizer("character", "天地玄黄宇宙洪荒日月盈", 0)
    (text,) = texts(gpt, gpt_params, tokenizer, ["天地"])
    assert text.startswith("天地")
    assert len(text) == 62
    assert set(text) <= set("天地玄黄宇宙洪荒日月盈")


def test_unknown_character(gpt, gpt_params, letters):
    with pytest.raises(DataError, match=r"'é' \(U\+00E9\)"):
        texts(gpt, gpt_params, letters, ["abc", "é"])


@pytest.mark.parametrize("place", [0, 5, 30])
def test_text_ends_before_the_first_of_several_end_tokens(gpt, gpt_params, letters, place):
    (whole,) = texts(gpt, gpt_params, letters, ["abc"])
    added = whole[3:]
    ends = {letters.index(added[place]), letters.index(added[place + 7])}
    first = min(added.index(ALPHABET_OF_IDS[end]) for end in ends)
    (text,) = texts(gpt, gpt_params, letters, ["abc"], stop_ids=sorted(ends))
    assert text == "abc" + added[:first]


def test_an_end_token_that_the_tokenizer_lacks(gpt, gpt_params, letters):
    """The model's table is larger than the vocabulary, which has the letters up to `h`."""
    few = make_text_tokenizer("character", ALPHABET[:8], 0)
    (whole,) = texts(gpt, gpt_params, letters, ["abc"])
    # In order of ids a line feed is the first of all letters.
    ids = [letters.index(letter) - 1 for letter in whole[:3]]
    made = tokens_of(gpt, gpt_params, [np.array(ids)], 60, WARM)[0].tolist()
    end = next(token for token in made if token >= 8)
    before = made[: made.index(end)]
    (text,) = texts(gpt, gpt_params, few, [few.decode(ids)], stop_ids=[end])
    assert text == few.decode([*ids, *before])


def test_an_empty_prompt_begins_with_the_begin_token(gpt, gpt_params, letters):
    (empty,) = texts(gpt, gpt_params, letters, [""], begin=4)
    (told,) = texts(gpt, gpt_params, letters, [letters.decode([4])])
    assert empty == told[1:]
    with pytest.raises(DataError, match="no token that begins"):
        texts(gpt, gpt_params, letters, [""], begin=11)


def test_empty_prompt(gpt, gpt_params, letters):
    with pytest.raises(DataError, match="empty"):
        texts(gpt, gpt_params, letters, ["abc", ""])


@pytest.fixture(scope="module")
def wide_gpt():
    model = GPT(
        vocab_size=300,
        num_layers=1,
        num_heads=2,
        width=16,
        context=64,
        tie_embeddings=False,
        output_bias=True,
    )
    return model, noisy_parameters(model, jnp.zeros((1, 64), int))


def test_stop_string_inside_and_across_tokens(wide_gpt):
    model, params = wide_gpt
    corpus = "the cat sat on the mat and the rat ate that hat " * 20
    tokenizer = make_text_tokenizer("bpe", corpus, 290)
    words = tokenizer.encode(corpus)
    assert len(words) < len(corpus) / 2
    # Only tokens of the corpus: every one is text, and most are several letters.
    bias = np.full(300, -1e9, np.float32)
    bias[words] = 0.0
    params = {**params, "output": {**params["output"], "bias": jnp.asarray(bias)}}
    options = {"max_new_tokens": 40, "seed": 1}
    (whole,) = texts(model, params, tokenizer, ["the"], **options)
    added = whole[3:]
    assert len(added) > 60
    for place in range(2, 40):
        stop = added[place : place + 3]
        (text,) = texts(model, params, tokenizer, ["the"], **options, stop=stop)
        assert text == "the" + added[: added.index(stop)]


@pytest.mark.parametrize("stop_ids", [(), (7,)], ids=["last token", "stop token"])
def test_a_text_that_ends_inside_a_character_shows_that(gpt, monkeypatch, stop_ids):
    letters = make_text_tokenizer("byte", "", 0)
    begun = [*letters.encode("é€")[:-1].tolist(), *stop_ids]
    monkeypatch.setattr(sample, "generate", lambda *_, **__: iter([np.array([begun])]))
    pieces = []
    (text,) = write(
        gpt.clone(vocab_size=256),
        {},
        letters,
        ["a"],
        max_new_tokens=9,
        sampling=GREEDY,
        seed=0,
        stop_ids=stop_ids,
        on_text=lambda _, piece: pieces.append(piece),
    )
    assert text == "aé\N{REPLACEMENT CHARACTER}"
    assert "".join(pieces) == text[1:]
