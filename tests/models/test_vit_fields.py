"""The fields of a ViT: which are refused, and how its positions follow the size of the images."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import normal
from transformer.errors import ConfigError
from transformer.fields import require_allowed
from transformer.models.vit import ViT
from transformer.nn.compute import Compute

GRID, SIDE = 3, 2
T = GRID**2
TINY = ViT(channels=2, image_size=GRID * SIDE, patch_size=SIDE, num_layers=1, num_heads=2, width=4)
MEAN = TINY.clone(pooling="mean")


# -------------------------------------------------------------------- images of another size

TABLE = "position_embedding/embedding"


def test_the_same_size_takes_the_same_bits():
    for model in (TINY, MEAN):
        rows = T + (model.pooling == "class")
        saved = normal(np.random.default_rng(0), rows, 4)
        for table in (saved, np.asarray(saved)):
            np.testing.assert_array_equal(model.refit(TABLE, table), saved)


@pytest.mark.parametrize("grid", [2, 5])
def test_positions_follow_the_size_of_the_images(grid):
    # Rows that tell where they stand, from -1 to 1: a plane, the same at any resolution.
    def plane(side):
        line = (np.arange(side) + 0.5) / side * 2 - 1
        return np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)

    for model in (TINY, MEAN):
        front = np.full((int(model.pooling == "class"), 2), 7.0)
        saved = jnp.asarray(np.concatenate([front, plane(GRID)]), jnp.float32)
        found = np.asarray(model.clone(image_size=grid * SIDE).refit(TABLE, saved))
        assert found.shape == (len(front) + grid**2, 2)
        np.testing.assert_array_equal(found[: len(front)], front)
        resized, expected = found[len(front) :], plane(grid)
        # At the border the last value goes on, so that the plane ends flatter.
        np.testing.assert_allclose(resized, expected, atol=0.25)
        np.testing.assert_allclose(resized.mean(axis=0), 0.0, atol=1e-5)


def test_other_parameters_are_left_alone():
    larger = TINY.clone(image_size=5 * SIDE)
    for path in ("patch_embedding/dense/kernel", "decoder/position_embedding/embedding"):
        saved = jnp.ones((10, 4))
        assert larger.refit(path, saved) is saved


@pytest.mark.parametrize(
    ("model", "rows"), [(TINY, T), (MEAN, T + 1), (TINY, 1), (TINY, 0), (MEAN, 0)]
)
def test_tables_of_no_square_are_left_alone(model, rows):
    saved = jnp.ones((rows, 4))
    assert model.clone(image_size=5 * SIDE).refit(TABLE, saved) is saved


# ------------------------------------------------------------------------------------ checks


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        *[
            ({field: 0}, [field, "is 0"])
            for field in (
                "image_size",
                "patch_size",
                "num_layers",
                "num_heads",
                "width",
                "decoder_layers",
                "decoder_width",
                "decoder_heads",
            )
        ],
        ({"num_registers": -1}, ["num_registers"]),
        ({"image_size": 220}, ["image_size", "220", "patch_size", "16"]),
        ({"width": 100}, ["width", "100", "num_heads", "12"]),
        ({"decoder_width": 100}, ["decoder_width", "100", "decoder_heads", "16"]),
        ({"decoder_width": 6, "decoder_heads": 3}, ["decoder_width", "6", "4"]),
        ({"dropout_rate": 1.0}, ["dropout_rate"]),
        ({"stochastic_depth_rate": -0.1}, ["stochastic_depth_rate"]),
        ({"stochastic_depth_rate": 1.0}, ["stochastic_depth_rate"]),
        ({"pooling": "max"}, ["pooling", "attention", "class", "mean"]),
        ({"positions": "rotary"}, ["positions", "learned", "sinusoidal_2d"]),
        ({"stem": "convolution"}, ["stem", "convolutions", "patches"]),
        ({"activation": "swish"}, ["activation", "gelu_tanh"]),
        ({"compute": Compute(dtype="float64")}, ["dtype", "bfloat16"]),
        ({"compute": Compute(remat="all")}, ["remat", "full"]),
        ({"compute": Compute(attention="flash")}, ["attention", "einsum", "auto"]),
        (
            {"positions": "sinusoidal", "width": 9, "num_heads": 3},
            ["width", "9", "2", "positions=sinusoidal"],
        ),
        (
            {"positions": "sinusoidal_2d", "width": 6, "num_heads": 3},
            ["width", "6", "4", "positions=sinusoidal_2d"],
        ),
        (
            {"stem": "convolutions", "patch_size": 14},
            ["patch_size", "14", "power of 2"],
        ),
    ],
    ids=str,
)
def test_check_names_the_field(fields, names):
    with pytest.raises(ConfigError) as error:
        require_allowed("model", ViT(**fields))
    for name in ("config.model.", *names):
        assert name in str(error.value)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"patch_size": 14},
        {"stem": "convolutions"},
        {"positions": "sinusoidal", "width": 6, "num_heads": 3},
        {"positions": "learned", "width": 9, "num_heads": 3},
        {"image_size": 16},
    ],
    ids=str,
)
def test_check_accepts(fields):
    require_allowed("model", ViT(**fields))


@pytest.mark.parametrize(
    ("fields", "size", "expected"),
    [
        ({}, 224, "einsum"),
        ({}, 512, "blockwise"),
        ({"dropout_rate": 0.1}, 512, "einsum"),
        ({"compute": Compute(attention="blockwise")}, 32, "blockwise"),
    ],
    ids=str,
)
def test_chosen_attention(fields, size, expected):
    assert ViT(**fields).chosen_attention(jnp.zeros((1, size, size, 3))) == expected
