"""What the runs of one process share."""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

Made = TypeVar("Made")


class Shared:
    """Data and programs, each made when first asked for."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Any] = {}

    def get_or_make(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What was made for this key, or is made now."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]
