"""Pretraining an image encoder: it sees a few patches, and reconstructs the others."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from transformer.composition import FLAT
from transformer.errors import ConfigError
from transformer.limits import Part
from transformer.ops.patches import patchify, unpatchify
from transformer.ops.threefry import without_loop
from transformer.pictures.columns import draw_columns
from transformer.tasks.parts.images import ImageData, ImageFiles
from transformer.tasks.parts.models import ImageReconstructor
from transformer.tasks.parts.protocol import Losses, Shown
from transformer.types import Batch, Json, Params

# The number of images that are drawn with their reconstructions, and what is drawn of each.
_DRAWN = 6
_COLUMNS = ("image", "seen", "reconstructed")
# The seed of validation: the same patches are hidden every time.
_VALIDATION_SEED = 0
_IMAGES = ImageFiles()


@dataclasses.dataclass(frozen=True)
class MaskedImages:
    """Masked-autoencoder pretraining (He et al. 2022).

    Its fields are `config.task`. Classes are ignored. The loss is the mean squared error of the
    values of hidden patches.

    Attributes:
        images: what is read, and how.
        masking_rate: the fraction of patches that are hidden.
        normalize_patches: whether the targets are the values of each patch after normalisation by
            its mean and standard deviation.
    """

    DIMENSIONS: ClassVar[tuple[str, ...]] = ("num_outputs", "channels")
    EXACT_DIMENSIONS: ClassVar[tuple[str, ...]] = ("channels",)
    entry: ClassVar[str] = "reconstruct"
    model_kind: ClassVar[type] = ImageReconstructor

    images: Annotated[ImageFiles, FLAT] = _IMAGES
    masking_rate: Part = 0.75
    normalize_patches: bool = True

    def load(self, workdir: Path | None) -> ImageData:
        """Reads the images."""
        del workdir
        return self.images.load()

    def load_validation(self, paths: Sequence[str], workdir: Path) -> ImageData:
        """Other images to validate on."""
        return self.images.load_validation(paths, workdir)

    def check_model(self, model: ImageReconstructor) -> None:
        """Refuses a model whose patches overlap, or are too few to hide any."""
        self.images.check_model(model)
        patches = model.grid**2
        if self.num_seen(patches) == patches:
            raise ConfigError(
                f"config.task.masking_rate is {self.masking_rate}: of {patches} patches none would "
                f"be hidden. Give a higher rate, or a smaller config.model.patch_size."
            )
        if model.stem != "patches":
            raise ConfigError(
                f"config.model.stem is {model.stem}: its tokens see the pixels of their "
                f"neighbours, so that nothing is hidden. Give config.model.stem=patches."
            )

    def num_seen(self, num_patches: int) -> int:
        """The number of patches that the encoder sees, at least one."""
        return max(1, round(num_patches * (1.0 - self.masking_rate)))

    def example_inputs(
        self, model: ImageReconstructor
    ) -> tuple[Float[Array, "1 Y X C"], Int[Array, "1 T"], int]:
        """One image and one order of its patches."""
        order = jnp.arange(model.grid**2)[None]
        return *self.images.example_inputs(model), order, self.num_seen(model.grid**2)

    # ------------------------------------------------------------------------------- loss

    def losses(
        self, model: ImageReconstructor, params: Params, batch: Batch, rngs: dict[str, jax.Array]
    ) -> Losses:
        """Squared error of the values of hidden patches."""
        key = jax.random.key(_VALIDATION_SEED)
        if "dropout" in rngs:
            # Independent of the random numbers of the model.
            key = jax.random.fold_in(rngs["dropout"], 1)
        images = self.images.preparation.normalized(self.images.augmented(batch, rngs)["images"])
        num_patches = model.grid**2
        order = _orders(key, images.shape[0], num_patches)
        num_seen = self.num_seen(num_patches)
        found: PyTree = model.apply(
            {"params": params}, images, order, num_seen, method="reconstruct", rngs=rngs
        )
        errors = jnp.mean(jnp.square(found - self._targets(images, model.patch_size)), axis=-1)
        hidden = jnp.argsort(order, axis=1) >= num_seen
        weight = hidden * (batch["valid"] > 0)[:, None]
        objective = jnp.sum(errors * weight)
        return Losses(objective, jnp.sum(weight).astype(jnp.float32), {"loss": objective})

    def _targets(self, images: Float[Array, "B Y X C"], patch_size: int) -> Float[Array, "B T P"]:
        patches = patchify(images, patch_size)
        if not self.normalize_patches:
            return patches
        mean, variance = _moments(patches)
        return (patches - mean) / jnp.sqrt(variance + 1e-6)

    # ----------------------------------------------------------------------------- scores

    def scores(self, model: ImageReconstructor, params: Params, data: ImageData) -> Json:
        """No scores besides the loss."""
        return {}

    def show(
        self, model: ImageReconstructor, params: Params, data: ImageData, workdir: Path
    ) -> Shown:
        """Draws images, the patches that the encoder saw, and the reconstructions."""
        images = self.images.preparation.normalized(data.first_images(_DRAWN))
        # As one program: made of the programs of each operation, it took seconds.
        columns = jax.jit(functools.partial(self._columns, model))(params, images)
        pictures = {name: self.images.preparation.visible(columns[name]) for name in _COLUMNS}
        draw_columns(pictures, workdir / "reconstructions.png")
        return Shown("Reconstructions: reconstructions.png", {})

    def _columns(
        self, model: ImageReconstructor, params: Params, images: Float[Array, "B Y X C"]
    ) -> dict[str, Float[Array, "B Y X C"]]:
        """The normalised pixels of each column of the picture."""
        size, grid = model.patch_size, model.grid
        order = _orders(jax.random.key(_VALIDATION_SEED), len(images), grid**2)
        seen = self.num_seen(grid**2)
        found: PyTree = model.apply({"params": params}, images, order, seen, method="reconstruct")
        hidden = (jnp.argsort(order, axis=1) >= seen)[..., None]
        patches = patchify(images, size)
        if self.normalize_patches:
            # The model predicts only normalised patches: their brightness and contrast are the true
            # ones.
            mean, variance = _moments(patches)
            found = found * jnp.sqrt(variance + 1e-6) + mean
        middle = 127.5 * self.images.preparation.rescale_factor
        grey = jnp.full_like(
            patches,
            (middle - np.mean(self.images.preparation.mean)) / np.mean(self.images.preparation.std),
        )
        seen_patches = unpatchify(jnp.where(hidden, grey, patches), size, grid)
        reconstructed = unpatchify(jnp.where(hidden, found, patches), size, grid)
        return dict(zip(_COLUMNS, (images, seen_patches, reconstructed), strict=True))


def _orders(key: Key[Array, ""], count: int, num_patches: int) -> Int[Array, "B T"]:
    """A random order of the patches for each image."""
    return jnp.argsort(jax.random.uniform(without_loop(key), (count, num_patches)), axis=1)


def _moments(patches: Float[Array, "B T P"]) -> tuple[Array, Array]:
    """Mean and variance of the values of each patch."""
    return jnp.mean(patches, -1, keepdims=True), jnp.var(patches, -1, keepdims=True)
