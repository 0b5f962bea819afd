"""How well counts of amino acids tell antimicrobial peptides from others, on the held-out ones.

python benchmarks/peptides.py

What `configs/protein_classify.py` must beat: logistic regression and a random forest of 300 trees
on the counts of the 20 amino acids, with three seeds; and the forest on their fractions and the
length, which counts mix.
"""

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from transformer.data.embedded.peptides import Peptides, peptides
from transformer.data.tokenizers.residues import AMINO_ACIDS


def counts(part: Peptides) -> np.ndarray:
    """The number of each amino acid in each peptide, `[n, 20]`."""
    return np.array([[each.count(acid) for acid in AMINO_ACIDS] for each in part.sequences], float)


def fractions(part: Peptides) -> np.ndarray:
    """The fraction of each amino acid in each peptide, and its length, `[n, 21]`."""
    lengths = np.array([[len(each)] for each in part.sequences], float)
    return np.hstack([counts(part) / lengths, lengths])


def main() -> None:
    """Prints the accuracies."""
    train, validation = peptides()
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    linear.fit(counts(train), train.labels)
    score = linear.score(counts(validation), validation.labels)
    print(f"logistic regression     {score:.4f}")
    for features in (counts, fractions):
        for seed in range(3):
            forest = RandomForestClassifier(300, random_state=seed)
            forest.fit(features(train), train.labels)
            score = forest.score(features(validation), validation.labels)
            print(f"random forest on {features.__name__}, seed {seed}   {score:.4f}")


if __name__ == "__main__":
    main()
