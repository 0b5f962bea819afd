"""ESM-2 in and out: logits, bits, tokens and the keys of its config."""

import json

import numpy as np
import pytest

from tests.interop.keys import DELETED, Subject, is_tried, outcome
from tests.interop.round_trips import arrays_of, disturbed, reloaded
from transformer.data.tokenizers.residues import ALPHABET
from transformer.decoding.contacts import attention_features, contacts, own_regression
from transformer.errors import ConfigError, DataError
from transformer.interop.families.esm import FAMILIES
from transformer.interop.family import Trained
from transformer.interop.formats.safetensors import write_safetensors
from transformer.models.esm import ESM
from transformer.runs.exporting import export_run
from transformer.runs.importing import import_published, read_run
from transformer.runs.opening import open_run
from transformer.tasks.parts.outputs import apply
from transformer.tasks.text_classification import TextClassification
from transformer.training.selection import from_paths

pytest.importorskip("safetensors", reason="weights are read from its files")
torch = pytest.importorskip("torch", reason="torch makes the checkpoints")
transformers = pytest.importorskip("transformers", reason="transformers makes the checkpoints")

HEADS = {
    "fill": "ForMaskedLM",
    "classify": "ForSequenceClassification",
    "tag": "ForTokenClassification",
}
MASK, V, T = 32, 33, 11
LENGTHS = (11, 7)
TOKENS = np.random.default_rng(0).integers(4, 24, (2, T)).astype(np.int32)
# Masks in different numbers, so that rows are scaled differently.
TOKENS[0, [2, 3, 7]] = MASK
TOKENS[1, 5] = MASK
SIZE = {
    "vocab_size": V,
    "mask_token_id": MASK,
    "pad_token_id": 1,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 40,
    "position_embedding_type": "rotary",
    "rope_theta": 900.0,
    "token_dropout": True,
    "emb_layer_norm_before": False,
    "layer_norm_eps": 1e-3,
}
OTHERS = {
    "hidden_size": 24,
    "num_attention_heads": 3,
    "num_hidden_layers": 1,
    "token_dropout": False,
}
TEXT = "MKTAYI AKQR<mask>X"


def published(folder, method, **config):
    """A folder of theirs and the model in it."""
    folder.mkdir()
    kind = getattr(transformers, f"Esm{HEADS[method]}")
    model = disturbed(kind, transformers.EsmConfig(**SIZE | config), scale=0.2)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(ALPHABET), "utf-8")
    write_settings(folder)
    return kind, model


def write_settings(folder, **settings):
    settings = {"tokenizer_class": "EsmTokenizer", "model_max_length": 40, **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")


def their_logits(model):
    valid = np.arange(T) < np.array(LENGTHS)[:, None]
    with torch.no_grad():
        return model(
            input_ids=torch.tensor(np.where(valid, TOKENS, 1).astype(np.int64)),
            attention_mask=torch.tensor(valid),
        ).logits.numpy()


def our_logits(model, params, method):
    places = (np.tile(np.arange(T, dtype=np.int32), (2, 1)),) if method == "fill" else ()
    return apply(model, method, params, TOKENS, None, np.array(LENGTHS, np.int32), *places)


def compared(found, expected):
    for row, length in enumerate(LENGTHS):
        pair = (found[row], expected[row])
        if expected.ndim == 3:
            pair = tuple(each[:length] for each in pair)
        np.testing.assert_allclose(*pair, atol=1e-4, rtol=1e-5)


def old_names(arrays):
    """Without what the library computes, under the names of the published files."""
    renamed = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
    found = {}
    for name, array in arrays.items():
        for theirs, ours in renamed.items():
            name = name.replace(theirs, ours)  # noqa: PLW2901
        if not name.endswith("inv_freq"):
            found[name] = array
    return found


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("method", "config"),
    [
        ("fill", {}),
        ("fill", OTHERS),
        ("classify", {}),
        ("tag", {}),
    ],
    ids=["fill", "other sizes, no token dropout", "classify", "tag"],
)
def test_logits_and_bits_are_theirs(tmp_path, method, config):
    kind, model = published(tmp_path / "theirs", method, num_labels=3, **config)
    read = import_published(tmp_path / "theirs", tmp_path / "run")
    assert not read.unused
    run = open_run(tmp_path / "run")
    expected = their_logits(model)
    compared(our_logits(run.model, run.params, method), expected)
    export_run(tmp_path / "run", tmp_path / "ours")
    before, after = (old_names(arrays_of(tmp_path / name)) for name in ("theirs", "ours"))
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)
    compared(their_logits(reloaded(kind, tmp_path / "ours")), expected)
    again = read_run(tmp_path / "ours")
    assert again.published.model == read.model
    ids = again.run.tokenizer.pieces([TEXT], special=True)[0].ids
    ids = [again.run.tokenizer.start, *ids, again.run.tokenizer.separator]
    for folder in ("theirs", "ours"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / folder)
        assert tokenizer(TEXT)["input_ids"] == ids


def test_a_classifier_by_the_mean_is_not_exported():
    """The published class reads the first token only."""
    trained = Trained("text_classification", TextClassification(), ESM(pooling="mean"))
    with pytest.raises(ConfigError, match=r"config.model.pooling is 'mean'.*pooling=cls"):
        FAMILIES[0].config(trained)


def test_frequencies_of_half_precision_are_kept(tmp_path):
    """Published files hold them for each layer, as rounded as they were in training."""
    folder = tmp_path / "theirs"
    published(folder, "fill", rope_theta=10_000.0)
    arrays = {n: a for n, a in arrays_of(folder).items() if not n.endswith("inv_freq")}
    frequencies = 10_000.0 ** -(np.arange(0, 8, 2, dtype=np.float32) / 8)
    name = "esm.encoder.layer.{}.attention.self.rotary_embeddings.inv_freq"
    for layer in range(2):
        arrays[name.format(layer)] = frequencies.astype(np.float16).astype(np.float32)
    write_safetensors(arrays, folder / "model.safetensors", {"format": "pt"})
    import_published(folder, tmp_path / "run")
    run = open_run(tmp_path / "run")
    assert run.model.rope_precision == "float16"
    expected = their_logits(transformers.EsmForMaskedLM.from_pretrained(folder).eval())
    compared(our_logits(run.model, run.params, "fill"), expected)
    export_run(tmp_path / "run", tmp_path / "ours")
    compared(their_logits(reloaded(transformers.EsmForMaskedLM, tmp_path / "ours")), expected)
    arrays[name.format(1)] = 2.0 * frequencies
    write_safetensors(arrays, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match=r"layer\.1\..* holds other rotary frequencies"):
        read_run(folder)


def test_contacts_are_theirs(tmp_path):
    """Of one protein; in a batch theirs would count attention to the end of shorter ones."""
    _, model = published(tmp_path / "theirs", "fill", attn_implementation="eager")
    import_published(tmp_path / "theirs", tmp_path / "run")
    run = open_run(tmp_path / "run")
    sequence = "MKTAYIAKQR"
    tokenizer = run.task.load_tokenizer(tmp_path / "run")
    ids = torch.tensor([[0, *tokenizer.encode(sequence), 2]])
    with torch.no_grad():
        expected = model.predict_contacts(ids, torch.ones_like(ids))[0].numpy()
    features = attention_features(run.model, run.params, tokenizer, sequence)
    found = contacts(features, own_regression(run.params))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(found) > 0.01


# Other values for each key; each is also left out.
KEYS = {
    "vocab_size": [32],
    "mask_token_id": [5],
    "pad_token_id": [3],
    "hidden_size": [32],
    "num_hidden_layers": [1],
    "num_attention_heads": [4, 3],
    "intermediate_size": [48],
    "hidden_dropout_prob": [0.5],
    "attention_probs_dropout_prob": [0.5],
    "max_position_embeddings": [20],
    "rope_theta": [50.0],
    "initializer_range": [1.0],
    "layer_norm_eps": [0.1],
    "position_embedding_type": ["absolute"],
    "use_cache": [False],
    "emb_layer_norm_before": [True, None],
    "token_dropout": [False],
    "is_folding_model": [True],
    "esmfold_config": [{"trunk": {}}],
    "vocab_list": [["a"]],
    "is_decoder": [True],
    "add_cross_attention": [True],
    "tie_word_embeddings": [False],
    "bos_token_id": [3],
    "eos_token_id": [3],
    "hidden_act": ["relu"],
    "classifier_dropout": [0.5],
    "is_encoder_decoder": [True],
    "dtype": ["bfloat16"],
    "transformers_version": ["4.48.0"],
    "strange": [1],
}


@pytest.fixture(scope="module")
def filler(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "theirs"
    published(folder, "fill")

    shown = (np.arange(T) < np.array(LENGTHS)[:, None])[..., None]

    def theirs(changed):
        model = transformers.EsmForMaskedLM.from_pretrained(changed, dtype=torch.float32)
        return {"logits": np.where(shown, their_logits(model.eval()), 0.0)}

    def ours(found):
        model = found.published.family.model(**found.published.model)
        logits = our_logits(model, from_paths(found.published.params), "fill")
        return {"logits": np.where(shown, logits, 0.0)}

    return Subject(folder, theirs, ours)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (key, value)
        for key, values in KEYS.items()
        for value in (*values, DELETED)
        if is_tried(f"esm {key} {value if value is not DELETED else 'left out'}")
    ],
    ids=lambda value: "left out" if value is DELETED else str(value)[:30],
)
def test_a_key_is_honoured_or_named(filler, tmp_path, key, value):
    assert outcome(filler, tmp_path / "changed", "config.json", key, value)


def test_all_keys_of_the_class_are_tried(filler):
    content = json.loads((filler.folder / "config.json").read_text("utf-8"))
    known = {"architectures", "model_type", "id2label", "label2id"}
    assert content.keys() - known <= KEYS.keys()
