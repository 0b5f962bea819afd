"""Names of people and places in Shakespeare's plays, whole plays held out."""

from transformer.data.embedded.play_tags import play_tags
from transformer.data.labels.conll import TaggedSentences


def read() -> tuple[TaggedSentences, TaggedSentences]:
    """The sentences to train on and to validate on."""
    return play_tags()
