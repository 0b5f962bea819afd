"""Files of proteins: sequences, labels of residues, mutations and contacts."""

import gzip
import lzma

import numpy as np
import pytest

from transformer.data.embedded.peptides import peptides, relatives
from transformer.data.proteins.contacts import read_contacts
from transformer.data.proteins.fasta import Protein, read_fasta
from transformer.data.proteins.mutations import Mutation, parse_mutations, read_variants
from transformer.data.proteins.residue_labels import read_residue_labels
from transformer.data.reading import bounds
from transformer.data.text.sources import read_documents, read_texts
from transformer.errors import DataError

FASTA = ">P1 a protein\r\nMKT\r\nAY*\r\n\r\n>\nGG-X\n>P3\n  U O B Z  \n"
PROTEINS = [Protein("P1", "MKTAY"), Protein("", "GG-X"), Protein("P3", "UOBZ")]


def write(folder, content, name="a.fasta"):
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress], ids=["", "gz", "xz"])
def test_sequences(tmp_path, pack):
    assert read_fasta(write(tmp_path, pack(FASTA.encode()))) == PROTEINS


def test_streams_of_xz_one_after_another(tmp_path):
    content = lzma.compress(b">a\nMK") + bytes(4) + lzma.compress(b"TA\n")
    assert read_fasta(write(tmp_path, content)) == [Protein("a", "MKTA")]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (">a\nMK\n>b\n>c\nMK", "line 3: the sequence 'b' is empty"),
        (">a\nMK\n>b\n", "line 3: the sequence 'b' is empty"),
        ("MK\n>a\nMK", "line 1: a sequence begins before any name"),
        (">a\nMK\nM7K", "line 3: the sequence 'a' has '7', which stands for no residue"),
        (">a\nMJK", "'J', which stands for no residue"),
        (">a\nMé", "line 2: the sequence 'a' has 'é'"),
        (">a\nMK\nTaY", "line 3: the sequence 'a' has 'a'. Lower case marks .*give capitals"),
        (">a\nM*K", r"the sequence 'a' has '\*'"),
        (">a\nMK*\nTA", r"line 2: the sequence 'a' has '\*'"),
        ("\n", "empty"),
        (lzma.compress(b">a\nMK")[:-8], "damaged xz file"),
        (lzma.compress(b">a\nMK") + b"x", "damaged xz file"),
        (gzip.compress(b">a\nMK", mtime=0)[:-8], "damaged gzip file"),
    ],
)
def test_bad_files(tmp_path, content, said):
    with pytest.raises(DataError, match=said) as caught:
        read_fasta(write(tmp_path, content))
    assert "a.fasta" in str(caught.value)


def test_xz_expands_within_limits(tmp_path, monkeypatch):
    monkeypatch.setattr(bounds, "UNPACKED_BYTES", 1 << 16)
    path = write(tmp_path, lzma.compress(b">a\n" + b"M" * (1 << 20)))
    with pytest.raises(DataError, match="unpack it yourself with unxz"):
        read_fasta(path)
    monkeypatch.setattr(bounds, "UNPACKER_BYTES", 1 << 16)
    with pytest.raises(DataError, match=r"damaged xz file.*emory"):
        read_fasta(path)


def test_jobs_read_fasta(tmp_path):
    """A protein is a document, and a line; which are held out, only their residues decide."""
    proteins = [f">{n}\n{'ACDEFGHIKL'[n % 10] * (n + 1)}\n" for n in range(40)]
    forth, back = (
        write(tmp_path, "".join(part), name)
        for part, name in ((proteins, "a.faa"), (proteins[::-1], "b.fa"))
    )
    train, validation = read_documents(str(forth), "", 0.2, "")
    assert len(train) + len(validation) == 40
    assert len(validation) > 2
    other = read_documents(str(back), "", 0.2, "")
    assert [sorted(part) for part in other] == [sorted(train), sorted(validation)]
    lines, _ = read_texts(str(forth), "", 0.2, "")
    assert lines == "".join(f"{document[0]}\n" for document in train)
    assert read_documents(str(forth), str(back), 0.2, "")[1][0] == ["L" * 40]
    one = write(tmp_path, ">a\nMK", "c.fasta")
    with pytest.raises(DataError, match="1 documents: too few"):
        read_documents(str(one), "", 0.2, "")


# ----------------------------------------------------------------------------------- peptides


def test_relatives_share_runs():
    sequences = ["ACDEFG", "KLMNPQ", "DEFGHI", "FGHIKL", "GHIWWW", "AC"]
    # Neighbours share two of their four runs; the first and the fourth are relatives of relatives,
    # and the fifth shares one run with the third and the fourth.
    assert relatives(sequences) == [0, 1, 0, 0, 4, 5]


def test_no_relative_of_a_peptide_to_train_on_is_held_out():
    pytest.importorskip("modlamp", reason="its table has the peptides")
    train, validation = peptides()
    assert len(train.sequences) == 3665
    assert len(validation.sequences) == 955
    assert set(train.labels) == set(validation.labels) == {"AMP", "UniProt"}
    together = relatives([*train.sequences, *validation.sequences])
    assert not set(together[:3665]) & set(together[3665:])


# ------------------------------------------------------------- labels, mutations and contacts


def test_labels_of_residues(tmp_path):
    found = read_residue_labels(write(tmp_path, ">a\nMKT\nHHC\n\n>b\nG\nE\n"))
    assert found.words == [["M", "K", "T"], ["G"]]
    assert found.tags == [["H", "H", "C"], ["E"]]
    for content, said in {
        ">a\nMKT\n": "line 1: a record has three lines",
        "MKT\nHHC\n>a": "line 1: a record has three lines",
        ">a\nMKT\nHH": "line 3 has 2 labels for 3 residues",
        ">a\nMk\nHH": "line 2: the sequence 'a' has 'k'",
        ">a\nMK\nH ": "line 3 has 1 labels",
        ">a\nMKT\nH H": "line 3 has the tag ' '",
    }.items():
        with pytest.raises(DataError, match=said):
            read_residue_labels(write(tmp_path, content))


def test_variants():
    assert parse_mutations("WT", "MKT", "here") == ()
    expected = (Mutation("M", 0, "A"), Mutation("T", 2, "G"))
    assert parse_mutations("M1A:T3G", "MKT", "here") == expected
    found = read_variants(["K2R\t-1.5", "WT"], "MKT")
    assert [variant.measured for variant in found] == [-1.5, None]
    for text, said in {
        "m1a": "'m1a' is no mutation",
        "M0A": "is no mutation",
        "": "is no mutation",
        "K1A": "K1A does not fit .* has M there",
        "K9A": "which has no such residue",
        "M1A:M1G": "changes a residue twice",
        "K2R\tnan": "'nan' is no finite number",
        "K2R\tmuch": "'much' is no finite number",
    }.items():
        with pytest.raises(DataError, match=f"line 1 of the input.*{said}"):
            read_variants([text], "MKT")


def test_known_contacts(tmp_path):
    proteins = [Protein("a", "MKT"), Protein("b", "GG")]
    found = read_contacts(write(tmp_path, "a\t1\t3\nb\t2\t1\n"), proteins)
    np.testing.assert_array_equal(found[0], [[0, 0, 1], [0, 0, 0], [1, 0, 0]])
    np.testing.assert_array_equal(found[1], [[0, 1], [1, 0]])
    for content, said in {
        "a\t1": "line 1: expected a name and two numbers",
        "c\t1\t2": "no protein 'c'",
        "a\t1\t4": "residues 1 and 4 are no two of the 3 of a",
        "a\t1\t1": "are no two",
        "a\t1\t2": "has no contacts of b",
    }.items():
        with pytest.raises(DataError, match=said):
            read_contacts(write(tmp_path, content), proteins)
