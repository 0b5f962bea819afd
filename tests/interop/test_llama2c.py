"""Models of llama2.c: the order of their arrays, their tokens, and damaged files."""

import itertools
import struct

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from transformer.data.tokenizers.text import LibraryTextTokenizer
from transformer.errors import DataError
from transformer.interop.formats.llama2c import read_llama2c

WIDTH, HIDDEN, LAYERS, HEADS, KEY_HEADS, CONTEXT = 16, 6, 2, 4, 2, 5
HEAD = WIDTH // HEADS

WORDS = [" ", *"abcé日", "ab", "bc", " a", "abc", " ab", "aa", "aaa", "cab", " abc", "éa", "a<"]
SCORES = [-50.0 - i for i in range(6)] + [-float(i) for i in (3, 1, 2, 9, 5, 4, 6, 8, 7, 10, 11)]
PIECES = [
    ("<unk>", 0.0),
    ("\n<s>\n", 0.0),
    ("\n</s>\n", 0.0),
    *((f"<0x{byte:02X}>", 0.0) for byte in range(256)),
    *zip(WORDS, SCORES, strict=True),
]
VOCABULARY = len(PIECES)


def tokenizer_bytes(pieces=PIECES):
    content = struct.pack("<i", 7)
    for piece, score in pieces:
        encoded = piece.encode() if isinstance(piece, str) else piece
        content += struct.pack("<fi", score, len(encoded)) + encoded
    return content


def shapes(output):
    """In the order of run.c; those of layers lie together."""
    keys = KEY_HEADS * HEAD
    return {
        "tok_embeddings": (VOCABULARY, WIDTH),
        "attention_norm": (LAYERS, WIDTH),
        "wq": (LAYERS, WIDTH, WIDTH),
        "wk": (LAYERS, keys, WIDTH),
        "wv": (LAYERS, keys, WIDTH),
        "wo": (LAYERS, WIDTH, WIDTH),
        "ffn_norm": (LAYERS, WIDTH),
        "w1": (LAYERS, HIDDEN, WIDTH),
        "w2": (LAYERS, WIDTH, HIDDEN),
        "w3": (LAYERS, HIDDEN, WIDTH),
        "norm": (WIDTH,),
        "freqs_cis_real": (CONTEXT, HEAD // 2),
        "freqs_cis_imag": (CONTEXT, HEAD // 2),
        **({"output": (VOCABULARY, WIDTH)} if output else {}),
    }


def header(vocabulary=VOCABULARY, **changed):
    sizes = {
        "dim": WIDTH,
        "hidden_dim": HIDDEN,
        "n_layers": LAYERS,
        "n_heads": HEADS,
        "n_kv_heads": KEY_HEADS,
        "vocab_size": vocabulary,
        "seq_len": CONTEXT,
        **changed,
    }
    return struct.pack("<7i", *sizes.values())


def weights(output):
    rng = np.random.default_rng(0)
    return {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes(output).items()}


@pytest.fixture
def write(tmp_path):
    def write_files(output=False, head=None, tokenizer=None):
        model, tokens = tmp_path / "model.bin", tmp_path / "tokenizer.bin"
        head = head or header(-VOCABULARY if output else VOCABULARY)
        model.write_bytes(head + b"".join(a.tobytes() for a in weights(output).values()))
        tokens.write_bytes(tokenizer_bytes() if tokenizer is None else tokenizer)
        return model, tokens

    return write_files


LAYER_NAMES = {
    "attention_norm": "input_layernorm",
    "wv": "self_attn.v_proj",
    "wo": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "w1": "mlp.gate_proj",
    "w2": "mlp.down_proj",
    "w3": "mlp.up_proj",
}


@pytest.mark.parametrize("output", [False, True])
def test_a_model(write, output):
    model = read_llama2c(*write(output))
    assert model.config == {
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_HEADS,
        "head_dim": HEAD,
        "max_position_embeddings": CONTEXT,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": not output,
    }
    assert (model.beginning, model.ends) == (1, (1,))
    expected = weights(output)
    same = {"model.embed_tokens.weight": "tok_embeddings", "model.norm.weight": "norm"}
    same |= {"lm_head.weight": "output"} if output else {}
    for theirs, name in same.items():
        np.testing.assert_array_equal(model.arrays[theirs], expected[name])
    for name, part in LAYER_NAMES.items():
        for layer in range(LAYERS):
            theirs = f"model.layers.{layer}.{part}.weight"
            np.testing.assert_array_equal(model.arrays[theirs], expected[name][layer])
    assert len(model.arrays) == len(same) + LAYERS * (len(LAYER_NAMES) + 2)
    for name in model.arrays:
        assert model.arrays.shape(name) == model.arrays[name].shape


def turned(features, position, neighbours):
    """Rotary positions of heads [N, H]: over neighbours as in run.c, or over half-heads."""
    angles = position * 10_000.0 ** (-np.arange(0, HEAD, 2) / HEAD)
    pairs = np.stack((features[:, ::2], features[:, 1::2]), 1)
    if not neighbours:
        pairs = features.reshape(len(features), 2, HEAD // 2)
    first, second = pairs[:, 0], pairs[:, 1]
    cosines, sines = np.cos(angles), np.sin(angles)
    return np.stack((first * cosines - second * sines, first * sines + second * cosines), -1)


def test_rotary_positions_over_half_heads_give_the_same_scores(write):
    arrays, theirs = read_llama2c(*write()).arrays, weights(False)
    inputs = np.random.default_rng(1).standard_normal((2, WIDTH))
    scores = []
    for neighbours in (True, False):
        layer = "model.layers.1.self_attn"
        query = theirs["wq"][1] if neighbours else arrays[f"{layer}.q_proj.weight"]
        key = theirs["wk"][1] if neighbours else arrays[f"{layer}.k_proj.weight"]
        queries = turned((query @ inputs[0]).reshape(HEADS, HEAD), 7, neighbours)
        keys = turned((key @ inputs[1]).reshape(KEY_HEADS, HEAD), 3, neighbours)
        keys = np.repeat(keys, HEADS // KEY_HEADS, 0)
        scores.append((queries * keys).sum((1, 2)))
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-5)


# Tokens.


def encode(text):
    """As run.c does it: one pair after the other, the best score first."""
    known = {piece.encode(): index for index, (piece, _) in enumerate(PIECES)}
    tokens = [known[b" "]] if text else []
    for character in text:
        encoded = character.encode()
        tokens += [known[encoded]] if encoded in known else [byte + 3 for byte in encoded]
    while True:
        best = (-1e10, -1, -1)
        for place, pair in enumerate(itertools.pairwise(tokens)):
            index = known.get(PIECES[pair[0]][0].encode() + PIECES[pair[1]][0].encode())
            if index is not None and PIECES[index][1] > best[0]:
                best = (PIECES[index][1], index, place)
        _, index, place = best
        if place < 0:
            return tokens
        tokens[place : place + 2] = [index]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama2c")
    content = b"".join(array.tobytes() for array in weights(False).values())
    (folder / "model.bin").write_bytes(header() + content)
    (folder / "tokenizer.bin").write_bytes(tokenizer_bytes())
    model = read_llama2c(folder / "model.bin", folder / "tokenizer.bin")
    return LibraryTextTokenizer(tokenizers.Tokenizer.from_str(model.tokenizer))


CHARACTERS = st.one_of(
    st.sampled_from(" aaabbc"), st.characters(codec="utf-8", exclude_characters="\0")
)


@given(text=st.text(CHARACTERS, max_size=30))
def test_tokens_are_those_of_run_c(tokenizer, text):
    ids = tokenizer.encode(text).tolist()
    assert ids == encode(text)
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("text", ["", " ", "aaaaa", "abcab  abc", "<s></s><unk><0x41>", "é▁日😀\n"])
def test_tokens_of_odd_texts(tokenizer, text):
    ids = tokenizer.encode(text).tolist()
    assert ids == encode(text)
    assert tokenizer.decode(ids) == text
    stream = tokenizer.stream()
    assert "".join(stream.push(token) for token in ids) == text


# Files that do not fit.

SIZE = 28 + 4 * sum(int(np.prod(shape)) for shape in shapes(False).values())


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (header(-VOCABULARY), f"has {SIZE} bytes, and its header asks for {SIZE + 4 * 276 * 16}"),
        (header() + bytes(4), f"has {SIZE + 4} bytes, and its header asks for {SIZE}"),
        (header(n_layers=2**31 - 1), f"has {SIZE} bytes, and its header asks for "),
        (header(dim=0), "its header would say dim 0"),
        (header(seq_len=-5), "seq_len -5"),
        (header(n_kv_heads=3), "n_kv_heads 3"),
        (header(n_heads=16, n_kv_heads=16), "n_heads 16"),
        (struct.pack("<Ii", 0x616B3432, 2) + bytes(20), "format 2"),
        (b"short", None),
    ],
)
def test_models_that_do_not_fit(write, head, said):
    model, tokens = write(head=head)
    if said is None:
        model.write_bytes(head)
        said = "it has 5 bytes only"
    with pytest.raises(DataError) as error:
        read_llama2c(model, tokens)
    assert said in str(error.value)


def changed(index, piece):
    return tokenizer_bytes([*PIECES[:index], (piece, 0.0), *PIECES[index + 1 :]])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "token 0 of 276"),
        (tokenizer_bytes()[:-1], "token 275 of 276"),
        (tokenizer_bytes(PIECES[:-1]), "token 275 of 276"),
        (tokenizer_bytes([*PIECES, ("more", 0.0)]), "more than the model's 276 tokens"),
        (struct.pack("<ifi", 7, 0.0, 2**31 - 1), "token 0 of 276"),
        (struct.pack("<ifi", 7, 0.0, -4) + bytes(9000), "token 0 of 276"),
        (changed(5, "<0x09>"), "token 5 must be <0x02>"),
        (changed(270, b"\xff"), "token 270 is not UTF-8"),
        (changed(270, "ab"), "'ab' twice"),
    ],
)
def test_tokenizers_that_do_not_fit(write, content, said):
    with pytest.raises(DataError) as error:
        read_llama2c(*write(tokenizer=content))
    assert said in str(error.value)


def test_files_that_are_not_there(write, tmp_path):
    model, tokens = write()
    for paths in ((tmp_path / "none.bin", tokens), (model, tmp_path / "none.bin")):
        with pytest.raises(DataError, match=r"none\.bin cannot be read"):
            read_llama2c(*paths)
