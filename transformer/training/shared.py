"""Data and programs that the runs of one process share."""

from collections.abc import Callable, Hashable
from typing import TypeVar

Made = TypeVar("Made")


class Shared:
    """A cache of data and programs, each made when first requested."""

    def __init__(self) -> None:
        self._made: dict[Hashable, object] = {}

    def get_or_make(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """Returns the value for this key, making it if it does not exist yet."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]
