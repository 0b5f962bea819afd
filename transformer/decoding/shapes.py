"""Few shapes, so that few programs are compiled."""


def rounded_up(needed: int, most: int | None = None, *, least: int = 16) -> int:
    """The next power of two for a size of `needed`, from `least` (a power of two) to `most`."""
    size = max(least, 1 << max(0, needed - 1).bit_length())
    return size if most is None else min(size, most)
