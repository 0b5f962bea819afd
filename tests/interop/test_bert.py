import json

import ml_dtypes
import numpy as np
import pytest

from tests.interop.checkpoints import VOCABULARY, arrays, write
from transformer.errors import DataError, WorkdirError
from transformer.interop.formats.safetensors import write_safetensors
from transformer.interop.opening import read_published
from transformer.runs.importing import import_published, read_run
from transformer.runs.opening import open_encoder, open_run
from transformer.tasks.parts.labels import load_labels
from transformer.training.selection import by_path

pytest.importorskip("safetensors", reason="weights are read from its files")

PRETRAINING = ("pooler", "masked", "next")


def refused(folder, *parts):
    with pytest.raises(DataError) as error:
        read_published(folder)
    for part in (str(folder), *parts):
        assert part in str(error.value)


def assert_same(params, expected):
    assert params.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_array_equal(params[path], array, err_msg=path)


# ------------------------------------------------------------------------------------ arrays


def test_arrays_are_where_they_belong(tmp_path):
    found = arrays(*PRETRAINING)
    read = read_published(write(tmp_path, found))
    assert read.unused == []
    layer = "bert.encoder.layer.1"
    query = found[f"{layer}.attention.self.query.weight"]
    output = found[f"{layer}.attention.output.dense.weight"]
    ours = read.params
    for feature in range(8):
        # Features of a head lie side by side.
        head = divmod(feature, 4)
        kernel = ours["blocks/layer_1/attention/query/kernel"]
        np.testing.assert_array_equal(kernel[:, *head], query[feature])
        kernel = ours["blocks/layer_1/attention/output/kernel"]
        np.testing.assert_array_equal(kernel[*head], output[:, feature])
    for path, name in {
        "blocks/layer_1/feed_forward/up/kernel": f"{layer}.intermediate.dense.weight",
        "blocks/layer_1/feed_forward/down/kernel": f"{layer}.output.dense.weight",
        "masked_token/dense/kernel": "cls.predictions.transform.dense.weight",
        "next_sentence/kernel": "cls.seq_relationship.weight",
        "pooler/kernel": "bert.pooler.dense.weight",
    }.items():
        np.testing.assert_array_equal(ours[path], found[name].T)
    for path, name in {
        "token_embedding/embedding": "bert.embeddings.word_embeddings.weight",
        "blocks/layer_1/attention_norm/scale": f"{layer}.attention.output.LayerNorm.weight",
        "blocks/layer_1/feed_forward_norm/bias": f"{layer}.output.LayerNorm.bias",
        "masked_token/bias": "cls.predictions.bias",
    }.items():
        np.testing.assert_array_equal(ours[path], found[name])


def test_names_with_and_without_prefix(tmp_path):
    one = read_published(write(tmp_path / "one", arrays("pooler")))
    other = read_published(write(tmp_path / "other", arrays("pooler", prefix="")))
    assert_same(one.params, other.params)
    assert one.unused == other.unused == []


def test_names_of_the_oldest_checkpoints(tmp_path):
    old = {
        name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): array
        for name, array in arrays(*PRETRAINING).items()
    }
    assert sum("gamma" in name for name in old) == 6
    read = read_published(write(tmp_path / "old", old))
    assert_same(read.params, read_published(write(tmp_path / "new")).params)
    assert read.unused == []


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_becomes_float32(tmp_path, dtype):
    half = {name: array.astype(dtype) for name, array in arrays("pooler").items()}
    whole = {name: array.astype(np.float32) for name, array in half.items()}
    read = read_published(write(tmp_path / "half", half))
    assert {array.dtype for array in read.params.values()} == {np.dtype(np.float32)}
    assert_same(read.params, read_published(write(tmp_path / "whole", whole)).params)


def test_model_in_several_files(tmp_path):
    found = arrays(*PRETRAINING)
    folder = write(tmp_path / "cut", weights=False)
    names = sorted(found)
    where = {name: f"model-{index % 3}.safetensors" for index, name in enumerate(names)}
    for file in set(where.values()):
        part = {name: found[name] for name in names if where[name] == file}
        write_safetensors(part, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    whole = read_published(write(tmp_path / "whole", found))
    assert_same(read_published(folder).params, whole.params)
    # One file too few in the index.
    kept = {name: file for name, file in where.items() if file != "model-1.safetensors"}
    index.write_text(json.dumps({"weight_map": kept}))
    refused(folder)


def test_what_is_not_known_is_refused_unless_told_otherwise(tmp_path):
    more = {
        "crf.transitions": np.zeros((3, 3), np.float32),
        "bert.embeddings.LayerNorm.strange": np.zeros(8, np.float32),
        "bert.encoder.layer.2.output.dense.bias": np.zeros(8, np.float32),
        "bert.encoder.layer.0.crossattention.self.query.weight": np.zeros((8, 8), np.float32),
    }
    plain = read_published(write(tmp_path / "plain"))
    folder = write(tmp_path / "more", arrays(*PRETRAINING) | more)
    refused(folder, *more, "--ignore")
    read = read_published(folder, ignore="crf|strange|layer.2|crossattention")
    assert sorted(read.unused) == sorted(more)
    assert_same(read.params, plain.params)
    with pytest.raises(DataError) as error:
        read_published(folder, ignore="crf|layer.2|crossattention")
    assert "crf" not in str(error.value)


def test_copies_and_constants_are_nothing_new(tmp_path):
    found = arrays(*PRETRAINING)
    more = {
        "bert.embeddings.position_ids": np.arange(20)[None],
        "cls.predictions.decoder.weight": found["bert.embeddings.word_embeddings.weight"],
        "cls.predictions.decoder.bias": found["cls.predictions.bias"],
    }
    read = read_published(write(tmp_path / "more", found | more))
    assert read.unused == []
    assert_same(read.params, read_published(write(tmp_path / "plain", found)).params)
    # One of two copies is enough.
    del found["cls.predictions.bias"]
    assert_same(read_published(write(tmp_path / "one", found | more)).params, read.params)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("cls.predictions.decoder.weight", (13, 8)), ("cls.predictions.decoder.bias", (13,))],
)
def test_an_output_layer_of_its_own_is_refused(tmp_path, name, shape):
    found = arrays(*PRETRAINING) | {name: np.ones(shape, np.float32)}
    refused(write(tmp_path, found), name, "tie_word_embeddings")


@pytest.mark.parametrize(
    "missing",
    [
        "bert.embeddings.word_embeddings.weight",
        "bert.embeddings.LayerNorm.bias",
        "bert.encoder.layer.1.attention.self.key.weight",
        "bert.pooler.dense.bias",
        "cls.predictions.bias",
        "cls.seq_relationship.weight",
    ],
)
def test_missing_arrays(tmp_path, missing):
    found = arrays(*PRETRAINING)
    del found[missing]
    refused(write(tmp_path, found))


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ({"vocab_size": 14}, "vocab_size 14"),
        ({"hidden_size": 16}, "hidden_size 16"),
        ({"intermediate_size": 13}, "intermediate_size 13"),
        ({"max_position_embeddings": 21}, "position_embeddings"),
        ({"type_vocab_size": 1}, "token_type_embeddings"),
        ({"num_hidden_layers": 3}, "layer_2"),
    ],
    ids=str,
)
def test_arrays_of_another_model(tmp_path, config, part):
    refused(write(tmp_path, **config), part)


def test_kernels_lie_as_they_should(tmp_path):
    found, name = arrays(), "bert.encoder.layer.0.intermediate.dense.weight"
    refused(write(tmp_path, found | {name: found[name].T}), name, "[8, 12]", "[12, 8]")


# ------------------------------------------------------------------------------------ config


def test_fields_of_the_model(tmp_path):
    config = {"hidden_act": "gelu_new", "layer_norm_eps": 1e-6, "hidden_dropout_prob": 0.25}
    assert read_published(write(tmp_path, **config)).model == {
        "vocab_size": 13,
        "num_layers": 2,
        "num_heads": 2,
        "width": 8,
        "feed_forward_width": 12,
        "context": 20,
        "num_outputs": None,
        "position_offset": 0,
        "num_types": 2,
        "activation": "gelu_tanh",
        "head_activation": None,
        "norm_epsilon": 1e-6,
        "dropout_rate": 0.25,
    }


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ({"model_type": "electra"}, ["'electra'", "bert, roberta"]),
        ({"position_embedding_type": "relative_key"}, ["'relative_key'", "absolute"]),
        ({"is_decoder": True}, ["decoder"]),
        ({"hidden_act": "mish"}, ["'mish'"]),
        ({"hidden_act": ["gelu"]}, ["gelu"]),
        ({"hidden_size": "wide"}, ["wide"]),
        ({"hidden_size": None}, []),
        ({"hidden_size": {}}, []),
        ({"num_attention_heads": 3}, ["num_attention_heads", "3"]),
        ({"num_attention_heads": 0}, ["num_attention_heads is 0"]),
        ({"num_hidden_layers": 0}, ["num_hidden_layers is 0"]),
        ({"vocab_size": -1}, ["vocab_size", "-1"]),
        ({"hidden_dropout_prob": 1.5}, ["dropout_rate", "1.5"]),
        ({"architectures": [["strange"]]}, ["architectures"]),
    ],
    ids=str,
)
def test_models_that_cannot_be_built(tmp_path, config, parts):
    refused(write(tmp_path, **config), "config.json", *parts)


@pytest.mark.parametrize(
    ("key", "usual"), [("vocab_size", 30522), ("hidden_size", 768), ("num_hidden_layers", 12)]
)
def test_a_key_left_out_is_that_of_the_class(tmp_path, key, usual):
    refused(write(tmp_path, without=[key]), "config.json", f"{key} {usual}")


def test_all_that_is_not_said_is_that_of_the_class(tmp_path):
    read = read_published(write(tmp_path, without=["type_vocab_size", "hidden_act"]))
    assert (read.model["num_types"], read.model["activation"]) == (2, "gelu")
    assert (read.model["norm_epsilon"], read.model["dropout_rate"]) == (1e-12, 0.1)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff\xfe"], ids=repr)
def test_damaged_config(tmp_path, content):
    (write(tmp_path) / "config.json").write_bytes(content)
    refused(tmp_path, "config.json")


def test_missing_files(tmp_path):
    refused(tmp_path / "nothing", "config.json")
    folder = write(tmp_path / "folder", weights=False)
    refused(folder, "model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"")
    refused(folder, "pytorch_model.bin", "cannot be read as an archive")
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    refused(folder, "config.json")


NAMES = {"0": "O", "1": "B-PER", "2": "B-LOC"}


@pytest.mark.parametrize(
    ("architectures", "heads", "config", "job", "labels"),
    [
        (["BertModel"], ["pooler"], {}, "masked_lm", ()),
        (["BertForPreTraining"], PRETRAINING, {"id2label": NAMES}, "masked_lm", ()),
        (
            ["BertForSequenceClassification"],
            ["pooler", "classes"],
            {"id2label": NAMES},
            "text_classification",
            ("O", "B-PER", "B-LOC"),
        ),
        (
            ["BertForTokenClassification"],
            ["classes"],
            {"num_labels": 3},
            "tagging",
            ("LABEL_0", "LABEL_1", "LABEL_2"),
        ),
        (
            ["BertForQuestionAnswering"],
            ["spans"],
            {"id2label": NAMES},
            "question_answering",
            ("start", "end"),
        ),
        (["BertForMultipleChoice"], ["pooler", "number"], {}, "masked_lm", ()),
        (None, ["pooler"], {}, "masked_lm", ()),
    ],
    ids=str,
)
def test_jobs_and_labels(tmp_path, architectures, heads, config, job, labels):
    read = read_published(write(tmp_path, arrays(*heads), architectures=architectures, **config))
    assert (read.job, read.labels) == (job, labels)


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ({"id2label": {"1": "X"}}, "id2label"),
        ({"id2label": ["a"]}, "id2label"),
        ({"id2label": {"0": "a", "1": 3, "2": "b"}}, "id2label is 3"),
        ({"num_labels": 2}, "num_labels"),
    ],
    ids=str,
)
def test_names_that_are_none(tmp_path, config, part):
    architectures = ["BertForTokenClassification"]
    refused(write(tmp_path, arrays("classes"), architectures=architectures, **config), part)


@pytest.mark.parametrize(("content", "lowercase"), [({}, True), ({"do_lower_case": False}, False)])
def test_lowercase(tmp_path, content, lowercase):
    write(tmp_path)
    assert read_run(tmp_path).config.task.tokenizer.lowercase
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(content))
    found = read_run(tmp_path)
    assert found.config.task.tokenizer.lowercase == found.run.tokenizer.lowercase == lowercase


# ----------------------------------------------------------------------------------- folders


def assert_holds(run, published):
    assert_same(by_path(run.params), published.params)
    assert run.step == 0


def test_a_run_of_pretraining(tmp_path):
    source, workdir = write(tmp_path / "source"), tmp_path / "run"
    published = import_published(source, workdir, max_length=16)
    assert_same(published.params, read_published(source).params)
    run = open_run(workdir)
    assert_holds(run, published)
    assert (run.task.inputs.max_length, run.task.next_sentence) == (16, True)
    assert run.task.load_tokenizer(workdir).vocab_size == len(VOCABULARY)
    (answer,) = run.task.predict(run.model, run.params, workdir, ["the [MASK] sat."])
    assert answer.text
    encoder = open_encoder(workdir)
    heads = ("pooler/", "masked_token/", "next_sentence/")
    expected = {p: x for p, x in published.params.items() if not p.startswith(heads)}
    assert_same(by_path(encoder.params), expected)
    with pytest.raises(WorkdirError, match="not empty"):
        import_published(source, workdir)


def test_a_run_that_fills_only(tmp_path):
    source = write(tmp_path / "source", arrays("masked"), architectures=["BertForMaskedLM"])
    published = import_published(source, tmp_path / "run")
    run = open_run(tmp_path / "run")
    assert_holds(run, published)
    assert (run.task.inputs.max_length, run.task.entry) == (20, "fill")


def test_a_run_keeps_what_its_job_uses(tmp_path):
    """Many checkpoints of taggers have a pooler that nobody has trained."""
    source = write(
        tmp_path / "source",
        arrays("pooler", "classes"),
        architectures=["BertForTokenClassification"],
        id2label=NAMES,
    )
    published = import_published(source, tmp_path / "run")
    assert sorted(published.unused) == ["pooler/bias", "pooler/kernel"]
    run = open_run(tmp_path / "run")
    assert_holds(run, published)
    assert load_labels(tmp_path / "run") == ("O", "B-PER", "B-LOC")
    (answer,) = run.task.predict(run.model, run.params, tmp_path / "run", ["the cat sat"])
    assert len(answer.details["tags"]) == 3


def test_an_encoder_alone_is_no_run_of_its_job(tmp_path):
    source = write(tmp_path / "source", arrays("pooler", prefix=""), architectures=["BertModel"])
    published = import_published(source, tmp_path / "run")
    assert {path.split("/")[0] for path in published.params} >= {"pooler", "blocks"}
    with pytest.raises(WorkdirError, match=r"masked_token.*only in the model"):
        open_run(tmp_path / "run")
    encoder = open_encoder(tmp_path / "run")
    expected = {p: x for p, x in published.params.items() if not p.startswith("pooler/")}
    assert_same(by_path(encoder.params), expected)
    assert "position_embedding/embedding" in expected


def test_a_run_of_numbers(tmp_path):
    source = write(
        tmp_path / "source",
        arrays("pooler", "number"),
        architectures=["BertForSequenceClassification"],
    )
    published = import_published(source, tmp_path / "run")
    run = open_run(tmp_path / "run")
    assert_holds(run, published)
    assert run.task.regression


def test_the_tokenizer_must_not_be_larger_than_the_table(tmp_path):
    source = write(tmp_path / "source", weights=False, vocab_size=12)
    found = arrays("pooler")
    name = "bert.embeddings.word_embeddings.weight"
    write_safetensors(found | {name: found[name][:12]}, source / "model.safetensors")
    with pytest.raises(DataError, match=r"13 tokens.*12"):
        import_published(source, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_folders_that_cannot_be_imported(tmp_path):
    source = write(tmp_path / "source")
    (source / "vocab.txt").unlink()
    with pytest.raises(DataError, match=r"neither a tokenizer\.json nor a vocab\.txt"):
        import_published(source, tmp_path / "run")
    (tmp_path / "file").write_text("text")
    with pytest.raises(WorkdirError, match="not a folder"):
        import_published(source, tmp_path / "file")
    full = tmp_path / "full"
    full.mkdir()
    (full / "note").write_text("mine")
    with pytest.raises(WorkdirError, match="not empty"):
        import_published(write(source), full)
    assert [file.name for file in full.iterdir()] == ["note"]
