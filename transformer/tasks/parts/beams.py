"""How tasks search for the texts that their models write."""

import dataclasses
from typing import Annotated

from transformer.limits import Whole
from transformer.ops.search_rules import USUAL, Penalty, Search


@dataclasses.dataclass(frozen=True)
class BeamSearch:
    """The part of tasks whose models write that says how outputs are searched for.

    Attributes:
        beam_size: the number of hypotheses kept in the search; Vaswani et al. 2017, section 6.1.
        length_penalty: see `ops.search_rules.length_penalty`.
        search: further rules of the search; see `ops.search_rules.Search`.
    """

    beam_size: Annotated[int, Whole(1, 1000)] = 4
    length_penalty: Penalty = 0.6
    search: Search = USUAL

    def check(self) -> None:
        """Refuses values that cannot work."""
        self.search.check_penalty(self.length_penalty, "config.task.length_penalty")
