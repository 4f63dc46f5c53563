"""The masked prior of the default size for one GPU: 128 channels, 4 blocks, 0.86 M parameters.

Command:  python -m train.prepare VIDEOS --out SHARDS --smallest 32 128
          python -m train.prior --config configs/prior_small.py --data SHARDS --run runs/prior_small
          python -m train.export --int8 --run runs/prior_small --data SHARDS
Expected: not run in this form. With the same net and optimiser, 9,800 steps of 128 crops on precomputed tokens took
          0.046 s a step on one H200 (eight minutes), and reached 0.992 bits per masked digit and 0.919 per causal digit
          on held-out clips. Here each step also computes its tokens.
CPU:      slow, with --set batch=16 --set parallel.micro=1: 0.35 TFLOP a step.
"""

from train.config import CheckpointConfig, DataConfig, LogConfig, OptimiserConfig, ParallelConfig, PriorTraining


def get() -> PriorTraining:
    """Return the configuration of the run."""
    return PriorTraining(
        data=DataConfig(frames=32, size=128, speeds=(1,), exclude=("shared_assets-flower",), workers=4),
        optimiser=OptimiserConfig(
            muon_learning_rate=0.02, adam_learning_rate=4e-3, warmup_steps=200, ema=0.999, clip=1.0
        ),
        parallel=ParallelConfig(micro=4),  # 32 crops at a time
        checkpoint=CheckpointConfig(every=500),
        log=LogConfig(every=50, pictures=500, probe=16),
        steps=10_000,
        batch=128,
    )
