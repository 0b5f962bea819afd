"""Batches of images with their classes: augmented in random order to train on, or each once."""

import concurrent.futures
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from typing import Annotated, Any, NamedTuple, TypeVar

import numpy as np

from transformer.data.images.augmentation import (
    cut_box,
    cutmix,
    flip,
    mixup,
    random_erasing,
    random_resized_crop,
    random_shift,
)
from transformer.data.images.labelled import ImageSource
from transformer.data.images.preparation import Preparation
from transformer.data.images.rand_augment import HIGHEST_MAGNITUDE, rand_augment
from transformer.data.order import example_generator, host_places, require_divisible, visit
from transformer.errors import ConfigError, DataError
from transformer.fields import require_allowed
from transformer.limits import Real, Share, Weight, Whole

_Input = TypeVar("_Input")
_Output = TypeVar("_Output")


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How images are changed at random, in this order.

    Attributes:
        resized_crop: the least fraction of the image's area that a random part covers, which is
            then stretched to the whole (0.08 in Szegedy et al. 2015); 0 prepares images as for
            validation.
        flip: whether left and right are exchanged in half of the images.
        shift: how far images are moved in each direction at most, in pixels.
        rand_augment_ops: changes of RandAugment (Cubuk et al. 2019) to each image; 0 for none.
        rand_augment_magnitude: how strong they are, from 0 to 10.
        mixup: alpha of the Beta distribution of shares in Mixup (Zhang et al. 2017); 0 for none.
        cutmix: the same for CutMix (Yun et al. 2019). With both, either has even odds per image.
        erasing: probability of Random Erasing (Zhong et al. 2017).
    """

    resized_crop: Share = 0.0
    flip: bool = False
    shift: Annotated[int, Whole(0, 1 << 14)] = 0
    rand_augment_ops: Annotated[int, Whole(0, 100)] = 0
    rand_augment_magnitude: Annotated[float, Real(0.0, HIGHEST_MAGNITUDE)] = 9.0
    mixup: Weight = 0.0
    cutmix: Weight = 0.0
    erasing: Share = 0.0

    @property
    def changes(self) -> bool:
        """Whether there is anything to be done to an image that has the right size."""
        return bool(
            self.resized_crop
            or self.flip
            or self.shift
            or self.rand_augment_ops
            or self.mixup
            or self.cutmix
            or self.erasing
        )


class _Mixed(NamedTuple):
    """An image, two classes and the weight of the first."""

    image: np.ndarray
    label: int
    other_label: int
    share: float


@dataclasses.dataclass(frozen=True)
class ShuffledImages:
    """Images in a new order each epoch; the batch of a step is a function of the seed and the step.

    An epoch visits every image once. Batches do not stop at its end: they take up the next one. The
    image that another is mixed with comes from the whole set and is augmented in the same way, so
    that a batch is the same for any number of hosts.

    A batch holds `images`, uint8 `[b, size, size, C]`; `labels`, `[b]`, the class of each image;
    `other_labels`, `[b]`, that of the image mixed into it, or else its own; `shares`, float32
    `[b]`, the weight of `labels`, what is left to 1 being that of `other_labels`; and `valid`,
    `[b]`, 1 for every image. Classes and `valid` are int32.

    Attributes:
        source: the images.
        labels: `[n]`, the class of each.
        preparation: what is done to images that are not cut at random.
        batch_size: B over all hosts.
        augmentation: of the images.
        seed: of orders and augmentation.
        num_steps: how many batches there are.
        host: index of this host.
        num_hosts: how many share each batch.
        num_threads: that read and augment the images of a batch; 0 for none of their own, which is
            faster where images lie in memory and are small.
    """

    source: ImageSource
    labels: np.ndarray
    preparation: Preparation
    batch_size: int
    augmentation: Augmentation
    seed: int
    num_steps: int
    host: int = 0
    num_hosts: int = 1
    num_threads: int = 0

    def __post_init__(self) -> None:
        require_divisible(self.batch_size, self.num_hosts)
        _require_labels(self.source, self.labels)
        require_allowed("task.augmentation", self.augmentation)
        require_allowed("task.preparation", self.preparation)
        if self.augmentation.shift >= self._size:
            raise ConfigError(
                f"config.task.augmentation.shift is {self.augmentation.shift}: give less than the "
                f"{self._size} pixels of an image's side, or nothing of it is left."
            )

    def __len__(self) -> int:
        return self.num_steps

    def __getitem__(self, step: Any) -> dict[str, np.ndarray]:
        places = host_places(int(step), self.batch_size, self.host, self.num_hosts)
        visits = [visit(place, len(self.labels), self.seed) for place in places]
        examples = np.array([example for _, example in visits])
        array = _prepared_array(self.source, self.preparation)
        if array is not None and not self.augmentation.changes:
            return _batch(array[examples], self.labels[examples])
        mixed = _map(self._mixed, visits, self.num_threads)
        images, labels, other_labels, shares = zip(*mixed, strict=True)
        return _batch(np.stack(images), labels, other_labels, shares)

    def _mixed(self, visited: tuple[int, int]) -> _Mixed:
        """An example as it is in an epoch."""
        epoch, example = visited
        generator = example_generator(self.seed, epoch, example)
        image, label = self._augmented(example, generator), int(self.labels[example])
        mixed = _Mixed(image, label, label, 1.0)
        if self.augmentation.mixup or self.augmentation.cutmix:
            mixed = self._mix(image, label, generator)
        if self.augmentation.erasing:
            erased = random_erasing(mixed.image, generator, self.augmentation.erasing)
            mixed = mixed._replace(image=erased)
        return mixed

    def _augmented(self, example: int, generator: np.random.Generator) -> np.ndarray:
        """An image of the right size, changed by itself."""
        changes = self.augmentation
        if changes.resized_crop:
            image, scale = self.source[example], (changes.resized_crop, 1.0)
            resample = self.preparation.resample
            image = random_resized_crop(image, self._size, generator, scale, resample=resample)
        else:
            image = _prepared(self.source, example, self.preparation)
        if changes.flip and generator.random() < 0.5:
            image = flip(image)
        if changes.shift:
            image = random_shift(image, changes.shift, generator)
        if changes.rand_augment_ops:
            magnitude = changes.rand_augment_magnitude
            image = rand_augment(image, changes.rand_augment_ops, magnitude, generator)
        return image

    def _mix(self, image: np.ndarray, label: int, generator: np.random.Generator) -> _Mixed:
        """An image mixed with another one."""
        other = int(generator.integers(len(self.labels)))
        other_image, other_label = self._augmented(other, generator), int(self.labels[other])
        alpha, cut = self.augmentation.mixup, False
        if self.augmentation.cutmix and (not alpha or generator.random() < 0.5):
            alpha, cut = self.augmentation.cutmix, True
        share = generator.beta(alpha, alpha)
        if not cut:
            return _Mixed(mixup(image, other_image, share), label, other_label, share)
        box, share = cut_box(self._size, self._size, share, generator)
        return _Mixed(cutmix(image, other_image, box), label, other_label, share)

    @property
    def _size(self) -> int:
        return self.preparation.image_size


@dataclasses.dataclass(frozen=True)
class SequentialImages:
    """Every image once, in order, prepared and not changed otherwise.

    A batch holds what those of `ShuffledImages` do. The last one is filled up with black images of
    class 0 that are not `valid`.

    Attributes:
        source: the images.
        labels: `[n]`, the class of each.
        preparation: of the images.
        batch_size: B over all hosts.
        host: index of this host.
        num_hosts: how many share each batch.
        num_threads: that read the images of a batch; 0 for none of their own.
    """

    source: ImageSource
    labels: np.ndarray
    preparation: Preparation
    batch_size: int
    host: int = 0
    num_hosts: int = 1
    num_threads: int = 0

    def __post_init__(self) -> None:
        require_divisible(self.batch_size, self.num_hosts, "validation_batch_size")
        _require_labels(self.source, self.labels)
        require_allowed("task.preparation", self.preparation)

    def __len__(self) -> int:
        return math.ceil(len(self.labels) / self.batch_size)

    def __getitem__(self, step: Any) -> dict[str, np.ndarray]:
        places = host_places(int(step), self.batch_size, self.host, self.num_hosts)
        # Those that are left over come last.
        examples = [place for place in places if place < len(self.labels)]
        size = self.preparation.image_size
        images = np.zeros((len(places), size, size, self._channels), np.uint8)
        labels = np.zeros(len(places), np.int32)
        array = _prepared_array(self.source, self.preparation)
        if array is not None:
            images[: len(examples)] = array[examples]
        else:
            for row, image in enumerate(_map(self._image, examples, self.num_threads)):
                images[row] = image
        labels[: len(examples)] = self.labels[examples]
        batch = _batch(images, labels)
        batch["valid"][len(examples) :] = 0
        return batch

    def _image(self, example: int) -> np.ndarray:
        return _prepared(self.source, example, self.preparation)

    @functools.cached_property
    def _channels(self) -> int:
        """C, read off the first image: a host may have a batch without any."""
        return self.source[0].shape[2]


def _batch(images: np.ndarray, labels: Any, other_labels: Any = None, shares: Any = None) -> dict:
    """A batch of valid images, by default not mixed."""
    labels = np.asarray(labels, np.int32)
    return {
        "images": images,
        "labels": labels,
        "other_labels": labels if other_labels is None else np.asarray(other_labels, np.int32),
        "shares": np.ones(len(labels), np.float32)
        if shares is None
        else np.asarray(shares, np.float32),
        "valid": np.ones(len(labels), np.int32),
    }


def _prepared_array(source: ImageSource, preparation: Preparation) -> np.ndarray | None:
    """All images as one array, if the source has them so and nothing is to be done to them."""
    array = getattr(source, "array", None)
    return array if array is not None and preparation.keeps(*array.shape[1:3]) else None


def _prepared(source: ImageSource, example: int, preparation: Preparation) -> np.ndarray:
    """An image resized and cut.

    Raises:
        DataError: if that is not possible, naming the image.
    """
    image = source[example]
    try:
        return preparation.pixels(image)
    except DataError as error:
        files = getattr(source, "files", None)
        raise DataError(f"{files[example] if files else f'image {example}'}: {error}") from None


def _map(
    function: Callable[[_Input], _Output], inputs: Iterable[_Input], num_threads: int
) -> Iterable[_Output]:
    """What a function makes of each input, in their order."""
    return _threads(num_threads).map(function, inputs) if num_threads else map(function, inputs)


@functools.cache
def _threads(count: int) -> concurrent.futures.ThreadPoolExecutor:
    """Threads that all batches share to decode images: decoding releases the GIL."""
    return concurrent.futures.ThreadPoolExecutor(count, "images")


def _require_labels(source: ImageSource, labels: np.ndarray) -> None:
    """Refuses no images, or another number of classes.

    Raises:
        DataError: with both numbers.
    """
    if len(source) == 0 or len(source) != len(labels):
        raise DataError(
            f"there are {len(source):,} images and {len(labels):,} labels: give one label for each "
            f"image, and at least one image."
        )
