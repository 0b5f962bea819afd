"""What hidden residues of held-out proteins cost without any training by gradient, in nats.

python benchmarks/residues.py proteins.fasta.xz

What `configs/protein_mlm.py:proteins` must beat. Of the last 2 percent of the proteins 15 percent
of the residues are hidden. The four methods: how often each residue occurs; the same, mixed with
the visible residues of the protein; what stands up to 8 places to either side, each neighbour on
its own; both. The weights of neighbours are fitted on half of the hidden residues, and all methods
are judged on the other half.
"""

import sys
from typing import NamedTuple

import numpy as np

from transformer.data.proteins.fasta import read_fasta
from transformer.data.tokenizers.residues import AMINO_ACIDS

_HELD_OUT, _HIDDEN, _REACH, _JUDGED = 0.02, 0.15, 8, 24_000
_NONE = -1


class Residues(NamedTuple):
    """Residues of proteins, one protein after another.

    Attributes:
        ids: 0 to 19; -1 where a residue is unknown or hidden.
        owners: the number of the protein of each.
    """

    ids: np.ndarray
    owners: np.ndarray


def residues(sequences: list[str]) -> Residues:
    """The residues of sequences."""
    table = np.full(256, _NONE, np.int8)
    table[[ord(acid) for acid in AMINO_ACIDS]] = np.arange(20)
    letters = np.frombuffer("".join(sequences).encode(), np.uint8)
    owners = np.repeat(np.arange(len(sequences)), [len(each) for each in sequences])
    return Residues(table[letters].astype(np.int64), owners)


def neighbour(part: Residues, places: np.ndarray, offset: int) -> np.ndarray:
    """The residue so many places away in the same protein; -1 for none."""
    there = places + offset
    inside = (there >= 0) & (there < len(part.ids))
    there = np.where(inside, there, places)
    same = inside & (part.owners[there] == part.owners[places])
    return np.where(same, part.ids[there], _NONE)


def evidence(part: Residues, offset: int) -> np.ndarray:
    """For a neighbour (row) how much more or less likely each residue is, as a logarithm."""
    places = np.flatnonzero(part.ids >= 0)
    other = neighbour(part, places, offset)
    pairs = other * 20 + part.ids[places]
    counts = np.bincount(pairs[other >= 0], minlength=400).reshape(20, 20) + 1.0
    joint = counts / counts.sum()
    return np.log(joint / np.outer(joint.sum(1), joint.sum(0)))


def costs(logits: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The nats of each residue."""
    logits = logits - logits.max(1, keepdims=True)
    return np.log(np.exp(logits).sum(1)) - logits[np.arange(len(truth)), truth]


def fitted(base: np.ndarray, features: np.ndarray, truth: np.ndarray) -> float:
    """Mean nats on the later half with weights of features that are fitted on the former."""
    weights, half = np.full(features.shape[2], 0.5), len(truth) // 2
    known = features[:half]
    for _ in range(30):
        logits = base + known @ weights
        chances = np.exp(logits - logits.max(1, keepdims=True))
        chances /= chances.sum(1, keepdims=True)
        expected = (chances[..., None] * known).sum(1)
        slope = (known[np.arange(half), truth[:half]] - expected).mean(0)
        curve = ((chances[..., None] * known**2).sum(1) - expected**2).mean(0)
        weights += slope / (3.0 * curve + 1e-9)
    return costs(base + features[half:] @ weights, truth[half:]).mean()


def main() -> None:
    """Prints a line for each method."""
    sequences = [protein.sequence for protein in read_fasta(sys.argv[1])]
    first = len(sequences) - round(len(sequences) * _HELD_OUT)
    train, held_out = residues(sequences[:first]), residues(sequences[first:])
    rng = np.random.default_rng(0)
    hidden = (rng.random(len(held_out.ids)) < _HIDDEN) & (held_out.ids >= 0)
    shown = held_out._replace(ids=np.where(hidden, _NONE, held_out.ids))
    places = rng.permutation(np.flatnonzero(hidden))[:_JUDGED]
    truth, half = held_out.ids[places], len(places) // 2

    base = np.log(np.bincount(train.ids[train.ids >= 0]) / (train.ids >= 0).sum())
    print(f"single residues     {costs(np.tile(base, (half, 1)), truth[half:]).mean():.3f}")
    counts = np.zeros((len(sequences) - first, 20))
    np.add.at(counts, (shown.owners[shown.ids >= 0], shown.ids[shown.ids >= 0]), 1)
    # As if 120 residues of the usual kind had been seen, too: the best of 20 to 200.
    mixed = np.log(counts + 120.0 * np.exp(base))[shown.owners[places]]
    print(f"composition         {costs(mixed[half:], truth[half:]).mean():.3f}")
    found = [(mixed - np.log(np.exp(mixed).sum(1, keepdims=True)) - base)]
    for offset in (*range(-_REACH, 0), *range(1, _REACH + 1)):
        beside = neighbour(shown, places, offset)
        known = evidence(train, offset)[np.maximum(beside, 0)]
        found.append(np.where(beside[:, None] >= 0, known, 0.0))
    features = np.stack(found, 2)
    print(f"neighbours          {fitted(base, features[..., 1:], truth):.3f}")
    print(f"both                {fitted(base, features, truth):.3f}")


if __name__ == "__main__":
    main()
