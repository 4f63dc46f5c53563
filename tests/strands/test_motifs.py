"""Enzymes and IUPAC codes as words."""

import pytest

from helix_jax.strands import motifs


@pytest.mark.parametrize(
    ("named", "words"),
    [
        (("EcoRI",), ("GAATTC",)),
        (("bsai", "GAATTC"), ("GGTCTC", "GAATTC")),
        (("GTYRAC",), ("GTCAAC", "GTCGAC", "GTTAAC")),  # GTTGAC is GTCAAC on the other strand
        (("AvaII",), ("GGACC",)),  # GGWCC
        (("DrdV",), ("CATGAAC", "CATGCAC", "CATGGAC", "CATGTAC")),  # a name made of IUPAC codes
        (("acgtt", "AACGT"), ("acgtt", "AACGT")),  # words stay as they are
        ((), ()),
    ],
)
def test_expanded(named, words):
    assert motifs.expanded(named) == words


@pytest.mark.parametrize(
    ("motif", "message"),
    [
        ("XcmI", r"XcmI \(CCANNNNNNNNNTGG\) stands for 262,144 words, and 64 are the most"),
        ("NNNNACGTNN", None),
        ("NN", "any bases"),
        ("EcoRl", "'EcoRl' is neither a word"),
        ("ACGU", "neither a word"),
    ],
)
def test_refused(motif, message):
    if message is None:
        assert motifs.expanded([motif]) == ("ACGT",)
        return
    with pytest.raises(motifs.MotifError, match=message):
        motifs.expanded([motif])


def test_the_most_words():
    assert len(motifs.expanded(["ANNNC"])) == 64
    with pytest.raises(motifs.MotifError, match="256 words"):
        motifs.expanded(["ANNNNC"])
