"""The default weights (helix_jax/pretrained): 128 channels, 2 + 3 blocks, 1.2 M parameters."""

from train.config import CheckpointConfig, DataConfig, LogConfig, OptimiserConfig, ParallelConfig, TokenizerTraining


def get():
    return TokenizerTraining(
        data=DataConfig(exclude=("shared_assets-flower",)),
        optimiser=OptimiserConfig(muon_learning_rate=0.01, adam_learning_rate=1e-3, warmup_steps=200, ema=0.999),
        parallel=ParallelConfig(micro=2),  # two smaller halves stay in the cache
        checkpoint=CheckpointConfig(every=500),
        log=LogConfig(every=50, pictures=500, probe=16),
        steps=15_000,
        batch=8,
        init_from="helix_jax/pretrained/tokenizer.safetensors",
    )
