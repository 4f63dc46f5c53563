"""A masked prior for one GPU with 40 GiB or more: 192 channels, 8 blocks, a causal head of 256; 3.7 M parameters.

Command:  python -m train.prepare VIDEOS --out SHARDS --smallest 32 128
          python -m train.prior --config configs/prior_base.py --data SHARDS --run runs/prior_base
          python -m train.export --int8 --run runs/prior_base --data SHARDS
Check it: python -m train.prior --config configs/prior_base.py --dry_run --devices 1
Expected: not run yet. By FLOP, about two hours on one H200 at the 56 TFLOP/s that the net of prior_small reached there,
          with 14 GiB for 32 crops at a time (a dry run on a CPU prints four times as much, since there the loop over
          the parts of a batch is unrolled).

Why not wider: each sum of the integer net must stay below 2^24, and ``helix_jax.prior.weights.check`` refuses a file
whose weights could exceed that. The 3x3 layers have 9 x width inputs of at most 127. Up to a width of 115 no weights
can exceed it (9 x 115 x 127 x 127 < 2^24, biases aside); if the weights are spread evenly from 0 to the largest, this
holds up to a width of 225. Trained weights are mostly near zero: with 128 channels the largest sum reaches 25 % of the
limit, so that 192 is well inside, and the limit would be at about 450.
"""

from helix_jax.config import PriorConfig
from train.config import CheckpointConfig, DataConfig, LogConfig, OptimiserConfig, ParallelConfig, PriorTraining


def get() -> PriorTraining:
    """Return the configuration of the run."""
    return PriorTraining(
        model=PriorConfig(width=192, blocks=8, hidden=256),
        data=DataConfig(frames=32, size=128, speeds=(1,), exclude=("shared_assets-flower",), workers=8),
        optimiser=OptimiserConfig(
            muon_learning_rate=0.02, adam_learning_rate=2e-3, warmup_steps=500, ema=0.9995, clip=1.0
        ),
        parallel=ParallelConfig(micro=4),  # 32 crops at a time
        checkpoint=CheckpointConfig(every=2_000),
        log=LogConfig(every=100, pictures=2_000, probe=16),
        steps=40_000,
        batch=128,
    )
