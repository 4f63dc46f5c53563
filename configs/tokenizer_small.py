"""The default weights (helix_jax/pretrained): 128 channels, 2 + 3 blocks, 1.2 M parameters; 2.3 MB.

Command:  python -m train.tokenizer --config configs/tokenizer_small.py --data SHARDS --run runs/small \\
              --set init_from=first.safetensors
          python -m train.tokenizer --config configs/tokenizer_small.py --data SHARDS --run runs/small_128 \\
              --set init_from=runs/small/weights.safetensors --set data.size=128 --set batch=4 --set steps=2400 \\
              --set optimiser.frozen=^embed,^encoder,^to_digits --set optimiser.muon_learning_rate=0.004 \\
              --set optimiser.adam_learning_rate=4e-4
Expected: an hour and a half on two shared cores, and a quarter of an hour for the decoder alone on larger pictures;
          helix_jax/pretrained/CARD.md has the result. first.safetensors are the first default weights
          (`git show e8cbd28:helix_jax/pretrained/tokenizer.safetensors`), from 20,500 steps of tokenizer_cpu.
"""

from train.config import CheckpointConfig, DataConfig, LogConfig, OptimiserConfig, ParallelConfig, TokenizerTraining


def get() -> TokenizerTraining:
    """Return the configuration of the run."""
    return TokenizerTraining(
        data=DataConfig(exclude=("shared_assets-flower",)),
        optimiser=OptimiserConfig(muon_learning_rate=0.01, adam_learning_rate=1e-3, warmup_steps=200, ema=0.999),
        parallel=ParallelConfig(micro=2),  # on a CPU, the two smaller halves stay in the cache
        checkpoint=CheckpointConfig(every=500),
        log=LogConfig(every=50, pictures=500, probe=16),
        steps=15_000,
        batch=8,
    )
