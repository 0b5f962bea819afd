"""Optional abilities of tasks, as protocols that training and planning ask for."""

from typing import ClassVar, Protocol, runtime_checkable

from transformer.types import Data


@runtime_checkable
class FixesDimensions(Protocol):
    """A task whose data fix the model's dimensions exactly: larger ones are refused, too."""

    EXACT_DIMENSIONS: ClassVar[tuple[str, ...]]


@runtime_checkable
class NamesOutputs(Protocol):
    """A task whose models have named outputs."""

    def output_names(self, data: Data) -> tuple[str, ...]:
        """The names, in the order of the outputs."""
        ...


@runtime_checkable
class StandsIn(Protocol):
    """A task that knows the shapes of its batches without data."""

    def stand_in(self) -> Data:
        """Placeholder data with these shapes."""
        ...
