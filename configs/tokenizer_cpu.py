"""A tokenizer of the default size on a laptop or two CPU cores, as a try or for your own videos.

Command:  python -m train.tokenizer --config configs/tokenizer_cpu.py --data VIDEOS --run runs/tokenizer_cpu
Expected: about 2 hours on two cores; 23 dB on the classic test clips at 16 bits per token, as the first default.
"""

from train.config import CheckpointConfig, DataConfig, TokenizerTraining


def get() -> TokenizerTraining:
    """Return the configuration of the run."""
    # the demo shows this clip, so it is not trained on
    return TokenizerTraining(
        data=DataConfig(exclude=("shared_assets-flower",)),
        checkpoint=CheckpointConfig(every=500),
        steps=20_000,
        batch=8,
    )
