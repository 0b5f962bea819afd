"""Values with which a task would train nothing, or divide by it, are refused by name."""

import math

import pytest

from transformer import tasks
from transformer.composition import config_fields, with_fields
from transformer.data.images.preparation import Preparation
from transformer.errors import ConfigError
from transformer.models.vit import ViT
from transformer.sections import plugin_names
from transformer.tasks.masked_images import MaskedImages
from transformer.training.sections import build, owner, section

OUTSIDE = (0.0, -0.1, 1.0, 1.5, math.nan, math.inf)
REFUSED = {
    ("masked_images", "masking_rate"): OUTSIDE,
    ("masked_images", "validation_fraction"): OUTSIDE,
    ("image_classification", "validation_fraction"): OUTSIDE,
    ("image_classification", "label_fraction"): (0.0, 1.5, math.nan),
    ("masked_lm", "masking_rate"): (0.0, -0.1, 1.5, math.nan),
    ("masked_lm", "mask_fraction"): (-0.1, 1.0, math.nan, math.inf),
    ("masked_lm", "random_fraction"): (-0.1, 1.0, math.nan),
    ("masked_lm", "validation_fraction"): OUTSIDE,
    ("masked_lm", "validation_batch_size"): (0, -1),
    ("masked_lm", "vocab_chunk"): (-1,),
    ("denoising", "density"): OUTSIDE,
    ("denoising", "mean_span"): (0.0, 0.9, math.nan, math.inf),
    ("denoising", "validation_fraction"): OUTSIDE,
    ("denoising", "validation_batch_size"): (0, -1),
    ("denoising", "vocab_chunk"): (-1,),
    ("denoising", "length"): (0, 3),
    ("translation", "length_penalty"): (-0.1, math.nan, math.inf),
    ("text_to_text", "vocab_chunk"): (-1,),
    ("language_modeling", "validation_fraction"): OUTSIDE,
    ("language_modeling", "validation_batch_size"): (0, -1),
    ("language_modeling", "label_smoothing"): (-0.1, 1.0, math.nan),
    ("language_modeling", "z_loss"): (-0.1, math.nan, math.inf),
    ("language_modeling", "vocab_chunk"): (-1,),
    ("language_modeling", "sample_length"): (-1,),
}


@pytest.mark.parametrize(
    ("task", "field", "value"),
    [(*where, value) for where, values in REFUSED.items() for value in values],
)
def test_values_that_are_refused(task, field, value):
    with pytest.raises(ConfigError, match=rf"config\.task\.{field} is {value}|{field} {value}"):
        build("task", section("task", task, **{field: value}))


@pytest.mark.parametrize("task", plugin_names(tasks))
def test_files_to_validate_on_are_not_ignored(task):
    """Without files to train on, something that needs none would be validated on, too."""
    pairs = {"train": "validation", "path": "validation_path"}
    fields = config_fields(owner("task", task))
    both = [pair for pair in pairs.items() if fields.keys() >= set(pair)]
    assert both or not fields.keys() & set(pairs.values())
    for train, validation in both:
        with pytest.raises(ConfigError, match=rf"{validation} needs config\.task\.{train} beside"):
            build("task", section("task", task, **{validation: "other.txt"}))


def test_nothing_would_be_hidden():
    with pytest.raises(ConfigError, match=r"mask_fraction is 0\.0 and config\.task\.random_frac"):
        build("task", section("task", "masked_lm", mask_fraction=0.0, random_fraction=0.0))


@pytest.mark.parametrize(("rate", "patch_size"), [(0.1, 4), (0.75, 8), (1e-9, 4)])
def test_too_few_patches_for_any_to_be_hidden(rate, patch_size):
    task = with_fields(MaskedImages(), preparation=Preparation(image_size=8), masking_rate=rate)
    model = ViT(image_size=8, patch_size=patch_size, channels=1)
    with pytest.raises(ConfigError, match=rf"masking_rate is {rate}: of \d patches none"):
        task.check_model(model)
    with_fields(task, masking_rate=0.2).check_model(model.clone(patch_size=4))
