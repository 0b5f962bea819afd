"""Converts between the image processors of the library `transformers` and our preparation.

Its processors resize, crop the center, rescale and normalise; each step can be switched on and off.
A missing key has the default of the processor's class; `null` switches a step off.
"""

from collections.abc import Mapping

from transformer.data.images.augmentation import RESAMPLINGS
from transformer.data.images.preparation import Preparation
from transformer.data.reading import bounds
from transformer.data.reading.json_text import shown
from transformer.errors import DataError
from transformer.interop.checked_values import SMALLEST, finite, refuse
from transformer.interop.side_files import SideFile, SideFiles
from transformer.types import Facts, Json

PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
# If both files exist, the library prefers this key of the second.
_INSIDE = "image_processor"
_HALF = [0.5, 0.5, 0.5]
_CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
_CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
_USUAL: Json = {
    "do_resize": True,
    "default_to_square": True,
    "do_center_crop": False,
    "crop_size": None,
    "do_pad": False,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": _HALF,
    "image_std": _HALF,
    "do_convert_rgb": False,
}
_SHORTER = {
    "size": {"shortest_edge": 224},
    "default_to_square": False,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "resample": RESAMPLINGS["bicubic"],
    "image_mean": _CLIP_MEAN,
    "image_std": _CLIP_STD,
}
# Defaults of the classes, by `image_processor_type` without its suffix.
_CLASSES: dict[str, Json] = {
    "ViT": {
        **_USUAL,
        "size": {"height": 224, "width": 224},
        "resample": RESAMPLINGS["bilinear"],
    },
    "DeiT": {
        **_USUAL,
        "size": {"height": 256, "width": 256},
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "resample": RESAMPLINGS["bicubic"],
    },
    "Bit": {**_USUAL, **_SHORTER},
    "CLIP": {**_USUAL, **_SHORTER},
}
_IRRELEVANT = {
    "processor_class": "who wrote it",
    "data_format": "how arrays are laid out",
    "input_data_format": "how arrays are laid out",
    "return_tensors": "what holds the arrays",
    "device": "where it is done",
    "disable_grouping": "speed",
    "image_seq_length": "of models of texts and images",
}


def read_preparation(files: SideFiles, usual: str, image_size: int, channels: int) -> Json:
    """Reads fields of `data.images.preparation.Preparation` from the processor's file.

    Without a file they are the publisher's defaults for this kind of model, with the model's size.

    Args:
        files: the side files.
        usual: the processor's class if the file names none, a key of `_CLASSES`.
        image_size: the image size of the model.
        channels: the channels of the model.

    Raises:
        DataError: names the key that cannot be read or does not suit the model.
    """
    file = _file(files)
    defaults = _CLASSES[_class_name(file, usual)]
    if not len(file):
        larger = round(image_size * defaults["size"]["height"] / 224)
        square = {"height": image_size, "width": image_size}
        defaults = {**defaults, "size": {"height": larger, "width": larger}, "crop_size": square}
    file.irrelevant(_IRRELEVANT)
    if _flag(file, "do_pad", defaults):
        raise DataError(f"{file.where}: do_pad is true, and images are not padded here.")
    file.irrelevant({"pad_size": "nothing is padded"})
    if _flag(file, "do_convert_rgb", defaults) and channels != 3:
        raise DataError(
            f"{file.where}: do_convert_rgb is true, and the model is of {channels} channel: it "
            f"could not take RGB."
        )
    return {
        "image_size": image_size,
        **_resizing(file, defaults, image_size),
        **_numbers(file, defaults, channels),
    }


def _file(files: SideFiles) -> SideFile:
    """The file that the library would read."""
    if PROCESSOR in files:
        both = files[PROCESSOR]
        if _INSIDE in both:
            both.irrelevant(_IRRELEVANT)
            return both.inside(_INSIDE)
    return files[PREPROCESSOR]


def _class_name(file: SideFile, usual: str) -> str:
    """The key in `_CLASSES` of the class that the library would use.

    Raises:
        DataError: if it is unknown here.
    """
    named = file.get("image_processor_type")
    if named is not None:
        file.irrelevant({"feature_extractor_type": "image_processor_type says it"})
    else:
        # The former name.
        named = file.get("feature_extractor_type")
        named = named and str(named).replace("FeatureExtractor", "ImageProcessor")
    known = {f"{name}ImageProcessor": name for name in _CLASSES}
    # The oldest files use the old class names, too.
    known |= {f"{usual}FeatureExtractor": usual, "None": usual}
    name = str(named).removesuffix("Fast")
    if name not in known:
        raise DataError(
            f"{file.where}: image_processor_type (or feature_extractor_type) is {shown(named)}, "
            f"and what is known here are {', '.join(f'{name}ImageProcessor' for name in _CLASSES)}."
        )
    return known[name]


def _resizing(file: SideFile, defaults: Facts, image_size: int) -> Json:
    """How images are brought to the size of the model.

    Raises:
        DataError: names the keys that would give another size.
    """
    cut = _flag(file, "do_center_crop", defaults)
    if cut:
        side = _size(file, "crop_size", defaults, square=True)
        _require_square(file, "crop_size", side, image_size, "do_center_crop is true")
    else:
        file.irrelevant({"crop_size": "nothing is cut"})
    square = _flag(file, "default_to_square", defaults)
    if not _flag(file, "do_resize", defaults):
        file.irrelevant(dict.fromkeys(("size", "resample"), "nothing is resized"))
        return {"resize": "cut" if cut else "none", "resize_to": (), "resample": "bilinear"}
    number = file.get("resample", defaults["resample"])
    names = {value: name for name, value in RESAMPLINGS.items()}
    if type(number) is not int or number not in names:
        refuse(file.where, "resample", number, "one of the filters of Pillow, 0 to 5,")
    size = _size(file, "size", defaults, square=square)
    if not cut:
        asked = f"default_to_square is {square} and do_center_crop is false"
        _require_square(file, "size", size, image_size, asked)
    if "shortest_edge" in size:
        resize, resize_to = "shorter", (size["shortest_edge"],)
    else:
        resize, resize_to = "stretch", (size["height"], size["width"])
    if set(resize_to) == {image_size}:
        resize_to = ()
    return {"resize": resize, "resize_to": resize_to, "resample": names[number]}


def _require_square(
    file: SideFile, key: str, size: Mapping[str, int], image_size: int, asked: str
) -> None:
    """Refuses sizes that differ from the model's image size."""
    if size != {"height": image_size, "width": image_size}:
        raise DataError(
            f"{file.where}: {asked} and {key} is {dict(size)}{_left_out(file, key)}, but the model "
            f"takes images of {image_size} x {image_size}."
        )


def _left_out(file: SideFile, key: str) -> str:
    """For messages: the origin of a value that is not in the file."""
    named = file.peek("image_processor_type") or "its class"
    return "" if key in file else f" (left out, as image_processor_type, {named}, has it)"


def _numbers(file: SideFile, defaults: Facts, channels: int) -> Json:
    """How bytes are rescaled and normalised."""
    factor, mean, std = 1.0, (0.0,), (1.0,)
    if _flag(file, "do_rescale", defaults):
        factor = file.positive("rescale_factor", defaults["rescale_factor"])
    else:
        file.irrelevant({"rescale_factor": "nothing is rescaled"})
    if _flag(file, "do_normalize", defaults):
        mean = _of_channels(file, "image_mean", defaults, channels)
        std = _of_channels(file, "image_std", defaults, channels)
        if min(std) < SMALLEST:
            raise DataError(f"{file.where}: image_std is {list(std)}: expected numbers above 0.")
    else:
        file.irrelevant(dict.fromkeys(("image_mean", "image_std"), "nothing is normalised"))
    return {"rescale_factor": factor, "mean": mean, "std": std}


def _flag(file: SideFile, key: str, defaults: Facts) -> bool:
    return file.flag(key, defaults[key])


def _size(file: SideFile, key: str, defaults: Facts, *, square: bool) -> dict[str, int]:
    """Height and width, or `shortest_edge`; a single number means one of these.

    Raises:
        DataError: if it is anything else.
    """
    value = file.get(key, defaults[key])
    if _is_pixels(value):
        value = {"height": value, "width": value} if square else {"shortest_edge": value}
    elif isinstance(value, list) and len(value) == 2:
        value = {"height": value[0], "width": value[1]}
    known = {"height", "width"}, {"shortest_edge"}
    if isinstance(value, dict) and value.keys() in known and all(map(_is_pixels, value.values())):
        return value
    switch = {"size": "do_resize", "crop_size": "do_center_crop"}[key]
    raise DataError(
        f"{file.where}: {switch} is true and {key} is {shown(value)}{_left_out(file, key)}: "
        f"expected height and width, or the shortest_edge."
    )


def _of_channels(file: SideFile, key: str, defaults: Facts, channels: int) -> tuple[float, ...]:
    value = file.get(key, defaults[key])
    values = [value] if finite(value) else value
    if not isinstance(values, list) or not values or not all(map(finite, values)):
        raise DataError(f"{file.where}: {key} is {shown(value)}: expected numbers.")
    if isinstance(value, list) and len(value) != channels:
        raise DataError(
            f"{file.where}: {key} is {shown(value)}{_left_out(file, key)}: expected one number for "
            f"each of the model's channels, {channels}."
        )
    return tuple(float(value) for value in values)


def _is_pixels(value: object) -> bool:
    return type(value) is int and 0 < value <= bounds.PIXELS


def processor_content(preparation: Preparation, channels: int) -> Json:
    """The content of `preprocessor_config.json` for a run's preparation.

    It names the oldest class that has all steps, because in earlier versions of the library each
    class has only its own steps.

    Args:
        preparation: the preparation of the run.
        channels: the channels of its images. The library converts other images to RGB, but cannot
            convert to grey.
    """
    size = preparation.image_size
    square = {"height": size, "width": size}
    resized = preparation.resized
    content: Json = {"do_resize": bool(resized)}
    if preparation.resize == "shorter":
        content |= {"size": {"shortest_edge": resized[0]}, "default_to_square": False}
    elif resized:
        content |= {"size": {"height": resized[0], "width": resized[1]}}
    cut = preparation.resize in ("shorter", "cut") or resized not in ((), (size, size))
    if cut:
        content["crop_size"] = square
    name = "Bit" if preparation.resize == "shorter" else "DeiT" if cut else "ViT"
    each = channels // len(preparation.mean), channels // len(preparation.std)
    return content | {
        "image_processor_type": f"{name}ImageProcessor",
        "resample": RESAMPLINGS[preparation.resample],
        "do_center_crop": cut,
        "do_rescale": True,
        "rescale_factor": preparation.rescale_factor,
        "do_normalize": True,
        "image_mean": [*preparation.mean] * each[0],
        "image_std": [*preparation.std] * each[1],
        "do_convert_rgb": channels == 3,
    }
