"""T5 of `transformers`: read, written, the same logits, the same greedy texts."""

import functools
import io
import json
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers

from tests.end_to_end.conftest import call
from tests.interop.round_trips import arrays_of, reloaded
from tests.tokenizers import load_sentence_tokenizer
from transformer.decoding.beam import Settings, beam_search
from transformer.errors import ConfigError, DataError
from transformer.fields import require_allowed
from transformer.interop.families import t5
from transformer.interop.family import Source, Trained
from transformer.interop.layout import Stored, read_entries
from transformer.interop.opening import read_published
from transformer.interop.published import read_source
from transformer.interop.side_files import CONFIG, SideFiles
from transformer.models.t5 import T5
from transformer.ops.relative_positions import relative_buckets
from transformer.runs.exporting import export_run
from transformer.runs.importing import import_published
from transformer.training.selection import from_paths

torch = pytest.importorskip("torch", reason="torch makes the checkpoints")
transformers = pytest.importorskip("transformers", reason="transformers makes the checkpoints")

V, END, BEGIN = 67, 1, 0
(T5_FAMILY,) = t5.FAMILIES
SIZE = {
    "vocab_size": V,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "pad_token_id": 0,
    "eos_token_id": END,
    "decoder_start_token_id": BEGIN,
}
NEW = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
MODELS = {
    "1.0": {},
    "1.0, wide heads, one decoder layer": {"d_kv": 16, "num_heads": 3, "num_decoder_layers": 1},
    "1.0, few buckets": {
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 20,
    },
    "1.1": NEW,
    "1.1, narrow heads": {**NEW, "d_kv": 5, "d_model": 24, "num_heads": 6},
}
# Further apart than the greatest distance that is told.
LENGTHS = np.array([150, 140, 9]), np.array([140, 135, 7])


class Arrays(dict, Stored):
    """Arrays as a folder holds them."""

    def shape(self, name):
        return self[name].shape


def theirs(**config):
    """A model with random weights of more than the usual size, so that differences show."""
    torch.manual_seed(0)
    options = transformers.T5Config(**{**SIZE, **config})
    model = transformers.T5ForConditionalGeneration(options).eval()
    if config.get("tie_word_embeddings") is False:
        model.lm_head.weight = torch.nn.Parameter(torch.randn(options.vocab_size, options.d_model))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.copy_(1.0 + 0.3 * torch.randn(parameter.shape))
            elif "relative" in name:
                parameter.copy_(1.5 * torch.randn(parameter.shape))
            elif ".wo." in name or ".o." in name:
                # So that a tied output layer does not just repeat the last token.
                parameter.mul_(3.0)
    return model


def source_of(model, **changes):
    arrays = Arrays({name: x.numpy().copy() for name, x in model.state_dict().items()})
    files = SideFiles(
        Path("there"), {CONFIG: {**model.config.to_dict(), "model_type": "t5", **changes}}
    )
    return Source(Path("there"), files, arrays)


@pytest.fixture(scope="module", params=MODELS)
def pair(request):
    model = theirs(**MODELS[request.param])
    return model, read_source(source_of(model), T5_FAMILY)


@pytest.mark.sampled(2)
def test_logits_and_greedy_texts_are_theirs(pair):
    model, published = pair
    assert published.unused == []
    assert published.job == "text_to_text"
    ours, params = T5(**published.model), from_paths(published.params)
    require_allowed("model", ours)
    rng = np.random.default_rng(0)
    source, target = (rng.integers(2, V, (3, int(lengths[0]))) for lengths in LENGTHS)
    target[:, 0] = BEGIN
    read, written = (
        np.arange(side.shape[1]) < lengths[:, None]
        for side, lengths in zip((source, target), LENGTHS, strict=True)
    )
    with torch.no_grad():
        inputs = {"input_ids": torch.tensor(source), "attention_mask": torch.tensor(read).long()}
        expected = model(**inputs, decoder_input_ids=torch.tensor(target)).logits.numpy()
        texts = model.generate(**inputs, max_new_tokens=32, do_sample=False, num_beams=1).numpy()
    segments = {"source_segments": read, "target_segments": written}
    logits = jax.jit(ours.apply)(
        {"params": params}, source, target, **{k: x.astype(np.int32) for k, x in segments.items()}
    )
    # The greatest difference that was seen is 1e-5.
    np.testing.assert_allclose(np.asarray(logits)[written], expected[written], atol=1e-4)

    settings = Settings(
        END,
        num_tokens=V,
        max_length=33,
        beam_size=1,
        alpha=0.0,
        num_return=1,
        begin=ours.begin_token(),
    )
    lengths = jnp.asarray(LENGTHS[0])
    found = beam_search(ours, params, jnp.asarray(source), lengths, jnp.full(3, 33), settings)
    for text, tokens, length in zip(texts, found.tokens[:, 0], found.lengths[:, 0], strict=True):
        count = min(int(length), 32)
        assert tokens[:count].tolist() == text[1 : count + 1].tolist()
        # It begins with a token of its own, and goes on to the end or the limit.
        assert count == 32 or text[count] == END
    assert max(len(set(text.tolist())) for text in texts) > 3


def trained(model):
    """A run of a model; no more than its end token is asked for."""
    task = SimpleNamespace(load_tokenizer=lambda workdir: SimpleNamespace(end=END))
    return Trained("text_to_text", task, model)


def test_what_was_read_is_written_again(pair):
    model, published = pair
    config = T5_FAMILY.config(trained(T5(**published.model)))
    known = model.config.to_dict()
    assert config.pop("architectures") == [type(model).__name__]
    scaled = config.pop("tie_word_embeddings")
    assert scaled == known["scale_decoder_outputs"]
    assert {name: known[name] for name in config} == config
    entries = T5_FAMILY.entries(T5(**published.model))
    arrays = source_of(model).arrays
    for entry in entries:
        back = entry.write([np.asarray(published.params[path]) for path in entry.paths])
        for name, array in zip(entry.names, back, strict=True):
            np.testing.assert_array_equal(array, arrays[name])
    names = {name: name for name in arrays}
    again = dict(read_entries(entries, arrays, names, Path("there")))
    assert again.keys() == published.params.keys()


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("count", "distance"), [(32, 128), (8, 20), (16, 64), (4, 3)])
def test_buckets_are_theirs(bidirectional, count, distance):
    from transformers.models.t5.modeling_t5 import T5Attention

    behind = np.arange(-3 * distance, 3 * distance + 1)
    options = {"num_buckets": count, "max_distance": distance, "bidirectional": bidirectional}
    expected = T5Attention._relative_position_bucket(torch.tensor(behind), **options)
    buckets = jax.jit(functools.partial(relative_buckets, **options))
    found = buckets(np.zeros((1, 1), int), behind[None])
    np.testing.assert_array_equal(found[0, 0], expected.numpy())


def test_what_is_not_known_is_refused():
    for kind in ("gated-mish", "tanh", "wide-relu"):
        changes = {"feed_forward_proj": kind, "dense_act_fn": kind.split("-")[-1]}
        with pytest.raises(DataError, match=kind):
            read_source(source_of(theirs(), **changes), T5_FAMILY)
    with pytest.raises(DataError, match="feed_forward_proj 'x' and dense_act_fn 'relu'"):
        changes = {"feed_forward_proj": "x", "dense_act_fn": "relu"}
        read_source(source_of(theirs(), **changes), T5_FAMILY)
    with pytest.raises(DataError, match="num_layers 3"):
        read_source(source_of(theirs(), num_layers=3), T5_FAMILY)
    with pytest.raises(ConfigError, match="gelu"):
        T5_FAMILY.config(trained(T5(vocab_size=9, gated=True, activation="gelu")))


# Of lengths that are searched together, in one program.
TEXTS = [
    "summarize: the house is green and the dog runs",
    "translate English to German: a small frog asked the teacher",
    "translate English to German: where is the green frog?",
    "summarize: the teacher runs to the house in 1984 again",
]
SPECIAL = ("<pad>", "</s>", "<unk>")


def write_library_tokenizer(folder):
    """A `tokenizer.json` as T5's: pieces of SentencePiece, sentinels last, an end behind texts."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.Unigram())
    space = {"replacement": "▁", "prepend_scheme": "always"}
    before = tokenizers.pre_tokenizers
    tokenizer.pre_tokenizer = before.Sequence([before.WhitespaceSplit(), before.Metaspace(**space)])
    tokenizer.decoder = tokenizers.decoders.Metaspace(**space)
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=60, special_tokens=list(SPECIAL), unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 4, trainer)
    tokenizer.add_special_tokens(["<extra_id_1>", "<extra_id_0>"])
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", END)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer.get_vocab_size()


def write_sentencepieces(folder):
    """A `spiece.model` as T5's."""
    sentencepiece = pytest.importorskip("sentencepiece")
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 4),
        model_writer=written,
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
        pad_id=0,
        eos_id=END,
        unk_id=2,
        bos_id=-1,
    )
    (folder / "spiece.model").write_bytes(written.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=written.getvalue()).vocab_size()


RUNS = {
    "tokenizer.json": (write_library_tokenizer, {}),
    "spiece.model": (write_sentencepieces, {**NEW, "num_layers": 1}),
}


@pytest.fixture(scope="module", params=RUNS)
def run(request, tmp_path_factory):
    """A model of theirs, its folder, and a run of it."""
    folder = tmp_path_factory.mktemp("run")
    write, config = RUNS[request.param]
    (folder / "theirs").mkdir()
    model = theirs(**config, vocab_size=write(folder / "theirs"))
    model.save_pretrained(folder / "theirs")
    stated = json.loads((folder / "theirs" / "config.json").read_text())
    if config:
        # As version 1.1 was published; newer files say it in another key.
        stated["tie_word_embeddings"] = stated.pop("scale_decoder_outputs")
        (folder / "theirs" / "config.json").write_text(json.dumps(stated))
    flags = [f"--source={folder}/theirs", f"--workdir={folder}/run", "--max_length=80", "--json"]
    found = call("import_hf.py", *flags)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["job"] == "text_to_text"
    return model, folder


def test_answers_are_theirs(run):
    model, folder = run
    flags = [f"--workdir={folder}/run", "--max_len=12"]
    found = call("generate.py", *flags, input="\n".join(TEXTS) + "\n")
    assert found.returncode == 0, found.stderr
    tokenizer = load_sentence_tokenizer(folder / "run")
    rows = [[*ids.tolist(), END] for ids in tokenizer.encode_all(TEXTS)]
    if (folder / "theirs" / "tokenizer.json").exists():
        their_tokenizer = tokenizers.Tokenizer.from_file(str(folder / "theirs" / "tokenizer.json"))
        assert rows == [their_tokenizer.encode(text).ids for text in TEXTS]
    longest = max(len(row) for row in rows)
    source = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    mask = (torch.arange(longest) < lengths[:, None]).long()
    with torch.no_grad():
        # With the token that begins, and one for the end.
        texts = model.generate(
            input_ids=source, attention_mask=mask, max_new_tokens=13, do_sample=False, num_beams=1
        )
    expected = []
    for text in texts.numpy()[:, 1:13]:
        (ends,) = np.nonzero(text == END)
        expected.append(tokenizer.decode(text[: ends[0]] if len(ends) else text))
    assert found.stdout.splitlines() == expected
    assert len(set(expected)) > 1


def test_a_run_is_exported_as_it_was_imported(run, tmp_path):
    model, folder = run
    export_run(folder / "run", tmp_path / "out")
    before, after = arrays_of(folder / "theirs"), arrays_of(tmp_path / "out")
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)
    again = reloaded(type(model), tmp_path / "out")
    assert again.config.scale_decoder_outputs == model.config.scale_decoder_outputs
    ours = read_published(tmp_path / "out").model
    assert ours == read_published(folder / "theirs").model
    tied = model.config.scale_decoder_outputs
    assert ours["tie_embeddings"] == tied
    assert ("lm_head.weight" in after) == (not tied)
    tokens = {"input_ids": torch.tensor([[3, 4, 5]]), "decoder_input_ids": torch.tensor([[0, 7]])}
    with torch.no_grad():
        np.testing.assert_array_equal(again(**tokens).logits, model(**tokens).logits)
    for name in ("decoder_start_token_id", "eos_token_id", "pad_token_id"):
        expected = getattr(model.generation_config, name)
        assert getattr(again.generation_config, name) == expected, name
    # As many as theirs writes where no file says how many.
    assert again.generation_config.max_length == 21
    # Their loader makes the same tokens of the same texts.
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = load_sentence_tokenizer(folder / "run").encode_all(TEXTS)
    assert their_tokenizer(TEXTS)["input_ids"] == [[*row.tolist(), END] for row in ids]
    assert their_tokenizer.eos_token_id == END
    assert their_tokenizer.pad_token_id == 0


def test_a_folder_without_a_tokenizer_is_named(run, tmp_path):
    run[0].save_pretrained(tmp_path / "theirs")
    with pytest.raises(DataError, match=r"spiece\.model"):
        import_published(tmp_path / "theirs", tmp_path / "run")
    assert not (tmp_path / "run").exists()
