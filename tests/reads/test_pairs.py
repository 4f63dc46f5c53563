"""Pairs of reads: mates found by name, inserts by overlap, and the qualities of merged bases."""

import itertools

import numpy as np
import pytest

from helix_jax.reads import adapters, fastq, inserts, orient, pairs
from helix_jax.reads.mates import Mates
from helix_jax.strands import records
from helix_jax.strands.portions import PAD, Portion

NO_TRIM = adapters.Trim()


def ends_of(strands, cycles, quality=30, error=0.0, seed=0, tail=0):
    """Both reads of strands uint8[n, L], of so many cycles; past the end of a strand comes an adapter."""
    draw = np.random.default_rng(seed)
    adapter = draw.integers(0, 4, (1, max(0, cycles - strands.shape[1])), np.uint8)

    def one(rows):
        rows = np.concatenate([rows, np.repeat(adapter, len(rows), 0)], axis=1)[:, :cycles]
        wrong = draw.random(rows.shape) < error
        rows = np.where(wrong, (rows + draw.integers(1, 4, rows.shape)) % 4, rows).astype(np.uint8)
        return pairs.Ends(rows, np.full(len(rows), cycles), np.full(rows.shape, quality, np.uint8))

    lengths = np.full(len(strands), strands.shape[1])
    return one(strands), one(orient.turned(strands, lengths))


def strands_of(n, length, seed=1):
    return np.random.default_rng(seed).integers(0, 4, (n, length), np.uint8)


def prior_for(first, second):
    longest = int((first.lengths + second.lengths).max())
    return pairs.learned(pairs.inserts(first, second, pairs.flat(longest)), longest)


# ---- the overlap -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [60, 99, 100, 101, 150, 188])
def test_inserts_of_any_length_come_back(length):
    """Shorter than the reads, as long, longer, and with an overlap of 12 bases."""
    strands = strands_of(300, length)
    first, second = ends_of(strands, 100)
    found = pairs.inserts(first, second, prior_for(first, second))
    np.testing.assert_array_equal(found, length)
    merged = pairs.merge(first, second, found)
    np.testing.assert_array_equal(merged.bases, strands)
    overlap = slice(length - 100 if length > 100 else 0, 100)
    assert (merged.qualities[:, overlap] == 60 + round(10 * np.log10(3))).all() or length < 100
    if length > 100:
        assert (merged.qualities[:, : length - 100] == 30).all()


def test_errors_are_outvoted_by_quality():
    strands = strands_of(200, 120)
    first, second = ends_of(strands, 100)
    rows = np.arange(200)
    first.bases[:, 60] = (first.bases[:, 60] + 1) % 4
    first.qualities[rows, 60] = 10
    found = pairs.inserts(first, second, prior_for(first, second))
    merged = pairs.merge(first, second, found)
    np.testing.assert_array_equal(merged.bases, strands)
    assert (merged.qualities[:, 60] < 30).all()
    assert (merged.qualities[:, 60] > 15).all()


def test_short_overlaps_are_certain_by_the_length_of_the_others():
    """Ten bases with an error would not do for one pair alone."""
    strands = strands_of(1000, 190)
    first, second = ends_of(strands, 100)
    first.bases[0, 95] = (first.bases[0, 95] + 1) % 4
    first.qualities[0, 95] = 20
    alone = pairs.inserts(*(pairs.Ends(*(part[:1] for part in side)) for side in (first, second)), pairs.flat(200))
    assert alone[0] == 0
    found = pairs.inserts(first, second, prior_for(first, second))
    np.testing.assert_array_equal(found, 190)


def test_unrelated_reads_are_never_merged():
    strands, others = strands_of(2000, 150), strands_of(2000, 150, seed=2)
    first, second = ends_of(strands, 100)[0], ends_of(others, 100)[1]
    for prior in (pairs.flat(200), prior_for(*ends_of(strands, 100))):
        assert (pairs.inserts(first, second, prior) > 0).mean() < 0.002


def test_reads_with_many_errors_are_merged_right():
    strands = strands_of(500, 150)
    first, second = ends_of(strands, 100, quality=12, error=0.06)
    found = pairs.inserts(first, second, prior_for(first, second))
    assert (found == 150).mean() > 0.99


def test_pairs_without_overlap_are_joined_where_the_length_is_known():
    strands = strands_of(400, 150)
    first, second = ends_of(strands, 100)
    short = pairs.Ends(first.bases, np.where(np.arange(400) < 20, 40, 100), first.qualities)
    found = pairs.inserts(short, second, prior_for(short, second))
    np.testing.assert_array_equal(found, 150)
    merged = pairs.merge(short, second, found)
    assert (merged.bases[:20, 40:50] == 4).all()
    assert not merged.qualities[:20, 40:50].any()
    known = merged.bases != 4
    assert known.sum() == 400 * 150 - 200
    np.testing.assert_array_equal(merged.bases[known], strands[known])
    assert not pairs.inserts(*ends_of(strands_of(50, 300), 100), pairs.flat(200)).any()


def test_repeats_do_not_decide_an_overlap():
    """A word of 6 bases over and over fits at many places."""
    strands = np.tile(strands_of(50, 6), (1, 30))[:, :150]
    first, second = ends_of(strands, 100)
    assert not pairs.inserts(first, second, pairs.flat(200)).any()


@pytest.mark.parametrize("quality", [0, 2])
def test_placeholder_qualities_say_nothing(quality):
    strands = strands_of(50, 150)
    first, second = ends_of(strands, 100, quality=quality)
    np.testing.assert_array_equal(pairs.inserts(first, second, pairs.flat(200)), 150)


def test_merged_qualities_are_those_of_bayes():
    """Against all true bases, one by one, in floating point."""
    for qa, qb, same in itertools.product((2, 11, 25, 37), (2, 11, 25, 37), (True, False)):
        ea, eb = (min(0.75, 10 ** (-q / 10)) for q in (qa, qb))
        shown = 0, 0 if same else 1
        chance = [
            (1 - ea if true == shown[0] else ea / 3) * (1 - eb if true == shown[1] else eb / 3) for true in range(4)
        ]
        first = pairs.Ends(np.array([[shown[0], 2]], np.uint8), np.array([2]), np.array([[qa, 40]], np.uint8))
        second = pairs.Ends(np.array([[1, 3 - shown[1]]], np.uint8), np.array([2]), np.array([[40, qb]], np.uint8))
        merged = pairs.merge(first, second, np.array([2]))
        wrong = 1 - chance[merged.bases[0, 0]] / sum(chance)
        assert chance[merged.bases[0, 0]] == max(chance)
        assert merged.qualities[0, 0] == min(93, round(-10 * np.log10(wrong)))


def test_unknown_bases_are_the_other_reads():
    strands = strands_of(10, 80)
    first, second = ends_of(strands, 80)
    first.bases[:, 5] = 4
    second.bases[:, 70] = 4  # base 9 of the strand
    merged = pairs.merge(first, second, np.full(10, 80))
    np.testing.assert_array_equal(merged.bases, strands)
    assert (merged.qualities[:, [5, 9]] == 30).all()


# ---- mates -------------------------------------------------------------------------------------------------


def portion_of(names, end=0, length=5):
    letters = np.zeros(length * len(names), np.uint8)
    return Portion(letters, np.full(len(names), length), letters + 30, names, end)


@pytest.mark.parametrize(
    "portions",
    [
        [portion_of([b"a 1:N:0:1", b"a 2:N:0:1", b"b 1:N:0:1", b"b 2:N:0:1"])],
        [portion_of([b"a/1", b"b/1"]), portion_of([b"b/2", b"a/2"])],
        [portion_of([b"a/1", b"b/2"]), portion_of([b"b/1 x"]), portion_of([b"a/2"])],
        [portion_of([b"a x", b"b"], 1), portion_of([b"a y", b"b"], 2)],
        [portion_of([b"s.1.1", b"s.2.1"], 1), portion_of([b"s.1.2", b"s.2.2"], 2)],
    ],
)
def test_mates_are_found_by_their_names(portions):
    mates = Mates()
    found = list(mates.found(portions))
    assert all(not isinstance(part, Portion) for part in found)
    assert sum(len(first.lengths) for first, _ in found) == mates.pairs == 2
    assert not mates.alone


def test_what_has_no_mate_is_a_read_of_its_own():
    mates = Mates()
    found = list(mates.found([portion_of([b"a/1", b"b/1", b"c", b"a/2", b"a/2"])]))
    single = [part for part in found if isinstance(part, Portion)]
    assert (mates.pairs, mates.alone, sum(len(part.lengths) for part in single)) == (1, 2, 3)
    mates = Mates()
    assert len(list(mates.found([portion_of([b"x/1", b"y"], 1), portion_of([b"z", b"z2"], 2)]))) == 2
    assert (mates.pairs, mates.alone, mates.of_two_files) == (0, 4, True)


def numbered(reads):
    """A portion of reads (number, 1 or 2) of 5 bases, whose qualities are their numbers."""
    portion = portion_of([b"%d/%d" % read for read in reads])
    return portion._replace(qualities=np.repeat(np.array([number for number, _ in reads], np.uint8), 5))


def test_reads_that_wait_hold_no_portion_in_memory():
    """Each portion has a first read whose second one comes at the end."""

    def portions():
        for late in range(0, 90, 10):
            whole = [(number, end) for number in range(late + 1, late + 10) for end in (1, 2)]
            yield numbered([*whole[:7], (late, 1), *whole[7:]])
            held.append(sum(len(part.names) for part in mates._held.values()))
        yield numbered([(late, 2) for late in range(80, -10, -10)])

    mates, held, seen = Mates(), [], []
    for first, second in mates.found(portions()):
        np.testing.assert_array_equal(first.qualities, second.qualities)
        seen += first.qualities[:, 0].tolist()
    assert sorted(seen) == list(range(90))
    assert held == list(range(1, 10))
    assert (mates.pairs, mates.alone, mates._letters, mates._held) == (90, 0, 0, {})


def test_reads_wait_up_to_a_bound_though_there_are_pairs(monkeypatch):
    monkeypatch.setattr("helix_jax.reads.mates.MOST_WAITING", 40)
    mates, alone = Mates(), []
    portions = [numbered([(200, 1), (200, 2)]), *(numbered([(n, 1), (n + 100, 1)]) for n in range(20))]
    portions += [numbered([(18, 2), (119, 2), (0, 2)])]
    for part in mates.found(portions):
        assert mates._letters <= 50
        alone += part.qualities[::5].tolist() if isinstance(part, Portion) else []
    assert alone[:20] == [number for n in range(10) for number in (n, n + 100)]  # the oldest first
    assert len(alone) == mates.alone == 39
    assert mates.pairs == 3


def test_reads_without_marks_do_not_wait():
    portions = (portion_of([b"uuid runid=1", b"other"]) for _ in itertools.count())
    assert len(next(Mates().found(portions)).lengths) == 2


def test_first_reads_alone_do_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr("helix_jax.reads.mates.MOST_WAITING", 40)
    mates, seen = Mates(), 0
    for part in mates.found(portion_of([b"%d/1" % n, b"%dx/1" % n]) for n in range(20)):
        seen += len(part.lengths)
        assert sum(len(late.lengths) for _, late in mates._later) <= 10
    assert seen == 40
    portions = [portion_of([b"%d/1" % n]) for n in range(20)]
    portions += [portion_of([b"a"], 1), portion_of([b"a"], 2), portion_of([b"b/1", b"b/2"])]
    mates = Mates()
    assert (len(list(mates.found(portions))), mates.pairs) == (22, 2)


# ---- files -------------------------------------------------------------------------------------------------


def write_pairs(path, ends, names, order=None):
    chosen = range(len(names)) if order is None else order
    rows = [np.asarray(part)[list(chosen)] for part in (ends.bases, ends.lengths, ends.qualities)]
    fastq.write(path, *rows, [names[n] for n in chosen])


def reads_of(paths, trim=NO_TRIM):
    """(the reads as text, the Inserts, warnings)."""
    with records.opened(paths) as source:
        made = inserts.Inserts(source, trim)
        reads = [
            "".join("ACGTN"[base] for base in row[:length])
            for bases, lengths, _ in fastq.chunks(made)
            for row, length in zip(bases, lengths, strict=True)
        ]
        return reads, made, source.warnings


def test_two_files_in_step_out_of_step_and_of_other_sizes(tmp_path):
    strands = strands_of(50, 150)
    text = sorted("".join("ACGT"[base] for base in row) for row in strands)
    first, second = ends_of(strands, 100)
    names = [f"r{n} x" for n in range(50)]
    one, two = tmp_path / "a_R1.fastq", tmp_path / "a_R2.fastq"
    write_pairs(one, first, names)
    for order in (range(50), range(49, -1, -1)):
        write_pairs(two, second, names, order)
        reads, made, warnings = reads_of([(one, two)])
        assert sorted(reads) == text
        assert (made.figures, warnings) == ({"pairs": {"merged": 50, "joined": 0, "apart": 0, "alone": 0}}, [])
    write_pairs(two, second, names, range(30))
    reads, made, warnings = reads_of([(one, two)])
    assert (len(reads), made.merged, made.alone) == (50, 30, 20)
    assert "20 reads" in warnings[0]
    write_pairs(two, second, [f"q{n}" for n in range(50)])
    reads, made, warnings = reads_of([(one, two)])
    assert (len(reads), made.figures) == (100, {})
    assert "no names in common" in warnings[0]


def test_one_file_interleaved_or_one_after_the_other(tmp_path):
    strands = strands_of(40, 150)
    first, second = ends_of(strands, 100)
    both = pairs.Ends(*(np.concatenate(parts) for parts in zip(first, second, strict=True)))
    names = [f"r{n} {end}:N:0:1" for end in (1, 2) for n in range(40)]
    for order in (range(80), [n for pair in zip(range(40), range(40, 80), strict=True) for n in pair]):
        write_pairs(tmp_path / "a.fastq", both, names, order)
        reads, made, _ = reads_of(tmp_path / "a.fastq")
        assert (len(reads), made.merged) == (40, 40)


def test_pairs_of_a_file_with_carriage_returns(tmp_path):
    first, second = ends_of(strands_of(40, 150), 100)
    both = pairs.Ends(*(np.concatenate(parts) for parts in zip(first, second, strict=True)))
    write_pairs(tmp_path / "a.fastq", both, [f"r{n}/{end}" for end in (1, 2) for n in range(40)])
    content = (tmp_path / "a.fastq").read_bytes()
    (tmp_path / "a.fastq").write_bytes(content.replace(b"\n", b"\r\n"))
    assert reads_of(tmp_path / "a.fastq")[1].figures["pairs"]["merged"] == 40


def test_a_few_pairs_do_not_tell_how_long_inserts_are():
    for told, apart, usual in ((1, 0, 0), (1, 3, 0), (19, 0, 0), (20, 0, 150), (20, 380, 150), (20, 381, 0)):
        assert pairs.learned(np.array([150] * told + [0] * apart), 200).usual == usual


def test_the_first_portions_tell_how_long_inserts_are_together(tmp_path, monkeypatch):
    """The first portion has a pair of reads that do not reach each other; the length of the others joins them."""
    monkeypatch.setattr(records, "BLOCK", 1 << 12)
    first, second = ends_of(strands_of(60, 150), 100)
    first.lengths[0] = 40
    both = pairs.Ends(
        *(np.stack(parts, 1).reshape(120, *parts[0].shape[1:]) for parts in zip(first, second, strict=True))
    )
    write_pairs(tmp_path / "a.fastq", both, [f"r{n}/{end}" for n in range(60) for end in (1, 2)])
    reads, made, _ = reads_of(tmp_path / "a.fastq")
    assert (made.merged, made.joined, {len(read) for read in reads}) == (59, 1, {150})
    monkeypatch.setattr(inserts, "PART", 1)
    assert reads_of(tmp_path / "a.fastq")[1].figures["pairs"] == {"merged": 59, "joined": 0, "apart": 1, "alone": 0}


def test_reads_that_are_left_are_counted_untouched(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "BLOCK", 256)
    row = "ACGGTTAGCATTGACCGATTGCATCCAGTTAG"
    with records.opened(fastq_of(tmp_path / "a.fastq", [row] * 60)) as source:
        made = inserts.Inserts(source, adapters.Trim((adapters.named("illumina"),)))
        taken = len(next(fastq.chunks(made))[1])
        assert taken < 30
        monkeypatch.setattr(adapters, "trimmed", None)
        assert made.left(taken) == 60 - taken
    first, second = ends_of(strands_of(40, 150), 100)
    both = pairs.Ends(*(np.concatenate(parts) for parts in zip(first, second, strict=True)))
    names = [f"r{n} {end}:N:0:1" for end in (1, 2) for n in range(40)]
    write_pairs(tmp_path / "b.fastq", both, names, np.arange(80).reshape(2, 40).T.ravel().tolist())
    with records.opened(tmp_path / "b.fastq") as source:
        made = inserts.Inserts(source, NO_TRIM)
        assert made.left(len(next(fastq.chunks(made))[1])) is None


# ---- adapters and UMIs -------------------------------------------------------------------------------------


def fastq_of(path, rows, names=None):
    lengths = [len(row) for row in rows]
    bases = np.full((len(rows), max(lengths)), PAD, np.uint8)
    for n, row in enumerate(rows):
        bases[n, : len(row)] = ["ACGTN".index(base) for base in row]
    fastq.write(path, bases, lengths, np.where(bases == PAD, 0, 30).astype(np.uint8), names)
    return path


def test_adapters_are_cut_off_both_ends(tmp_path):
    insert = "ACGGTTAGCATTGACCGATTGCATCCAGTTAG"
    nextera, turned = adapters.KNOWN["nextera"], "AGATGTGTATAAGAGACAG"
    rows = [
        insert + nextera + "GGGG",
        insert + nextera[:9],
        "CCCC" + turned + insert,
        turned[-8:] + insert + nextera[:6] + "G" + nextera[7:],  # an error
        insert,
        insert + nextera[:2],  # too little to tell
    ]
    path = fastq_of(tmp_path / "a.fastq", rows)
    trim = adapters.Trim((adapters.named("Nextera"),))
    reads, _, _ = reads_of(path, trim)
    assert reads == [insert] * 5 + [rows[5]]
    path = fastq_of(tmp_path / "a.fastq", [nextera + "ACGT", insert])
    reads, made, _ = reads_of(path, trim)
    assert (reads, made.left_out) == ([insert], {adapters.NOTHING: 1})


def test_umis_are_cut_off_every_read(tmp_path):
    path = fastq_of(tmp_path / "a.fastq", ["ACGTACGT" + "GGGTTT", "ACG", "A" * 9])
    reads, made, _ = reads_of(path, adapters.Trim(umi=8))
    assert (reads, made.left_out) == (["GGGTTT", "A"], {adapters.NOTHING: 1})


def test_adapters_and_umis_before_pairs_are_merged(tmp_path):
    strands = strands_of(30, 90)
    text = ["".join("ACGT"[base] for base in row) for row in strands]
    turned = ["".join("ACGT"[3 - base] for base in row[::-1]) for row in strands]
    adapter = adapters.KNOWN["illumina"]
    names = [f"r{n}/{end}" for n in range(30) for end in (1, 2)]
    umi = "ACGTTGCA"
    rows = [umi + side + "TTGGCCAA" + adapter + "ACAC" for pair in zip(text, turned, strict=True) for side in pair]
    path = fastq_of(tmp_path / "a.fastq", rows, names)
    reads, made, _ = reads_of(path, adapters.Trim((adapter,), 8))
    assert (made.merged, sorted(reads)) == (30, sorted(text))


def test_what_is_no_adapter_is_refused():
    for adapter in ("", "ACGT", "ACGTACGTX", "truseq"):
        with pytest.raises(
            adapters.HelixError, match="at least 8 letters over A, C, G, T, or a name: illumina, nextera"
        ):
            adapters.Trim((adapters.named(adapter),))
    with pytest.raises(adapters.HelixError, match="--umi -1"):
        adapters.Trim(umi=-1)
    trim = adapters.Trim((adapters.named("illumina"),))
    trim.check_primers(("", "ACACGACGCTCTTCC"))
    for primer in ("AGATCGGAAGAGCACACGTC", "GACGTGTGCTCTTCCGATCT"):
        with pytest.raises(adapters.HelixError, match="leave the adapter out"):
            trim.check_primers((primer, ""))
