"""A tiny run that the tests of ``train`` share."""

import pytest

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


@pytest.fixture(scope="session")
def tiny():
    """TokenizerTraining of four steps on eight devices, in some twenty thousand parameters."""
    return TokenizerTraining(
        model=TokenizerConfig(width=8, encoder_blocks=1, decoder_blocks=1, digits=4),
        data=DataConfig(frames=8, size=16, exclude=("left_out",)),
        optimiser=OptimiserConfig(warmup_steps=2),
        parallel=ParallelConfig(micro=8, sharding=(ShardingRule("spatial.w|temporal.w", (None, "fsdp")),)),
        checkpoint=CheckpointConfig(every=2),
        log=LogConfig(every=1, pictures=0, probe=2),
        steps=4,
        batch=16,
    )


@pytest.fixture(scope="session")
def videos(tmp_path_factory, make_clip):
    """Folder of three small videos, one of which the configuration leaves out."""
    folder = tmp_path_factory.mktemp("videos")
    make_clip(folder / "a.mp4", 20, 40, 48)
    make_clip(folder / "b.mp4", 17, 40, 40)
    make_clip(folder / "left_out.mp4", 17, 40, 40)
    return folder


@pytest.fixture(scope="session")
def shards(videos, tmp_path_factory):
    """The same, cut."""
    from train import prepare

    out = tmp_path_factory.mktemp("shards") / "shards"
    prepare.prepare([videos], out, frames=16, size=32, smallest=(8, 16), exclude=("left_out",), workers=1)
    return out
