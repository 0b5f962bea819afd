"""Every key of the files that speak of a decoder's tokenizer, set to another legal value."""

import functools
import json
import shutil

import numpy as np
import pytest

from tests.interop.keys import DELETED, Subject, is_tried, outcome
from transformer.data.tokenizers.library import byte_alphabet
from transformer.errors import DataError
from transformer.interop.decoder_runs import write_decoder_files
from transformer.interop.family import Trained
from transformer.interop.formats.tokenizers import SPACE
from transformer.runs.importing import read_run
from transformer.training.sections import build

pytest.importorskip("safetensors", reason="weights are read from its files")
torch = pytest.importorskip("torch", reason="torch makes the checkpoints")
transformers = pytest.importorskip("transformers", reason="transformers makes the checkpoints")

SETTINGS, SPECIAL, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
MERGES = [("1", "2"), ("12", "3"), ("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o")]
OF_BYTES = [*MERGES, ("Ġ", "hello"), ("Ċ", "Ċ"), (".", "Ċ")]
OF_SPACES = [*MERGES, (SPACE, "hello"), (SPACE, SPACE)]
TEXTS = [
    "hello 123  hello\n\nhello.\nx",
    " hello",
    "<|user|>hello<|end|> hello<s>1</s>",
    "e\u0301 <|endoftext|>x<unk>",
    "<new> <bos>a",
]


def vocabulary(special, alphabet, merges):
    tokens = [*special, *alphabet]
    return {token: index for index, token in enumerate(tokens + ["".join(p) for p in merges])}


def of_bytes():
    return vocabulary(["<|endoftext|>"], byte_alphabet(), OF_BYTES)


def of_spaces(special):
    alphabet = [f"<0x{byte:02X}>" for byte in range(256)] + [SPACE, *map(chr, range(33, 127))]
    return vocabulary(special, alphabet, OF_SPACES)


SPECIALS = {
    "bos_token": "<s>",
    "eos_token": "<|end|>",
    "extra_special_tokens": ["<|user|>"],
}
# The class, the model it belongs to, its vocabulary and merges.
CLASSES = {
    "GPT2Tokenizer": ("gpt2", of_bytes, OF_BYTES),
    "Qwen2Tokenizer": ("qwen2", of_bytes, OF_BYTES),
    "LlamaTokenizer": (
        "llama",
        functools.partial(of_spaces, ["<unk>", "<s>", "</s>"]),
        OF_SPACES,
    ),
    "GemmaTokenizer": (
        "gemma2",
        functools.partial(of_spaces, ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]),
        OF_SPACES,
    ),
}
ROW = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
VALUES = {
    "add_prefix_space": [True, False],
    "add_bos_token": [True],
    "add_eos_token": [True],
    "additional_special_tokens": [["<new>"], None],
    "extra_special_tokens": [["<new>"], [], {"image_token": "<new>"}],
    "bos_token": ["<new>", None],
    "eos_token": ["<new>", {"__type": "AddedToken", "content": "<new>", **ROW}],
    "unk_token": ["<new>"],
    "pad_token": ["<new>"],
    "boi_token": ["<new>"],
    "legacy": [True, False],
    "errors": ["ignore"],
    "clean_up_tokenization_spaces": [True],
    "chat_template": ["{{ messages }}"],
    "tokenizer_class": ["PreTrainedTokenizerFast", "BloomTokenizer"],
    "split_special_tokens": [True],
    "model_max_length": [7],
    "padding_side": ["right"],
    "do_lower_case": [True],
    "added_tokens_decoder": [{"3": {"content": "hello", "special": True, **ROW}}],
}


# Of the older file, which their library of today reads, too, and does not write.
SPECIAL_KEYS = (
    "bos_token",
    "unk_token",
    "boi_token",
    "extra_special_tokens",
    "additional_special_tokens",
)


@functools.cache
def subject(name, how, place):
    """A folder of theirs, in one of the ways in which such files were written."""
    kind, tokens, merges = CLASSES[name]
    config, head = {
        "gpt2": ({"n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 16}, "GPT2LMHeadModel"),
        "qwen2": (SMALL, "Qwen2ForCausalLM"),
        "llama": (SMALL, "LlamaForCausalLM"),
        "gemma2": ({**SMALL, "head_dim": 8}, "Gemma2ForCausalLM"),
    }[kind]
    folder = place / f"{name} {how}"
    made = transformers.AutoConfig.for_model(kind, vocab_size=420, **config)
    getattr(transformers, head)(made).save_pretrained(folder)
    tokens = tokens()
    tokenizer = getattr(transformers, name)(vocab=tokens, merges=merges, **SPECIALS)
    tokenizer.save_pretrained(folder)
    added = {str(i): t.__getstate__() for i, t in tokenizer.added_tokens_decoder.items()}
    settings = json.loads((folder / SETTINGS).read_text())
    if how != "tokenizer.json":
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.json").write_text(json.dumps(tokens))
        lines = "".join(f"{left} {right}\n" for left, right in merges)
        (folder / "merges.txt").write_text(f"#version: 0.2\n{lines}")
    if how == "added_tokens_decoder":
        settings |= {"added_tokens_decoder": added}
    if how == "added_tokens.json":
        special = {key: settings.pop(key) for key in ("bos_token", "eos_token")}
        special["additional_special_tokens"] = settings.pop("extra_special_tokens")
        (folder / SPECIAL).write_text(json.dumps(special))
        old = {token["content"]: int(index) for index, token in added.items()}
        (folder / ADDED).write_text(json.dumps(old | {"hell": tokens["hell"]}))
    (folder / SETTINGS).write_text(json.dumps(settings))
    return Subject(folder, theirs, ours)


SMALL = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "max_position_embeddings": 16,
}


def theirs(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return {text: np.array(tokenizer(text)["input_ids"]) for text in TEXTS}


def ours(found):
    return {text: found.run.tokenizer.encode_prompt(text) for text in TEXTS}


def cases(folder):
    """Every key of every file with other values; first, nothing else than it is."""
    yield (
        SETTINGS,
        "tokenizer_class",
        json.loads((folder / SETTINGS).read_text())["tokenizer_class"],
    )
    for name in (SETTINGS, SPECIAL, ADDED):
        written = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        keys = {SETTINGS: {*VALUES, *written}, SPECIAL: {*SPECIAL_KEYS, *written}, ADDED: {}}[name]
        for key in sorted(keys):
            for value in VALUES.get(key, [None]):
                yield name, key, value
        for key in written:
            # Of tokens that have ids without holes the last one can be left out.
            if name != ADDED or key == "<|user|>":
                yield name, key, DELETED


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("tokenizers")


ALL = [
    (name, how)
    for name, (kind, *_) in CLASSES.items()
    for how in ("tokenizer.json", "vocab.json", "added_tokens_decoder", "added_tokens.json")
    if how == "tokenizer.json" or kind in ("gpt2", "qwen2")
]


@pytest.mark.parametrize(("name", "how"), ALL)
def test_keys_of_the_tokenizer(name, how, place, tmp_path):
    found = subject(name, how, place)
    outcomes = [
        outcome(found, tmp_path / str(index), *case)
        for index, case in enumerate(cases(found.folder))
        if index == 0 or is_tried(f"{name} {how} {index}")
    ]
    assert outcomes[0] == "equal"
    assert outcomes.count("equal") > len(outcomes) / 2


@pytest.mark.parametrize("name", CLASSES)
def test_an_exported_tokenizer(name, place, tmp_path):
    found = read_run(subject(name, "tokenizer.json", place).folder)
    found.run.tokenizer.save(tmp_path)
    task = build("task", found.config.task)
    out = tmp_path / "out"
    shutil.copytree(subject(name, "tokenizer.json", place).folder, out)
    for file in (SETTINGS, "tokenizer.json"):
        (out / file).unlink()
    model = build("model", found.config.model)
    write_decoder_files(Trained("language_modeling", task, model, workdir=tmp_path), out)
    after, before = theirs(out), theirs(subject(name, "tokenizer.json", place).folder)
    for text in TEXTS:
        np.testing.assert_array_equal(after[text], before[text], err_msg=text)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tokenizer_class": "BloomTokenizer"}, "tokenizer_class BloomTokenizer"),
        ({"added_tokens_decoder": {"400": {"content": "<far>"}}}, "added_tokens_decoder"),
        ({"added_tokens_decoder": {"far": "<far>"}}, "added_tokens_decoder"),
        ({"added_tokens_decoder": {"1": {"content": 7}}}, "no token"),
        ({"added_tokens_decoder": {"1": {"content": "a", "lstrip": 7}}}, "no token"),
        ({"bos_token": 7}, "7 is no token"),
        ({"bos_token": ""}, "'' is a token without letters: null says"),
        ({"pad_token": {"content": ""}}, "is a token without letters"),
        ({"extra_special_tokens": [""]}, "'' is a token without letters"),
        ({"extra_special_tokens": "<new>"}, "extra_special_tokens is '<new>'"),
    ],
)
def test_files_that_cannot_be_read(place, tmp_path, change, said):
    folder = tmp_path / "changed"
    shutil.copytree(subject("GPT2Tokenizer", "vocab.json", place).folder, folder)
    settings = json.loads((folder / SETTINGS).read_text())
    (folder / SETTINGS).write_text(json.dumps(settings | change))
    with pytest.raises(DataError) as error:
        read_run(folder)
    assert said in str(error.value)


def test_a_sentencepiece_model_alone(place, tmp_path):
    folder = tmp_path / "changed"
    shutil.copytree(subject("LlamaTokenizer", "tokenizer.json", place).folder, folder)
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")
    with pytest.raises(DataError, match=r"tokenizer\.model of the tokenizer_class LlamaTokenizer"):
        read_run(folder)


def test_a_tokenizer_json_that_cuts_in_another_way_than_its_class(place, tmp_path):
    """As SmolLM's, which cuts numbers into digits and calls itself GPT-2's: it is what it is."""
    folder = tmp_path / "changed"
    shutil.copytree(subject("GPT2Tokenizer", "tokenizer.json", place).folder, folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    digits = {"type": "Digits", "individual_digits": True}
    content["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [digits, content["pre_tokenizer"]],
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))
    found = read_run(folder)
    assert "tokenizer_class" in found.published.files.used()[SETTINGS].unused
    one, two, three = (found.run.tokenizer.index(digit) for digit in "123")
    assert found.run.tokenizer.encode("123").tolist() == [one, two, three]


def test_without_a_tokenizer_json_the_kind_of_model_names_the_class(place, tmp_path):
    """As transformers, which makes Qwen2's tokenizer whatever class the file names."""
    folder = tmp_path / "changed"
    shutil.copytree(subject("Qwen2Tokenizer", "vocab.json", place).folder, folder)
    settings = json.loads((folder / SETTINGS).read_text())
    (folder / SETTINGS).write_text(json.dumps({**settings, "tokenizer_class": "GPT2Tokenizer"}))
    found = read_run(folder)
    assert "tokenizer_class" in found.published.files.used()[SETTINGS].irrelevant
    expected = theirs(folder)
    for text, ids in ours(found).items():
        np.testing.assert_array_equal(ids, expected[text])
