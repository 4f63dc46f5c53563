"""The vectorised checker against a slow twin that looks at one string at a time."""

import re
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_jax.strands import checker
from helix_jax.tk_scone.constraints import NAMED, Constraints

COMPLEMENT = str.maketrans("ACGT", "TGCA")


def gc(text):
    return len(re.findall("[GC]", text))


def broken_rules(strand, c):
    """Names of the rules that one strand breaks; written with string methods alone."""
    molecule = c.left + strand + c.right
    broken = set()
    if re.search(rf"(.)\1{{{c.longest_run}}}", molecule):
        broken.add("run")
    if c.window:
        low, high = (round(share * 100) * c.window for share in c.window_gc)
        pieces = [molecule[i : i + c.window] for i in range(len(molecule) - c.window + 1)]
        if any(not low <= 100 * gc(piece) <= high for piece in pieces):
            broken.add("window")
    if c.strand_gc and not (
        round(c.strand_gc[0] * 100) * len(strand) <= 100 * gc(strand) <= round(c.strand_gc[1] * 100) * len(strand)
    ):
        broken.add("strand")
    if c.balance:
        heads = [molecule[:i] for i in range(len(molecule) + 1)]
        if any(abs(2 * gc(head) - len(head)) > c.balance for head in heads):
            broken.add("balance")
    for motif in c.motifs:
        if motif in molecule or motif[::-1].translate(COMPLEMENT) in molecule:
            broken.add("motif")
    return broken


KINDS = {"run": "no run", "window": "in every", "strand": "of the strand", "balance": "less A", "motif": "without"}


def count_by_kind(report, kind):
    """Strands per kind of rule where the kind has a single rule; the sum otherwise."""
    return sum(f.strands for f in report.findings if KINDS[kind] in f.rule)


band = st.sampled_from([(0.25, 0.75), (0.4, 0.6), (0.45, 0.55), (0.0, 0.5), (0.2, 1.0)])
word = st.text("ACGT", max_size=5)
sets = st.builds(
    Constraints,
    longest_run=st.integers(1, 4),
    window=st.sampled_from([0, 3, 8, 20, 40]),
    window_gc=band,
    strand_gc=st.none() | band,
    balance=st.sampled_from([0, 0, 3, 6]),
    motifs=st.lists(st.text("ACGT", min_size=2, max_size=4), max_size=2).map(tuple),
    left=word,
    right=word,
)
pools = st.integers(1, 40).flatmap(lambda n: st.lists(st.text("ACGT", min_size=n, max_size=n), min_size=1, max_size=8))


@given(pools, sets)
@settings(max_examples=300)
def test_equals_the_slow_twin(strands, constraints):
    report = checker.check(strands, constraints)
    twin = [broken_rules(strand, constraints) for strand in strands]
    assert report.violations == sum(map(bool, twin))
    for kind in ("run", "strand") + (("balance",) if not constraints.window else ()):
        assert count_by_kind(report, kind) == sum(kind in broken for broken in twin)
    if not constraints.balance:
        assert count_by_kind(report, "window") == sum("window" in broken for broken in twin)
    if len(constraints.motifs) == 1 and constraints.motifs[0] == constraints.motifs[0][::-1].translate(COMPLEMENT):
        assert count_by_kind(report, "motif") == sum("motif" in broken for broken in twin)


@given(pools)
def test_histograms(strands):
    report = checker.check(strands, Constraints(left="AC"))
    longest = [max(len(m.group()) for m in re.finditer(r"(.)\1*", "AC" + s)) for s in strands]
    np.testing.assert_array_equal(report.longest_runs, np.bincount(longest))
    np.testing.assert_array_equal(
        report.gc_percent, np.bincount([100 * gc(s) // len(s) for s in strands], minlength=101)
    )
    assert (report.strands, report.length) == (len(strands), len(strands[0]))


def test_array_and_text_agree_in_either_case():
    bases = np.random.default_rng(0).integers(0, 4, (50, 60), dtype=np.uint8)
    text = ["".join("ACGT"[b] for b in strand) for strand in bases]
    one, two, three = (checker.check(s, NAMED["helix"]) for s in (bases, text, [t.lower() for t in text]))
    assert one.findings == two.findings == three.findings


def test_examples_name_strand_position_and_piece():
    good = "ACGT" * 10
    c = Constraints(longest_run=3, window=20, window_gc=(0.4, 0.6), motifs=("GAATTC",), left="TT", right="GG")
    strands = [
        good,
        "TT" + good[2:],
        good[:20] + "GAATTC" + good[26:],
        good[:10] + "GGGGG" + good[15:],
        good[:-2] + "GG",
    ]
    report = checker.check(strands, c)
    runs, window, motif = report.findings
    assert runs.strands == 3
    assert [(e.strand, e.position, e.what) for e in runs.examples] == [
        (1, -2, "run of 4: TTTT"),
        (3, 10, "run of 5: GGGGG"),
        (4, 38, "run of 4: GGGG"),
    ]
    assert [(e.strand, e.position) for e in motif.examples] == [(2, 20)]
    assert motif.examples[0].what.endswith("GAATTC")
    assert window.rule == "8 to 12 G or C in every 20 bases"
    assert report.violations == 4


def test_only_the_first_examples_are_kept():
    report = checker.check(["AAAA"] * 40000, Constraints())
    assert report.findings[0].strands == report.violations == 40000
    assert [e.strand for e in report.findings[0].examples] == [0, 1, 2]


def test_bounds_are_exact_at_the_edges():
    """0.55 * 20 is 11.000000000000002 in binary: 11 of 20 must still pass, 12 must not."""
    c = Constraints(window=20, window_gc=(0.45, 0.55), longest_run=20)
    rows = ["G" * n + "A" * (20 - n) for n in range(21)]
    report = checker.check(rows, c)
    assert report.findings[1].strands == 18
    assert [checker.check([row], c).violations for row in rows[8:13]] == [1, 0, 0, 0, 1]


def test_balance_promises_windows():
    """`wide`: 40-60 % in windows of 50 has a rule of its own, and the prefix rule is checked as such."""
    rules = [f.rule for f in checker.check(["ACGT" * 20], NAMED["wide"]).findings]
    assert "20 to 30 G or C in every 50 bases" in rules
    assert checker.check(["GGACGGAGGG" + "ACGT" * 20], NAMED["wide"]).violations == 1


@pytest.mark.parametrize(
    ("strands", "reason"),
    [
        (["ACGT", "ACNT"], r"strand 1 holds 'N' at 2"),
        (["ACGT", "ACG"], r"strand 1 has 3 nt, the first has 4"),
        ([""], r"strand 0 has 0 nt"),
        (["ACGÉ"], r"strand 0 holds"),
        (np.full((2, 3), 4, np.uint8), r"strand 0 holds 4"),
        (np.zeros(3, np.uint8), r"uint8\[n, L\]"),
    ],
)
def test_bad_input_is_refused(strands, reason):
    with pytest.raises(ValueError, match=reason):
        checker.check(strands, Constraints())


def test_empty_pool_and_windows_longer_than_the_strand():
    assert checker.check([], NAMED["helix"]).violations == 0
    assert checker.check(np.zeros((0, 150), np.uint8), NAMED["strict"]).strands == 0
    report = checker.check(["GCG"], Constraints(window=20, window_gc=(0.4, 0.6), motifs=("ACGTACGT",)))
    assert report.violations == 0


@pytest.mark.slow
def test_a_million_strands_in_seconds():
    bases = np.random.default_rng(0).integers(0, 4, (1_000_000, 150), dtype=np.uint8)
    begin = time.perf_counter()
    assert checker.check(bases, NAMED["helix"]).violations > 990_000
    assert time.perf_counter() - begin < 20
