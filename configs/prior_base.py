"""A masked prior for one GPU with 40 GiB or more: 192 channels, 8 blocks, a causal head of 256; 3.7 M parameters.

Command:  python -m train.prepare VIDEOS --out SHARDS --smallest 32 128
          python -m train.prior --config configs/prior_base.py --data SHARDS --run runs/prior_base
          python -m train.export --int8 --run runs/prior_base --data SHARDS
Check it: python -m train.prior --config configs/prior_base.py --dry_run --devices 1
Expected: not run yet. By FLOP, about two hours on one H200 at the 56 TFLOP/s that the net of prior_small reached there;
          14 GiB for 32 crops at a time (a dry run on a CPU prints four times as much, since there the parts of a batch
          are written out side by side).

Why not wider: each sum of the integer net must stay below 2^24, and ``helix_jax.prior.weights.check`` refuses a file
whose weights could go past it. The 3x3 layers have 9 x width inputs of at most 127. Whatever their weights, width 115
is too narrow to reach it (9 x 115 x 127 x 127 < 2^24, biases aside); with weights spread evenly from 0 to the largest,
225 is. Trained weights crowd near zero: 25 % of the limit is the most that any sum has at 128 channels, so 192 is well
inside, and some 450 would be about the end.
"""

from helix_jax.config import PriorConfig
from train.config import CheckpointConfig, DataConfig, LogConfig, OptimiserConfig, ParallelConfig, PriorTraining


def get():
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
