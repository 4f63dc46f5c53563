"""The default weights, trained on two CPU cores.

Command:  python -m train.tokenizer --config configs/tokenizer_cpu.py --data VIDEOS --run runs/tokenizer_cpu
Expected: about 2 hours; see helix_jax/pretrained/CARD.md for the result.
"""

from train.config import DataConfig, TokenizerTraining


def get():
    # the demo shows this clip, so no frame of it is trained on
    return TokenizerTraining(data=DataConfig(exclude=("shared_assets-flower",)))
