"""Classifiers of images in folders of `transformers`: imported, asked, exported and asked again."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.interop import image_models
from tests.interop.image_models import LABELS, SIDE, waves
from transformer.data.images.batches import Augmentation
from transformer.interop.image_processors import PREPROCESSOR, processor_content
from transformer.runs.exporting import export_run
from transformer.runs.importing import import_published
from transformer.runs.opening import open_run
from transformer.tasks.parts.labels import distinct_names, load_labels
from transformer.training.sections import build, saved_config, section

pytest.importorskip("safetensors", reason="weights are read from its files")
torch = pytest.importorskip("torch", reason="torch makes the checkpoints")
transformers = pytest.importorskip("transformers", reason="transformers makes the checkpoints")

# Kind, channels, what is said of labels, and what of images.
FOLDERS = {
    "stretched": (
        "ViT",
        3,
        {},
        {
            "resample": 3,
            "image_mean": [0.2, 0.5, 0.4],
            "image_std": [0.3, 0.2, 0.5],
            "rescale_factor": 0.005,
            "do_convert_rgb": True,
        },
    ),
    # Two classes of one name.
    "cut": (
        "DeiT",
        3,
        {"id2label": {0: "crane", 1: "dog", 2: "crane"}, "label2id": {"crane": 2, "dog": 1}},
        {
            "size": {"height": 11, "width": 14},
            "resample": 1,
            "do_rescale": False,
            "image_mean": [120.0, 110.0, 100.0],
            "image_std": [60.0, 70.0, 80.0],
            "do_convert_rgb": True,
        },
    ),
    "grey": (
        "ViT",
        1,
        {"problem_type": "multi_label_classification"},
        {
            "size": {"shortest_edge": 10},
            "do_center_crop": True,
            "crop_size": {"height": SIDE, "width": SIDE},
            "resample": 5,
            "do_normalize": False,
        },
    ),
}


def kinds_of_pictures(folder):
    """The same pictures in each way to store colours that theirs reads as it is meant."""
    pictures = image_models.write_pictures(folder)
    rgb = Image.fromarray(waves(13, 17))
    alpha = Image.fromarray(waves(13, 17)[..., 2])
    made = {"grey": rgb.convert("L"), "palette": rgb.quantize(16), "bits": rgb.convert("1")}
    rgb.putalpha(alpha)
    made |= {"alpha": rgb, "grey alpha": rgb.convert("LA")}
    options = {"palette": {"transparency": 3}}
    for name, image in made.items():
        pictures[name] = folder / f"{name}.png"
        image.save(pictures[name], **options.get(name, {}))
    return pictures


def their_answers(folder, kind, paths):
    """Probabilities of each class for each picture."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    model = getattr(transformers, f"{kind}ForImageClassification").from_pretrained(folder).eval()
    images = [Image.open(path) for path in paths.values()]
    pixels = [processor(image, return_tensors="pt")["pixel_values"] for image in images]
    with torch.no_grad():
        logits = model(torch.cat(pixels)).logits
    several = model.config.problem_type == "multi_label_classification"
    return (logits.sigmoid() if several else logits.softmax(-1)).numpy(), model.config


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_goes_round(name, tmp_path):
    kind, channels, labels, settings = FOLDERS[name]
    folder = image_models.published(tmp_path / "theirs", kind, channels, **settings)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **labels}))
    paths = image_models.write_pictures(tmp_path / "grey", 1)
    paths = kinds_of_pictures(tmp_path / "pictures") if channels == 3 else paths
    expected, _ = their_answers(folder, kind, paths)

    published = import_published(folder, tmp_path / "run")
    used = published.files.used()
    assert not any(file.unused for file in used.values())
    run = open_run(tmp_path / "run")
    known = tuple(labels.get("id2label", dict(enumerate(LABELS))).values())
    assert load_labels(tmp_path / "run") == known
    lines = [str(path) for path in paths.values()]
    answers = run.task.predict(run.model, run.params, tmp_path / "run", lines)
    found = [
        [answer.details["probabilities"][label] for label in distinct_names(known)]
        for answer in answers
    ]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)

    export_run(tmp_path / "run", tmp_path / "out")
    again, exported = their_answers(tmp_path / "out", kind, paths)
    np.testing.assert_allclose(again, expected, rtol=0, atol=1e-5)
    assert tuple(exported.id2label.values()) == known
    assert exported.problem_type == labels.get("problem_type")


# Preparations of runs of ours.
PREPARATIONS = [
    {},
    {"crop_fraction": 0.875},
    {"resize": "stretch", "crop_fraction": 0.8, "resample": "bicubic"},
    {"resize": "cut", "mean": (0.1, 0.2, 0.3), "std": (1.0, 2.0, 3.0)},
    {"resize_to": (12,), "resample": "nearest", "rescale_factor": 0.01},
]


@pytest.mark.parametrize("fields", PREPARATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_what_a_run_says_of_images(channels, fields, tmp_path):
    fields = {"mean": (0.3,), "std": (0.6,), **fields}
    if channels == 1:
        fields |= {"mean": fields["mean"][:1], "std": fields["std"][:1]}
    config = section(
        "task",
        "image_classification",
        channels=channels,
        preparation={"image_size": SIDE, **fields},
    )
    task = build("task", config)
    content = processor_content(task.images.preparation, channels)
    (tmp_path / PREPROCESSOR).write_text(json.dumps(content))
    model = {"model_type": "vit", "num_channels": channels, "image_size": SIDE}
    (tmp_path / "config.json").write_text(json.dumps(model))
    pictures = image_models.write_pictures(tmp_path / "pictures", channels)
    expected = image_models.their_pixels(tmp_path, pictures)
    ((_, images),) = task.images.to_answer([str(path) for path in pictures.values()], channels)
    found = np.asarray(task.images.preparation.normalized(images)).transpose(0, 3, 1, 2)
    for pixels, name in zip(found, pictures, strict=True):
        np.testing.assert_allclose(pixels, expected[name], atol=1e-5)


def test_runs_of_before_are_prepared_as_they_were():
    # They had flat sections, and fewer fields.
    saved = {
        "name": "image_classification",
        "crop_fraction": 0.875,
        "image_size": 224,
        "flip": True,
    }
    task = build("task", saved_config({"task": saved}).task)
    assert task.images.augmentation == Augmentation(flip=True)
    preparation = task.images.preparation
    assert (preparation.resize, preparation.resized) == ("shorter", (256,))
    assert preparation.rescale_factor == 1 / 255
