"""Training options; one config file in ``configs/`` builds one of these."""

from dataclasses import dataclass, field

from helix_jax.config import TokenizerConfig


@dataclass(frozen=True)
class DataConfig:
    """Crops cut once from a folder of videos: per_clip crops of frames x size x size each."""

    per_clip: int = 64
    frames: int = 16
    size: int = 64
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class OptimiserConfig:
    """Muon for matrices, Adam for the rest; linear warm-up, then cosine to zero; EMA of the weights."""

    muon_learning_rate: float = 0.02
    adam_learning_rate: float = 2e-3
    warmup_steps: int = 100
    ema: float = 0.998


@dataclass(frozen=True)
class TokenizerTraining:
    """One tokenizer run.

    full_share: share of examples trained with all digits; the others keep a random prefix of at
        least ``min_digits`` (tail dropout).
    """

    model: TokenizerConfig = field(default_factory=TokenizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    steps: int = 20_000
    batch: int = 8
    seed: int = 0
    min_digits: int = 3
    full_share: float = 0.75
    log_every: int = 50
    save_every: int = 500
