"""Joint training: each term by its definition; that its gradient moves the encoder the right way; the files."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eval import metrics
from helix_jax import codec
from helix_jax.config import CodecConfig, MixingConfig, PriorConfig, StrandConfig, TokenizerConfig
from helix_jax.prior import net
from helix_jax.prior import weights as prior_weights
from helix_jax.strands import checker
from helix_jax.tk_scone import constraints, mixing
from helix_jax.tokenizer import fsq, model, weights
from train import command, distortion, export, joint, loop, masks, prior, sharding
from train.config import (
    CheckpointConfig,
    DataConfig,
    DistortionWeights,
    JointTraining,
    LogConfig,
    OptimiserConfig,
    PriorTraining,
)

CFG = JointTraining(
    model=TokenizerConfig(width=12, encoder_blocks=1, decoder_blocks=1, digits=3),
    prior=PriorConfig(width=12, blocks=1, hidden=12, digits=3, frames=4),
    data=DataConfig(frames=16, size=32, speeds=(1,)),
    optimiser=OptimiserConfig(warmup_steps=2),
    checkpoint=CheckpointConfig(every=2),
    log=LogConfig(every=1, pictures=0, probe=2),
    temperature=(0.5, 0.5),
    ramp=(0.0, 0.0),
    steps=4,
    batch=8,
)
TERMS = ("distortion", "rate", "log_rate", "masked", "concealment", "constraint")


# ---- distortion ------------------------------------------------------------------------------------------------


def some_clips(size, seed=0, batch=2, frames=3):
    """Two clips alike: smooth, and the same with noise. float32[B, T, H, W, 3] in [-1, 1]."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    wave = np.sin(6 * x[None, None] + generator.uniform(0, 6, (batch, frames, 1, 1))) * np.cos(9 * y)
    clean = np.repeat(0.7 * wave[..., None], 3, axis=-1).astype(np.float32)
    return clean, np.clip(clean + generator.normal(0, 0.2, clean.shape), -1, 1).astype(np.float32)


@pytest.mark.parametrize("size", [24, 40, 96, 180])
def test_ms_ssim_is_that_of_the_evaluation(size):
    """On whole levels, which the evaluation takes; it is written apart, on scikit-image."""
    pictures = [np.round((clip + 1) * 127.5).astype(np.uint8) for clip in some_clips(size)]
    found = distortion.ms_ssim(*(model.to_float(clip) for clip in pictures))
    for n in range(2):
        assert float(found[n]) == pytest.approx(metrics.ms_ssim(pictures[0][n], pictures[1][n]), abs=2e-4)
        assert 0.1 < float(found[n]) < 0.99


def test_measures_of_equal_pictures_and_their_slopes():
    clean, noisy = some_clips(32, frames=4)
    assert float(distortion.mse(clean, clean).max()) == float(distortion.haar_l1(clean, clean).max()) == 0
    np.testing.assert_allclose(distortion.ms_ssim(clean, clean), 1, atol=1e-5)
    assert float(distortion.log_mse(clean, noisy)[0]) == pytest.approx(
        np.log(np.square(clean - noisy)[0].mean() + 1e-4)
    )
    for measure in (distortion.mse, distortion.haar_l1, lambda a, b: 1 - distortion.ms_ssim(a, b)):
        value, slope = jax.jit(jax.value_and_grad(lambda x, f=measure: jnp.sum(f(x, clean))))(noisy)
        step = 1e-2 / float(jnp.sqrt(jnp.sum(slope**2)))
        assert float(jnp.sum(measure(noisy - step * slope, clean))) < float(value)


# ---- soft digits -------------------------------------------------------------------------------------------------


def test_soft_digits_become_hard_ones():
    places = np.random.default_rng(0).uniform(-0.5, 3.5, 500).astype(np.float32)
    digits = np.asarray(fsq.digits(places))
    for temperature in (1.0, 0.1):
        chances = np.asarray(joint.soft(places, temperature))
        np.testing.assert_allclose(chances.sum(axis=-1), 1, rtol=1e-5)
        np.testing.assert_array_equal(chances.argmax(axis=-1), digits)
    clear = np.abs(places - digits) < 0.4
    assert np.asarray(joint.soft(places, 0.01))[clear].max(axis=-1).min() > 0.999


def test_cost_of_a_certain_digit_is_its_cross_entropy():
    generator = np.random.default_rng(1)
    logits = generator.normal(0, 3, (300, 3)).astype(np.float32)
    digits = generator.integers(0, 4, 300).astype(np.uint8)
    certain = np.eye(4, dtype=np.float32)[digits]
    np.testing.assert_allclose(
        joint.expected_bits(certain, logits), prior.cross_entropy(logits, digits), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(
        2.0 ** -np.asarray(net.code_lengths(logits)), net.probabilities(logits), rtol=1e-4, atol=1e-6
    )


def test_nucleotides_and_time_units():
    assert joint.bits_per_unit(CFG) == pytest.approx(1.9145, abs=1e-4)  # of helix, DESIGN section 4
    assert joint.bits_per_unit(dataclasses.replace(CFG, constraints="goldman")) == pytest.approx(np.log2(3))
    assert joint.bits_per_unit(dataclasses.replace(CFG, scheme="talk")) == pytest.approx(1.815179, abs=1e-6)


def test_weights_rise_and_the_temperature_falls():
    cfg = dataclasses.replace(CFG, ramp=(0.2, 0.6), temperature=(1.0, 0.1), steps=101)
    shares, temperatures = zip(*(map(float, joint.risen(cfg, step)) for step in (0, 20, 40, 60, 100)), strict=True)
    np.testing.assert_allclose(shares, [0, 0, 0.5, 1, 1], atol=1e-6)
    np.testing.assert_allclose(temperatures, [1, 10**-0.2, 10**-0.4, 10**-0.6, 0.1], rtol=1e-5)


# ---- terms and their gradients -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def case():
    """(params, clips, key): a random net whose prior has opinions, and clips that are not noise."""
    params = joint.task(CFG).init(jax.random.key(3))
    for name in ("alone", "after"):
        params["prior"][name] = jax.tree.map(lambda leaf: 3 * leaf, params["prior"][name])
    clean, noisy = some_clips(32, seed=5, batch=4, frames=16)
    clips = np.concatenate([clean, 0.7 * noisy])
    return params, np.round((clips + 1) * 127.5).astype(np.uint8), jax.random.key(4)


ALL = dataclasses.replace(CFG, concealed=1.0, constraint=1.0)


@jax.jit
def slope_of(params, clips, key, chosen):
    """(gradient, terms) of the sum of TERMS weighed by ``chosen``, float32[6]."""

    def value(params):
        terms = joint.loss_fn(params, clips, key, 0, ALL, joint.bits_per_unit(ALL))[1]
        return jnp.dot(jnp.stack([terms[term] for term in TERMS]), chosen), terms

    return jax.grad(value, has_aux=True)(params)


def slope(term, params, clips, key):
    return slope_of(params, clips, jax.random.clone(key), jnp.eye(len(TERMS))[TERMS.index(term)])


@jax.jit
def hard_terms(params, clips, key):
    """Some terms again for digits as they are, by other code: -log2 of each digit's probability, as net says it."""
    digits = fsq.digits(joint.positions(params["tokenizer"], clips, CFG.model))
    known, sent = jax.vmap(functools.partial(masks.mixture, shape=digits.shape[1:]))(
        jax.random.split(jax.random.split(key)[0], len(clips))
    )
    sent = jnp.broadcast_to(sent[:, None, None, None], digits.shape)
    both = net.both_logits(net.quantise(params["prior"]), digits, known, sent, CFG.prior)
    terms = {"constraint": joint.penalty(jax.nn.one_hot(digits, 4))}
    for term, logits, counted in zip(("masked", "rate"), both, (sent & ~known, sent), strict=True):
        chance = jnp.take_along_axis(net.probabilities(logits), digits[..., None].astype(int), axis=-1)[..., 0]
        terms[term] = -jnp.sum(jnp.log2(chance) * counted) / jnp.sum(counted)
        bits = -jnp.sum(jnp.log2(chance) * counted, axis=(1, 2, 3, 4)) / digits[0, ..., 0].size
    return terms | {"log_rate": jnp.mean(jnp.log(1 + bits))}


def hard(term, params, clips, key):
    """What a step along the gradient must lower. Pictures of distortion and concealment are of hard digits already."""
    if term in ("distortion", "concealment"):
        return float(slope(term, params, clips, key)[1][term])
    return float(hard_terms(params, clips, jax.random.clone(key))[term])


@pytest.mark.parametrize("term", TERMS)
def test_gradient_of_each_term_moves_the_encoder_the_right_way(case, term):
    """The encoder alone takes steps along it, and the term falls, counted for hard digits by other code."""
    params, clips, key = case
    start = hard(term, params, clips, key)
    for _ in range(12):
        found = slope(term, params, clips, key)[0]["tokenizer"]
        found = {name: leaf if name in ("embed", "encoder", "to_digits") else jax.tree.map(jnp.zeros_like, leaf)
                 for name, leaf in found.items()}  # fmt: skip
        size = float(jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(found))))
        assert size > 0
        moved = jax.tree.map(lambda p, g, s=size: p - 0.25 / s * g, params["tokenizer"], found)
        params = params | {"tokenizer": moved}
    assert hard(term, params, clips, key) < start - 0.02 * abs(start)


@pytest.mark.parametrize("term", TERMS)
def test_no_term_but_its_own_moves_the_prior(case, term):
    """Else tokens would be made cheap by a prior that believes in them, not the other way round."""
    params, clips, key = case
    found = slope(term, params, clips, key)[0]["prior"]
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(found))


def test_digits_are_dropped_at_a_price(case):
    """At no price they are rounded. At any other, each is the best of the four levels by the definition."""
    params, clips, _ = case
    places = joint.positions(params["tokenizer"], clips, CFG.model)
    digits, price = np.asarray(fsq.digits(places)), np.float32([0, 0.05, 0.2, 1] * 2)
    sent = np.ones(digits.shape, bool)
    found = np.asarray(joint.dropped(params["prior"], places, digits, sent, price, CFG))
    np.testing.assert_array_equal(found[::4], digits[::4])
    chances = net.probabilities(net.causal_logits(net.quantise(params["prior"]), digits, sent, CFG.prior))
    away = np.square(np.asarray(places)[..., None] - np.arange(4))
    cost = away - price.reshape(-1, 1, 1, 1, 1, 1) * np.log2(chances)
    chosen = np.take_along_axis(cost, found[..., None].astype(int), axis=-1)[..., 0]
    np.testing.assert_allclose(chosen, cost.min(axis=-1), atol=1e-4)
    changed = (found != digits).mean(axis=(1, 2, 3, 4))
    assert 0 < changed[1] < changed[2] < changed[3] < 1


@pytest.mark.slow
def test_the_priors_own_part_is_that_of_its_training(case):
    """The same bits as ``train.prior`` finds for the same tokens and masks, and no gradient of the tokenizer."""
    params, clips, key = case
    cfg = dataclasses.replace(CFG, concealment=0.0)
    own = jax.jit(jax.value_and_grad(lambda params, key: joint.loss_fn(params, clips, key, 0, cfg, 2.0)[1]["prior"]))
    value, found = own(params, jax.random.clone(key))
    tokens = fsq.digits(joint.positions(params["tokenizer"], clips, CFG.model))
    known = PriorTraining(model=CFG.prior, data=CFG.data)
    of_tokens = jax.jit(functools.partial(prior.loss_of_tokens, cfg=known))
    wanted, _ = of_tokens(params["prior"], tokens, jax.random.split(jax.random.clone(key))[0])
    assert float(value) == pytest.approx(float(wanted), rel=1e-5)
    assert any(np.asarray(leaf).any() for leaf in jax.tree.leaves(found["prior"]))
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(found["tokenizer"]))


@pytest.mark.slow
def test_the_loss_is_the_weighted_sum(case):
    params, clips, key = case
    cfg = dataclasses.replace(
        CFG, rate=7.0, log_rate=0.7, masked=0.3, concealment=0.4, constraint=0.6, ramp=(0.0, 0.5), steps=5,
        distortion=DistortionWeights(0.5, 0.1),
    )  # fmt: skip
    loss = jax.jit(functools.partial(joint.loss_fn, cfg=cfg, unit=1.9))
    for step, share in ((0, 0.0), (1, 0.5), (4, 1.0)):
        total, terms = loss(params, clips, jax.random.clone(key), step)
        weighed = sum(getattr(cfg, name) * terms[name] for name in TERMS[1:])
        assert float(total) == pytest.approx(float(terms["distortion"] + terms["prior"] + share * weighed), rel=1e-5)


def test_tokens_and_pictures_are_the_codecs(case):
    """Groups of frames by themselves, as ``model.encode`` and ``model.decode`` take them one by one."""
    params, clips, _ = case
    cfg = dataclasses.replace(CFG, prior=dataclasses.replace(CFG.prior, frames=8), data=DataConfig(frames=32, size=32))
    clips = np.concatenate([clips[:2], clips[2:4]], axis=1)
    digits = fsq.digits(joint.positions(params["tokenizer"], clips, cfg.model))
    parts = [model.encode(params["tokenizer"], clips[:, n : n + 16], cfg.model) for n in (0, 16)]
    assert np.mean(np.asarray(digits) != np.concatenate(parts, axis=1)) < 1e-3  # floats may differ where one rounds
    back = model.to_uint8(joint.pictures(params["tokenizer"], digits.astype(jnp.float32), cfg.model))
    parts = [model.decode(params["tokenizer"], digits[:, n : n + 4], cfg.model) for n in (0, 4)]
    assert np.abs(np.asarray(back, int) - np.concatenate(parts, axis=1)).max() <= 1


# ---- the penalty matters for bare digits alone -----------------------------------------------------------------------


def test_a_keyed_offset_leaves_the_penalty_nothing_to_do():
    """Digits that written as bases are as bad as can be, and digits that are as good as can be, are alike after it; and
    through TK-SCONE both take the same nucleotides and break no rule."""
    generator = np.random.default_rng(0)
    bad = np.zeros((40, 120), np.uint8)
    good = np.stack([generator.permutation(np.tile(np.arange(4), 30)) for _ in bad]).astype(np.uint8)

    def cost(digits):
        return float(joint.penalty(jax.nn.one_hot(digits, 4)))

    assert cost(bad) > 1.2 > 0.3 > cost(good)
    keys = [generator.bytes(8) for _ in range(4)]
    costs = {
        name: np.mean([cost(mixing.mix(digits, key, MixingConfig())) for key in keys])
        for name, digits in (("bad", bad), ("good", good))
    }
    assert costs["bad"] == pytest.approx(costs["good"], abs=0.01)  # standard error 0.003

    pools = [
        codec.pack(
            mixing.to_bytes(digits).tobytes(),
            config=CodecConfig(codec="tokens", constraints="strand", strands=StrandConfig(length=100)),
            compress=False,
        )
        for digits in (bad, good)
    ]
    assert pools[0].strands.shape == pools[1].strands.shape
    rules = constraints.named("strand")
    assert all(checker.check(pool.strands, rules).violations == 0 for pool in pools)


# ---- the program -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory, shards):
    """Folder of a finished run."""
    run = tmp_path_factory.mktemp("joint") / "run"
    cfg = dataclasses.replace(CFG, data=DataConfig(frames=16, size=16), concealment=0.2)
    loop.run(cfg, joint.task(cfg), shards, run)
    return run


def test_a_run_gives_two_files_that_belong_together(finished):
    tokenizer, known = (
        weights.load(finished / "tokenizer.safetensors"),
        prior_weights.load(finished / "prior.safetensors"),
    )
    assert known.tokenizer == tokenizer.digest
    assert tokenizer.config == CFG.model
    assert known.config == CFG.prior
    lines = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert {"rate", "log_rate", "masked", "concealment", "prior", "bits", "mse"} <= set(lines[0])


@pytest.mark.slow
def test_a_prior_is_fitted_to_a_tokenizer_that_stays(tmp_path, finished, shards, capsys):
    """By the same program: the tokenizer's tensors stay to the bit, the prior's move; and neither needs the other."""
    start = finished / "tokenizer.safetensors"
    cfg = dataclasses.replace(
        CFG, data=DataConfig(frames=16, size=16), rate=0.0, masked=0.0, concealment=0.0, init_from=str(start), steps=2,
        optimiser=dataclasses.replace(CFG.optimiser, frozen=("^tokenizer",)),
    )  # fmt: skip
    loop.run(cfg, joint.task(cfg), shards, tmp_path / "fitted")
    assert weights.load(tmp_path / "fitted" / "tokenizer.safetensors").digest == weights.load(start).digest
    old, new = (prior_weights.load(run / "prior.safetensors") for run in (finished, tmp_path / "fitted"))
    assert old.digest != new.digest
    cfg = dataclasses.replace(cfg, optimiser=dataclasses.replace(CFG.optimiser, frozen=("^prior",)), init_from="")
    assert not joint.asks_prior(cfg)
    grid = sharding.training_mesh(1)
    create, step, *_ = loop.build(cfg, joint.task(cfg), grid)
    clips = sharding.to_global(np.zeros((8, 16, 16, 16, 3), np.uint8), grid)
    _, metrics_of_step = step(create(jax.random.key(0)), clips)
    assert "prior" not in metrics_of_step


def test_export_writes_both(tmp_path, finished):
    at, _ = export.export(finished, tmp_path / "weights.safetensors")
    assert at == CFG.steps
    for name in ("tokenizer", "prior"):
        assert (tmp_path / f"{name}.safetensors").read_bytes() == (finished / f"{name}.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("lost=0.5,0.2", ["lost is 0.5, 0.2"]),
        ("prior.digits=4", ["prior.digits=4", "3 digits"]),
        ("data.frames=32", ["data.frames is 32: 16 for prior.frames=4"]),
        ("parallel.compute=bfloat16", ["float32 for the prior"]),
        ("constraints=none", ["none", "helix"]),
        ("scheme=none", ["none"]),
        ("rate=-1", ["rate is -1"]),
    ],
)
def test_settings_that_cannot_be_are_named(tmp_path, capsys, change, words):
    file = tmp_path / "config.py"
    file.write_text("import dataclasses\nfrom tests.train.test_joint import CFG\n\n\ndef get():\n    return CFG\n")
    with pytest.raises(SystemExit):
        command.main("", JointTraining, joint.task, ["--config", str(file), "--dry_run", "--set", change])
    text = " ".join(capsys.readouterr().err.split())
    assert all(word in text for word in words), text
