"""Tiny ViTs and DeiTs of `transformers` with their processors, and what is made of pictures."""

import functools
import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.interop.round_trips import disturbed

SIDE = 8
LABELS = ("cat", "dog", "owl")
TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": SIDE,
    "patch_size": 4,
    "id2label": dict(enumerate(LABELS)),
    "label2id": {name: place for place, name in enumerate(LABELS)},
}
# Height and width; the first is as large as the model's images.
SIZES = {"square": (8, 8), "large": (40, 40), "wide": (9, 31), "tall": (31, 10), "tiny": (2, 3)}


def kind_of(folder: Path) -> str:
    """ViT or DeiT."""
    name = json.loads((folder / "config.json").read_text())["model_type"]
    return {"vit": "ViT", "deit": "DeiT"}[name]


@functools.cache
def model_of(kind, num_channels=3):
    import transformers

    config = getattr(transformers, f"{kind}Config")(**TINY, num_channels=num_channels)
    return disturbed(getattr(transformers, f"{kind}ForImageClassification"), config, scale=0.3)


def processor_of(kind, **settings):
    """A processor whose sizes suit the model, unless settings say otherwise."""
    from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    square = {"height": SIDE, "width": SIDE}
    if kind == "ViT":
        return ViTImageProcessorPil(**{"size": square, **settings})
    larger = {"height": SIDE + 2, "width": SIDE + 2}
    return DeiTImageProcessorPil(**{"size": larger, "crop_size": square, **settings})


def published(folder: Path, kind: str, num_channels: int = 3, **settings) -> Path:
    """A folder with a model and a processor."""
    model_of(kind, num_channels).save_pretrained(folder)
    processor_of(kind, **settings).save_pretrained(folder)
    return folder


def waves(height, width, channels=3):
    """A picture of which each way of resizing makes something else."""
    down, right = np.mgrid[:height, :width]
    found = (down * 40 + 90 * np.sin(right / 2), right * 9 + 60 * np.cos(down), down * right * 3)
    picture = np.stack(found[:channels], -1).astype(np.int64).astype(np.uint8)
    return picture[..., 0] if channels == 1 else picture


def write_pictures(folder: Path, channels: int = 3) -> dict[str, Path]:
    """Pictures of several sizes by their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (height, width) in SIZES.items():
        Image.fromarray(waves(height, width, channels)).save(folder / f"{name}.png")
    return {name: folder / f"{name}.png" for name in SIZES}


def their_pixels(folder: Path, paths: dict[str, Path]) -> dict[str, np.ndarray | None]:
    """What their processor gives their model, `[C, Y, X]`; None for what either refuses."""
    import transformers

    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    shape = config.get("num_channels", 3), config["image_size"], config["image_size"]
    found = {}
    for name, path in paths.items():
        try:
            pixels = processor(Image.open(path), return_tensors="np")["pixel_values"][0]
        except ValueError:
            pixels = None
        fits = pixels is not None and pixels.shape == shape
        found[name] = pixels.astype(np.float32) if fits else None
    return found


def their_probabilities(folder: Path, pixels: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Of images `[B, C, Y, X]` by `model_of` with another config, and the names of the classes."""
    import torch
    import transformers

    kind = kind_of(folder)
    config = getattr(transformers, f"{kind}Config").from_pretrained(folder)
    model = getattr(transformers, f"{kind}ForImageClassification")(config).eval()
    model.load_state_dict(model_of(kind).state_dict())
    with torch.no_grad():
        logits = model(torch.from_numpy(pixels))[0]
    several = config.problem_type == "multi_label_classification"
    found = logits.sigmoid() if several else logits.softmax(-1)
    return found.numpy(), tuple(config.id2label[place] for place in range(config.num_labels))
