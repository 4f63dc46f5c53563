"""A small tokenizer and prior together on two CPU cores, to see joint training work; `eval.joint` compares such runs.

Command:  python -m train.joint --config configs/joint_cpu.py --data VIDEOS --run runs/joint_cpu
Expected: 0.23 M parameters, 4.4 GFLOP a step, about 3 minutes; the result is far from what such nets reach in the end.
"""

from helix_jax.config import PriorConfig, TokenizerConfig
from train.config import CheckpointConfig, DataConfig, JointTraining, LogConfig, OptimiserConfig


def get() -> JointTraining:
    """Return the configuration of the run."""
    return JointTraining(
        model=TokenizerConfig(width=48, encoder_blocks=1, decoder_blocks=2, digits=6),
        prior=PriorConfig(width=48, blocks=2, hidden=48, digits=6, frames=8),
        data=DataConfig(frames=32, size=64, speeds=(1,), exclude=("shared_assets-flower",)),
        optimiser=OptimiserConfig(muon_learning_rate=0.02, adam_learning_rate=2e-3, warmup_steps=50, ema=0.99),
        checkpoint=CheckpointConfig(every=500),
        log=LogConfig(every=10, pictures=0),
        steps=700,
        batch=4,
    )
