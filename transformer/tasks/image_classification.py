"""Classifying images."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from transformer.composition import FLAT
from transformer.data.images.decoding import FileImages
from transformer.data.labels.class_names import distinct_names
from transformer.errors import ConfigError
from transformer.files import write_json_lines
from transformer.limits import PartOrAll, Seed
from transformer.ops.losses import IGNORED, binary_cross_entropy, cross_entropy
from transformer.pictures.confusion import draw_confusion_matrix
from transformer.pictures.image_attention import draw_image_attention
from transformer.scoring.classification import (
    calibration_error,
    class_accuracies,
    classification_scores,
    confusion_matrix,
    most_confused,
    top_accuracy,
)
from transformer.tasks.parts.abilities import Prediction
from transformer.tasks.parts.images import ImageData, ImageFiles
from transformer.tasks.parts.labels import (
    class_prediction,
    labels_prediction,
    load_labels,
    sigmoid,
)
from transformer.tasks.parts.models import ImageClassifier
from transformer.tasks.parts.outputs import apply
from transformer.tasks.parts.protocol import Losses, Shown
from transformer.traced import RateOrOff
from transformer.types import Batch, Json, Params

# The number of images whose attention is drawn, and of classes listed by their accuracy.
_DRAWN, _LISTED = 8, 5
_IMAGES = ImageFiles()


@dataclasses.dataclass(frozen=True)
class ImageClassification:
    """One class for each image; its fields are `config.task`.

    Attributes:
        images: what is read, and how.
        label_smoothing: see `ops.losses.cross_entropy`.
        multi_label: each class has a separate probability, so that an image may have several
            classes or none, and the binary cross-entropy of each class is minimised. Training
            images still have one class, except mixed ones.
        label_fraction: the fraction of the training images to train on, the same for each class,
            drawn with `label_seed`.
        label_seed: the seed of that draw.
    """

    DIMENSIONS: ClassVar[tuple[str, ...]] = ("num_outputs", "channels")
    EXACT_DIMENSIONS: ClassVar[tuple[str, ...]] = ("channels",)
    entry: ClassVar[str] = "classify"
    model_kind: ClassVar[type] = ImageClassifier

    images: Annotated[ImageFiles, FLAT] = _IMAGES
    label_smoothing: RateOrOff = 0.0
    multi_label: bool = False
    label_fraction: PartOrAll = 1.0
    label_seed: Seed = 0

    def check(self) -> None:
        """Refuses values that cannot work."""
        if self.multi_label and self.label_smoothing:
            raise ConfigError(
                "config.task.label_smoothing is of one right class: leave it at 0.0 with "
                "config.task.multi_label."
            )

    def load(self, workdir: Path | None) -> ImageData:
        """Reads the images, and applies `label_fraction`."""
        del workdir
        data = self.images.load()
        if self.label_fraction == 1.0:
            return data
        some = data.train.part(self.label_fraction, self.label_seed)
        return dataclasses.replace(data, train=some)

    def load_validation(self, paths: Sequence[str], workdir: Path) -> ImageData:
        """Other images to validate on, with the classes of a run."""
        return self.images.load_validation(paths, workdir)

    def check_model(self, model: ImageClassifier) -> None:
        """Refuses a model for images of another size."""
        self.images.check_model(model)

    def example_inputs(self, model: ImageClassifier) -> tuple[Float[Array, "1 Y X C"]]:
        """One image."""
        return self.images.example_inputs(model)

    # ------------------------------------------------------------------------------- loss

    def losses(
        self, model: ImageClassifier, params: Params, batch: Batch, rngs: dict[str, jax.Array]
    ) -> Losses:
        """Cross-entropy of the class, or of each; a mixed image has both classes, by share."""
        batch = self.images.augmented(batch, rngs)
        images = self.images.preparation.normalized(batch["images"])
        outputs: PyTree = model.apply({"params": params}, images, method="classify", rngs=rngs)
        valid = batch["valid"] > 0
        if self.multi_label:
            return _losses_of_each(outputs, batch, valid)
        one, other = (
            cross_entropy(
                outputs,
                jnp.where(valid, batch[name], IGNORED),
                label_smoothing=self.label_smoothing,
            )
            for name in ("labels", "other_labels")
        )
        share = batch["shares"]

        def mixed(first: Float[Array, "B"], second: Float[Array, "B"]) -> Float[Array, ""]:
            return jnp.sum(share * first + (1.0 - share) * second)

        metrics = {"loss": mixed(one.nll, other.nll), "accuracy": jnp.sum(one.correct)}
        return Losses(mixed(one.objective, other.objective), jnp.sum(one.weight), metrics)

    # ----------------------------------------------------------------------------- scores

    def scores(self, model: ImageClassifier, params: Params, data: ImageData) -> Json:
        """Top-1 and top-5 accuracy, macro F1, and calibration."""
        return self._scores(data.outputs(model, params, data.validation, "classify"), data)

    def probabilities(self, outputs: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
        """The probabilities of the classes, from their scores."""
        return sigmoid(outputs) if self.multi_label else np.asarray(jax.nn.softmax(outputs))

    def _prediction(self, output: Float[np.ndarray, " c"], names: Sequence[str]) -> Prediction:
        if self.multi_label:
            return labels_prediction(output, names)
        return class_prediction(output, names)

    def _scores(self, outputs: np.ndarray, data: ImageData) -> dict[str, float]:
        truth, num_classes = data.validation.labels, len(data.train.names)
        scores = classification_scores(outputs.argmax(-1), truth, num_classes)
        if num_classes > 5:
            scores["top5_accuracy"] = top_accuracy(outputs, truth, 5)
        error = calibration_error(self.probabilities(outputs), truth)
        return {**scores, "calibration_error": error}

    def show(self, model: ImageClassifier, params: Params, data: ImageData, workdir: Path) -> Shown:
        """Shows scores, draws confusions and attention, and writes `predictions.jsonl`."""
        outputs = data.outputs(model, params, data.validation, "classify")
        scores, images = self._scores(outputs, data), data.validation
        names = distinct_names(data.train.names)
        lines = [f"{name:<20} {value:.4f}" for name, value in scores.items()]
        source = images.source
        files = source.files if isinstance(source, FileImages) else range(len(source))
        rows = (
            {"image": image, "label": names[label], **self._prediction(output, names).details}
            for image, label, output in zip(files, images.labels, outputs, strict=True)
        )
        write_json_lines(workdir / "predictions.jsonl", rows)
        matrix = confusion_matrix(outputs.argmax(-1), images.labels, len(names))
        draw_confusion_matrix(matrix, names, workdir / "confusion.png")
        accuracies = class_accuracies(matrix)
        hardest = np.argsort(accuracies)[:_LISTED]
        lines.append("least accurate classes:")
        lines += [f"  {names[place]:<18} {accuracies[place]:.4f}" for place in hardest]
        for truth, predicted, count in most_confused(matrix, names):
            lines.append(f"  {truth} taken for {predicted}: {count}")
        batch = data.first_images(_DRAWN)
        captions = [
            f"{names[label]}, taken for {names[found]}" if found != label else names[label]
            for label, found in zip(images.labels, outputs.argmax(-1), strict=False)
        ][: len(batch)]
        pixels = self.images.preparation.normalized(batch)
        draw_image_attention(model, params, pixels, batch, captions, workdir / "attention.png")
        return Shown("\n".join(lines), scores)

    # ---------------------------------------------------------------------------- predict

    def predict(
        self, model: ImageClassifier, params: Params, workdir: Path, lines: Iterable[str]
    ) -> Iterator[Prediction]:
        """The most probable classes of each image, or all with `multi_label`; a line is a path.

        Raises:
            DataError: for a file that is not an image.
        """
        labels = load_labels(workdir)
        for names, images in self.images.to_answer(lines, model.channels):
            pixels = self.images.preparation.normalized(images)
            outputs = apply(model, "classify", params, pixels)
            for name, output in zip(names, np.asarray(outputs), strict=True):
                details = self._prediction(output, labels).details
                found = (f"{k} {v:.4f}" for k, v in details["probabilities"].items())
                yield Prediction("\t".join((name, *found)), {"image": name, **details})


def _losses_of_each(outputs: Float[Array, "B c"], batch: Batch, valid: Bool[Array, " B"]) -> Losses:
    """Binary cross-entropy, the mean over all classes."""
    first, second = (
        jax.nn.one_hot(batch[name], outputs.shape[-1]) for name in ("labels", "other_labels")
    )
    share = batch["shares"][:, None]
    truth = share * first + (1.0 - share) * second
    errors = jnp.mean(binary_cross_entropy(outputs, truth), axis=-1)
    objective = jnp.sum(errors * valid)
    right = (jnp.argmax(outputs, axis=-1) == batch["labels"]) & valid
    metrics = {"loss": objective, "accuracy": jnp.sum(right).astype(jnp.float32)}
    return Losses(objective, jnp.sum(valid).astype(jnp.float32), metrics)
