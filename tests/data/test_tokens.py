import pickle

import numpy as np
import pytest

from tests.tokenizers import make_text_tokenizer
from transformer.data.order import Batches, Epochs, InOrder
from transformer.data.source import Visit
from transformer.data.text.streams import TokenFile, TokenWindows, require_length, tokenize
from transformer.errors import ConfigError, DataError
from transformer.ops.losses import IGNORED

CONTEXT = 8


def stream(folder, length):
    """A stream in which every token tells its place."""
    path = folder / f"{length}.npy"
    np.save(path, np.arange(length, dtype=np.uint16))
    return TokenFile(path, str(length))


@pytest.fixture
def tokens(tmp_path):
    return stream(tmp_path, 203)


def shuffled(tokens, seed=0, num_steps=30):
    windows = TokenWindows(tokens, CONTEXT, moving=True)
    return Batches(windows, Epochs(len(windows), 4, seed, num_steps, shuffled=False))


def sequential(tokens):
    windows = TokenWindows(tokens, CONTEXT, moving=False)
    return Batches(windows, InOrder(len(windows), 4))


def listed(batches):
    return [batches[step] for step in range(len(batches))]


def together(batches, name="tokens"):
    return np.stack([batch[name] for batch in batches])


def test_labels_are_the_next_tokens(tokens):
    for batch in listed(shuffled(tokens)):
        assert batch["tokens"].shape == batch["labels"].shape == (4, CONTEXT)
        assert batch["tokens"].dtype == batch["labels"].dtype == np.int32
        np.testing.assert_array_equal(batch["labels"], batch["tokens"] + 1)
        np.testing.assert_array_equal(np.diff(batch["tokens"]), 1)


def test_seeds_decide(tokens):
    first, again, other = (together(listed(shuffled(tokens, seed))) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_step_does_not_depend_on_those_before(tokens):
    expected = listed(shuffled(tokens))[17]["tokens"]
    np.testing.assert_array_equal(shuffled(tokens)[17]["tokens"], expected)


@pytest.mark.parametrize("length", [9, 10, 17, 18, 25, 26, 203, 1000])
def test_an_epoch_has_every_window_once(tmp_path, length):
    windows = TokenWindows(stream(tmp_path, length), CONTEXT, moving=True)
    count = len(windows)
    orders = []
    for epoch in range(3):
        starts = [windows.start(Visit(place, 0, epoch)) for place in range(count)]
        assert len(set(starts)) == count
        np.testing.assert_array_equal(np.diff(sorted(starts)), CONTEXT)
        assert min(starts) >= 0
        assert max(starts) + CONTEXT < length
        orders.append(starts)
    if count > 4:
        assert orders[0] != sorted(orders[0])
        assert orders[0] != orders[1]


def test_windows_fill_the_stream_but_for_less_than_two(tokens):
    used = len(TokenWindows(tokens, CONTEXT, moving=True)) * CONTEXT
    assert len(tokens.array) - 1 - 2 * CONTEXT < used <= len(tokens.array) - 1


@pytest.mark.parametrize("num_hosts", [1, 2, 4])
def test_hosts_share_the_batch_of_one(tokens, num_hosts):
    whole = shuffled(tokens)
    parts = [together(listed(whole.of_host(host, num_hosts))) for host in range(num_hosts)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), together(listed(whole)))


def test_hosts_must_divide_the_batch(tokens):
    with pytest.raises(ConfigError, match=r"batch_size \(4\).*3 hosts"):
        shuffled(tokens).of_host(0, 3)


@pytest.mark.parametrize("length", [9, 10, 65, 66, 203])
def test_sequential_predicts_everything_once(tmp_path, length):
    windows = sequential(stream(tmp_path, length))
    labels = np.concatenate([windows[step]["labels"].ravel() for step in range(len(windows))])
    inputs = np.concatenate([windows[step]["tokens"].ravel() for step in range(len(windows))])
    counted = labels != IGNORED
    np.testing.assert_array_equal(labels[counted], np.arange(1, length))
    np.testing.assert_array_equal(inputs[counted], np.arange(length - 1))
    assert len(labels) % (4 * CONTEXT) == 0
    assert len(labels) - (length - 1) < 4 * CONTEXT
    assert inputs.max() < length


@pytest.mark.parametrize("num_hosts", [2, 4])
def test_sequential_hosts_share_the_batch_of_one(tokens, num_hosts):
    whole = sequential(tokens)
    parts = [whole.of_host(host, num_hosts) for host in range(num_hosts)]
    for step in range(len(whole)):
        for name in ("tokens", "labels"):
            joined = np.concatenate([part[step][name] for part in parts])
            np.testing.assert_array_equal(joined, whole[step][name])


def test_sequential_hosts_must_divide_the_batch(tokens):
    with pytest.raises(ConfigError, match="3 hosts"):
        sequential(tokens).of_host(0, 3)


def test_streams_too_short_are_refused(tmp_path):
    require_length(stream(tmp_path, CONTEXT + 1), CONTEXT, "it")
    with pytest.raises(DataError, match=f"the play has {CONTEXT} tokens.*{CONTEXT}"):
        require_length(stream(tmp_path, CONTEXT), CONTEXT, "the play")


def test_tokenize_keeps_and_reuses_a_file(tmp_path):
    tokenizer = make_text_tokenizer("character", "abc", 0)
    cache = tmp_path / "cache"
    first = tokenize(tokenizer, "abcab", cache)
    np.testing.assert_array_equal(first.array, tokenizer.encode("abcab"))
    assert first.array.dtype == np.uint16
    written = first.path.stat().st_mtime_ns
    again = tokenize(tokenizer, "abcab", cache)
    assert again == first
    assert again.path.stat().st_mtime_ns == written
    assert list(cache.iterdir()) == [first.path]


def test_fingerprint_is_of_text_and_tokenizer(tmp_path):
    tokenizers = [make_text_tokenizer("character", text, 0) for text in ("abc", "abcd")]
    prints = {tokenize(t, text, tmp_path).fingerprint for t in tokenizers for text in ("ab", "ba")}
    assert len(prints) == 4


def test_large_vocabularies_need_more_than_16_bits(tmp_path):
    text = "".join(chr(0x10000 + i) for i in range((1 << 16) + 1))
    tokens = tokenize(make_text_tokenizer("character", text, 0), text, tmp_path)
    np.testing.assert_array_equal(tokens.array, np.arange((1 << 16) + 1))


def test_pickling_reopens_the_file(tokens):
    copied = pickle.loads(pickle.dumps(tokens))
    assert copied == tokens
    assert len(pickle.dumps(tokens)) < 500
    assert isinstance(copied.array, np.memmap)
    np.testing.assert_array_equal(copied.array, tokens.array)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:100],
        lambda content: content[:-1],
        lambda content: content.replace(b"\x02", b"\x03"),
        # A header that says nonsense.
        lambda content: content.replace(b"(5,)", b"(9,)"),
        lambda content: content.replace(b"{'descr'", b"[[[[[[[["),
        # As a version before this one wrote them.
        lambda content: content[:-32],
    ],
)
def test_a_damaged_file_is_made_again(tmp_path, capsys, damage):
    tokenizer = make_text_tokenizer("character", "abc", 0)
    first = tokenize(tokenizer, "abcab", tmp_path)
    good = first.path.read_bytes()
    assert damage(good) != good
    first.path.write_bytes(damage(good))
    again = tokenize(tokenizer, "abcab", tmp_path)
    np.testing.assert_array_equal(again.array, tokenizer.encode("abcab"))
    assert first.path.read_bytes() == good
    assert capsys.readouterr().err == f"{first.path} is damaged, and is made again.\n"


def test_without_a_cache_tokens_are_held(tmp_path, capsys):
    (tmp_path / "file").touch()
    tokenizer = make_text_tokenizer("character", "abc", 0)
    kept = tokenize(tokenizer, "abcab", tmp_path)
    for cache in (None, tmp_path / "file"):
        held = tokenize(tokenizer, "abcab", cache)
        np.testing.assert_array_equal(held.array, kept.array)
        assert held.array.dtype == kept.array.dtype
        assert held.fingerprint == kept.fingerprint
    assert "cannot be written" in capsys.readouterr().err
