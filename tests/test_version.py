"""The version stands in pyproject.toml; what else tells one agrees with it."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import helix_jax

ROOT = Path(__file__).parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]


def test_installed():
    assert helix_jax.__version__ == VERSION, "another version is installed: `pip install -e .` again"


def test_changelog():
    """First what is not released, then the newest release, each with its day."""
    first, *releases = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert first == "Unreleased"
    assert releases[0].partition(" - ")[0] == VERSION
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", release) for release in releases)


def test_citation():
    """It need not tell a version, but not a wrong one."""
    told = re.findall(r"^version: *[\"']?([^\"'\n]*)", (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)
    assert set(told) <= {VERSION}


def test_nothing_else_tells_one():
    for path in sorted((ROOT / "helix_jax").rglob("*.py")):
        assert not re.search(r"^__version__ *=", path.read_text("utf-8"), re.MULTILINE), path


def test_it_is_read_when_asked_for():
    code = "import sys, helix_jax; assert 'importlib.metadata' not in sys.modules; helix_jax.__version__"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
