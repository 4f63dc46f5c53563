"""What ``inspect`` counts as a violation."""

import pytest

from helix_jax import codec
from helix_jax.config import CodecConfig, StrandConfig
from helix_jax.strands import inspection

PRIMERS = ("ACGTTGCA", "TGACCTGA")


@pytest.mark.parametrize("column", [0, 7, 68, 75], ids=["first", "end of left", "begin of right", "last"])
def test_strands_without_their_primers_are_violations(column):
    strands = StrandConfig(length=60, redundancy=0.0, left_primer=PRIMERS[0], right_primer=PRIMERS[1])
    rows = codec.pack(b"helix" * 30, config=CodecConfig(constraints="strand", strands=strands)).strands.copy()
    whole = inspection.inspect({76: rows}, primers=PRIMERS)
    assert whole["violations"] == sum(whole["violations_by_rule"].values()) == 0
    rows[[1, 3], column] ^= 1
    found = inspection.inspect({76: rows}, name="strand", primers=PRIMERS)
    assert found["violations"] == found["violations_by_rule"]["primers"] == 2
    assert found["strands"] == len(rows)
