"""The timing channel stands alone: none of its modules imports anything of the video side."""

import os
import pathlib
import subprocess
import sys

import pytest

import helix_jax
from helix_jax import timing

VIDEO_SIDE = [
    "helix_jax.video", "helix_jax.tokenizer", "helix_jax.layers", "helix_jax.coding", "helix_jax.codec",
    "helix_jax.tk_scone", "av", "flax",
]  # fmt: skip

# arguments: what is blocked, joined by commas; modules to import. Also fails where a module catches the ImportError.
SCRIPT = """
import importlib, sys

blocked, *modules = sys.argv[1:]
tried = []

class Wall:
    def find_spec(self, name, path=None, target=None):
        if any(name == b or name.startswith(b + ".") for b in blocked.split(",")):
            tried.append(name)
            raise ImportError(f"{name} is of the video side")

sys.meta_path.insert(0, Wall())
for module in modules:
    importlib.import_module(module)
    assert not tried, f"{module} imports {tried}"
"""


def import_in_subprocess(modules):
    root = pathlib.Path(helix_jax.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", SCRIPT, ",".join(VIDEO_SIDE), *modules]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_timing_imports_nothing_of_the_video_side():
    folder = pathlib.Path(timing.__file__).parent
    files = [path.relative_to(folder).with_suffix("") for path in sorted(folder.rglob("*.py"))]
    modules = [".".join(["helix_jax.timing", *file.parts]).removesuffix(".__init__") for file in files]
    assert {"helix_jax.timing", "helix_jax.timing.graph", "helix_jax.timing.block_coder"} <= set(modules)
    result = import_in_subprocess(modules)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "module", ["helix_jax.codec", "helix_jax.tk_scone.tables", "helix_jax.tokenizer", "av", "flax"]
)
def test_the_wall_stands(module):
    result = import_in_subprocess([module])
    assert result.returncode != 0
    assert "is of the video side" in result.stderr
