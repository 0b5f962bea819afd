"""Small image files for tests."""

import io

import numpy as np
from PIL import Image


def colours(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image, form="PNG", **options):
    """The bytes of an image file, from an array or an image of Pillow."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    content = io.BytesIO()
    image.save(content, form, **options)
    return content.getvalue()


def write_files(root, files):
    """Writes files by their paths below a folder."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(root)


def class_folders(*names, count=2, prefix=""):
    """Images of classes; no two are the same."""
    return {
        f"{prefix}{name}/{number}.png": encoded(colours(3, 4, seed=100 * place + number))
        for place, name in enumerate(names)
        for number in range(count)
    }
