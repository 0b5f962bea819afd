"""ModernBERT in and out: logits, bits and the keys of its config."""

import json

import numpy as np
import pytest

from tests.interop.keys import DELETED, Subject, is_tried, outcome
from tests.interop.round_trips import arrays_of, disturbed, reloaded
from transformer.runs.exporting import export_run
from transformer.runs.importing import import_published, read_run
from transformer.runs.opening import open_run
from transformer.tasks.parts.outputs import apply
from transformer.training.selection import from_paths

pytest.importorskip("safetensors", reason="weights are read from its files")
torch = pytest.importorskip("torch", reason="torch makes the checkpoints")
transformers = pytest.importorskip("transformers", reason="transformers makes the checkpoints")

HEADS = {
    "fill": "ForMaskedLM",
    "classify": "ForSequenceClassification",
    "tag": "ForTokenClassification",
}
# Longer than the windows, and one row shorter than the other.
LENGTHS, T, V = (11, 7), 11, 300
TOKENS = np.random.default_rng(0).integers(0, V, (2, T)).astype(np.int32)
NAMES = {
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "mask_token": "[MASK]",
}
SIZE = {
    "vocab_size": V,
    "hidden_size": 16,
    "intermediate_size": 12,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "max_position_embeddings": 40,
    "local_attention": 4,
    "hidden_activation": "gelu_new",
    "norm_eps": 1e-3,
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 900.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 30.0},
    },
    **dict.fromkeys(("pad_token_id", "bos_token_id", "cls_token_id"), 0),
    **dict.fromkeys(("eos_token_id", "sep_token_id"), 1),
}


def write_tokenizer(folder):
    """Pieces of bytes between `[CLS]` and `[SEP]`, as the published one has them."""
    import tokenizers
    from tokenizers import models, normalizers, pre_tokenizers, processors

    letters = [*NAMES.values(), *sorted(pre_tokenizers.ByteLevel.alphabet()), "he", "Ġt"]
    vocabulary = {token: index for index, token in enumerate(letters)}
    made = tokenizers.Tokenizer(models.BPE(vocabulary, [("h", "e"), ("Ġ", "t")]))
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.add_special_tokens(list(NAMES.values()))
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
    )
    made.save(str(folder / "tokenizer.json"))
    settings = {**NAMES, "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 40}
    settings["model_input_names"] = ["input_ids", "attention_mask"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")


def published(folder, method, **config):
    """A folder of theirs and the model in it."""
    folder.mkdir()
    values = transformers.ModernBertConfig(**SIZE | config)
    kind = getattr(transformers, f"ModernBert{HEADS[method]}")
    model = disturbed(kind, values, scale=0.2)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return kind, model


def their_logits(model):
    valid = np.arange(T) < np.array(LENGTHS)[:, None]
    with torch.no_grad():
        return model(
            input_ids=torch.tensor(TOKENS.astype(np.int64)), attention_mask=torch.tensor(valid)
        ).logits.numpy()


def our_logits(model, params, method):
    places = (np.tile(np.arange(T, dtype=np.int32), (2, 1)),) if method == "fill" else ()
    lengths = np.array(LENGTHS, np.int32)
    return apply(model, method, params, TOKENS, None, lengths, *places)


def compared(found, expected):
    for row, length in enumerate(LENGTHS):
        pair = (found[row], expected[row])
        if expected.ndim == 3:
            pair = tuple(each[:length] for each in pair)
        np.testing.assert_allclose(*pair, atol=1e-5, rtol=1e-5)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("method", "config"),
    [("fill", {}), ("classify", {"classifier_pooling": "mean"}), ("classify", {}), ("tag", {})],
    ids=["fill", "mean", "classify", "tag"],
)
def test_logits_and_bits_are_theirs(tmp_path, method, config):
    kind, model = published(tmp_path / "theirs", method, num_labels=3, **config)
    read = import_published(tmp_path / "theirs", tmp_path / "run")
    assert not read.unused
    run = open_run(tmp_path / "run")
    expected = their_logits(model)
    compared(our_logits(run.model, run.params, method), expected)
    export_run(tmp_path / "run", tmp_path / "ours")
    before, after = arrays_of(tmp_path / "theirs"), arrays_of(tmp_path / "ours")
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)
    compared(their_logits(reloaded(kind, tmp_path / "ours")), expected)
    again = read_run(tmp_path / "ours")
    assert again.published.model == read.model
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    text = "The heat  of Éa [SEP]"
    ours = again.run.tokenizer
    ids = [ours.start, *ours.pieces([text], special=True)[0].ids, ours.separator]
    assert tokenizer(text)["input_ids"] == ids


def test_scanned_is_unrolled(tmp_path):
    published(tmp_path / "theirs", "tag", num_labels=3)
    runs = []
    for scan in (False, True):
        import_published(tmp_path / "theirs", tmp_path / f"run{scan}", scan_layers=scan)
        runs.append(open_run(tmp_path / f"run{scan}"))
    assert set(runs[1].params["blocks"]) == {"layer_0", "layers"}
    one, other = (our_logits(run.model, run.params, "tag") for run in runs)
    np.testing.assert_allclose(one, other, atol=1e-5)


# Other values for each key; each is also left out.
KEYS = {
    "vocab_size": [299],
    "hidden_size": [32],
    "intermediate_size": [24],
    "num_hidden_layers": [3],
    "num_attention_heads": [4, 3],
    "hidden_activation": ["relu", "tanh"],
    "max_position_embeddings": [20],
    "initializer_range": [1.0],
    "initializer_cutoff_factor": [1.0],
    "norm_eps": [0.1],
    "norm_bias": [True],
    "pad_token_id": [3],
    "eos_token_id": [3],
    "bos_token_id": [3],
    "cls_token_id": [3],
    "sep_token_id": [3],
    "attention_bias": [True],
    "attention_dropout": [0.5],
    "layer_types": [["full_attention"] * 4, ["sliding_attention"] * 4],
    "global_attn_every_n_layers": [2],
    "rope_parameters": [],
    "rope_parameters.full_attention.rope_theta": [50.0],
    "rope_parameters.sliding_attention.rope_theta": [50.0],
    "rope_parameters.full_attention.rope_type": ["linear"],
    "local_attention": [6, 7],
    "embedding_dropout": [0.5],
    "mlp_bias": [True],
    "mlp_dropout": [0.5],
    "decoder_bias": [False],
    "classifier_pooling": ["mean"],
    "classifier_dropout": [0.5],
    "classifier_bias": [True],
    "classifier_activation": ["relu"],
    "deterministic_flash_attn": [True],
    "sparse_prediction": [True],
    "sparse_pred_ignore_index": [0],
    "tie_word_embeddings": [False],
    "is_encoder_decoder": [True],
    "dtype": ["bfloat16"],
    "transformers_version": ["4.48.0"],
    "global_rope_theta": [50.0],
    "local_rope_theta": [50.0],
    "position_embedding_type": ["relative"],
    "strange": [1],
}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "theirs"
    published(folder, "classify", num_labels=3)

    def theirs(changed):
        kind = transformers.ModernBertForSequenceClassification
        return {"logits": their_logits(kind.from_pretrained(changed, dtype=torch.float32).eval())}

    def ours(found):
        model = found.published.family.model(**found.published.model)
        return {"logits": our_logits(model, from_paths(found.published.params), "classify")}

    return Subject(folder, theirs, ours)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (key, value)
        for key, values in KEYS.items()
        for value in (*values, DELETED)
        # Without the key their library makes a token of it that so small a table does not have.
        if (key, value) != ("pad_token_id", DELETED)
        and is_tried(f"modern_bert {key} {value if value is not DELETED else 'left out'}")
    ],
    ids=lambda value: "left out" if value is DELETED else str(value)[:30],
)
def test_a_key_is_honoured_or_named(classifier, tmp_path, key, value):
    assert outcome(classifier, tmp_path / "changed", "config.json", key, value)


def test_all_keys_of_the_class_are_tried(classifier):
    content = json.loads((classifier.folder / "config.json").read_text("utf-8"))
    known = {"architectures", "model_type", "id2label", "label2id"}
    assert content.keys() - known <= KEYS.keys()
