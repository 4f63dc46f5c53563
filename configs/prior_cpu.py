"""The masked prior of the default size, on a laptop or two CPU cores, as a try or for a tokenizer of your own.

Command:  python -m train.prior --config configs/prior_cpu.py --data VIDEOS --run runs/prior_cpu
          python -m train.export --int8 --run runs/prior_cpu --data runs/prior_cpu/shards
Expected: 128 channels, 4 blocks, 0.86 M parameters, 87 GFLOP a step. Time and bits have not been measured since the
          net changed; the previous one, with 96 channels, took about 50 minutes on two free cores.
"""

from train.config import CheckpointConfig, DataConfig, LogConfig, OptimiserConfig, PriorTraining


def get() -> PriorTraining:
    """Return the configuration of the run."""
    # the demo shows this clip, so it is not trained on
    return PriorTraining(
        data=DataConfig(frames=32, size=128, speeds=(1,), exclude=("shared_assets-flower",)),
        optimiser=OptimiserConfig(muon_learning_rate=0.02, adam_learning_rate=4e-3, warmup_steps=100, ema=0.995),
        checkpoint=CheckpointConfig(every=500),
        log=LogConfig(every=50, pictures=500),
        steps=6_000,
        batch=4,
    )
