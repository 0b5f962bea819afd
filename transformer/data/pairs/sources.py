"""Pairs of texts that need no file: modules of `data/embedded/text_pairs/`.

To add one, add a file there.
"""

import importlib

from transformer.data.embedded import text_pairs
from transformer.data.pairs.files import Pairs
from transformer.sections import plugin_names

# The values of `config.task.embedded`.
TEXT_PAIRS = tuple(plugin_names(text_pairs))


def read_embedded_pairs(name: str, validation_fraction: float) -> tuple[Pairs, Pairs]:
    """Pairs to train on and to validate on.

    Args:
        name: one of `TEXT_PAIRS`.
        validation_fraction: the fraction that is held out, where the source does not decide it.

    Raises:
        DataError: if there are too few.
    """
    module = importlib.import_module(f"{text_pairs.__name__}.{name}")
    return module.read(validation_fraction)
