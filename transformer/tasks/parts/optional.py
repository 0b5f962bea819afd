"""What only some tasks say of themselves, and training and planning ask for."""

from typing import ClassVar, Protocol, runtime_checkable

from transformer.types import Data


@runtime_checkable
class FixesDimensions(Protocol):
    """A task whose data refuse fields of the model that are larger than they need, too."""

    EXACT_DIMENSIONS: ClassVar[tuple[str, ...]]


@runtime_checkable
class NamesOutputs(Protocol):
    """A task whose models have an output for each of some names."""

    def output_names(self, data: Data) -> tuple[str, ...]:
        """The names, in the order of the outputs."""
        ...


@runtime_checkable
class StandsIn(Protocol):
    """A task that knows the shapes of its batches without its data."""

    def stand_in(self) -> Data:
        """Data of these shapes."""
        ...
