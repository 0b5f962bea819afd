"""Every key of every side file of an encoder, set to another legal value or left out."""

import functools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.interop.keys import DELETED, Subject, outcome, set_key
from tests.interop.published_encoders import (
    NAMES,
    TEXTS,
    UnreadError,
    letters,
    longest,
    opened,
    publish,
    theirs,
    write_json,
)
from tests.interop.vectors_by_hand import POOLINGS, their_vectors
from transformer.data.text.embeddings import load_embedding
from transformer.data.text.rows import lay_out_texts
from transformer.decoding.embed import embed
from transformer.errors import DataError
from transformer.interop.side_files import ADDED, SPECIAL
from transformer.runs.importing import read_run

pytest.importorskip("safetensors", reason="weights are read from its files")
torch = pytest.importorskip("torch", reason="torch makes the checkpoints")
transformers = pytest.importorskip("transformers", reason="transformers makes the checkpoints")

pytestmark = pytest.mark.filterwarnings("ignore")
TAGS = {"id2label": {0: "O", 1: "B-PER", 2: "I-PER"}, "label2id": {"O": 0, "B-PER": 1, "I-PER": 2}}


# ------------------------------------------------------------------- a classifier, and a tagger


def their_classes(folder):
    """Tokens, and the probability of each class by name."""
    tokenizer, model = theirs(folder, "text_classification")
    cut = {"truncation": True, "max_length": longest(tokenizer, model)}
    # In one batch the pads of BERT must stand behind the texts, or positions are others.
    inputs = tokenizer(TEXTS, **cut, padding=True, padding_side="right", return_tensors="pt")
    tokens = tokenizer(TEXTS, **cut)["input_ids"]
    with torch.no_grad():
        logits = model(**inputs, return_dict=True).logits
    told_of = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)
    found = {"tokens": np.concatenate(tokens)}
    for place, row in enumerate(logits):
        answer = told_of.postprocess({"logits": row[None]}, top_k=None, _legacy=False)
        found |= told(place, [(each["label"], each["score"]) for each in answer])
    return found


def our_classes(found):
    task, model, params = opened(found, Path("ours"))
    rows = lay_out_texts(task.load_tokenizer(Path("ours")), TEXTS, None, task.inputs.max_length)
    tokens = [row[:length] for row, length in zip(rows.tokens, rows.lengths, strict=True)]
    result = {"tokens": np.concatenate(tokens)}
    for place, answer in enumerate(task.predict(model, params, Path("ours"), TEXTS)):
        probabilities = answer.details["probabilities"].items()
        # Classes of one name have their numbers behind it.
        named = [(re.sub(r" \(\d\)$", "", name), share) for name, share in probabilities]
        result |= told(place, named)
    return result


def told(place, scores):
    """Names and scores of classes, of each name the lowest score first."""
    return {
        f"names {place}": letters([name for name, _ in sorted(scores)]),
        f"scores {place}": np.array([score for _, score in sorted(scores)]),
    }


def their_tags(folder):
    """The tag of each word's first token, and its probability."""
    tokenizer, model = theirs(folder, "tagging")
    answer = transformers.pipeline("token-classification", model=model, tokenizer=tokenizer)
    names, scores = [], []
    # The pipeline reads no more than a row.
    for text in TEXTS[:1] + TEXTS[2:3]:
        previous = None
        tokens = answer(text, ignore_labels=[])
        for token in tokens:
            word = text[: token["end"]].count(" ")
            if word != previous:
                names.append(token["entity"])
                scores.append(token["score"])
            previous = word
    return {"tags": letters(names), "scores": np.array(scores)}


def our_tags(found):
    task, model, params = opened(found, Path("ours"))
    answers = list(task.predict(model, params, Path("ours"), TEXTS[:1] + TEXTS[2:3]))
    return {
        "tags": letters([tag for answer in answers for tag in answer.details["tags"]]),
        "scores": np.concatenate([answer.details["probabilities"] for answer in answers]),
    }


# -------------------------------------------------------------------------------------- vectors


def our_vectors(found):
    task, model, params = opened(found, Path("ours"))
    for name, text in found.run.files.items():
        (Path("ours") / name).write_text(text, "utf-8")
    usual = load_embedding(Path("ours"))
    tokenizer = task.load_tokenizer(Path("ours"))
    vectors = embed(model, params, tokenizer, TEXTS, usual, prompt=usual.prompt(None))
    return {"vectors": vectors}


# ----------------------------------------------------------------------------------------- keys


@functools.cache
def subject(name, root):
    """A folder, published once, and what is made of it."""
    folder = root / name
    if name == "classifier":
        names = {"id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
        publish(folder, "bert", "text_classification", **names)
        return Subject(folder, their_classes, our_classes)
    if name == "decoder":
        token = {"content": "<ent>", "lstrip": False, "rstrip": True, "normalized": False}
        settings = NAMES | {"added_tokens_decoder": {"69": token}}
        publish(folder, "bert", "text_classification", settings=settings)
        return Subject(folder, their_classes, our_classes)
    if name in ("library", "generic"):
        # As their library of today writes it: one file with everything.
        publish(folder, "bert", "text_classification")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        for old in ("vocab.txt", "special_tokens_map.json", "added_tokens.json"):
            (folder / old).unlink()
        tokenizer.save_pretrained(folder)
        if name == "generic":
            set_key(folder, "tokenizer_config.json", "tokenizer_class", "TokenizersBackend")
        return Subject(folder, their_classes, our_classes)
    if name == "tagger":
        publish(folder, "roberta", "tagging", **TAGS)
        return Subject(folder, their_tags, our_tags)
    publish(folder, "bert", "embedding")
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(kinds)
    ]
    write_json(folder / "modules.json", modules)
    flags = {f"pooling_mode_{pool}": pool in ("cls_token", "max_tokens") for pool in POOLINGS}
    more = {"word_embedding_dimension": 16, "include_prompt": True}
    write_json(folder / "1_Pooling/config.json", flags | more)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 9, "do_lower_case": True})
    prompts = {"prompts": {"query": "a b ", "other": "the "}, "default_prompt_name": "query"}
    more = {"similarity_fn_name": "cosine", "__version__": {"transformers": "4.41.2"}}
    write_json(folder / "config_sentence_transformers.json", prompts | more)
    return Subject(folder, their_vectors, our_vectors)


# Other values for each key; each is also left out.
CONFIG = {
    "vocab_size": [30],
    "hidden_size": [32],
    "num_hidden_layers": [2],
    "num_attention_heads": [2, 3],
    "intermediate_size": [48],
    "hidden_act": ["relu", "swish", "gelu_fast", "tanh"],
    "hidden_dropout_prob": [0.5],
    "attention_probs_dropout_prob": [0.5],
    "max_position_embeddings": [64],
    "type_vocab_size": [3],
    "initializer_range": [1.0],
    "layer_norm_eps": [0.1],
    "pad_token_id": [1, None],
    "use_cache": [False],
    "classifier_dropout": [0.9],
    "is_decoder": [True],
    "add_cross_attention": [True],
    "bos_token_id": [7],
    "eos_token_id": [7],
    "tie_word_embeddings": [False],
    "transformers_version": ["4.0.0"],
    "dtype": ["bfloat16"],
    "output_hidden_states": [True],
    "return_dict": [False],
    "chunk_size_feed_forward": [2],
    "is_encoder_decoder": [True],
    "id2label": [
        {"0": "x", "1": "y", "2": "z"},
        {"0": "x", "1": "x", "2": "z"},
        {"0": "x", "2": "z"},
        {"0": "x", "1": 3, "2": "z"},
        {"0": "x", "1": "y"},
    ],
    "label2id": [{"a": 2, "b": 1, "c": 0}, {"q": 0}],
    "num_labels": [2, 3],
    "problem_type": [
        "multi_label_classification",
        "single_label_classification",
        "regression",
        "other",
    ],
    "position_embedding_type": ["relative_key", "absolute"],
    "pruned_heads": [{"0": [1]}],
    "tokenizer_class": ["PreTrainedTokenizerFast", "XLMRobertaTokenizer"],
    "gradient_checkpointing": [True],
    "torch_dtype": ["float16"],
    "output_attentions": [False],
    "function_to_apply": ["none"],
    "num_beams": [4],
    "strange": [1],
}
TOKENIZER = {
    **{key: ["a"] for key in NAMES},
    "bos_token": ["b"],
    "eos_token": ["<fin>"],
    "image_token": ["<image>"],
    "model_max_length": [12, 10**30],
    "split_special_tokens": [True],
    "tokenizer_class": ["PreTrainedTokenizerFast", "AlbertTokenizer"],
    "model_input_names": [["input_ids", "attention_mask"]],
    "additional_special_tokens": [["the"], []],
    "extra_special_tokens": [["cat"], {"image_token": "cat"}],
}
# Of no class in particular.
OF_ALL = {
    "clean_up_tokenization_spaces": [True],
    "padding_side": ["left"],
    "truncation_side": ["left"],
    "max_length": [5],
    "stride": [2],
    "pad_to_multiple_of": [8],
    "errors": ["ignore"],
    "backend": ["tokenizers"],
    "name_or_path": ["elsewhere"],
    "is_local": [False],
    "local_files_only": [True],
    "never_split": [["cat"]],
    "do_basic_tokenize": [False],
    "strange": [1],
}
BERT = {
    "do_lower_case": [False],
    "strip_accents": [True, None],
    "tokenize_chinese_chars": [True],
    "trim_offsets": [False],
    "add_prefix_space": [True],
}
KEYS = {
    ("classifier", "config.json"): CONFIG,
    # RoBERTa's are read by the same code; other values of a few.
    ("tagger", "config.json"): {key: values[:1] for key, values in CONFIG.items()}
    | {
        "pad_token_id": [1, None],
        "id2label": [{"0": "N", "1": "V", "2": "N"}, {"0": "O", "1": "PER"}],
        "label2id": [{"q": 0}],
    },
    ("classifier", "tokenizer_config.json"): TOKENIZER | OF_ALL | BERT,
    ("tagger", "tokenizer_config.json"): TOKENIZER
    | {
        "add_prefix_space": [False],
        "trim_offsets": [False],
        "do_lower_case": [True],
        # With fewer their pipeline leaves words out; ours reads on in another row.
        "model_max_length": [30],
    },
    **{
        (name, "special_tokens_map.json"): {
            **{key: ["a"] for key in NAMES},
            "additional_special_tokens": [["cat", "<new>"]],
            "extra_special_tokens": [["cat"], {"image_token": "cat"}],
            "bos_token": ["b"],
            "image_token": [{"content": "cat", "rstrip": True}],
        }
        for name in ("classifier", "tagger")
    },
    **{
        (name, "added_tokens.json"): {"<new>": [100], "<ent>": [1], "Sat": [200]}
        for name in ("classifier", "tagger")
    },
    # Beside it the older files are not read.
    ("decoder", "tokenizer_config.json"): {
        "added_tokens_decoder": [
            {"71": {"content": "<x>", "lstrip": True, "normalized": False, "special": True}},
            {"5": {"content": "a", "single_word": True}},
        ],
        "sep_token": [
            {"__type": "AddedToken", "content": "b", "rstrip": True},
            "a",
        ],
    },
    ("decoder", "special_tokens_map.json"): {"sep_token": ["a"]},
    ("decoder", "added_tokens.json"): {"<y>": [80]},
    ("library", "tokenizer_config.json"): {
        key: values[:1] for key, values in (TOKENIZER | OF_ALL | BERT).items()
    },
    **{
        (name, "tokenizer.json"): {
            "version": ["1.0"],
            "truncation": [
                {"max_length": 5, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
            ],
            "padding": [None],
            "added_tokens": [],
            "normalizer": [None],
            "normalizer.lowercase": [False],
            "normalizer.handle_chinese_chars": [True],
            "pre_tokenizer": [{"type": "WhitespaceSplit"}],
            "post_processor": [None, {"type": "BertProcessing", "sep": ["a", 5], "cls": ["b", 6]}],
            "decoder": [None],
            "model.unk_token": ["a"],
            "model.continuing_subword_prefix": ["@@"],
            "model.max_input_chars_per_word": [2],
        }
        for name in ("library", "generic")
    },
    ("vectors", "modules.json"): {
        "0.idx": [3],
        "0.name": ["x"],
        "0.path": ["0_Transformer"],
        "0.type": ["sentence_transformers.models.Dense", "sentence_transformers.Transformer"],
        "1.path": ["2_Pooling", "../1_Pooling"],
        "1.type": ["sentence_transformers.models.LSTM"],
        "1.kwargs": [["task"]],
        "2.type": ["sentence_transformers.models.Dense"],
        "2.path": ["elsewhere"],
    },
    ("vectors", "1_Pooling/config.json"): {
        **{f"pooling_mode_{pool}": [True, False] for pool in POOLINGS},
        "pooling_mode": ["cls", "max", "mean", "mean_sqrt_len_tokens", "lasttoken", "median"],
        "include_prompt": [False],
        "word_embedding_dimension": [3],
        "strange": [1],
    },
    ("vectors", "sentence_bert_config.json"): {
        "max_seq_length": [12, None],
        "do_lower_case": [False],
        "model_args": [{"attn_implementation": "eager"}],
    },
    ("vectors", "config_sentence_transformers.json"): {
        "prompts": [{"query": "cat "}],
        "default_prompt_name": ["other", None, "missing"],
        "similarity_fn_name": ["dot"],
        "__version__": [{}],
        "model_type": ["SentenceTransformer"],
    },
}
CASES = [
    (name, file, key, value)
    for (name, file), keys in KEYS.items()
    for key, values in keys.items()
    for value in (*values, DELETED)
    # A file of the library `tokenizers` has all of its keys.
    if not (file == "tokenizer.json" and value is DELETED)
]
# Keys without which, or with another value of which, their library reads no such folder.
NOT_READ = {(name, "config.json", "id2label") for name in ("classifier", "tagger")}
# What a folder is; another value makes another folder of it.
NATURE = {"architectures", "model_type", "_name_or_path"}


def has_key(path, key):
    """Whether a side file has a key; dots lead into lists."""
    found = json.loads(path.read_text("utf-8"))
    for part in key.split("."):
        try:
            found = found[int(part) if isinstance(found, list) else part]
        except (KeyError, IndexError):
            return False
    return True


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("published")


@pytest.mark.parametrize(
    ("name", "file", "key", "value"),
    CASES,
    ids=lambda value: "left out" if value is DELETED else str(value)[:40],
)
def test_a_key_is_honoured_or_named(root, tmp_path, monkeypatch, name, file, key, value):
    monkeypatch.chdir(tmp_path)
    tried = subject(name, root)
    if value is DELETED and not has_key(tried.folder / file, key):
        # As it is.
        return
    try:
        outcome(tried, tmp_path / "changed", file, key, value)
    except UnreadError:
        # Nobody can be told another result than the publisher's, who has none.
        assert (name, file, key) in NOT_READ


@pytest.mark.parametrize(("name", "file"), KEYS)
def test_all_keys_that_are_written_are_tried(root, name, file):
    content = json.loads((subject(name, root).folder / file).read_text("utf-8"))
    if isinstance(content, dict) and name != "decoder":
        # The vocabulary and the like are of other tests.
        tried = {key.split(".")[0] for key in KEYS[name, file]}
        assert content.keys() - NATURE <= tried


@pytest.mark.parametrize("kind", ["BertConfig", "RobertaConfig"])
def test_all_keys_of_the_class_are_tried(kind):
    assert getattr(transformers, kind)().to_dict().keys() - NATURE <= CONFIG.keys()


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        # The library numbers it 69 without a word.
        (ADDED, {"<new>": 3}, "'<new>' has the id 3 and gets"),
        (ADDED, {"": 71}, "the token 71 has no letters"),
        (SPECIAL, {"unk_token": ""}, "'' is a token without letters: null says"),
        (SPECIAL, {"additional_special_tokens": {}}, "additional_special_tokens is {}"),
    ],
)
def test_tokens_that_cannot_be_read(root, tmp_path, file, change, said):
    folder = tmp_path / "changed"
    shutil.copytree(subject("classifier", root).folder, folder)
    content = json.loads((folder / file).read_text("utf-8"))
    (folder / file).write_text(json.dumps(content | change))
    with pytest.raises(DataError) as error:
        read_run(folder)
    assert said in str(error.value)
