"""Training options as frozen dataclasses: a file in ``configs/`` builds a run, and ``--set path=value`` changes it."""

from dataclasses import dataclass, field
from typing import Any

from helix_jax.config import PriorConfig, TokenizerConfig
from helix_jax.tokenizer.haar import PATCH


def _check(config: Any, part: str, **least: float) -> None:
    """Raise ValueError naming the first field of a part of the configuration that is below its least value."""
    for name, low in least.items():
        values = getattr(config, name)
        for value in values if isinstance(values, tuple) else (values,):
            if not value >= low:
                raise ValueError(f"{part}{name} is {value}: at least {low}")


def _check_prior(config: "Training", name: str) -> None:
    """Raise ValueError if a run's crops or precision do not fit the prior that its field ``name`` describes."""
    latent_frames = getattr(config, name).frames
    if config.data.frames != PATCH[0] * latent_frames:
        raise ValueError(
            f"data.frames is {config.data.frames}: {PATCH[0] * latent_frames} for {name}.frames={latent_frames}"
        )
    if config.parallel.compute != "float32":
        raise ValueError(
            f"parallel.compute is {config.parallel.compute!r}: float32 for the prior, whose numbers are exact"
        )


@dataclass(frozen=True)
class DataConfig:
    """Random crops of ``frames`` x ``size`` x ``size`` pixels from the pieces in the shards.

    Attributes:
        frames: frames of a crop.
        size: height and width of a crop, in pixels.
        speeds: a speed is drawn for each crop from these; a crop of speed s takes every s-th frame of its piece.
        exclude: prefixes of the names of files to leave out when shards are cut from a folder of videos (the clips
            that are shown as results).
        workers: number of processes that read and crop; 0 uses a thread of the training process.
    """

    frames: int = 16
    size: int = 64
    speeds: tuple[int, ...] = (1, 2)
    exclude: tuple[str, ...] = ()
    workers: int = 0

    def __post_init__(self) -> None:
        _check(self, "data.", frames=1, size=1, speeds=1, workers=0)
        if not self.speeds:
            raise ValueError("data.speeds is empty: at least one speed, 1 for every frame")


@dataclass(frozen=True)
class OptimiserConfig:
    """Muon for matrices and Adam for the rest; a linear warm-up, then a cosine decay to zero; an EMA of the weights.

    Attributes:
        muon_learning_rate: peak of Muon's learning rate.
        adam_learning_rate: peak of Adam's learning rate.
        warmup_steps: steps of the warm-up.
        ema: decay rate of the average.
        clip: greatest norm of a gradient; 0 means no limit.
        frozen: regular expressions for the paths of the parameters that are not trained.
    """

    muon_learning_rate: float = 0.02
    adam_learning_rate: float = 2e-3
    warmup_steps: int = 100
    ema: float = 0.998
    clip: float = 0.0
    frozen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check(self, "optimiser.", muon_learning_rate=0, adam_learning_rate=0, warmup_steps=0, ema=0, clip=0)
        if not self.ema < 1:
            raise ValueError(f"optimiser.ema is {self.ema}: less than 1")


@dataclass(frozen=True)
class ShardingRule:
    """How parameters whose path matches ``pattern``, and their optimiser states, are sharded.

    Attributes:
        pattern: a regular expression, searched for in the path.
        axes: for each dimension "fsdp" if it is the one that is split, and None if not.
    """

    pattern: str
    axes: tuple[str | None, ...]


@dataclass(frozen=True)
class ParallelConfig:
    """Devices and precision.

    Attributes:
        fsdp: number of devices that share one copy of the parameters; the rest of the mesh holds further copies.
        sharding: which parameters are split; the first matching rule applies, and parameters without one are
            replicated.
        micro: number of equal parts of the global batch, which each device processes one after the other; 0 means one
            part per device. More parts use less memory. The result of a step depends on this number, but not on the
            devices.
        deterministic: whether any number of devices gives the same bits, which is slower (``sharding.gradients``).
        compute: "float32" or "bfloat16", for the nets; parameters, loss and quantiser stay float32.
        remat: whether only the outputs of the blocks are kept, and the rest is recomputed in the backward pass.
        donate: whether a step overwrites the state that it is given. If not, both are in memory for a moment, and the
            old state can be used again.
    """

    fsdp: int = 1
    sharding: tuple[ShardingRule, ...] = ()
    micro: int = 0
    deterministic: bool = False
    compute: str = "float32"
    remat: bool = False
    donate: bool = True

    def __post_init__(self) -> None:
        _check(self, "parallel.", fsdp=1, micro=0)
        if self.compute not in ("float32", "bfloat16"):
            raise ValueError(f"parallel.compute is {self.compute!r}: use float32 or bfloat16")


@dataclass(frozen=True)
class CheckpointConfig:
    """A checkpoint is written every ``every`` steps.

    The last ``keep_last`` and the ``keep_best`` with the highest PSNR of the probe are kept.
    """

    every: int = 500
    keep_last: int = 2
    keep_best: int = 1

    def __post_init__(self) -> None:
        _check(self, "checkpoint.", every=1, keep_last=1, keep_best=0)


@dataclass(frozen=True)
class LogConfig:
    """What a run reports.

    Attributes:
        every: steps between two lines of the log.
        pictures: steps between two sample pictures and PSNRs of the probe; 0 means at checkpoints only.
        probe: number of crops in the probe.
    """

    every: int = 50
    pictures: int = 500
    probe: int = 8

    def __post_init__(self) -> None:
        _check(self, "log.", every=1, pictures=0, probe=1)


@dataclass(frozen=True)
class Training:
    """The options that all runs share; each kind of run says which net it trains, and adds fields of its own.

    Attributes:
        model: shape of the net.
        data: see DataConfig, as for the following fields.
        optimiser: see OptimiserConfig.
        parallel: see ParallelConfig.
        checkpoint: see CheckpointConfig.
        log: see LogConfig.
        steps: number of optimiser steps.
        batch: number of crops in a step, over all hosts.
        seed: seed of all random numbers.
        init_from: weights file to start from, if any; parameters that it lacks are initialised as usual.
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

    def __post_init__(self) -> None:
        _check(self, "", steps=1, batch=1, seed=0)
        for name, patch in (("frames", PATCH[0]), ("size", PATCH[1])):
            if getattr(self.data, name) % patch:
                raise ValueError(f"data.{name} is {getattr(self.data, name)}: a multiple of {patch}, as tokens are")


@dataclass(frozen=True)
class TokenizerTraining(Training):
    """One tokenizer run.

    Attributes:
        min_digits: least number of digits that tail dropout keeps.
        full_share: share of the examples that are trained with all digits; the others keep a random number of their
            first digits (tail dropout).
    """

    model: TokenizerConfig = field(default_factory=TokenizerConfig)
    min_digits: int = 3
    full_share: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self, "", min_digits=1, full_share=0)
        _check(self.model, "model.", width=1, encoder_blocks=0, decoder_blocks=0, digits=1, tile=1)
        if not self.min_digits < max(self.model.digits, 2):
            raise ValueError(f"min_digits is {self.min_digits}: fewer than the {self.model.digits} of a token")


@dataclass(frozen=True)
class DistortionWeights:
    """Weights of the measures that are added to log MSE, whose weight is 1.

    Attributes:
        ms_ssim: weight of 1 - MS-SSIM.
        haar: weight of the mean absolute error of the Haar coefficients.
    """

    ms_ssim: float = 0.0
    haar: float = 0.0

    def __post_init__(self) -> None:
        _check(self, "distortion.", ms_ssim=0, haar=0)


@dataclass(frozen=True)
class JointTraining(Training):
    """One run that trains tokenizer and masked prior together (``train.joint``).

    The prior learns the tokens as they are at each step, even if all weights are 0. It is left out only if it is
    frozen ("^prior" in optimiser.frozen) and no term of the loss needs it.

    Attributes:
        prior: shape of the masked prior.
        distortion: the distortion of the picture, log MSE and more.
        rate: weight of the expected nucleotides per pixel.
        log_rate: weight of the logarithm of one bit more than the expected bits of a token. In that measure a rate has
            a weight that falls with the rate itself, as from quality to quality, so that one net serves all of them.
        masked: weight of the bits of a hidden digit.
        concealment: weight of the distortion after the loss of strand-shaped sets of tokens.
        constraint: weight of a penalty on the runs and the GC content of digits written as bases.
        concealed: share of the examples that the concealment term is computed on.
        lost: least and greatest share of the strands that are lost in them.
        constraints: the constraint set whose capacity turns bits into nucleotides.
        scheme: a timing scheme to use instead, whose capacity turns bits into time units.
        temperature: temperature of the soft digits in the first step and in the last.
        ramp: shares of the run between which the weights grow from 0 to their values.
        full_share: share of the examples that are trained with all digits; the others keep a random number of their
            first digits (tail dropout).
        min_digits: least number of digits that tail dropout keeps.
        dropping: greatest price of a bit, in squared levels. Each example draws its own price, from 0 on, at which its
            digits are chosen as ``coding.drop`` chooses them: so the nets are trained on tokens as they are written.
        masked_share: share of the examples that the prior learns to predict hidden digits of, the first ones. It
            learns to predict what comes next of all of them.
    """

    model: TokenizerConfig = field(default_factory=TokenizerConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    data: DataConfig = field(default_factory=lambda: DataConfig(frames=32, size=128, speeds=(1,)))
    distortion: DistortionWeights = field(default_factory=DistortionWeights)
    batch: int = 4
    rate: float = 20.0
    log_rate: float = 0.0
    masked: float = 0.05
    concealment: float = 0.2
    constraint: float = 0.0
    concealed: float = 0.5
    lost: tuple[float, float] = (0.1, 0.6)
    constraints: str = "helix"
    scheme: str = ""
    temperature: tuple[float, float] = (1.0, 0.2)
    ramp: tuple[float, float] = (0.1, 0.3)
    full_share: float = 0.8
    min_digits: int = 1
    dropping: float = 0.0
    masked_share: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self, "", full_share=0, min_digits=0, dropping=0, masked_share=0, log_rate=0)
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
    """One run of the masked prior.

    The frames of a crop are those of the latent frames that the prior sees at once.

    Attributes:
        tokenizer: weights file of the frozen tokenizer whose tokens the prior learns; empty for the shipped one.
    """

    model: PriorConfig = field(default_factory=PriorConfig)
    data: DataConfig = field(default_factory=lambda: DataConfig(frames=32, size=128, speeds=(1,)))
    steps: int = 10_000
    batch: int = 4
    tokenizer: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.model, "model.", width=1, blocks=0, hidden=1, digits=1, frames=1)
        _check_prior(self, "model")
