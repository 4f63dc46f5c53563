"""A template for a configuration of your own: copy this file, change what you like, and delete the rest.

Command:  python -m train.tokenizer --config configs/forkme.py --data VIDEOS --run runs/mine
Expected: a few minutes on a laptop, for a net that is too small to be useful. See docs/forking.md.

All fields and their defaults are in train/config.py and helix_jax/config.py; `--set path=value` changes one for a run.
"""

from helix_jax.config import TokenizerConfig
from train.config import CheckpointConfig, DataConfig, LogConfig, OptimiserConfig, ParallelConfig, TokenizerTraining


def get() -> TokenizerTraining:
    """Return the configuration of the run."""
    return TokenizerTraining(
        model=TokenizerConfig(
            width=64,  # channels; twice as many take four times the work
            encoder_blocks=1,
            decoder_blocks=2,
            digits=8,  # base-4 digits (2 bits each) per token, that is for 4 x 8 x 8 pixels
        ),
        data=DataConfig(frames=16, size=64),  # keep 16 frames, as each group of 4 latent frames is coded on its own
        optimiser=OptimiserConfig(muon_learning_rate=0.02, adam_learning_rate=2e-3),
        parallel=ParallelConfig(),  # all local devices, float32
        checkpoint=CheckpointConfig(every=200),
        log=LogConfig(every=20, pictures=200),
        steps=1_000,
        batch=8,
    )
