"""Labelled texts and tagged sentences that need no file.

They are modules of `data/embedded/labelled/` and `data/embedded/tagged/`. To add one, add a file
there.
"""

import importlib

from transformer.data.embedded import labelled, tagged
from transformer.data.labels.conll import TaggedSentences
from transformer.data.labels.tables import LabelledTexts
from transformer.sections import plugin_names

# The values of `config.task.embedded`.
LABELLED, TAGGED = tuple(plugin_names(labelled)), tuple(plugin_names(tagged))


def read_embedded(name: str) -> tuple[LabelledTexts, LabelledTexts]:
    """Texts to train on and to validate on.

    Args:
        name: one of `LABELLED`.

    Raises:
        MissingDependencyError: if the package that they come with is not installed.
    """
    return importlib.import_module(f"{labelled.__name__}.{name}").read()


def read_tagged(name: str) -> tuple[TaggedSentences, TaggedSentences]:
    """Sentences to train on and to validate on.

    Args:
        name: one of `TAGGED`.

    Raises:
        MissingDependencyError: if the package that they come with is not installed.
    """
    return importlib.import_module(f"{tagged.__name__}.{name}").read()
