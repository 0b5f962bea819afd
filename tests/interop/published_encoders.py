"""Small encoders in folders as `transformers` writes them, nothing in them as usual."""

import json

import numpy as np

from tests.interop.round_trips import disturbed
from transformer.tasks.parts.labels import save_labels
from transformer.training.sections import build
from transformer.training.selection import from_paths

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ["<p>", "<u>", "<c>", "<s>", "<m>", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
WORDS += ["the", "cat", "Sat", "é", "漢", "字", "漢字", ".", ",", "##é", "A", "E"]
ADDED = ["<new>", "<ent>"]
# Capitals, accents, Chinese characters, added and special tokens, two spaces, and a long text.
TEXTS = [
    "the cat Sat.",
    "Éa é 漢字  <new> x",
    "a<ent>b <s> THE, cat",
    " ".join(["the cat"] * 30),
]
NAMES = {
    "unk_token": "<u>",
    "sep_token": "<s>",
    "pad_token": "<p>",
    "cls_token": "<c>",
    "mask_token": "<m>",
}
HEADS = {
    "text_classification": "ForSequenceClassification",
    "tagging": "ForTokenClassification",
    "question_answering": "ForQuestionAnswering",
    "masked_lm": "ForMaskedLM",
    "embedding": "Model",
}
MERGES = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("c", "a"), ("ca", "t"), ("t", "he")]


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), "utf-8")


def pieces_of_bytes():
    """RoBERTa's vocabulary, special tokens with names of their own in front."""
    from tokenizers import pre_tokenizers

    tokens = [*NAMES.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokens += [one + other for one, other in MERGES]
    return {token: place for place, token in enumerate(tokens)}


def write_tokenizer(folder, kind, **settings):
    """Every file of a tokenizer that is no `tokenizer.json`, and settings."""
    if kind == "bert":
        (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", "utf-8")
        size, usual = len(WORDS), {"strip_accents": False, "tokenize_chinese_chars": False}
    else:
        vocabulary = pieces_of_bytes()
        write_json(folder / "vocab.json", vocabulary)
        merges = "".join(f"{one} {other}\n" for one, other in MERGES)
        (folder / "merges.txt").write_text("#version: 0.2\n" + merges, "utf-8")
        size, usual = len(vocabulary), {"add_prefix_space": True}
    write_json(folder / "special_tokens_map.json", NAMES | {"additional_special_tokens": ["<ent>"]})
    write_json(
        folder / "added_tokens.json", {token: size + place for place, token in enumerate(ADDED)}
    )
    usual |= {"model_max_length": 24, "split_special_tokens": False}
    write_json(folder / "tokenizer_config.json", usual | settings)
    return size + len(ADDED)


def publish(folder, kind, job, *, settings=None, **config):
    """A model of theirs and its files; `config` are other values of `config.json`."""
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    size = write_tokenizer(folder, kind, **(settings or {}))
    values = {
        # There is room for tokens that are added.
        "vocab_size": size + 5,
        "hidden_size": 16,
        "num_attention_heads": 4,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "max_position_embeddings": 40,
        "type_vocab_size": 2 if kind == "bert" else 1,
        # Behind it RoBERTa's positions begin.
        "pad_token_id": 2,
        "hidden_act": "gelu_new",
        "layer_norm_eps": 0.01,
        "hidden_dropout_prob": 0.2,
        "classifier_dropout": 0.3,
    }
    name = {"bert": "Bert", "roberta": "Roberta"}[kind]
    made = getattr(transformers, f"{name}Config")(**values | config)
    model = disturbed(getattr(transformers, name + HEADS[job]), made, scale=0.3)
    model.save_pretrained(folder)
    return folder


class UnreadError(Exception):
    """Their library reads no such folder: nothing is there to be equal to."""


def theirs(folder, job):
    """Their tokenizer and their model of a folder.

    Raises:
        UnreadError: if they refuse it.
    """
    import torch
    import transformers

    # So small a model is computed faster by one thread.
    torch.set_num_threads(1)
    kind = f"AutoModel{'' if job == 'embedding' else HEADS[job]}"
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        model = getattr(transformers, kind).from_pretrained(folder, dtype=torch.float32)
    except Exception as error:
        raise UnreadError(str(error)) from error
    return tokenizer, model.eval()


def longest(tokenizer, model):
    """Tokens of a row at most: what the tokenizer says, or what there are positions for."""
    config = model.config
    offset = config.pad_token_id + 1 if config.model_type == "roberta" else 0
    return min(tokenizer.model_max_length, config.max_position_embeddings - offset)


def opened(found, folder):
    """The task, the model and the parameters of a run that was read but not written."""
    folder.mkdir(parents=True, exist_ok=True)
    found.run.tokenizer.save(folder)
    save_labels(found.published.labels, folder)
    task = build("task", found.config.task)
    return task, build("model", found.config.model), from_paths(found.published.params)


def letters(names):
    """Strings as numbers, to be compared with other numbers."""
    return np.frombuffer("\n".join(names).encode(), np.uint8).astype(np.float64)
