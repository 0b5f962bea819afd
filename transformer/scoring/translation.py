"""Scores of translations: BLEU and chrF as sacreBLEU defines them, and exact matches."""

import importlib.util
from collections.abc import Sequence

from transformer.errors import MissingDependencyError


def require_sacrebleu() -> None:
    """Refuses early, not after hours of training, if translations cannot be scored.

    Raises:
        MissingDependencyError: if sacreBLEU is not installed.
    """
    if importlib.util.find_spec("sacrebleu") is None:
        raise MissingDependencyError("sacrebleu", "translation", "measuring BLEU and chrF")


def translation_scores(outputs: Sequence[str], references: Sequence[str]) -> dict[str, float | str]:
    """Scores of a whole file, in percent.

    Args:
        outputs: one output for each reference.
        references: the expected texts.

    Returns:
        `bleu` (Papineni et al. 2002; 13a tokens, cased) with `bleu_signature` (Post 2018), `chrf`
        (Popović 2015) and `exact_match`; 0 where there is nothing to score.

    Raises:
        MissingDependencyError: if sacreBLEU is not installed.
    """
    require_sacrebleu()
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    bleu, chrf = BLEU(), CHRF()
    same = sum(output == reference for output, reference in zip(outputs, references, strict=True))
    # sacreBLEU needs at least one sentence; one without words changes nothing.
    texts = (list(outputs) or [""], [list(references) or [""]])
    return {
        "bleu": bleu.corpus_score(*texts).score,
        "chrf": chrf.corpus_score(*texts).score,
        "exact_match": 100.0 * same / max(1, len(references)),
        "bleu_signature": str(bleu.get_signature()),
    }
