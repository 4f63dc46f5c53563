"""Real nanopore reads: their adapters, and their errors on our strands. Skipped where the data is not there."""

from pathlib import Path

import numpy as np
import pytest

from eval import real_reads

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "reads"

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="no real reads: ../shared/data/reads is missing, and they are not shipped"
)


def test_untouched_reads_have_their_adapters():
    counts = real_reads.primers(FOLDER)
    assert counts["reads"] == 3014
    assert counts["found"] >= 0.99 * counts["reads"]
    assert 0.4 < counts["turned"] / counts["found"] < 0.6
    assert counts["right_length"] >= 0.8 * counts["found"]


def test_real_errors_on_our_strands(monkeypatch):
    """From one read more strands come back than reads are free of errors (13 %); from six nearly all."""
    monkeypatch.setattr(real_reads, "STRANDS", 150)
    pairs = real_reads.pairs_of(FOLDER)
    free = np.mean([np.array_equal(strand, read) for strand, read, _ in pairs])
    one, six = real_reads.decode(pairs, [1, 6], lambda *_: None)
    assert one["found"] > free
    assert six["found"] > 0.95
    assert one["wrong"] + six["wrong"] <= 0.02
