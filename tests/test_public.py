"""The public names, and the examples in Python, which run as they stand and write what the command writes."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import helix_jax
from helix_jax.strands import fasta

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "helix_jax"


def examples(page):
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def test_names_are_there_and_say_what_they_are():
    assert set(helix_jax.__all__) == {*helix_jax._HOMES, "__version__"}
    for name in helix_jax.__all__:
        assert name == "__version__" or getattr(helix_jax, name).__doc__, name
        assert name in dir(helix_jax)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        helix_jax.nothing  # noqa: B018


def test_they_are_imported_when_they_are_used():
    code = (
        "import sys, helix_jax; assert not {'jax', 'numpy', 'av'} & set(sys.modules);"
        "helix_jax.HelixError; assert 'jax' not in sys.modules; helix_jax.encode; assert 'jax' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_readmes_example_writes_what_the_command_writes(tmp_path, one_shape, make_clip, run_cli, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_clip(tmp_path / "clip.mp4", 16, 64, 72)
    (code,) = examples("README.md")
    scope = {}
    exec(code, scope)
    assert run_cli("encode", "clip.mp4", "-o", "pool.fasta").exit_code == 0
    np.testing.assert_array_equal(fasta.read("pool.fasta")[150], scope["pool"].strands)
    assert scope["pool"].header.codec == "av1"
    pictures = np.concatenate(list(scope["blocks"]))
    assert pictures.shape == (16, 64, 72, 3)
    assert scope["report"].verified


def test_the_example_of_a_clip_in_memory(monkeypatch):
    (code,) = examples("docs/use.md")
    scope = {"frames": np.random.default_rng(0).integers(0, 256, (5, 16, 24, 3), dtype=np.uint8)}
    exec(code, scope)
    header = scope["pool"].header
    assert (header.frames, header.height, header.width, header.fps) == (5, 16, 24, 25)


def test_the_readmes_tree_is_complete():
    """Every module and package at the top of the library, and nothing that is not there."""
    tree = re.search(r"^helix_jax/ .*?^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)[0]
    inside = tree.split("\ntrain/")[0]
    named = set(re.findall(r"\b([a-z_]+(?:\.py|/))(?=[ :,])", inside)) - {"helix_jax/"}
    rooms = {p.name + "/" * p.is_dir() for p in LIBRARY.iterdir() if p.suffix == ".py" or p.is_dir()}
    assert named == rooms - {"__init__.py", "__pycache__/"}
