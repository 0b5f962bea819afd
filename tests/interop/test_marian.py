"""Marian of `transformers`: read, written, the same logits, the same translations."""

import functools
import io
import json
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.finetune import get_config
from tests.end_to_end.conftest import call
from tests.interop.round_trips import arrays_of, reloaded
from tests.tokenizers import load_sentence_tokenizer
from transformer.data.tokenizers.kinds.marian import MarianTokenizer
from transformer.data.tokenizers.protocol import SentenceTokenizer
from transformer.decoding.beam import Settings, beam_search
from transformer.errors import ConfigError, DataError
from transformer.fields import require_allowed
from transformer.interop.families import marian
from transformer.interop.family import Trained
from transformer.interop.opening import read_published
from transformer.interop.side_files import SideFile
from transformer.models.vaswani import Vaswani
from transformer.runs.exporting import export_run
from transformer.runs.importing import import_published
from transformer.runs.opening import open_run
from transformer.training.experiment import prepare
from transformer.training.selection import from_paths

pytest.importorskip("safetensors", reason="weights are read from its files")
sentencepiece = pytest.importorskip("sentencepiece", reason="it makes the tokenizers")
torch = pytest.importorskip("torch", reason="torch makes the checkpoints")
transformers = pytest.importorskip("transformers", reason="transformers makes the checkpoints")

SOURCE = [
    "the house is green and the dog runs",
    "a small frog asked the teacher",
    "where is the green frog now?",
    "the teacher runs to the house in 1984.",
]
TARGET = [
    "das Haus ist grün und der Hund läuft",
    "ein kleiner Frosch fragte den Lehrer",
    "wo ist der grüne Frosch jetzt?",
    "der Lehrer läuft 1984 zum Haus.",
]
STRANGE = ["", " ", "  two  spaces ", "天 house", "ß Ω", "a\tb", "e\u0301 ﬁ é", "A 1,984 x", "🙂 !"]
LANGUAGES = [">>deu<< the house", ">>deu<<the", ">>fra<< the house", ">>x the", "<< the", ">>a"]
SIZE = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "activation_function": "swish",
    "scale_embedding": True,
    "max_position_embeddings": 64,
    "eos_token_id": 0,
    "forced_eos_token_id": 0,
}
OTHER = {
    "d_model": 24,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "activation_function": "relu",
    "scale_embedding": False,
}
MODELS = {"swish, scaled": {}, "relu, not scaled": OTHER}
LENGTHS = np.array([11, 7, 3]), np.array([9, 10, 4])


def pieces_of(lines, path):
    """A model of SentencePiece for some lines, and its pieces."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 6),
        model_writer=written,
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    path.write_bytes(written.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return [processor.id_to_piece(index) for index in range(3, processor.vocab_size())]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The three files of a tokenizer; `vocab.json` lacks one of the pieces."""
    folder = tmp_path_factory.mktemp("tokenizer")
    both = pieces_of(SOURCE, folder / "source.spm") + pieces_of(TARGET, folder / "target.spm")
    both = [piece for piece in dict.fromkeys(both) if piece != "▁green"]
    tokens = ["</s>", "<unk>", *both[:9], ">>deu<<", *both[9:], "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    return folder


def theirs(num_tokens, **config):
    """A model with random weights, which would write the padding token often."""
    torch.manual_seed(0)
    tokens = {"vocab_size": num_tokens, "pad_token_id": num_tokens - 1}
    options = {**SIZE, **tokens, "decoder_start_token_id": num_tokens - 1, **config}
    model = transformers.MarianMTModel(transformers.MarianConfig(**options)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_norm.weight" in name:
                # Of either sign, so that a tied output layer does not repeat the last token.
                parameter.copy_(torch.randn_like(parameter))
            elif "embed_positions" not in name:
                # What is read is to matter, with embeddings that are scaled or not.
                more = 1.0 if options["scale_embedding"] else 2.0
                scale = 0.2 * more if "encoder" in name or "shared" in name else 0.2
                parameter.add_(scale * torch.randn_like(parameter))
        model.final_logits_bias.copy_(0.5 * torch.randn_like(model.final_logits_bias))
        model.final_logits_bias[:, num_tokens - 1] = 3.0
        model.final_logits_bias[:, 0] = 3.0 / more
    model.generation_config.bad_words_ids = [[num_tokens - 1]]
    return model


def published(files, folder, **config):
    model = theirs(len(json.loads((files / "vocab.json").read_text())), **config)
    model.save_pretrained(folder)
    shutil.copytree(files, folder, dirs_exist_ok=True)
    return model


@pytest.fixture(scope="module", params=MODELS)
def pair(request, files, tmp_path_factory):
    """A model of theirs and its folder."""
    folder = tmp_path_factory.mktemp("published")
    return published(files, folder, **MODELS[request.param]), folder


@functools.partial(jax.jit, static_argnums=0)
def logits(model, params, source, target, **layout):
    return model.apply({"params": params}, source, target, **layout)


def test_logits_and_greedy_texts_are_theirs(pair):
    model, folder = pair
    read = read_published(folder)
    assert read.unused == []
    ours, params = read.family.model(**read.model), from_paths(read.params)
    pad = model.config.pad_token_id
    rng = np.random.default_rng(0)
    source, target = (rng.integers(1, pad, (3, int(lengths.max()))) for lengths in LENGTHS)
    target[:, 0] = pad
    seen, written = (
        np.arange(side.shape[1]) < lengths[:, None]
        for side, lengths in zip((source, target), LENGTHS, strict=True)
    )
    with torch.no_grad():
        inputs = {"input_ids": torch.tensor(source), "attention_mask": torch.tensor(seen).long()}
        expected = model(**inputs, decoder_input_ids=torch.tensor(target)).logits.numpy()
        texts = model.generate(**inputs, max_new_tokens=32, num_beams=1, do_sample=False).numpy()
    segments = {"source_segments": seen, "target_segments": written}
    layout = {name: mask.astype(np.int32) for name, mask in segments.items()}
    found = np.asarray(logits(ours, params, source, target, **layout))
    assert np.abs(expected).max() > 3.0
    np.testing.assert_allclose(found[written], expected[written], atol=1e-5)

    settings = Settings(
        end=0,
        num_tokens=ours.vocab_size,
        max_length=32,
        beam_size=1,
        alpha=0.0,
        num_return=1,
        begin=ours.begin_token(),
        unwritten=ours.unwritten_tokens(),
    )
    lengths = jnp.asarray(LENGTHS[0])
    outputs = beam_search(ours, params, jnp.asarray(source), lengths, jnp.full(3, 32), settings)
    for text, tokens, length in zip(
        texts, outputs.tokens[:, 0], outputs.lengths[:, 0], strict=True
    ):
        assert tokens[: int(length)].tolist() == text[1 : int(length) + 1].tolist()
        assert pad not in text[1 : int(length) + 1]
    assert max(len(set(text.tolist())) for text in texts) > 3
    assert len(set(map(tuple, texts.tolist()))) > 1
    # The bias of the padding token is what makes it the most probable one.
    assert (np.argmax(expected, axis=-1) == pad).any()


def test_what_is_exported_is_what_was_imported(pair, tmp_path):
    model, folder = pair
    scanned = model.config.d_model == 24
    import_published(folder, tmp_path / "run", scan_layers=scanned)
    export_run(tmp_path / "run", tmp_path / "out")
    before, after = arrays_of(folder), arrays_of(tmp_path / "out")
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)
    for name in ("source.spm", "target.spm", "vocab.json"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes()
    again = reloaded(type(model), tmp_path / "out")
    known = again.config.to_dict()
    differing = {name for name, x in model.config.to_dict().items() if known.get(name) != x}
    assert differing <= {"max_position_embeddings", "_name_or_path"}
    for name in ("bad_words_ids", "decoder_start_token_id", "eos_token_id", "pad_token_id"):
        expected = getattr(model.generation_config, name)
        assert getattr(again.generation_config, name) == expected, name
    tokens = {
        "input_ids": torch.arange(12).reshape(2, 6),
        "decoder_input_ids": torch.ones(2, 3).long(),
    }
    with torch.no_grad():
        np.testing.assert_array_equal(again(**tokens).logits, model(**tokens).logits)
    # What was written can be read in turn.
    fields = read_published(tmp_path / "out").model
    assert fields == read_published(folder).model


@pytest.fixture(scope="module")
def their_tokenizer(files):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Recommended: pip install sacremoses")
        paths = [str(files / name) for name in ("source.spm", "target.spm", "vocab.json")]
        return transformers.MarianTokenizer(*paths)


def test_tokens_are_theirs(files, their_tokenizer, tmp_path):
    ours = MarianTokenizer(files)
    assert isinstance(ours, SentenceTokenizer)
    assert ours.end == their_tokenizer.eos_token_id
    assert ours.pad == their_tokenizer.pad_token_id
    assert ours.vocab_size == len(their_tokenizer)
    lines = [*SOURCE, *TARGET, *STRANGE, *LANGUAGES]
    for encode, argument in ((ours.encode_all, "text"), (ours.encode_targets, "text_target")):
        for line, ids in zip(lines, encode(lines), strict=True):
            assert ids.dtype == np.int32
            assert ids.tolist() == their_tokenizer(**{argument: line})["input_ids"][:-1], line
    assert 1 in ours.encode_all(["天"])[0]
    for line, ids in zip(TARGET, ours.encode_targets(TARGET), strict=True):
        assert ours.decode(ids) == line == their_tokenizer.decode(ids, skip_special_tokens=True)
    around = [np.array([index]) for index in (ours.pad, 1, ours.end)]
    ids = np.concatenate([around[0], ids, around[1], ids, around[2]])
    assert ours.decode(ids) == f"{line} ⁇ {line}"
    assert ours.encode_all([]) == []
    # Nothing that is written makes a special token.
    for ids in ours.encode_all(["</s> <pad>", "<pad>"]):
        assert not {ours.end, ours.pad} & set(ids.tolist())
    ours.save(tmp_path)
    again = load_sentence_tokenizer(tmp_path)
    assert isinstance(again, MarianTokenizer)
    assert again.identity() == ours.identity()


@pytest.fixture(scope="module")
def imported(files, tmp_path_factory):
    """A model of theirs, and a run of it."""
    folder = tmp_path_factory.mktemp("imported")
    model = published(files, folder / "theirs")
    found = call("import_hf.py", f"--source={folder}/theirs", f"--workdir={folder}/run", "--json")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["job"] == "translation"
    return model, folder / "run"


@pytest.mark.parametrize("beams", [1, 4])
def test_translations_are_theirs(imported, their_tokenizer, beams):
    model, run = imported
    # Of lengths that are searched together, in one program.
    lines = [*SOURCE[:3], "the dog asked where the frog is"]
    flags = [f"--workdir={run}", f"--beam_size={beams}", "--length_penalty=0", "--max_len=20"]
    found = call("generate.py", *flags, input="\n".join(lines) + "\n")
    assert found.returncode == 0, found.stderr
    inputs = their_tokenizer(lines, padding=True, return_tensors="pt")
    options = {"num_beams": beams, "length_penalty": 0.0, "do_sample": False}
    with torch.no_grad():
        texts = model.generate(**inputs, max_new_tokens=20, **options)
    ours = open_run(run).task.load_tokenizer(run)
    expected = [ours.decode(text[1:].numpy()) for text in texts]
    assert found.stdout.splitlines() == expected
    assert len(set(expected)) > 1


def test_training_further_tokenizes_each_side_by_its_own_model(imported, their_tokenizer, tmp_path):
    for name, lines in (("s", SOURCE), ("t", TARGET)):
        (tmp_path / name).write_text("\n".join(lines * 3) + "\n")
    config = get_config(str(imported[1]))
    config.task.train = f"{tmp_path}/s,{tmp_path}/t"
    experiment = prepare(config)
    data = experiment.data
    for index in range(4):
        source = their_tokenizer(SOURCE[index])["input_ids"]
        target = their_tokenizer(text_target=TARGET[index])["input_ids"]
        assert data.train.source[index].tolist() == source
        assert data.train.target[index].tolist() == target
    (tmp_path / "new").mkdir()
    data.save(tmp_path / "new")
    assert load_sentence_tokenizer(tmp_path / "new").identity() == data.tokenizer.identity()


@pytest.fixture
def folder(files, tmp_path):
    return shutil.copytree(files, tmp_path / "files")


@pytest.mark.parametrize("name", ["source.spm", "target.spm", "vocab.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(DataError, match=name):
        MarianTokenizer(folder)


def test_damaged_files_are_named(folder):
    vocabulary = json.loads((folder / "vocab.json").read_text())
    for content, said in (
        ("{", "JSON"),
        ("[]", "table"),
        ('{"a": "b"}', "table"),
        (json.dumps({k: v for k, v in vocabulary.items() if k != "<pad>"}), "<pad>"),
        (json.dumps({k: v + (v == 7) for k, v in vocabulary.items()}), "8"),
        (json.dumps({k: v - 3 * (v == 0) for k, v in vocabulary.items()}), "table"),
    ):
        (folder / "vocab.json").write_text(content)
        with pytest.raises(DataError, match=said) as error:
            MarianTokenizer(folder)
        assert "vocab.json" in str(error.value)
    (folder / "target.spm").write_bytes(b"no model")
    with pytest.raises(DataError, match=r"target\.spm"):
        MarianTokenizer(folder)


REFUSED = {
    "share_encoder_decoder_embeddings": False,
    "tie_word_embeddings": False,
    "static_position_embeddings": False,
    "normalize_before": True,
    "normalize_embedding": True,
    "add_final_layer_norm": True,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 40,
    "decoder_vocab_size": 30,
    "activation_function": "mish",
    "decoder_start_token_id": 3,
    "d_model": 30,
}


(MARIAN,) = marian.FAMILIES


@pytest.mark.parametrize("key", REFUSED)
def test_what_is_not_known_is_refused(key):
    num_tokens = 40
    config = {**SIZE, "vocab_size": num_tokens, "pad_token_id": 39, "decoder_start_token_id": 39}
    there = Path("there")
    require_allowed("model", Vaswani(**MARIAN.fields(SideFile(there, config), there, {})))
    changed = SideFile(there, {**config, key: REFUSED[key]})
    with pytest.raises((DataError, ConfigError)) as error:
        require_allowed("model", Vaswani(**MARIAN.fields(changed, there, {})))
    said = str(error.value)
    assert {"activation_function": "mish", "d_model": "30"}.get(key, key) in said


def test_what_theirs_cannot_be_is_not_written():
    ours = Vaswani(vocab_size=9, interleaved_positions=False)
    task = SimpleNamespace(load_tokenizer=lambda workdir: SimpleNamespace(end=4))
    config = MARIAN.config(Trained("translation", task, ours))
    assert config["decoder_start_token_id"] == config["eos_token_id"] == 4
    for changes in ({"interleaved_positions": True}, {"norm_order": "pre"}):
        with pytest.raises(ConfigError, match=next(iter(changes))):
            MARIAN.config(Trained("translation", task, ours.clone(**changes)))


def test_texts_of_model_and_tokenizer_end_alike(files, tmp_path):
    published(files, tmp_path / "theirs", eos_token_id=2, forced_eos_token_id=2)
    with pytest.raises(DataError, match=r"eos_token_id: 2.* token 0 of the tokenizer"):
        import_published(tmp_path / "theirs", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_tokenizer_is_refused(files, tmp_path):
    published(files, tmp_path / "theirs")
    with pytest.raises(DataError, match="three files"):
        import_published(
            tmp_path / "theirs", tmp_path / "run", tokenizer=tmp_path / "theirs" / "vocab.json"
        )
