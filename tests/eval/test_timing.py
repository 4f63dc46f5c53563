"""The timing evaluation: its figures against known values and bounds, on tiny inputs."""

import dataclasses
import functools
import itertools
import json
import math
import sys
from fractions import Fraction

import jax
import numpy as np
import pytest

from eval.timing import alignments as aligning
from eval.timing import command, curves, end_to_end, figure, throughput
from helix_jax import packing
from helix_jax.timing import capacity, channel, paths, pool, search
from helix_jax.timing.graph import TALK
from helix_jax.timing.scheme import TALK_SCHEME

TINY = dataclasses.replace(
    TALK_SCHEME, name="tiny", law=channel.Binomial.uniform(0.98), copies=3, duration=59, data=50, spacing=24, parity=8,
    index=5, check=6, group=16, beams=(8,),
)  # fmt: skip
fresh_key = functools.partial(jax.random.key, 1)  # a key is used once


@pytest.fixture(autouse=True)
def devices_stay(monkeypatch):
    """The module asks for one device per core; a test session has eight."""
    monkeypatch.setattr("helix_jax.parallel.use_all_cores", lambda: None)


@pytest.fixture(scope="module")
def small():
    """Fewer strands side by side, and a narrow beam."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_ALIGNED", 1)
        patch.setattr(aligning, "ALIGNED", 1)
        patch.setattr(aligning, "BEAM", 4)
        yield


@pytest.fixture(scope="module")
def tiny_trial(small):
    return end_to_end.trial(fresh_key(), TINY, 60)


@pytest.fixture(scope="module")
def measured():
    return curves.measure({"copies": (5,), "delta": (0.001,)})


@pytest.fixture(scope="module")
def corrections():
    return end_to_end.correction(fresh_key(), 2000, (0.92, 0.75), 3)


@pytest.fixture(scope="module")
def alignments(small):
    return aligning.grid(fresh_key(), TINY, (2,), (0.01, 0.7), 8)


# ---- the example, coders, curves -----------------------------------------------------------------------


def test_example_is_the_talks():
    """timing.md 1.1 and 1.2, computed there by another program."""
    figures = command.example()
    assert figures["lambda"] == pytest.approx(3.519033963397, abs=1e-9)
    assert figures["capacity"] == pytest.approx(1.815179438097, abs=1e-9)
    assert figures["baseline"] == pytest.approx(math.log2(3), abs=1e-9)
    assert figures["alpha"] == pytest.approx(0.8495642593, abs=1e-9)
    assert figures["share_of_longer_times"] == pytest.approx(0.14765, abs=1e-5)
    golden = {
        0.005: (0.95459, 1.7700, 1.7756), 0.01: (0.91921, 1.7335, 1.7435), 0.02: (0.85856, 1.6679, 1.6852),
        0.05: (0.71360, 1.4938, 1.5281), 0.1: (0.53100, 1.2320, 1.2843),
    }  # fmt: skip
    for row in figures["at"]:
        found = row["index_capacity"], row["theorem"], row["theorem_through_chain"]
        assert found == pytest.approx(golden[row["delta"]], abs=1e-4)
    assert figures["at"][2]["capacity_with_errors"] == pytest.approx(1.733, abs=5e-4)


def test_coders_stay_below_capacity(monkeypatch):
    for name, value in (("SPLITTING", ((5, 3),)), ("ENUMERATIVE", (20,)), ("BLOCKS", (60,)), ("STREAM_PATHS", 4)):
        monkeypatch.setattr(command, name, value)
    monkeypatch.setattr(command, "STREAM_BITS", 512)
    rows = command.coders(fresh_key())
    assert [row.name.split(",")[0] for row in rows] == ["state splitting 5:3", "enumerative"] + ["range coder"] * 2
    assert (rows[0].states, rows[0].entries, rows[0].anticipation) == (4, 128, 0)
    assert rows[1].bits_per_time == 36 / 20
    for row in rows:
        # a payload of 4 x 512 bits may happen to take less time than the mean, not much
        assert 0.9 < row.share < (1.02 if "stream" in row.name else 1)
        assert row.bits_per_time == pytest.approx(row.share * 1.815179438)


def test_curves_are_in_order(measured, tmp_path):
    binomial, poisson = measured["copies"]
    assert (binomial.law, poisson.law) == ("binomial", "Poisson")
    for point in (binomial, poisson):
        assert point.theorem < point.achieved < point.with_errors < point.capacity < 2
        assert math.log2(3) < point.achieved
        assert point.common <= point.achieved
        assert point.letters == pytest.approx(math.log2(3))
    assert measured["delta"][0].achieved < binomial.achieved  # longer times, so that no run is lost in all copies
    paths = curves.plot(measured, tmp_path)
    assert [path.name for path in paths] == ["timing_copies.png", "timing_delta.png"]
    assert all(path.stat().st_size > 10_000 for path in paths)


def test_figure(tmp_path):
    figure.draw(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


# ---- end to end --------------------------------------------------------------------------------------------


def test_correction_counts_failures(corrections):
    """Parity below the entropy cannot do; twice as much does."""
    hopeless, easy = corrections
    assert hopeless.failures == 3
    assert easy.failures == 0
    assert easy.rate == pytest.approx(0.75, abs=1e-3)
    assert easy.entropy == pytest.approx(0.14144, abs=1e-5)
    assert easy.share_wrong == pytest.approx(0.02, abs=0.01)


@pytest.mark.slow
def test_correction_of_a_scheme():
    row = end_to_end.correction_of(fresh_key(), TINY, 3)
    assert (row.n, row.m, row.failures) == (16 * 50, 16 * 8, 0)
    assert 0 <= row.entropy < 0.02
    assert end_to_end.correction_of(fresh_key(), end_to_end.letters_only(TINY), 1) is None


def test_alignment_gets_worse_with_loss(alignments):
    few, many = alignments
    assert few.right >= 7
    assert many.right == 0


@pytest.fixture(scope="module")
def by_length(small):
    """Of a good channel and of one that loses nearly all."""
    lost = dataclasses.replace(TINY, name="lost", law=channel.Binomial.uniform(0.1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("helix_jax.timing.scheme.NAMED", {"tiny": TINY, "lost": lost})
        patch.setattr(jax, "clear_caches", lambda: None)  # other tests need theirs
        measured = [
            aligning.lengths(fresh_key(), aligning.Series(name, copies, durations, (24,), 4, 6))
            for name, copies, durations in (("tiny", (3,), (30, 59)), ("lost", (2,), (30,)))
        ]
    return measured[0], measured[1]


def test_rates_by_length(by_length):
    """They are those of the strands as the scheme would write them, times the share that was read."""
    (short, long), (lost,) = by_length
    for row, duration in ((short, 30), (long, 59)):
        made = aligning.resized(TINY, duration, 24)
        assert made.duration == duration
        assert (row.bits, row.copies, row.strands) == (paths.coder(made).bits, 3, 6)
        assert row.right >= 5
        assert row.parity >= 1
        assert row.time == dataclasses.replace(made, parity=row.parity).strand_time
        assert row.rate == pytest.approx(row.bits / row.time * row.right / 6)
    assert aligning.resized(TINY, 59, 13).spacing == 13
    assert short.bits < long.bits
    assert (lost.right, lost.rate) == (0, 0)
    assert (lost.time, lost.parity) == (None, None)


def test_doubts_are_those_of_the_levels(small):
    """No run is lost, so the letters are certain; of one copy, a fifth of the runs has the length of the other time."""
    rows = (0.0, 0.8, 0.2), (0.0, 0.2, 0.8)
    law = channel.Tabulated(tuple(tuple(() if a == b else rows for a in range(4)) for b in range(4)))
    known = dataclasses.replace(TINY, law=law, table=type(TALK).uniform((1, 2)), duration=75, data=60)
    doubt = aligning.doubts(known, aligning.sample(fresh_key(), known, 1, 48, 8))
    assert len(doubt) == 48
    short = capacity.chain(known.table).level_share[0]  # as the reader expects it
    written = 0.25  # 15 of 60 rounds are of time 2
    likely = [short * np.array([0.8, 0.2]), (1 - short) * np.array([0.2, 0.8])]
    surprise = -np.log2([(row / sum(likely))[length] for row in likely for length in (0, 1)]).reshape(2, 2)
    mean = 60 * np.sum([[1 - written], [written]] * np.array([[0.8, 0.2], [0.2, 0.8]]) * surprise)
    assert doubt.mean() == pytest.approx(mean, rel=0.1)


def test_a_trial_comes_back(tiny_trial):
    assert tiny_trial.back
    assert tiny_trial.failed == 0
    assert tiny_trial.pool_fails == 0
    assert tiny_trial.bits == 480
    assert tiny_trial.theorem == pytest.approx(1.6679, abs=1e-4)
    assert tiny_trial.with_errors == pytest.approx(1.7333, abs=1e-4)


def test_waterfall_ends_at_what_was_measured(tiny_trial):
    """Every part costs something, and the last figure is payload bits over the time of the schedule."""
    made = packing.pack(bytes(60), writer=pool.Timing(TINY), compress=False)
    schedule, parts = made.schedule, end_to_end.waterfall(made)
    values = [value for _, value in parts]
    assert all(after <= before + 1e-12 for before, after in itertools.pairwise(values))
    assert values[0] == pytest.approx(1.815179438)
    assert values[1] == paths.coder(TINY).bits / TINY.duration
    assert values[-1] == 480 / schedule.durations.sum()
    times = schedule.durations.mean(axis=0)
    assert values[4] == pytest.approx(paths.coder(TINY).bits / times.sum())  # without padding and repair
    assert tiny_trial.bits_per_time == pytest.approx(values[-1], rel=0.05)  # another payload


def test_mended_runs_are_in_a_copy():
    """Nothing is lost in all copies then: the bases read are as many more as runs were lost."""
    poor = dataclasses.replace(TINY, law=channel.Binomial.uniform(0.3))
    schedule = packing.pack(bytes(60), writer=pool.Timing(poor), compress=False).schedule
    reads, lost, in_all = end_to_end._reads(fresh_key(), poor, schedule, False)
    mended, same, also = end_to_end._reads(fresh_key(), poor, schedule, True)
    assert (lost, in_all) == (same, also)
    assert in_all > 0.2
    assert sum(map(len, mended)) - sum(map(len, reads)) == round(in_all * schedule.letters.size)


def test_letters_alone_have_the_same_layout():
    alone = end_to_end.letters_only(TINY)
    assert alone.levels == 1
    assert (alone.data, alone.duration) == (TINY.data, TINY.data)
    assert alone.frame == dataclasses.replace(TINY.frame, parity=0)
    longer = dataclasses.replace(TINY, table=type(TALK).uniform((2, 3)), duration=118)
    assert end_to_end.letters_only(longer).duration == 2 * TINY.data


@pytest.mark.parametrize(("n", "p", "most"), [(10, 0.3, 2), (40, 0.05, 3), (7, 0.0, 0), (7, 1.0, 6), (5, 0.5, 5)])
def test_tail_against_exact_fractions(n, p, most):
    share = Fraction(p)
    exact = sum(math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(most + 1, n + 1))
    assert end_to_end._tail(n, p, most) == pytest.approx(float(exact), abs=1e-12)


def test_sources_of_a_pool(tiny_trial):
    size = pool.symbol_bytes(TINY)
    header = 2 * math.ceil(112 / size)
    assert tiny_trial.strands - tiny_trial.repairs == header + math.ceil(60 / size)


# ---- the programs ------------------------------------------------------------------------------------------


def test_program(tmp_path, monkeypatch, capsys, measured, corrections, alignments, tiny_trial):
    """All sections in order; what they measure is tested above."""
    coder = command.Coder("a coder", 1.8, 0.99, None, None, None, 7)
    monkeypatch.setattr("helix_jax.timing.scheme.NAMED", {"tiny": TINY})
    monkeypatch.setattr(command, "coders", lambda *_: [coder])
    monkeypatch.setattr(curves, "measure", lambda *_: measured)
    monkeypatch.setattr(end_to_end, "correction", lambda *_: list(corrections))
    monkeypatch.setattr(end_to_end, "correction_of", lambda *_: None)
    monkeypatch.setattr(aligning, "grid", lambda *_: alignments)
    monkeypatch.setattr(end_to_end, "trial", lambda key, known, count, **_: tiny_trial)
    out = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["timing", "--quick", "--out", str(tmp_path / "plots"), "--json", str(out)])
    command.main()
    figures = json.loads(out.read_text())
    assert figures["example"]["capacity"] == pytest.approx(1.815179438)
    assert len(figures["trials"]) == 3
    assert figures["trials"][0]["bits"] == 480
    assert [row["failures"] for row in figures["corrections"]] == [3, 0]
    assert (tmp_path / "plots" / "timing_delta.png").exists()
    printed = capsys.readouterr().out
    for words in ("the talk's example", "1.815179438", "a coder", "letters alone", "strands right", "repair strands"):
        assert words in printed


def test_pools_of_a_scheme(tmp_path, monkeypatch, capsys, tiny_trial):
    """A line for each pool, lost ones too, and one for all."""
    lost, asked = dataclasses.replace(tiny_trial, back=False, failed=None, message="too few strands"), []

    def trial(key, known, count):
        asked.append((int(jax.random.key_data(key)[-1]), known.name, count))
        return lost if len(asked) == 2 else tiny_trial

    monkeypatch.setattr(end_to_end, "trial", trial)
    out = tmp_path / "pools.json"
    chosen = ["--pools", "talk", "--count", "3", "--first", "7", "--bits", "800", "--json", str(out)]
    monkeypatch.setattr(sys, "argv", ["timing", *chosen])
    command.main()
    assert asked == [(7, "talk", 100), (8, "talk", 100), (9, "talk", 100)]
    printed = capsys.readouterr().out
    assert printed.count(", back,") == 2
    assert "seed 8" in printed
    assert "NOT BACK: too few strands" in printed
    assert f"2 of 3 pools came back, with {tiny_trial.bits_per_time:.4f}" in printed
    assert [row["back"] for row in json.loads(out.read_text())] == [True, False, True]


def test_lengths_of_strands(tmp_path, monkeypatch, capsys, by_length):
    """A row for each cell, and a picture with a curve for what was read."""
    shown = {"talk-fast": by_length[0], "poisson-fast": by_length[1]}
    monkeypatch.setattr(aligning, "lengths", lambda key, series, step: shown[series.name])
    monkeypatch.setattr("helix_jax.timing.scheme.NAMED", {"tiny": TINY, "lost": TINY})
    picture, out = tmp_path / "lengths.png", tmp_path / "lengths.json"
    monkeypatch.setattr(sys, "argv", ["timing", "--lengths", str(picture), "--json", str(out)])
    command.main()
    printed = capsys.readouterr().out
    assert f"{by_length[0][1].rate:.3f}" in printed
    assert "0 of 6" in printed
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert [row["scheme"] for row in json.loads(out.read_text())] == ["tiny", "tiny", "lost"]
    assert json.loads(out.read_text())[1]["rate"] == by_length[0][1].rate


@pytest.mark.parametrize(
    "wrong", [["--lengths", "gone/a.png"], ["--lengths", "a.xyz"], ["--lengths", "a.png", "--pools", "talk"]]
)
def test_lengths_refuses_before_it_measures(monkeypatch, capsys, wrong):
    monkeypatch.setattr(sys, "argv", ["timing", *wrong])
    with pytest.raises(SystemExit):
        command.main()
    assert "--lengths" in capsys.readouterr().err


def test_timing_speed(monkeypatch):
    for name, value in (("P", 5), ("Q", 3), ("DURATION", 60)):
        monkeypatch.setattr(throughput, name, value)
    rows = throughput.rows(lambda call: call() is None or 0.5, strands=16, plain=2)
    assert [row.coder for row in rows] == ["state splitting 5:3, 20 blocks", "range coder, T = 60, 51 rounds"]
    assert rows[1].encode == 16 * 51 / 0.5
    assert rows[1].plain_decode == 2 * 51 / 0.5
    assert 16 * 60 / 4 / 0.5 < rows[0].encode <= 16 * 60 / 0.5  # a round takes 1 to 4 units
    assert np.all([getattr(row, name) > 0 for row in rows for name in ("encode", "decode", "plain_encode")])
