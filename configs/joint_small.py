"""Tokenizer and prior together, for tokens of 24 digits with an exact silence, from the first default weights.

Command:  python -m train.prepare VIDEOS --out SHARDS --smallest 32 64
          python -m train.widen --digits 24 --out runs/wide
          python -m train.joint --config configs/joint_small.py --data SHARDS --run runs/joint_small \\
              --set init_from=runs/wide/tokenizer.safetensors
          python -m train.context --data SHARDS --tokenizer runs/joint_small/tokenizer.safetensors \\
              --prior runs/joint_small/prior.safetensors --out prior.safetensors
Expected: with steps=7000 ramp=0.35,0.6 log_rate=0.5 optimiser.muon_learning_rate=0.006
          optimiser.adam_learning_rate=0.0015, 107 minutes of one core, 17.9 % more nucleotides at equal PSNR than the
          default weights (docs/experiments.md). In its full length it was not run. 2.2 M parameters, 32 GFLOP a step:
          about 1 s on one free core.
"""

from helix_jax.config import PriorConfig, TokenizerConfig
from train.config import CheckpointConfig, DataConfig, JointTraining, LogConfig, OptimiserConfig


def get() -> JointTraining:
    """Return the configuration of the run."""
    return JointTraining(
        model=TokenizerConfig(digits=24, silence=1.0),
        prior=PriorConfig(digits=24),
        data=DataConfig(frames=32, size=64, speeds=(1,), exclude=("shared_assets-flower",)),
        optimiser=OptimiserConfig(
            muon_learning_rate=0.004, adam_learning_rate=1e-3, warmup_steps=200, ema=0.999, clip=5.0
        ),
        checkpoint=CheckpointConfig(every=500),
        log=LogConfig(every=10, pictures=500, probe=8),
        steps=20_000,
        batch=4,
        rate=0.0,
        log_rate=0.3,
        masked=0.0,
        concealment=0.0,
        temperature=(0.5, 0.2),
        ramp=(0.3, 0.6),
        full_share=0.25,
        min_digits=0,
        dropping=0.4,
        masked_share=0.25,
    )
