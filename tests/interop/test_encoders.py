"""Encoders of `transformers`: read, the same logits, written again, with their tokenizers."""

import functools
import json
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.common import AnyMethod, noisy_parameters
from tests.interop.round_trips import arrays_of, disturbed, reloaded
from tests.tokenizers import make_encoder_tokenizer
from transformer.data.text.rows import lay_out_texts
from transformer.errors import ConfigError, DataError
from transformer.interop.family import Trained
from transformer.interop.formats.safetensors import read_safetensors, write_safetensors
from transformer.interop.opening import family_for, read_published
from transformer.models.bert import BERT
from transformer.models.vit import ViT
from transformer.runs.exporting import export_run
from transformer.runs.folders import write_run
from transformer.runs.importing import import_published, read_run
from transformer.runs.opening import open_encoder, open_run
from transformer.tasks.parts.labels import load_labels
from transformer.tasks.parts.outputs import apply
from transformer.tasks.parts.tokenizers import tokenizer_digest
from transformer.training.sections import OPTIONAL_SECTIONS, section
from transformer.training.selection import from_paths

pytest.importorskip("safetensors", reason="weights are read from its files")
torch = pytest.importorskip("torch", reason="torch makes the checkpoints")
transformers = pytest.importorskip("transformers", reason="transformers makes the checkpoints")

LABELS = ("O", "B-PER", "B-LOC")
NAMES = {
    "id2label": dict(enumerate(LABELS)),
    "label2id": {label: index for index, label in enumerate(LABELS)},
}
REST = ("optimizer", "train", "mesh", *OPTIONAL_SECTIONS)
# Width, heads, and the width of the layer between.
SIZES = [(16, 2, 24), (24, 4, 96)]
TEXTS = [
    "The house is green, and the house was green in 1984.",
    "A dog runs  across the street; the dogs ran!",
    "Ein Hund läuft über die Straße. Die Hunde laufen.",
]
# Classes of theirs, our job, the method that it calls, and what of their output it gives.
HEADS = {
    "ForPreTraining": ("masked_lm", "pretrain", ("prediction_logits", "seq_relationship_logits")),
    "ForMaskedLM": ("masked_lm", "fill", ("logits",)),
    "ForSequenceClassification": ("text_classification", "classify", ("logits",)),
    "ForTokenClassification": ("tagging", "tag", ("logits",)),
    "ForQuestionAnswering": ("question_answering", "tag", ("start_logits", "end_logits")),
}
ENCODERS = [
    *(("Bert", head) for head in HEADS if head != "ForMaskedLM"),
    *(("Roberta", head) for head in HEADS if head != "ForPreTraining"),
]
KINDS = {"Bert": "wordpiece", "Roberta": "bpe"}


@functools.cache
def tokenizer_of(kind, vocab_size=300):
    """A tokenizer, of a vocabulary as large as there are pieces."""
    return make_encoder_tokenizer(KINDS[kind], TEXTS * 3, vocab_size=vocab_size, lowercase=True)


def config_of(kind, size=SIZES[0], **more):
    width, heads, between = size
    tokenizer = tokenizer_of(kind)
    settings = {
        "vocab_size": tokenizer.vocab_size,
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": between,
        "num_hidden_layers": 2,
        "max_position_embeddings": 40,
        "pad_token_id": tokenizer.pad,
        "type_vocab_size": 1 if kind == "Roberta" else 2,
    }
    return getattr(transformers, f"{kind}Config")(**settings | more)


def published(folder, kind, head, size=SIZES[0], **more):
    """A model of theirs, saved in a folder together with a tokenizer."""
    options = {} if head in ("ForPreTraining", "ForMaskedLM", "Model") else NAMES
    if head == "ForQuestionAnswering":
        options = {"num_labels": 2}
    config = config_of(kind, size, **options, **more)
    model = disturbed(getattr(transformers, kind + head), config)
    model.save_pretrained(folder)
    tokenizer_of(kind).save(folder)
    return model


@pytest.fixture(scope="module", params=ENCODERS, ids="".join)
def pair(request, tmp_path_factory):
    """A model of theirs, its folder, and what stands above the encoder."""
    kind, head = request.param
    folder = tmp_path_factory.mktemp("published")
    return published(folder, kind, head), folder, head


def batch(model):
    """Rows of different lengths: tokens, types and lengths, padding included."""
    rng, pad = np.random.default_rng(0), model.config.pad_token_id
    lengths = np.array([12, 7, 9, 2], np.int32)
    real = np.arange(12) < lengths[:, None]
    tokens = np.where(real, rng.integers(5, model.config.vocab_size, real.shape), pad)
    types = np.where(real, rng.integers(0, model.config.type_vocab_size, real.shape), 0)
    return tokens.astype(np.int32), types.astype(np.int32), lengths


def theirs(model, names):
    """Their outputs, those of single numbers put together."""
    tokens, types, lengths = batch(model)
    mask = np.arange(tokens.shape[1]) < lengths[:, None]
    with torch.no_grad():
        found = model(
            input_ids=torch.from_numpy(tokens).long(),
            token_type_ids=torch.from_numpy(types).long(),
            attention_mask=torch.from_numpy(mask).long(),
        )
    outputs = [found[name].numpy() for name in names]
    return [np.stack(outputs, -1)] if names[0] == "start_logits" else outputs


def assert_same_logits(model, head, folder):
    """Ours, read from the folder, says the same as theirs of all that is no padding."""
    job, method, names = HEADS[head]
    read = read_published(folder)
    assert (read.job, read.unused) == (job, [])
    tokens, types, lengths = batch(model)
    inputs = [tokens, types, lengths]
    if method in ("fill", "pretrain"):
        inputs.append(np.broadcast_to(np.arange(12, dtype=np.int32), tokens.shape))
    ours = BERT(**read.model)
    # Not compiled as a whole: what models have in common is not compiled again.
    params = {"params": from_paths(read.params)}
    found: Any = ours.apply(params, *map(jnp.asarray, inputs), method=method)
    found = found if isinstance(found, tuple) else (found,)
    real = np.arange(12) < lengths[:, None]
    for one, other in zip(found, theirs(model, names), strict=True):
        rows = real if other.ndim == 3 else slice(None)
        assert np.abs(other[rows]).max() > 0.1
        np.testing.assert_allclose(np.asarray(one)[rows], other[rows], rtol=0, atol=1e-5)


def test_logits_are_those_of_transformers(pair):
    model, folder, head = pair
    assert_same_logits(model, head, folder)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("kind", "head"), ENCODERS)
def test_logits_of_another_size(kind, head, tmp_path):
    model = published(tmp_path, kind, head, SIZES[1])
    assert_same_logits(model, head, tmp_path)


@pytest.mark.sampled(2)
def test_what_is_exported_is_what_was_imported(pair, tmp_path):
    model, folder, head = pair
    names, workdir = HEADS[head][2], tmp_path / "run"
    # Half of them with stacked layers in between.
    import_published(folder, workdir, scan_layers=model.config.model_type == "bert")
    content = export_run(workdir, tmp_path / "out")
    before, after = arrays_of(folder), arrays_of(tmp_path / "out")
    assert before.keys() == after.keys()
    assert content["num_arrays"] == len(before)
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)
    assert content["architectures"] == [type(model).__name__]
    again = reloaded(type(model), tmp_path / "out")
    for one, other in zip(theirs(again, names), theirs(model, names), strict=True):
        np.testing.assert_array_equal(one, other)
    if model.config.num_labels == 3:
        assert load_labels(workdir) == LABELS
        assert again.config.id2label == NAMES["id2label"]
        assert again.config.label2id == NAMES["label2id"]


# -------------------------------------------------------------------------------- tokenizers


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_ours_is_read_by_transformers(kind, tmp_path):
    """A classifier of pairs, from texts to logits."""
    tokenizer = tokenizer_of(kind)
    fields = {"num_layers": 2, "num_heads": 2, "width": 16, "context": 40}
    fields |= {"position_offset": 2, "num_types": 1} if kind == "Roberta" else {}
    model = BERT(vocab_size=tokenizer.vocab_size, num_outputs=3, **fields)
    params = noisy_parameters(AnyMethod(model, "classify"), jnp.zeros((1, 4), jnp.int32))
    write_classifier(tmp_path / "run", tokenizer, params, **fields)
    export_run(tmp_path / "run", tmp_path / "out")

    theirs = reloaded(transformers.AutoModelForSequenceClassification, tmp_path / "out")
    assert type(theirs).__name__ == f"{kind}ForSequenceClassification"
    assert theirs.config.id2label == NAMES["id2label"]
    library = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert library.model_max_length == 40
    assert (library.pad_token_id, library.mask_token_id) == (tokenizer.pad, tokenizer.mask)
    seconds = ["What is it?", "", "läuft"]
    for texts in ([TEXTS], [TEXTS, seconds]):
        rows = lay_out_texts(tokenizer, texts[0], texts[1] if texts[1:] else None, 40)
        inputs = library(*texts, padding="max_length", max_length=40, return_tensors="pt")
        np.testing.assert_array_equal(inputs["input_ids"], rows.tokens)
        np.testing.assert_array_equal(inputs["attention_mask"].sum(1), rows.lengths)
        assert ("token_type_ids" in inputs) == (kind == "Bert")
        if kind == "Bert":
            np.testing.assert_array_equal(inputs["token_type_ids"], rows.token_types)
        with torch.no_grad():
            expected = theirs(**inputs).logits
        arrays = map(jnp.asarray, rows.arrays().values())
        found = apply(model, "classify", params, *arrays)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def write_classifier(workdir, tokenizer, params, **fields):
    """A run as training leaves it."""
    config = ConfigDict({name: section(name) for name in REST})
    config.model = section("model", "bert", **fields)
    config.task = section("task", "text_classification", max_length=40, second="second")
    digest = tokenizer_digest(tokenizer)
    write_run(workdir, config, params, tokenizer=tokenizer, labels=LABELS, fingerprint=digest)


def filling(model, pad, paths=()):
    """A run that fills masked places; no more than its padding token is asked for."""
    task = SimpleNamespace(load_tokenizer=lambda workdir: SimpleNamespace(pad=pad))
    return Trained("masked_lm", task, model, frozenset(paths))


def test_padding_and_positions_must_fit():
    """Positions begin behind the number of the padding token, which is 0 in word pieces."""
    model = BERT(vocab_size=9, position_offset=2)
    family = family_for("bert", model)
    assert family.config(filling(model, 1))["pad_token_id"] == 1
    with pytest.raises(ConfigError, match=r"position_offset is 2, and .* padding is token 0"):
        family.config(filling(model, 0))


def test_the_head_of_roberta_has_gelu():
    """Whatever its layers have; a model of ours that differs cannot be published as one."""
    paths = {"masked_token/bias"}
    model = BERT(vocab_size=9, position_offset=2, activation="gelu_tanh")
    family = family_for("bert", model)
    with pytest.raises(ConfigError, match="head_activation is gelu_tanh"):
        family.config(filling(model, 1, paths))
    for written in (filling(model.clone(head_activation="gelu"), 1, paths), filling(model, 1)):
        assert family.config(written)["hidden_act"] == "gelu_new"


@pytest.fixture(scope="module")
def filler(tmp_path_factory):
    """A RoBERTa that fills masks, and the run made of it."""
    folder = tmp_path_factory.mktemp("roberta")
    model = published(folder / "theirs", "Roberta", "ForMaskedLM")
    import_published(folder / "theirs", folder / "run")
    return model, folder


def test_masks_are_filled(filler):
    model, folder = filler
    run = open_run(folder / "run")
    lines = ["The house is <mask>.", "<mask> dog <mask>"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "theirs")
    answers = list(run.task.predict(run.model, run.params, folder / "run", lines))
    assert len(answers) == 2
    for line, answer in zip(lines, answers, strict=True):
        inputs = tokenizer(line, return_tensors="pt")
        with torch.no_grad():
            logits = model(**inputs).logits[inputs["input_ids"] == tokenizer.mask_token_id]
        assert len(answer.details["masks"]) == len(logits)
        for fillings, scores in zip(answer.details["masks"], logits.softmax(-1), strict=True):
            best = scores.sort(descending=True, stable=True)
            expected = [tokenizer.decode([index]) for index in best.indices[:5]]
            assert [filling["token"] for filling in fillings] == expected
            np.testing.assert_allclose(
                [filling["probability"] for filling in fillings], best.values[:5], atol=1e-5
            )
        assert answer.text.count("\t") == len(logits) - 1
    with pytest.raises(DataError, match="line 1 of the input has no <mask>"):
        list(run.task.predict(run.model, run.params, folder / "run", ["[MASK]"]))


def test_a_tokenizer_in_two_files(filler, tmp_path):
    """`vocab.json` and `merges.txt` instead of one file: the same run."""
    _, folder = filler
    content = json.loads((folder / "theirs" / "tokenizer.json").read_text("utf-8"))
    source = tmp_path / "theirs"
    source.mkdir()
    for name in ("config.json", "model.safetensors"):
        (source / name).symlink_to(folder / "theirs" / name)
    with pytest.raises(DataError, match=r"neither a tokenizer\.json nor a vocab\.txt"):
        import_published(source, tmp_path / "run")
    merges = "".join(f"{one} {other}\n" for one, other in content["model"]["merges"])
    (source / "vocab.json").write_text(json.dumps(content["model"]["vocab"]), "utf-8")
    (source / "merges.txt").write_text("#version: 0.2\n" + merges, "utf-8")
    import_published(source, tmp_path / "run")
    ours, before = (
        open_encoder(workdir).task.load_tokenizer(workdir)
        for workdir in (tmp_path / "run", folder / "run")
    )
    line = " The  house"
    np.testing.assert_array_equal(ours.pieces([line])[0].ids, before.pieces([line])[0].ids)
    # Nothing says of this mask that it takes the space in front of it along.
    line = "The house <mask>"
    theirs = transformers.AutoTokenizer.from_pretrained(source)
    found = ours.pieces([line], special=True)[0].ids.tolist()
    assert found == theirs(line, add_special_tokens=False)["input_ids"]
    (source / "tokenizer_config.json").write_text('{"add_prefix_space": true}', "utf-8")
    tokenizer = read_run(source).run.tokenizer
    assert tokenizer.decode(tokenizer.pieces(["house"])[0].ids) == " house"


def test_a_pooler_that_nobody_uses(tmp_path):
    """Older classifiers have RoBERTa's pooler beside a dense layer of their own."""
    published(tmp_path / "theirs", "Roberta", "ForSequenceClassification")
    plain = read_published(tmp_path / "theirs")
    file = tmp_path / "theirs" / "model.safetensors"
    arrays = dict(read_safetensors(file))
    more = {
        f"roberta.pooler.dense.{kind}": 1 + arrays[f"classifier.dense.{kind}"]
        for kind in ("weight", "bias")
    }
    write_safetensors({**arrays, **more}, file)
    read = read_published(tmp_path / "theirs")
    assert sorted(read.unused) == sorted(more)
    assert read.params.keys() == plain.params.keys()
    for path, array in plain.params.items():
        np.testing.assert_array_equal(read.params[path], array, err_msg=path)


# ------------------------------------------------------------------------------------ images

IMAGES = {
    "ViT": "ViTForImageClassification",
    "DeiT": "DeiTForImageClassification",
    "DeiT with a teacher": "DeiTForImageClassificationWithTeacher",
}
IMAGE_SIZES = {
    "narrow": {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24},
    "wide": {"hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 96},
}


def published_images(folder, kind, size):
    """A model of theirs, saved in a folder, pixels, and its logits."""
    options = {**IMAGE_SIZES[size], **NAMES, "image_size": 12, "patch_size": 4}
    config = getattr(transformers, f"{kind.split()[0]}Config")(num_hidden_layers=2, **options)
    model = disturbed(getattr(transformers, IMAGES[kind]), config)
    model.save_pretrained(folder)
    images = np.random.default_rng(1).normal(size=(2, 12, 12, 3)).astype(np.float32)
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2))
    with torch.no_grad():
        logits = model(pixels).logits
    assert logits.abs().max() > 0.3
    return model, images, pixels, logits


@pytest.mark.sampled(2)
@pytest.mark.parametrize("size", IMAGE_SIZES)
@pytest.mark.parametrize("kind", IMAGES)
def test_logits_of_images(kind, size, tmp_path):
    _, images, _, expected = published_images(tmp_path, kind, size)
    read = read_published(tmp_path)
    assert (read.job, read.labels, read.unused) == ("image_classification", LABELS, [])
    params = {"params": from_paths(read.params)}
    classify = jax.jit(functools.partial(ViT(**read.model).apply, method="classify"))
    found = classify(params, images)
    np.testing.assert_allclose(np.asarray(found), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", IMAGES)
def test_exported_classifiers_of_images(kind, tmp_path):
    model, _, pixels, logits = published_images(tmp_path / "theirs", kind, "narrow")
    import_published(tmp_path / "theirs", tmp_path / "run", scan_layers=kind == "DeiT")
    export_run(tmp_path / "run", tmp_path / "out")
    before, after = arrays_of(tmp_path / "theirs"), arrays_of(tmp_path / "out")
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)
    again = reloaded(type(model), tmp_path / "out")
    with torch.no_grad():
        np.testing.assert_array_equal(again(pixels).logits, logits)
    assert again.config.id2label == NAMES["id2label"]
