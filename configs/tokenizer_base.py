"""A tokenizer for one GPU with 40 GiB or more: 192 channels, 3 + 5 blocks, 3.8 M parameters.

Command:  python -m train.tokenizer --config configs/tokenizer_base.py --data SHARDS --run runs/tokenizer_base
Expected: not run yet. By FLOP, about 4 hours on one H100 at a third of its peak; its weights file has 7.6 MB.

The first run is on crops of 64 x 64. Then the decoder alone is trained on larger pictures, which costs little and
sharpens edges:

          python -m train.tokenizer --config configs/tokenizer_base.py --data SHARDS --run runs/tokenizer_base_128 \\
              --set init_from=runs/tokenizer_base/weights.safetensors --set data.size=128 --set batch=32 \\
              --set steps=20000 --set optimiser.frozen=^embed,^encoder,^to_digits
"""

from helix_jax.config import TokenizerConfig
from train.config import CheckpointConfig, DataConfig, LogConfig, OptimiserConfig, ParallelConfig, TokenizerTraining


def get() -> TokenizerTraining:
    """Return the configuration of the run."""
    return TokenizerTraining(
        model=TokenizerConfig(width=192, encoder_blocks=3, decoder_blocks=5),
        data=DataConfig(exclude=("shared_assets-flower",), workers=8),
        optimiser=OptimiserConfig(warmup_steps=500, ema=0.9995, clip=1.0),
        parallel=ParallelConfig(compute="bfloat16"),
        checkpoint=CheckpointConfig(every=5_000),
        log=LogConfig(every=100, pictures=5_000),
        steps=200_000,
        batch=128,
    )
