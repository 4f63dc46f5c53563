"""What the tests of the prior share: a small net with weights large enough to reach its limits, and such tables."""

import jax
import numpy as np
import pytest

from helix_jax.config import PriorConfig


@pytest.fixture(scope="session")
def wild():
    """wild(config, seed=0) -> random parameters, not rounded: larger than trained ones, nothing zero."""

    def make(config, seed=0):
        from helix_jax.prior import net

        generator = np.random.default_rng(seed)
        shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), config))

        def drawn(leaf):
            scale = 0.3 + 3 / leaf.shape[0] ** 0.5 * (leaf.ndim == 2)
            return generator.normal(0, scale, leaf.shape).astype(np.float32)

        return jax.tree.map(drawn, shapes)

    return make


@pytest.fixture(scope="session")
def net_files(tmp_path_factory, wild):
    """Digits of a token -> weights file (pathlib.Path) of a net of width 16 with two blocks and a head of 12."""
    from helix_jax.prior import weights

    folder, made = tmp_path_factory.mktemp("nets"), {}
    for digits in (4, 8):
        config = PriorConfig(width=16, blocks=2, hidden=12, digits=digits)
        made[digits] = folder / f"{digits}.safetensors"
        weights.save(made[digits], wild(config, digits), config, bytes(range(32)), {})
    return made


@pytest.fixture(scope="session")
def any_start():
    """any_start(mode, digits, seed) -> tables.Start, cells and weights to their very ends, where sums and products are
    largest."""

    def make(mode, digits, seed):
        from helix_jax.prior import tables

        generator = np.random.default_rng(seed)
        cells, weights = tables.fresh(mode, digits)
        p = generator.choice([0, 1, 255, 9000, 32768, 65534, 65535], cells.shape)
        n = generator.choice([0, 1, 6, tables.LIMIT], cells.shape)
        end = tables.WEIGHT_LIMIT
        drawn = generator.choice([-end, -60000, -1, 0, 20000, 60000, end], weights.shape)
        return tables.Start((p << 8 | n).astype(np.int32), drawn.astype(np.int32))

    return make
