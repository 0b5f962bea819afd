"""Images as sequences of patches, and back (Dosovitskiy et al. 2021, section 3.1)."""

from jaxtyping import Array, Float


def patchify(images: Float[Array, "B Y X C"], size: int) -> Float[Array, "B T P"]:
    """Cuts images into squares, row by row, and flattens each: its rows, columns, channels.

    A dense layer on top is a convolution with a kernel and a stride of `size`. An image of 48x48
    pixels in three channels has 9 patches of 16x16, each with 768 values:

        >>> patchify(jnp.zeros((1, 48, 48, 3)), 16).shape
        (1, 9, 768)

    Args:
        images: Y by X pixels in C channels.
        size: the side of a patch in pixels.

    Returns:
        T = Y X / size^2 patches of P = size^2 C values.

    Raises:
        ValueError: if Y or X is not a multiple of `size`.
    """
    batch, height, width, channels = images.shape
    if height % size or width % size:
        raise ValueError(f"patches of {size} pixels do not fill {height} x {width}.")
    rows, columns = height // size, width // size
    cut = images.reshape(batch, rows, size, columns, size, channels)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * columns, size**2 * channels)


def unpatchify(patches: Float[Array, "B T P"], size: int, columns: int) -> Float[Array, "B Y X C"]:
    """The images whose patches `patchify` has cut.

    Args:
        patches: T patches of P values.
        size: the side of a patch in pixels.
        columns: the number of patches in a row of the image.
    """
    batch, count, values = patches.shape
    rows, channels = count // columns, values // size**2
    laid = patches.reshape(batch, rows, columns, size, size, channels)
    return laid.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * size, columns * size, channels)
