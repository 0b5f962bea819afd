"""Peptides that kill microbes (`AMP`) and others (`UniProt`), relatives held out together."""

from transformer.data.embedded.peptides import peptides
from transformer.data.labels.tables import LabelledTexts


def read() -> tuple[LabelledTexts, LabelledTexts]:
    """The peptides to train on and to validate on."""
    train, validation = peptides()
    return (
        LabelledTexts(train.sequences, None, train.labels),
        LabelledTexts(validation.sequences, None, validation.labels),
    )
