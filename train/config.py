"""Training options: frozen dataclasses; one file in ``configs/`` builds one run, ``--set path=value`` overrides it."""

from dataclasses import dataclass, field

from helix_jax.config import PriorConfig, TokenizerConfig
from helix_jax.tokenizer.haar import PATCH


def _check(config, part, **least):
    """Raise ValueError naming the first field of a part of the configuration that is below its least value."""
    for name, low in least.items():
        values = getattr(config, name)
        for value in values if isinstance(values, tuple) else (values,):
            if not value >= low:
                raise ValueError(f"{part}{name} is {value}: at least {low}")


def _check_prior(config, name):
    """Raise ValueError where a run's crops or precision do not fit the prior that its field ``name`` describes."""
    seen = getattr(config, name).frames
    if config.data.frames != PATCH[0] * seen:
        raise ValueError(f"data.frames is {config.data.frames}: {PATCH[0] * seen} for {name}.frames={seen}")
    if config.parallel.compute != "float32":
        raise ValueError(
            f"parallel.compute is {config.parallel.compute!r}: float32 for the prior, whose numbers are exact"
        )


@dataclass(frozen=True)
class DataConfig:
    """Random crops of ``frames`` x ``size`` x ``size`` pixels out of the pieces in the shards.

    speeds: every how many frames of a piece one is taken, drawn for each crop. exclude: file name prefixes left out
    where shards are cut from a folder of videos (clips that are shown as results). workers: processes that read and
    crop; 0: a thread of the training process.
    """

    frames: int = 16
    size: int = 64
    speeds: tuple[int, ...] = (1, 2)
    exclude: tuple[str, ...] = ()
    workers: int = 0

    def __post_init__(self):
        _check(self, "data.", frames=1, size=1, speeds=1, workers=0)
        if not self.speeds:
            raise ValueError("data.speeds is empty: at least one speed, 1 for every frame")


@dataclass(frozen=True)
class OptimiserConfig:
    """Muon for matrices, Adam for the rest; linear warm-up, then cosine to zero; EMA of the weights.

    clip: greatest norm of a gradient (0: no limit). frozen: patterns of parameter paths that are not trained.
    """

    muon_learning_rate: float = 0.02
    adam_learning_rate: float = 2e-3
    warmup_steps: int = 100
    ema: float = 0.998
    clip: float = 0.0
    frozen: tuple[str, ...] = ()

    def __post_init__(self):
        _check(self, "optimiser.", muon_learning_rate=0, adam_learning_rate=0, warmup_steps=0, ema=0, clip=0)
        if not self.ema < 1:
            raise ValueError(f"optimiser.ema is {self.ema}: less than 1")


@dataclass(frozen=True)
class ShardingRule:
    """Parameters (and what the optimiser keeps of them) whose path holds ``pattern`` are split along ``axes``.

    axes: "fsdp" for the dimension that is shared out, None for each other one.
    """

    pattern: str
    axes: tuple[str | None, ...]


@dataclass(frozen=True)
class ParallelConfig:
    """Devices and precision.

    fsdp: devices that share one copy of the parameters; the rest of the mesh holds further copies. sharding: which
    parameters are shared, first match wins; no rule: replicated. micro: equal parts of the global batch, taken one
    after the other on each device (0: one per device). More parts use less memory; the result of a step depends on
    their number, not on the devices. deterministic: the same bits on any number of devices (slower; ``parallel``).
    compute: "float32" or "bfloat16" for the nets; parameters, loss and quantiser stay float32. remat: keep the blocks'
    outputs only and compute the rest again on the way back. donate: a step overwrites the state it is given; without,
    both are in memory for a moment, and a state can be looked at again.
    """

    fsdp: int = 1
    sharding: tuple[ShardingRule, ...] = ()
    micro: int = 0
    deterministic: bool = False
    compute: str = "float32"
    remat: bool = False
    donate: bool = True

    def __post_init__(self):
        _check(self, "parallel.", fsdp=1, micro=0)
        if self.compute not in ("float32", "bfloat16"):
            raise ValueError(f"parallel.compute is {self.compute!r}: use float32 or bfloat16")


@dataclass(frozen=True)
class CheckpointConfig:
    """Every how many steps a checkpoint is written; the last ``keep_last`` and the ``keep_best`` by probe PSNR stay."""

    every: int = 500
    keep_last: int = 2
    keep_best: int = 1

    def __post_init__(self):
        _check(self, "checkpoint.", every=1, keep_last=1, keep_best=0)


@dataclass(frozen=True)
class LogConfig:
    """every: steps between two lines of the log. pictures: steps between two sample pictures and probe PSNRs (0: at
    checkpoints only). probe: crops that they are made of."""

    every: int = 50
    pictures: int = 500
    probe: int = 8

    def __post_init__(self):
        _check(self, "log.", every=1, pictures=0, probe=1)


@dataclass(frozen=True)
class Training:
    """What every run has; a kind of run says which net it trains, and adds fields of its own.

    steps, batch: optimiser steps, and crops in each, over all hosts. init_from: weights file to start from; parameters
    that it lacks begin fresh.
    """

    model: TokenizerConfig | PriorConfig
    data: DataConfig = field(default_factory=DataConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)
    steps: int = 20_000
    batch: int = 8
    seed: int = 0
    init_from: str = ""

    def __post_init__(self):
        _check(self, "", steps=1, batch=1, seed=0)
        for name, patch in (("frames", PATCH[0]), ("size", PATCH[1])):
            if getattr(self.data, name) % patch:
                raise ValueError(f"data.{name} is {getattr(self.data, name)}: a multiple of {patch}, as tokens are")


@dataclass(frozen=True)
class TokenizerTraining(Training):
    """One tokenizer run.

    full_share: share of examples trained with all digits; the others keep a random prefix of at least ``min_digits``
    (tail dropout).
    """

    model: TokenizerConfig = field(default_factory=TokenizerConfig)
    min_digits: int = 3
    full_share: float = 0.75

    def __post_init__(self):
        super().__post_init__()
        _check(self, "", min_digits=1, full_share=0)
        _check(self.model, "model.", width=1, encoder_blocks=0, decoder_blocks=0, digits=1, tile=1)
        if not self.min_digits < max(self.model.digits, 2):
            raise ValueError(f"min_digits is {self.min_digits}: fewer than the {self.model.digits} of a token")


@dataclass(frozen=True)
class DistortionWeights:
    """Measures beside log MSE, which counts 1: ms_ssim of 1 - MS-SSIM, haar of the Haar coefficients' mean error."""

    ms_ssim: float = 0.0
    haar: float = 0.0

    def __post_init__(self):
        _check(self, "distortion.", ms_ssim=0, haar=0)


@dataclass(frozen=True)
class JointTraining(Training):
    """One run of tokenizer and masked prior together (``train.joint``).

    distortion: of the picture, log MSE and more. rate: weight of the expected nucleotides per pixel. masked: weight of
    the bits of a hidden digit. concealment: weight of the distortion after losing strand-shaped sets of tokens, on
    ``concealed`` of the examples; ``lost``: least and greatest share. constraint: weight of a penalty on runs and GC
    content of digits written as bases.
    constraints: the set whose capacity turns bits into nucleotides; scheme: a timing scheme instead, whose capacity
    turns them into time units. temperature: of the soft digits, from the first step to the last. ramp: shares of the
    run between which the weights grow from nothing to what they are.
    The prior learns the tokens as they are at every step, also with all weights at 0. Frozen ("^prior" in
    optimiser.frozen), and with no term that asks it, it is left out.
    """

    model: TokenizerConfig = field(default_factory=TokenizerConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    data: DataConfig = field(default_factory=lambda: DataConfig(frames=32, size=128, speeds=(1,)))
    distortion: DistortionWeights = field(default_factory=DistortionWeights)
    batch: int = 4
    rate: float = 20.0
    masked: float = 0.05
    concealment: float = 0.2
    constraint: float = 0.0
    concealed: float = 0.5
    lost: tuple[float, float] = (0.1, 0.6)
    constraints: str = "helix"
    scheme: str = ""
    temperature: tuple[float, float] = (1.0, 0.2)
    ramp: tuple[float, float] = (0.1, 0.3)

    def __post_init__(self):
        super().__post_init__()
        _check(self, "", rate=0, masked=0, concealment=0, constraint=0, concealed=0, lost=0, temperature=0.01, ramp=0)
        for name in ("lost", "ramp"):
            low, high = getattr(self, name)
            if not low <= high <= 1:
                raise ValueError(f"{name} is {low}, {high}: two shares, the smaller first")
        if self.prior.digits != self.model.digits or self.prior.frames % self.model.tile[0]:
            raise ValueError(
                f"prior.digits={self.prior.digits} and prior.frames={self.prior.frames} do not fit the tokenizer, "
                f"whose tokens have {self.model.digits} digits, in groups of {self.model.tile[0]} latent frames"
            )
        _check_prior(self, "prior")


@dataclass(frozen=True)
class PriorTraining(Training):
    """One run of the masked prior. tokenizer: weights file of the frozen tokenizer whose tokens it learns; empty: the
    shipped one.

    The frames of a crop make the latent frames that the prior sees at once.
    """

    model: PriorConfig = field(default_factory=PriorConfig)
    data: DataConfig = field(default_factory=lambda: DataConfig(frames=32, size=128, speeds=(1,)))
    steps: int = 10_000
    batch: int = 4
    tokenizer: str = ""

    def __post_init__(self):
        super().__post_init__()
        _check(self.model, "model.", width=1, blocks=0, hidden=1, digits=1, frames=1)
        _check_prior(self, "model")
