"""The task that docs/forking.md shows, run as it stands there."""

import dataclasses
import re
from pathlib import Path

from safetensors.numpy import load_file

from train import loop

PAGE = Path(__file__).parents[2] / "docs" / "forking.md"


def test_the_task_of_the_page(tmp_path, tiny, shards):
    code, _ = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    scope = {"__name__": "mine"}
    exec(code, scope)
    assert loop.run(tiny, scope["task"](tiny), shards, tmp_path) == 4
    assert load_file(tmp_path / "weights.safetensors")["mean"].shape == (1, 1, 1, 1, 3)
    again = dataclasses.replace(tiny, init_from=str(tmp_path / "weights.safetensors"), steps=1)
    assert loop.run(again, scope["task"](again), shards, tmp_path / "again") == 1


def test_links():
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", PAGE.read_text()):
        assert (PAGE.parent / target).exists(), target
