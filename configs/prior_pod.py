"""A masked prior for a pod: 192 channels, 24 blocks, a causal head of 512, 16 latent frames at once; 11 M parameters.

On 256 devices there are 32 copies of the parameters, each of which is split over 8 devices.

Command:  python -m train.prepare VIDEOS --out SHARDS --frames 64 --smallest 64 128
          python -m train.prior --config configs/prior_pod.py --data SHARDS --run shared/prior_pod
          (one process per host, in a folder that all of them see; docs/forking.md)
Check it: python -m train.prior --config configs/prior_pod.py --dry_run --devices 256
Expected: not run, only compiled for 256 devices by the dry run: 10 GiB and 2.1 TFLOP a step on each of them.

It is larger in blocks, head and frames, but not in width, because the export must prove that every sum of the integer
net stays below 2^24 (prior_base.py has the figures), and the longest sums have 9 x width terms. The tokens are those of
the shipped tokenizer; for those of tokenizer_pod: --set tokenizer=FILE --set model.digits=16.
"""

from helix_jax.config import PriorConfig
from train.config import (
    CheckpointConfig,
    DataConfig,
    LogConfig,
    OptimiserConfig,
    ParallelConfig,
    PriorTraining,
    ShardingRule,
)


def get() -> PriorTraining:
    """Return the configuration of the run."""
    return PriorTraining(
        model=PriorConfig(width=192, blocks=24, hidden=512, frames=16),
        data=DataConfig(frames=64, size=128, speeds=(1,), workers=16),
        optimiser=OptimiserConfig(
            muon_learning_rate=0.01, adam_learning_rate=1e-3, warmup_steps=2_000, ema=0.9998, clip=1.0
        ),
        parallel=ParallelConfig(
            fsdp=8,
            # every matrix is split along its rows; vectors are replicated
            sharding=(ShardingRule(r"\.w$", ("fsdp", None)),),
        ),
        checkpoint=CheckpointConfig(every=2_000, keep_last=3),
        log=LogConfig(every=100, pictures=2_000, probe=16),
        steps=200_000,
        batch=1024,
    )
