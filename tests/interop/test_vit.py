"""ViT checkpoints of `transformers`: read, and the same logits."""

import json

import numpy as np
import pytest

from transformer.errors import DataError
from transformer.interop.opening import read_published
from transformer.models.vit import ViT
from transformer.runs.importing import import_published
from transformer.runs.opening import open_run
from transformer.tasks.parts.outputs import apply
from transformer.training.selection import from_paths

pytest.importorskip("safetensors", reason="weights are read from its files")
torch = pytest.importorskip("torch", reason="torch makes the checkpoints")
transformers = pytest.importorskip("transformers", reason="transformers makes the checkpoints")

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 12,
    "patch_size": 4,
    "num_labels": 3,
    "id2label": {0: "cat", 1: "dog", 2: "owl"},
    "label2id": {"cat": 0, "dog": 1, "owl": 2},
}
# As published, but for the depth of the larger one; the largest difference of any logit was 2e-6.
SIZES = {
    "Ti/16": {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768},
    "B/16": {"num_hidden_layers": 3},
}


def theirs(**config):
    """A model with random weights of more than the usual size, so that differences show."""
    torch.manual_seed(0)
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def saved(folder, model, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)):
    model.save_pretrained(folder)
    side = model.config.image_size
    size = {"height": side, "width": side}
    content = {"image_mean": mean, "image_std": std, "size": size}
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    return folder


def pixels(size, count=2):
    return np.random.default_rng(1).normal(size=(count, size, size, 3)).astype(np.float32)


def logits_of(model, images, **options):
    with torch.no_grad():
        return model(torch.from_numpy(images.transpose(0, 3, 1, 2)), **options).logits.numpy()


def test_a_run_of_a_published_classifier(tmp_path):
    model = theirs(**TINY)
    published = import_published(saved(tmp_path / "theirs", model), tmp_path / "run")
    assert published.unused == []
    run = open_run(tmp_path / "run", "best")
    images = pixels(12)
    found = apply(run.model, "classify", run.params, images)
    np.testing.assert_allclose(found, logits_of(model, images), atol=1e-5)
    assert run.task.images.preparation.mean == (0.4, 0.5, 0.6)
    assert run.task.images.preparation.std == (0.2, 0.3, 0.4)
    assert json.loads((tmp_path / "run" / "labels.json").read_text()) == ["cat", "dog", "owl"]


def test_an_encoder_alone(tmp_path):
    torch.manual_seed(0)
    config = {key: value for key, value in TINY.items() if "label" not in key}
    model = transformers.ViTModel(transformers.ViTConfig(**config)).eval()
    read = read_published(saved(tmp_path, model))
    assert read.labels == ()
    assert {name.split(".")[0] for name in read.unused} == {"pooler"}
    images = pixels(12)
    with torch.no_grad():
        states = model(torch.from_numpy(images.transpose(0, 3, 1, 2))).last_hidden_state.numpy()
    ours = ViT(**read.model)
    found = apply(ours, "__call__", from_paths(read.params), images)
    np.testing.assert_allclose(found, states, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_logits_are_those_of_transformers(tmp_path, size):
    model = theirs(**SIZES[size], num_labels=10)
    read = read_published(saved(tmp_path, model))
    params = from_paths(read.params)
    # Another resolution has its positions interpolated.
    for resolution in (224, 384):
        ours = ViT(**{**read.model, "image_size": resolution})
        table = params["position_embedding"]["embedding"]
        resized = ours.refit("position_embedding/embedding", table)
        fitted = {**params, "position_embedding": {"embedding": resized}}
        images = pixels(resolution, 1)
        found = apply(ours, "classify", fitted, images)
        expected = logits_of(model, images, interpolate_pos_encoding=resolution != 224)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def refused(folder, *parts):
    with pytest.raises(DataError) as error:
        read_published(folder)
    for part in parts:
        assert part in str(error.value)


def changed(folder, **config):
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, **config}))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "swin"}, "swin"),
        ({"hidden_act": "mish"}, "mish"),
        ({"qkv_bias": False}, "qkv_bias"),
        ({"hidden_size": "wide"}, "hidden_size is 'wide', where a whole number"),
        ({"patch_size": 5}, "projection.weight is an array of [16, 3, 4, 4]"),
        ({"hidden_size": 18}, "cls_token is an array of [1, 1, 16]"),
        ({"num_hidden_layers": 3}, "and there are arrays of 2"),
    ],
)
def test_configs_that_do_not_fit(tmp_path, config, said):
    folder = saved(tmp_path, theirs(**TINY))
    changed(folder, **config)
    refused(folder, said)


def test_damaged_preparation(tmp_path):
    folder = saved(tmp_path, theirs(**TINY), mean="grey")
    refused(folder, "image_mean")


def test_other_models_are_named(tmp_path):
    folder = saved(tmp_path / "theirs", theirs(**TINY))
    changed(folder, model_type="swin")
    with pytest.raises(DataError, match=r"'swin': what can be read are .*vit"):
        import_published(folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()
