"""What every score is where there is nothing to be a share of: 0, or a refusal that says so."""

import numpy as np
import pytest

from transformer.errors import DataError
from transformer.pictures.confusion import draw_confusion_matrix
from transformer.scoring import classification, entities, neighbors, rouge, squad
from transformer.scoring.translation import translation_scores

NO_CLASSES, NO_NUMBERS, NO_ROWS = np.zeros(0, int), np.zeros(0), np.zeros((0, 3))
# Nothing at all, and what has no word in it.
EMPTY = {
    "classes": lambda: classification.classification_scores(NO_CLASSES, NO_CLASSES, 3),
    "no classes": lambda: classification.classification_scores(NO_CLASSES, NO_CLASSES, 0),
    "numbers": lambda: classification.regression_scores(NO_NUMBERS, NO_NUMBERS),
    "top": lambda: {"top": classification.top_accuracy(NO_ROWS, NO_CLASSES, 2)},
    "calibration": lambda: {"error": classification.calibration_error(NO_ROWS, NO_CLASSES)},
    "entities": lambda: entities.entity_scores([], []),
    "sentences without words": lambda: entities.entity_scores([[]], [[]]),
    "summaries": lambda: rouge.rouge_scores([], []),
    "empty summaries": lambda: rouge.rouge_scores([""], [""]),
}


@pytest.mark.parametrize("what", EMPTY)
def test_scores_of_nothing_are_zero(what):
    scores = EMPTY[what]()
    assert scores and set(scores.values()) == {0.0}


def test_translations():
    pytest.importorskip("sacrebleu")
    nothing = translation_scores([], [])
    assert nothing["bleu_signature"] == translation_scores(["a"], ["a"])["bleu_signature"]
    assert {nothing[name] for name in ("bleu", "chrf", "exact_match")} == {0.0}
    blank = translation_scores([""], [""])
    assert (blank["bleu"], blank["chrf"], blank["exact_match"]) == (0.0, 0.0, 100.0)
    with pytest.raises(ValueError, match="shorter"):
        translation_scores(["a"], [])


def test_tables_and_pictures(tmp_path):
    assert entities.entity_table([], []).splitlines()[-1].split() == [
        *("all", "0.00", "0.00", "0.0", "0"),
    ]
    matrix = classification.confusion_matrix(NO_CLASSES, NO_CLASSES, 2)
    assert classification.most_confused(matrix, ["a", "b"]) == []
    draw_confusion_matrix(matrix, ["a", "b"], tmp_path / "matrix.png")
    assert (tmp_path / "matrix.png").exists()


def test_what_cannot_be_asked_of_nothing_is_refused():
    with pytest.raises(DataError, match="no questions to score"):
        squad.squad_scores({}, [])
    with pytest.raises(DataError, match="no questions to score"):
        squad.best_null_threshold({}, {}, [])
    with pytest.raises(ValueError, match="no examples whose class is known"):
        neighbors.nearest_neighbor_classes(np.zeros((0, 3)), NO_CLASSES, np.ones((2, 3)), 5, 3)
    none = neighbors.nearest_neighbor_classes(np.ones((2, 3)), np.array([0, 1]), NO_ROWS, 5, 3)
    assert none.shape == (0,)
