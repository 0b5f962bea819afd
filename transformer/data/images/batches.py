"""Batches of images with their classes, with or without augmentation."""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from transformer.data.images.augmentation import (
    cut_box,
    cutmix,
    flip,
    mixup,
    random_erasing,
    random_resized_crop,
    random_shift,
)
from transformer.data.images.labelled import ArrayImages, ImageSource
from transformer.data.images.preparation import Preparation
from transformer.data.images.rand_augment import rand_augment
from transformer.data.source import Visit
from transformer.errors import ConfigError, DataError
from transformer.fields import require_allowed
from transformer.limits import Real, Share, Weight, Whole
from transformer.ops import augmentation as on_device
from transformer.types import Batch, HostBatch

_Numbers = Sequence[int | float] | np.ndarray
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
        on_device: whether the device does all but `resized_crop`, as part of the step, so that a
            fast one does not wait for the host. An image is then mixed with the one before it in
            the batch, not with one of the whole set.
    """

    resized_crop: Share = 0.0
    flip: bool = False
    shift: Annotated[int, Whole(0, 1 << 14)] = 0
    rand_augment_ops: Annotated[int, Whole(0, 100)] = 0
    rand_augment_magnitude: Annotated[float, Real(0.0, on_device.HIGHEST_MAGNITUDE)] = 9.0
    mixup: Weight = 0.0
    cutmix: Weight = 0.0
    erasing: Share = 0.0
    on_device: bool = False

    @property
    def on_host(self) -> "Augmentation":
        """The part that the host does."""
        return Augmentation(resized_crop=self.resized_crop) if self.on_device else self

    def changed(self, batch: Batch, key: Key[Array, ""]) -> Batch:
        """A batch of `ImageRows` with the part that the device does.

        Args:
            batch: bytes, classes and shares.
            key: random numbers for all changes.
        """
        if not (self.on_device and self.changes):
            return batch
        images, keys = batch["images"].astype(jnp.float32), jax.random.split(key, 5)
        if self.flip:
            images = on_device.random_flip(keys[0], images)
        if self.shift:
            images = on_device.random_shift(keys[1], images, self.shift)
        if self.rand_augment_ops:
            number, magnitude = self.rand_augment_ops, self.rand_augment_magnitude
            images = on_device.rand_augment(keys[2], images, number, magnitude)
        if self.mixup or self.cutmix:
            mixed, others, shares = on_device.random_mix(keys[3], images, self.mixup, self.cutmix)
            labels = batch["labels"]
            # Padding has no class.
            paired = batch["valid"][others] > 0
            images = jnp.where(paired[:, None, None, None], mixed, images)
            batch = {
                **batch,
                "other_labels": jnp.where(paired, labels[others], labels),
                "shares": jnp.where(paired, shares, 1.0),
            }
        if self.erasing:
            images = on_device.random_erasing(keys[4], images, self.erasing)
        return {**batch, "images": images}

    @property
    def changes(self) -> bool:
        """Whether an image of the right size is changed at all."""
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
class ImageRows:
    """Images with their classes as examples, augmented anew for each visit.

    The image that another is mixed with comes from the whole set and is augmented in the same way,
    so that a batch is the same for any number of hosts.

    A batch holds `images`, uint8 `[b, size, size, C]`; `labels`, `[b]`, the class of each image;
    `other_labels`, `[b]`, that of the image mixed into it, or else its own; `shares`, float32
    `[b]`, the weight of `labels` (`other_labels` has the rest); and `valid`, `[b]`, 1 for every
    image and 0 for padding. Classes and `valid` are int32.

    Attributes:
        source: the images.
        labels: `[n]`, the class of each.
        preparation: the preparation of images that are not cropped at random.
        augmentation: the augmentation of images; by default they are only prepared.
        num_threads: threads that read and augment the images of a batch; 0 uses the caller's, which
            is faster where images lie in memory and are small.
    """

    source: ImageSource
    labels: np.ndarray
    preparation: Preparation
    augmentation: Augmentation = Augmentation()
    num_threads: int = 0

    def __post_init__(self) -> None:
        _require_labels(self.source, self.labels)
        require_allowed("task.augmentation", self.augmentation)
        require_allowed("task.preparation", self.preparation)
        if self.augmentation.shift >= self._size:
            raise ConfigError(
                f"config.task.augmentation.shift is {self.augmentation.shift}: give less than the "
                f"{self._size} pixels of an image's side, or nothing of it is left."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, visits: Sequence[Visit]) -> HostBatch:
        """These images."""
        array = self._prepared_array
        if array is not None and not self._changes.changes:
            examples = np.array([visit.example for visit in visits])
            return _batch(array[examples], self.labels[examples])
        mixed = _map(self._mixed, visits, self.num_threads)
        images, labels, other_labels, shares = zip(*mixed, strict=True)
        return _batch(np.stack(images), labels, other_labels, shares)

    def padding(self, visit: Visit) -> HostBatch:
        """A black image of class 0, not `valid`."""
        images = np.zeros((1, self._size, self._size, self._channels), np.uint8)
        return {**_batch(images, np.zeros(1)), "valid": np.zeros(1, np.int32)}

    def _mixed(self, visit: Visit) -> _Mixed:
        """An image as it is at one visit."""
        example, generator = visit.example, visit.generator()
        image, label = self._augmented(example, generator), int(self.labels[example])
        mixed = _Mixed(image, label, label, 1.0)
        if self._changes.mixup or self._changes.cutmix:
            mixed = self._mix(image, label, generator)
        if self._changes.erasing:
            erased = random_erasing(mixed.image, generator, self._changes.erasing)
            mixed = mixed._replace(image=erased)
        return mixed

    def _augmented(self, example: int, generator: np.random.Generator) -> np.ndarray:
        """An image of the right size, augmented before mixing."""
        changes = self._changes
        if changes.resized_crop:
            image, scale = self.source[example], (changes.resized_crop, 1.0)
            resample = self.preparation.resample
            image = random_resized_crop(image, self._size, generator, scale, resample=resample)
        else:
            image = self._prepared(example)
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
        alpha, cut = self._changes.mixup, False
        if self._changes.cutmix and (not alpha or generator.random() < 0.5):
            alpha, cut = self._changes.cutmix, True
        share = generator.beta(alpha, alpha)
        if not cut:
            return _Mixed(mixup(image, other_image, share), label, other_label, share)
        box, share = cut_box(self._size, self._size, share, generator)
        return _Mixed(cutmix(image, other_image, box), label, other_label, share)

    def _prepared(self, example: int) -> np.ndarray:
        """An image resized and cut.

        Raises:
            DataError: if that is not possible, naming the image.
        """
        image = self.source[example]
        try:
            return self.preparation.pixels(image)
        except DataError as error:
            raise DataError(f"{self.source.name(example)}: {error}") from None

    @property
    def _prepared_array(self) -> np.ndarray | None:
        """All images as one array, if they are in one array and need no preparation."""
        if not isinstance(self.source, ArrayImages):
            return None
        array = self.source.array
        return array if self.preparation.keeps(*array.shape[1:3]) else None

    @functools.cached_property
    def _changes(self) -> Augmentation:
        """The part of the augmentation that is done here."""
        return self.augmentation.on_host

    @property
    def _size(self) -> int:
        return self.preparation.image_size

    @functools.cached_property
    def _channels(self) -> int:
        """C, read off the first image: a host may have a batch without any."""
        return self.source[0].shape[2]


def _batch(
    images: np.ndarray,
    labels: _Numbers,
    other_labels: _Numbers | None = None,
    shares: _Numbers | None = None,
) -> HostBatch:
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


def _map(
    function: Callable[[_Input], _Output], inputs: Iterable[_Input], num_threads: int
) -> Iterable[_Output]:
    """Maps a function over inputs, in order."""
    return _threads(num_threads).map(function, inputs) if num_threads else map(function, inputs)


@functools.cache
def _threads(count: int) -> concurrent.futures.ThreadPoolExecutor:
    """Threads that all batches share to decode images: decoding releases the GIL."""
    return concurrent.futures.ThreadPoolExecutor(count, "images")


def _require_labels(source: ImageSource, labels: np.ndarray) -> None:
    """Refuses an empty set, or a wrong number of labels.

    Raises:
        DataError: names both numbers.
    """
    if len(source) == 0 or len(source) != len(labels):
        raise DataError(
            f"there are {len(source):,} images and {len(labels):,} labels: give one label for each "
            f"image, and at least one image."
        )
