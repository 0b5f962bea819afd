"""Labelled texts that need no file: modules of `data/embedded/labelled/`.

To add one, add a file there.
"""

import importlib

from transformer.data.embedded import labelled
from transformer.data.labels.tables import LabelledTexts
from transformer.sections import plugin_names

# The values of `config.task.embedded`.
LABELLED = tuple(plugin_names(labelled))


def read_embedded(name: str) -> tuple[LabelledTexts, LabelledTexts]:
    """Texts to train on and to validate on.

    Args:
        name: one of `LABELLED`.

    Raises:
        MissingDependencyError: if the package that they come with is not installed.
    """
    return importlib.import_module(f"{labelled.__name__}.{name}").read()
