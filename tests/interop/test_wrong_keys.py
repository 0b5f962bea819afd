"""Values of side files that no model here can have, and values that say the same in two ways.

Only the files are read, so that each costs milliseconds; `test_keys_*.py` has the library beside.
"""

from pathlib import Path

import numpy as np
import pytest

from tests.interop.test_ctranslate2 import array_of, content_of
from tests.tokenizers import make_text_tokenizer
from transformer.decoding.word_times import require_heads, usual_heads
from transformer.errors import ConfigError, DataError
from transformer.interop.formats.ctranslate2 import read_ctranslate2_file
from transformer.interop.formats.ctranslate2_layers import read_tokens
from transformer.interop.image_processors import read_preparation
from transformer.interop.opening import all_families
from transformer.interop.searches import begin_of, read_searches
from transformer.interop.side_files import SideFile, SideFiles
from transformer.interop.sounds import sound_fields
from transformer.interop.tokenizers.files import (
    merge_pairs,
    read_tokenizer_text,
    with_beginning,
    with_end,
)
from transformer.interop.word_times import word_time_fields

THERE = Path("there")
NEAR, FAR = "sliding_attention", "full_attention"
DECODER = {
    "vocab_size": 9,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 8,
    "tie_word_embeddings": True,
}


def fields(kind, **values):
    family = next(family for family in all_families() if kind in family.kinds)
    return family.fields(SideFile(THERE, {"model_type": kind, **values}), THERE, {})


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        ("gemma2", {"use_bidirectional_attention": True}, "Gemma looks back only"),
        ("gemma2", {"hidden_activation": "gelu"}, "another hidden_activation"),
        ("gemma2", {"sliding_window": None}, "sliding_window is null, and there are layers"),
        ("gemma2", {"layer_types": [FAR, NEAR, NEAR, FAR]}, "layer_types in an order"),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 2}, "in some layers only"),
        ("qwen2", {"layer_types": [NEAR] * 4}, "in some layers only"),
        ("esm", {"position_embedding_type": "absolute"}, "position_embedding_type is 'absolute'"),
        ("esm", {"position_embedding_type": "rotary", "is_folding_model": True}, "is_folding"),
        ("vit", {"num_channels": 4}, "num_channels is 4: 1 or 3"),
        ("vit", {"patch_size": [4, 2]}, r"patch_size is \[4, 2\]: only squares"),
        ("modernbert", {"layer_types": [NEAR] * 4}, "layer_types in an order"),
        ("t5", {"feed_forward_proj": "tanh-gelu"}, "feed_forward_proj 'tanh-gelu'"),
    ],
)
def test_models_that_are_not_here(kind, values, message):
    known = {} if kind == "t5" else DECODER
    with pytest.raises(DataError, match=message):
        fields(kind, **known, **values)


def test_which_layers_have_a_window():
    assert fields("qwen2", **DECODER)["window"] is None
    # Layers from 28 on, of which there are none.
    windows = {**DECODER, "use_sliding_window": True, "sliding_window": 5}
    assert fields("qwen2", **windows)["window"] is None
    assert fields("qwen2", **windows, max_window_layers=0)["window"] == 5
    assert fields("qwen2", **windows, layer_types=[NEAR] * 4)["window"] == 5
    assert fields("mistral", **DECODER, sliding_window=None)["window"] is None
    for types, every in (([NEAR] * 4, 6), ([FAR] * 4, 1), ([NEAR, FAR] * 2, 2)):
        found = fields("gemma3_text", **DECODER, layer_types=types)
        assert found["global_every"] == every
    # In Gemma 2 every second layer sees everything unless its layers are named.
    assert fields("gemma2", **DECODER, layer_types=[NEAR] * 4)["global_every"] == 5
    assert fields("vit", **DECODER, patch_size=[4, 4], image_size=8)["patch_size"] == 4


# ------------------------------------------------------------------------ what is written, how


def searches(**said):
    return read_searches(SideFiles(THERE, {"config.json": {"eos_token_id": 2, **said}}), 2, 32)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_length": 1}, "max_length: 1, which leaves no room"),
        ({"early_stopping": "soon"}, "early_stopping is 'soon'"),
        ({"bad_words_ids": [[]]}, r"bad_words_ids.*a list of tokens"),
        ({"bad_words_ids": [[n] for n in range(99_999)]}, "at most .* lists of tokens"),
    ],
)
def test_searches_that_are_not_here(values, message):
    with pytest.raises(DataError, match=message):
        searches(**values)


def test_the_token_that_begins():
    def begin(config, generation):
        files = {"config.json": config, "generation_config.json": generation}
        return begin_of(SideFiles(THERE, files))

    assert begin({}, {"bos_token_id": 3}) == 3
    assert begin({"decoder_start_token_id": 4}, {"decoder_start_token_id": 4}) == 4
    assert begin_of(SideFiles(THERE, {"config.json": {"decoder_start_token_id": 5}})) == 5
    with pytest.raises(DataError, match="decoder_start_token_id 4, and outputs begin with 3"):
        begin({"decoder_start_token_id": 4}, {"bos_token_id": 3})
    with pytest.raises(DataError, match="the token that begins outputs"):
        begin({}, {})


# ----------------------------------------------------------------------------- images, sounds


def preparation(**values):
    return read_preparation(SideFiles(THERE, {"preprocessor_config.json": values}), "ViT", 8, 3)


def test_sizes_of_images():
    def resized(**values):
        found = preparation(do_center_crop=True, crop_size=8, **values)
        return found["resize"], found["resize_to"]

    for size in (6, [6, 6], {"height": 6, "width": 6}):
        assert resized(size=size, default_to_square=True) == ("stretch", (6, 6))
    assert resized(size=6, default_to_square=False) == ("shorter", (6,))
    assert resized(do_resize=False) == ("cut", ())
    assert preparation(do_resize=False)["resize"] == "none"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"do_pad": True}, "do_pad is true, and images are not padded"),
        ({"image_std": [0.5, 0.0, 0.5]}, "expected numbers above 0"),
        ({"image_mean": ["a"]}, "image_mean is .*: expected numbers"),
        ({"image_mean": [0.5]}, "one number for each of the model's channels, 3"),
        ({"size": {"longest_edge": 9}}, "expected height and width, or the shortest_edge"),
    ],
)
def test_images_that_are_not_prepared_so(values, message):
    with pytest.raises(DataError, match=message):
        preparation(**{"size": 8, **values})


def test_sounds_that_are_not_heard_so():
    model = {"source_context": 1500, "num_features": 80}

    def heard(**files):
        return sound_fields(SideFiles(THERE, {f"{n}_config.json": v for n, v in files.items()}),
                            model)  # fmt: skip

    assert heard(preprocessor={"n_fft": 800})["window"] == 800
    both = {"feature_extractor": {"n_fft": 600}}
    assert heard(processor=both, preprocessor={"n_fft": 800})["window"] == 600
    for values, message in (
        ({"n_fft": 401}, "n_fft is 401.*an even number"),
        ({"n_fft": 2}, "describes no features"),
        ({"chunk_length": 20}, "make 2000 frames, and the model reads 3000"),
    ):
        with pytest.raises(DataError, match=message):
            heard(preprocessor=values)


def test_heads_that_say_when():
    model = {"num_decoder_layers": 3, "num_heads": 2}

    def read(heads, **config):
        said = SideFile(THERE, {"alignment_heads": heads})
        return word_time_fields(said, SideFile(THERE, config), model)

    found = {"alignment_heads": ((2, 1), (0, 0)), "median_width": 3}
    assert read([[2, 1], [0, 0]], median_filter_width=3) == found
    assert read(None) == {"alignment_heads": (), "median_width": 7}
    for heads in ([[3, 0]], [[0, 2]], [[-1, 0]], [[0]], [[0, 1, 2]], [3], "all", [[0, True]]):
        with pytest.raises(DataError, match="pairs of a layer below 3 and a head below 2"):
            read(heads)
    with pytest.raises(DataError, match=r"median_filter_width is 4.*an odd number"):
        read(None, median_filter_width=4)
    assert usual_heads(3, 2) == ((1, 0), (1, 1), (2, 0), (2, 1))
    require_heads(((2, 1),), 3, 2)
    for heads in (((3, 0),), ((0, 2),), ((0,),)):
        with pytest.raises(ConfigError, match="a layer below 3 and a head below 2 are expected"):
            require_heads(heads, 3, 2)


# ----------------------------------------------------------------- tokenizers, other formats


def test_tokenizers_that_cannot_be_used(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text("[]")
    with pytest.raises(DataError, match=r"is not a tokenizer.json: it holds no object"):
        read_tokenizer_text(path)
    assert merge_pairs(["a b", ["c", "d e"]], path) == [("a", "b"), ("c", "d e")]
    for wrong in (["a"], ["a b c"], [["a", 1]], 3):
        with pytest.raises(DataError, match="which is no pair of tokens"):
            merge_pairs(wrong, path)


def test_tokens_around_a_text():
    made = make_text_tokenizer("character", "abc", 0).identity()
    assert with_beginning(made, None) == made
    with pytest.raises(DataError, match="has no token 99, which was to begin all texts"):
        with_beginning(made, 99)
    import tokenizers

    encode = tokenizers.Tokenizer.from_str(with_beginning(made, 1)).encode
    plain = tokenizers.Tokenizer.from_str(made).encode("ab").ids
    assert encode("ab").ids == [1, *plain]
    ending = with_end(made, 2)
    assert tokenizers.Tokenizer.from_str(ending).encode("ab").ids == [*plain, 2]
    # One that adds tokens already stays as it is.
    assert with_end(ending, 1) == ending


def test_damage_of_ctranslate2(tmp_path):
    path, one = tmp_path / "model.bin", np.ones((2, 2), np.float32)
    path.write_bytes(content_of({"a": one}))
    with pytest.raises(DataError, match=r"a has the shape \[2, 2\]: one number"):
        read_ctranslate2_file(path).number("a")
    twice = content_of({"a": one}, count=2)[:-4] + array_of("a", one) + bytes(4)
    path.write_bytes(twice)
    with pytest.raises(DataError, match="it has the array a twice"):
        read_ctranslate2_file(path)
    (tmp_path / "v.txt").write_text("a\nb\n")
    assert read_tokens(tmp_path, "v") == ["a", "b"]
    for content, message in (("[1]", "is no list of tokens"), ('["a", "b", "a"]', "'a' twice")):
        (tmp_path / "v.json").write_text(content)
        with pytest.raises(DataError, match=message):
            read_tokens(tmp_path, "v")
