"""The proof says yes to what the NumPy reference reads, and to nothing else."""

import dataclasses

import numpy as np
import pytest

from helix_jax.coding import coder, proof, segments
from helix_jax.prior import weights
from helix_jax.reference import token_coder

GRID, DIGITS = (9, 3, 31), 4  # two by two segments, broken at every edge


@pytest.fixture(scope="module", params=["context", "prior"])
def case(request, net_files, any_start):
    """(Prior, mode, plan, bytes that nobody wrote, the tokens that the reference reads from them), of three digits out
    of four, under tables at their ends."""
    mode, generator = request.param, np.random.default_rng(1)
    start = {"mixed" if mode == "prior" else "context": any_start(mode, DIGITS, 1)}
    prior = dataclasses.replace(weights.load(net_files[DIGITS]), **start)
    plan = segments.plan(GRID)
    coded = [generator.bytes(int(n)) for n in generator.integers(30, 350, plan.number)]
    return prior, mode, plan, coded, token_coder.expand_clip(prior, mode, plan, 3, coded)


def test_yes_to_what_is_read_and_no_with_any_digit_changed(case):
    """Every kind of place: first and last, of each segment, and of each digit of a token."""
    prior, mode, plan, coded, tokens = case
    assert proof.clip_reads(prior, mode, plan, coded, tokens).tolist() == [True] * 4
    which = segments.join(plan, np.arange(4)[:, None, None, None] + np.zeros((4, *plan.shape), int))
    places = [0, tokens.size - 1, *np.random.default_rng(2).integers(0, tokens.size, 10)]
    for place in places:
        changed = tokens.copy()
        changed.flat[place] ^= 1 + place % 3
        right = proof.clip_reads(prior, mode, plan, coded, changed)
        assert np.flatnonzero(~right).tolist() == [which.flat[place // 3]]


def truly_read(prior, mode, plan, coded, tokens):
    """The same by reading, bool[segments]."""
    back = segments.cut(plan, token_coder.expand_clip(prior, mode, plan, tokens.shape[-1], coded))
    return (back == segments.cut(plan, tokens)).reshape(plan.number, -1).all(axis=1)


@pytest.mark.slow
def test_no_to_other_bytes_and_another_prior(case):
    prior, mode, plan, coded, tokens = case
    wrong = [bytes([piece[0] ^ n % 2, piece[1] ^ 1]) + piece[2:] for n, piece in enumerate(coded)]
    start = prior.mixed if mode == "prior" else prior.context
    others = [{"mixed" if mode == "prior" else "context": start._replace(weights=start.weights // 2)}]
    if mode == "prior":
        others += [{"params": prior.params | {name: prior.params[name] + 1}} for name in ("earlier", "phase")]
    for changes, written in ({}, wrong), *((other, coded) for other in others):
        given = dataclasses.replace(prior, **changes), mode, plan, written, tokens
        right = proof.clip_reads(*given)
        assert right.tolist() == truly_read(*given).tolist()
        assert not right[:2].any()


def test_what_the_coder_wrote_in_several_processes(case, walk, prior_of, monkeypatch):
    """Each has its share, and a wrong segment is told of the right share."""
    mode, plan = case[1:3]
    prior, tokens, done = prior_of(DIGITS), walk(GRID, DIGITS), []
    coded = coder.compress(prior, mode, plan, tokens)
    monkeypatch.setattr(proof, "WORTH", 1)
    monkeypatch.setattr(proof.os, "cpu_count", lambda: 2)
    assert proof.clip_reads(prior, mode, plan, coded, tokens, done.append).all()
    assert sorted(done) == [2, 2]
    coded[2], coded[3] = coded[3], coded[2]
    assert proof.clip_reads(prior, mode, plan, coded, tokens).tolist() == [True, True, False, False]
