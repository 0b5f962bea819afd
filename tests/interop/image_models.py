"""Tiny ViTs and DeiTs of `transformers` with their processors, and what both sides make of images."""

import functools
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from PIL import Image

from tests.interop.round_trips import disturbed
from transformer.config import build
from transformer.errors import DataError
from transformer.models.vit import ViT
from transformer.training.selection import from_paths

SIDE = 8
LABELS = ("cat", "dog", "owl")
TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": SIDE,
    "patch_size": 4,
    "id2label": dict(enumerate(LABELS)),
    "label2id": {name: place for place, name in enumerate(LABELS)},
}
# Height and width; the first is as large as the model's images.
SIZES = {"square": (8, 8), "large": (40, 40), "wide": (9, 31), "tall": (31, 10), "tiny": (2, 3)}


@functools.cache
def model_of(kind, **config):
    import transformers

    made = getattr(transformers, f"{kind}Config")(**{**TINY, **config})
    return disturbed(getattr(transformers, f"{kind}ForImageClassification"), made, scale=0.3)


def processor_of(kind, **settings):
    """A processor whose sizes suit the model, unless settings say otherwise."""
    from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    square = {"height": SIDE, "width": SIDE}
    if kind == "ViT":
        return ViTImageProcessorPil(**{"size": square, **settings})
    larger = {"height": SIDE + 2, "width": SIDE + 2}
    return DeiTImageProcessorPil(**{"size": larger, "crop_size": square, **settings})


def picture(height, width, channels=3):
    """Waves of several lengths, so that each way of resizing gives something else."""
    down, right = np.mgrid[:height, :width]
    waves = (down * 40 + 90 * np.sin(right / 2), right * 9 + 60 * np.cos(down), down * right * 3)
    return np.stack(waves[:channels], -1).astype(np.int64).astype(np.uint8)


def write_pictures(folder):
    """Pictures of several sizes by their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (height, width) in SIZES.items():
        Image.fromarray(picture(height, width)).save(folder / f"{name}.png")
    return {name: folder / f"{name}.png" for name in SIZES}


def their_probabilities(folder, paths, kind):
    """By name; None for a picture that their processor or model refuses."""
    import torch
    import transformers

    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    kind = getattr(transformers, f"{kind}ForImageClassification")
    model = kind.from_pretrained(folder, dtype=torch.float32).eval()
    several = model.config.problem_type == "multi_label_classification"
    found = {}
    for name, path in paths.items():
        try:
            inputs = processor(Image.open(path), return_tensors="pt")
            with torch.no_grad():
                logits = model(inputs["pixel_values"].float())[0][0]
        except ValueError:
            found[name] = None
            continue
        found[name] = (logits.sigmoid() if several else logits.softmax(-1)).numpy()
    names = [model.config.id2label[place] for place in range(model.config.num_labels)]
    return found, tuple(names)


def our_probabilities(found, paths):
    """By name; None for a picture that is refused.

    Args:
        found: a published folder as it was read.
        paths: of pictures, by name.
    """
    task, model = build("task", found.config.task), ViT(**found.published.model)
    pixels = {}
    for name, path in paths.items():
        try:
            ((_, images),) = task.files([str(path)], model.channels)
        except DataError:
            continue
        pixels[name] = images
    inputs = task.preparation.normalized(np.concatenate(list(pixels.values())))
    # Not compiled as a whole: what models have in common is not compiled again.
    params = {"params": from_paths(found.published.params)}
    scores = np.asarray(model.apply(params, jnp.asarray(inputs), method="classify"))
    known = dict(zip(pixels, task.probabilities(scores), strict=True))
    return {name: known.get(name) for name in paths}, found.published.labels


def published(folder: Path, kind: str, **settings) -> Path:
    """A folder with a model and a processor."""
    model_of(kind).save_pretrained(folder)
    processor_of(kind, **settings).save_pretrained(folder)
    return folder
