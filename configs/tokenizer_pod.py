"""A tokenizer for a pod: 1,024 channels, 8 + 17 blocks, 316 M parameters split over 256 devices.

Command:  python -m train.tokenizer --config configs/tokenizer_pod.py --data SHARDS --run shared/tokenizer_pod
          (one process per host, in a folder that all of them see; docs/forking.md)
Check it: python -m train.tokenizer --config configs/tokenizer_pod.py --dry_run --devices 256
Expected: not run, only compiled for 256 devices by the dry run, which prints memory and FLOP.
"""

from helix_jax.config import TokenizerConfig
from train.config import (
    CheckpointConfig,
    DataConfig,
    LogConfig,
    OptimiserConfig,
    ParallelConfig,
    ShardingRule,
    TokenizerTraining,
)


def get() -> TokenizerTraining:
    """Return the configuration of the run."""
    return TokenizerTraining(
        model=TokenizerConfig(width=1024, encoder_blocks=8, decoder_blocks=17, digits=16),
        data=DataConfig(size=128, workers=16),
        optimiser=OptimiserConfig(
            muon_learning_rate=0.01, adam_learning_rate=1e-3, warmup_steps=2_000, ema=0.9998, clip=1.0
        ),
        parallel=ParallelConfig(
            fsdp=256,
            # every matrix is split along its rows; vectors, and the layers to and from the digits, are replicated
            sharding=(ShardingRule(r"(spatial|temporal|embed)\.w$", ("fsdp", None)),),
            compute="bfloat16",
            remat=True,
        ),
        checkpoint=CheckpointConfig(every=2_000, keep_last=3),
        log=LogConfig(every=100, pictures=2_000, probe=16),
        steps=300_000,
        batch=1024,
        min_digits=4,
    )
