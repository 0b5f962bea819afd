"""Every key of the side files of ViT and DeiT: another value, or none.

What comes of it is what comes of it in `transformers`, or the import names the key.
"""

import functools
import json

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.interop import image_models, keys
from tests.interop.keys import DELETED, Subject, outcome
from transformer.errors import DataError
from transformer.interop.families import vit
from transformer.interop.family import Published, RunParts
from transformer.interop.image_processors import processor_content
from transformer.interop.opening import family_of, open_folder
from transformer.models.vit import ViT
from transformer.runs import importing as imported
from transformer.runs.importing import Imported
from transformer.training.sections import build, section
from transformer.training.selection import from_paths

pytest.importorskip("safetensors", reason="weights are read from its files")
pytest.importorskip("torch", reason="torch makes the checkpoints")
transformers = pytest.importorskip("transformers", reason="transformers makes the checkpoints")

CONFIG, PROCESSOR, NESTED = "config.json", "preprocessor_config.json", "processor_config.json"
RENAMED = {"0": "cat", "1": "dog", "2": "cat"}
VALUES = {
    CONFIG: {
        "_name_or_path": ["elsewhere"],
        "architectures": [["ViTModel"]],
        "attention_probs_dropout_prob": [0.3],
        "chunk_size_feed_forward": [2],
        "dtype": ["float16"],
        "encoder_stride": [8],
        "head_dim": [4],
        "hidden_act": ["relu", "swish", "gelu_new", "gelu_python", "quick_gelu"],
        "hidden_dropout_prob": [0.3],
        "hidden_size": [32],
        "id2label": [RENAMED, {"0": "cat", "1": "dog"}, {"0": "cat", "1": "dog", "3": "owl"}],
        "image_size": [12, 9, [8, 8], [8, 12]],
        "initializer_range": [0.5],
        "intermediate_size": [32],
        "is_encoder_decoder": [True],
        "label2id": [{"cat": 2, "dog": 1, "owl": 0}],
        "layer_norm_eps": [0.1],
        "model_type": ["swin"],
        "num_attention_heads": [4, 3],
        "num_channels": [1, 4],
        "num_hidden_layers": [2],
        "num_labels": [5],
        "output_attentions": [True],
        "output_hidden_states": [True],
        "patch_size": [2, [4, 4], [4, 2]],
        "pooler_act": ["relu"],
        "pooler_output_size": [4],
        "problem_type": [
            "single_label_classification",
            "multi_label_classification",
            "regression",
        ],
        "qkv_bias": [False],
        # With False their own models fail.
        "return_dict": [True],
        "transformers_version": ["4.0.0"],
    },
    PROCESSOR: {
        "crop_pct": [0.5],
        "crop_size": [8, {"height": 8, "width": 8}, {"height": 8, "width": 6}, 6],
        "data_format": ["channels_last"],
        "default_to_square": [False],
        "device": ["cpu"],
        "disable_grouping": [True],
        "do_center_crop": [True, False, None],
        "do_convert_rgb": [True, False, None],
        "do_normalize": [False, None],
        "do_pad": [True, False],
        "do_rescale": [False, None],
        "do_resize": [False, None],
        "feature_extractor_type": ["DeiTFeatureExtractor"],
        "image_mean": [[0.1, 0.2, 0.3], 0.4, [0.5], None],
        "image_processor_type": [
            *(f"{kind}ImageProcessor" for kind in ("ViT", "DeiT", "CLIP", "Bit", "Beit")),
            "ViTImageProcessorFast",
        ],
        "image_seq_length": [7],
        "image_std": [[0.3, 0.2, 0.1], 0.4, [0.0, 1.0, 1.0]],
        "input_data_format": ["channels_last"],
        "pad_size": [{"height": 9, "width": 9}],
        "processor_class": ["ViTProcessor"],
        "resample": [0, 1, 2, 3, 4, 5, None],
        "rescale_factor": [0.01, 1.0],
        "return_tensors": ["np"],
        "size": [
            8,
            [8, 8],
            9,
            {"height": 9, "width": 12},
            {"height": 5, "width": 6},
            {"shortest_edge": 8},
            {"shortest_edge": 10},
            {"shortest_edge": 8, "longest_edge": 12},
            {"max_height": 8, "max_width": 8},
        ],
    },
    NESTED: {
        "processor_class": ["ViTProcessor"],
        "image_processor": [
            {"image_processor_type": "ViTImageProcessor", "size": 8, "do_normalize": False}
        ],
    },
}
KINDS = ("ViT", "DeiT")


def cases(*files):
    """Kinds, files, keys and values: all of ViT, and of DeiT, which is read alike, the first."""
    return [
        (kind, file, key, value)
        for kind in KINDS
        for file in files
        for key, values in VALUES[file].items()
        for value in [*(values if kind == "ViT" else values[:1]), DELETED]
        # There is nothing to be left out of a file that is not there.
        if not (file == NESTED and value is DELETED)
    ]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    return {kind: image_models.published(root / kind, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return image_models.write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def quick(monkeypatch):
    """What is the same for most values is found out once."""
    monkeypatch.setattr(vit, "_entries", functools.cache(vit._entries))
    monkeypatch.setattr(imported, "_of_the_job", lambda published, config: published)


# ------------------------------------------------------------------------------------- model


def probabilities(found, names):
    # Only numbers are compared.
    return {"probabilities": found, "names": [float(sum(name.encode())) for name in names]}


# Of models; their weights are always those of the kind.
SCORES = {}
PIXELS = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)


def of_our_model(found):
    task, model = build("task", found.config.task), ViT(**found.published.model)
    if model not in SCORES:
        # Not compiled as a whole: what models have in common is not compiled again.
        params = {"params": from_paths(found.published.params)}
        images = jnp.asarray(PIXELS.transpose(0, 2, 3, 1))
        SCORES[model] = np.asarray(model.apply(params, images, method="classify"))
    scores = SCORES[model]
    return probabilities(task.probabilities(scores), found.published.labels)


def of_their_model(folder):
    return probabilities(*image_models.their_probabilities(folder, PIXELS))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("kind", "file", "key", "value"), cases(CONFIG))
def test_a_key_of_the_model(kind, file, key, value, folders, tmp_path):
    subject = Subject(folders[kind], of_their_model, of_our_model)
    assert outcome(subject, tmp_path, file, key, value)


# --------------------------------------------------------------------------------- processor


def read_processor(folder):
    """As `read_run` reads it; no weights are read."""
    source = open_folder(folder)
    family = family_of(source.config)
    head = family.head(source.files, set())
    task = section("task", head.job, channels=3, **head.preparation)
    build("task", task)
    published = Published(family, {}, head.job, (), {}, [], head.preparation, source.files)
    return Imported(published, ConfigDict({"task": task}), RunParts({}))


def comparable(found):
    """Refused pictures are no numbers on both sides."""
    return {
        name: np.full((3, 8, 8), np.nan) if pixels is None else pixels
        for name, pixels in found.items()
    }


def renamed(found):
    return {f"{name} again": pixels for name, pixels in found.items()}


def our_pixels(found, paths):
    task, made = build("task", found.config.task), {}
    for name, path in paths.items():
        try:
            ((_, images),) = task.images.to_answer([str(path)], 3)
        except DataError:
            made[name] = None
            continue
        made[name] = np.asarray(task.images.preparation.normalized(images))[0].transpose(2, 0, 1)
    return made


@pytest.mark.parametrize(("kind", "file", "key", "value"), cases(PROCESSOR, NESTED))
def test_a_key_of_the_processor(kind, file, key, value, folders, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(keys, "read_run", read_processor)
    exported = tmp_path / "exported"

    def ours(found):
        """Also what theirs makes of it once it is written again."""
        exported.mkdir()
        (exported / CONFIG).write_text((folders[kind] / CONFIG).read_text())
        content = processor_content(build("task", found.config.task).images.preparation, 3)
        (exported / PROCESSOR).write_text(json.dumps(content))
        again = comparable(image_models.their_pixels(exported, pictures))
        return comparable(our_pixels(found, pictures)) | {
            f"{name} again": x for name, x in again.items()
        }

    def theirs(folder):
        made = comparable(image_models.their_pixels(folder, pictures))
        return made | {f"{name} again": x for name, x in made.items()}

    subject = Subject(folders[kind], theirs, ours)
    assert outcome(subject, tmp_path, file, key, value)


# -------------------------------------------------------------------------------------- both


def test_no_key_is_left_out(folders):
    """What they write, and what their classes know."""
    for kind, folder in folders.items():
        known = {file: set(json.loads((folder / file).read_text())) for file in (CONFIG, PROCESSOR)}
        known[CONFIG] |= getattr(transformers, f"{kind}Config")().to_dict().keys()
        known[PROCESSOR] |= set(image_models.processor_of(kind).valid_kwargs.__annotations__)
        for file, written in known.items():
            assert written <= VALUES[file].keys(), file


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_processor(kind, folders, pictures, tmp_path):
    """That of the publisher for such models, for images as large as the model's."""
    (tmp_path / CONFIG).write_text((folders[kind] / CONFIG).read_text())
    (tmp_path / "model.safetensors").symlink_to(folders[kind] / "model.safetensors")
    found = comparable(our_pixels(read_processor(tmp_path), pictures))
    # 224 of 256 pixels are 8 of 9.
    size = {} if kind == "ViT" else {"size": {"height": 9, "width": 9}}
    image_models.processor_of(kind, **size).save_pretrained(tmp_path)
    expected = comparable(image_models.their_pixels(tmp_path, pictures))
    for name, pixels in expected.items():
        np.testing.assert_allclose(found[name], pixels, atol=1e-5)


def test_the_oldest_name_of_the_processor(folders, pictures, tmp_path):
    """Files of the first ViTs call the new class by the old name, which theirs finds no more."""
    (tmp_path / CONFIG).write_text((folders["ViT"] / CONFIG).read_text())
    (tmp_path / "model.safetensors").symlink_to(folders["ViT"] / "model.safetensors")
    content = json.loads((folders["ViT"] / PROCESSOR).read_text())
    content["image_processor_type"] = "ViTFeatureExtractor"
    (tmp_path / PROCESSOR).write_text(json.dumps(content))
    found = comparable(our_pixels(read_processor(tmp_path), pictures))
    expected = comparable(image_models.their_pixels(folders["ViT"], pictures))
    for name, pixels in expected.items():
        np.testing.assert_allclose(found[name], pixels, atol=1e-5)
    keys.set_key(tmp_path, PROCESSOR, "image_processor_type", "DeiTFeatureExtractor")
    with pytest.raises(DataError, match="image_processor_type"):
        read_processor(tmp_path)
