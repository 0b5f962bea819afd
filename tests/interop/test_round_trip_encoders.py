"""Encoders with other values than usual in every side file: read, used, written and used again.

Both folders, the publisher's and ours, mean the same to `transformers` as to us.
"""

import json

import numpy as np
import pytest

from tests.interop.published_encoders import (
    TEXTS,
    longest,
    publish,
    theirs,
    write_json,
    write_tokenizer,
)
from transformer.data.text.embeddings import load_embedding
from transformer.runs.exporting import export_run
from transformer.runs.importing import import_published, read_run
from transformer.runs.opening import open_run

pytest.importorskip("safetensors", reason="weights are read from its files")
torch = pytest.importorskip("torch", reason="torch makes the checkpoints")
transformers = pytest.importorskip("transformers", reason="transformers makes the checkpoints")

pytestmark = pytest.mark.filterwarnings("ignore")
CLASSES = {"id2label": {0: "a", 1: "b", 2: "b"}, "label2id": {"a": 0, "b": 2}}
TAGS = {"id2label": {0: "NOUN", 1: "VERB", 2: "DET"}, "label2id": {"NOUN": 0, "VERB": 1, "DET": 2}}
# The kind, the job, and other values of `config.json` and of `tokenizer_config.json`.
FOLDERS = {
    "classes": ("bert", "text_classification", CLASSES, {}),
    "several": (
        "roberta",
        "text_classification",
        {**CLASSES, "problem_type": "multi_label_classification"},
        {"add_prefix_space": False},
    ),
    "number": (
        "bert",
        "text_classification",
        {"num_labels": 1, "problem_type": "regression"},
        {"do_lower_case": False, "split_special_tokens": True},
    ),
    "squashed": ("bert", "text_classification", {"num_labels": 1}, {"model_max_length": 12}),
    "tags": ("bert", "tagging", TAGS, {"strip_accents": True}),
    "tags without a space": ("roberta", "tagging", TAGS, {"add_prefix_space": False}),
    "masks": ("bert", "masked_lm", {}, {}),
    "masks of bytes": ("roberta", "masked_lm", {}, {}),
    "answers": ("roberta", "question_answering", {"num_labels": 2}, {}),
}
# Words of a tagger stand between single spaces, and a long sentence goes on in another row.
SENTENCES = [text.replace("  ", " ") for text in TEXTS[:3]]


def cut(tokenizer, model):
    return {"truncation": True, "max_length": longest(tokenizer, model)}


def their_classes(tokenizer, model):
    told = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)
    for text in TEXTS:
        answer = told(text, top_k=None, **cut(tokenizer, model))
        yield sorted(each["score"] for each in answer)


def our_classes(task, details):
    if task.regression:
        return [details["value"]]
    return sorted(details["probabilities"].values())


def their_tags(tokenizer, model):
    told = transformers.pipeline("token-classification", model=model, tokenizer=tokenizer)
    for text in SENTENCES:
        words = {}
        for token in told(text, ignore_labels=[]):
            word = text[: token["end"]].count(" ")
            words.setdefault(word, (token["entity"], token["score"]))
        yield [tag for tag, _ in words.values()], [score for _, score in words.values()]


def their_fillings(tokenizer, model, lines):
    for line in lines:
        inputs = tokenizer(line, return_tensors="pt")
        with torch.no_grad():
            logits = model(**inputs).logits[inputs["input_ids"] == tokenizer.mask_token_id]
        # There is room in the table for tokens that there are not.
        known = logits.softmax(-1)[:, : len(tokenizer)]
        yield known.sort(descending=True).values[:, :5].numpy()


def their_answers(tokenizer, model, question, context):
    """The best stretch of the context, and its score."""
    inputs = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
    offsets = inputs.pop("offset_mapping")[0].tolist()
    with torch.no_grad():
        found = model(**inputs)
    inside = [place for place, of in enumerate(inputs.sequence_ids(0)) if of == 1]
    first, last = found.start_logits[0], found.end_logits[0]
    pairs = [(a, b) for a in inside for b in inside if a <= b < a + 30]
    a, b = max(pairs, key=lambda pair: float(first[pair[0]] + last[pair[1]]))
    return context[offsets[a][0] : offsets[b][1]].strip(), float(first[a] + last[b])


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", FOLDERS)
def test_both_folders_mean_the_same_to_both(name, tmp_path):
    kind, job, config, settings = FOLDERS[name]
    folder = publish(tmp_path / "theirs", kind, job, settings=settings, **config)
    import_published(folder, tmp_path / "run")
    export_run(tmp_path / "run", tmp_path / "ours")
    run = open_run(tmp_path / "run")
    for each in (folder, tmp_path / "ours"):
        tokenizer, model = theirs(each, job)
        check = {
            "text_classification": same_classes,
            "tagging": same_tags,
            "masked_lm": same_fillings,
            "question_answering": same_answers,
        }[job]
        check(run, tmp_path / "run", tokenizer, model)
        assert model.config.problem_type == config.get("problem_type") or name == "classes"
        if "id2label" in config:
            assert model.config.id2label == config["id2label"]
        assert tokenizer.model_max_length == settings.get("model_max_length", 24)


def predicted(run, workdir, lines):
    answers = list(run.task.predict(run.model, run.params, workdir, lines))
    return [answer.details for answer in answers]


def same_classes(run, workdir, tokenizer, model):
    expected = list(their_classes(tokenizer, model))
    found = [our_classes(run.task, details) for details in predicted(run, workdir, TEXTS)]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def same_tags(run, workdir, tokenizer, model):
    found = predicted(run, workdir, SENTENCES)
    for details, (tags, scores) in zip(found, their_tags(tokenizer, model), strict=True):
        assert details["tags"] == tags
        np.testing.assert_allclose(details["probabilities"], scores, atol=1e-5)


def same_fillings(run, workdir, tokenizer, model):
    lines = ["the <m> é.", "a <m><m> <new> cat"]
    found = predicted(run, workdir, lines)
    for details, expected in zip(found, their_fillings(tokenizer, model, lines), strict=True):
        shares = [[each["probability"] for each in mask] for mask in details["masks"]]
        np.testing.assert_allclose(shares, expected, atol=1e-5)


def same_answers(run, workdir, tokenizer, model):
    asked = [("the cat?", "a cat Sat on the <new> x"), ("b", "é the a")]
    found = predicted(run, workdir, [f"{question}\t{context}" for question, context in asked])
    for details, (question, context) in zip(found, asked, strict=True):
        text, score = their_answers(tokenizer, model, question, context)
        assert details["answer"] == text
        np.testing.assert_allclose(details["answers"][0]["score"], score, atol=1e-4)


def test_folders_of_sentence_transformers_are_written_back(tmp_path):
    folder = publish(tmp_path / "theirs", "bert", "embedding")
    content = {
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "st.models.Pooling"},
        ],
        "1_Pooling/config.json": {"pooling_mode": ["max", "cls"], "include_prompt": False},
        "sentence_bert_config.json": {"max_seq_length": 9, "do_lower_case": True},
        "config_sentence_transformers.json": {
            "prompts": {"query": "a b "},
            "default_prompt_name": "query",
        },
    }
    for name, values in content.items():
        write_json(folder / name, values)
    import_published(folder, tmp_path / "run")
    export_run(tmp_path / "run", tmp_path / "ours")
    first, again = (read_run(each).run.files for each in (folder, tmp_path / "ours"))
    assert first == again
    assert load_embedding(tmp_path / "run").pooling == ("cls", "max")
    written = json.loads((tmp_path / "ours" / "1_Pooling" / "config.json").read_text())
    # Their class takes the mean where this flag is left out.
    assert written["pooling_mode_mean_tokens"] is False
    assert written["pooling_mode_max_tokens"] is written["pooling_mode_cls_token"] is True
    assert not (tmp_path / "ours" / "2_Normalize").exists()


def test_rows_are_as_long_as_the_publisher_says(tmp_path):
    """The tokenizer's length, or all positions; and never more of them than there are."""
    folder = publish(tmp_path / "theirs", "roberta", "text_classification", num_labels=2)
    positions = 40 - 3
    for said, asked, expected in (
        (24, None, 24),
        (10**30, None, positions),
        (512, None, positions),
        (24, 30, 30),
        (24, 99, positions),
    ):
        write_tokenizer(folder, "roberta", model_max_length=said)
        assert read_run(folder, max_length=asked).config.task.max_length == expected
