"""What is imported is declared: in pyproject's dependencies, or in the extra that the package needs."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"helix_jax", "train", "eval", "configs"}


def imported(folder):
    """{top-level name of an imported module that is neither Python's nor ours: a file that imports it}.

    The adapters of eval.peers run in a Python that has the code of others.
    """
    found = {}
    for path in sorted(path for path in folder.rglob("*.py") if path.parent.name != "adapters"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            found |= {name.partition(".")[0]: path.relative_to(ROOT) for name in names}
    return {name: path for name, path in found.items() if name not in sys.stdlib_module_names | OURS}


def declared(*extras):
    """Names of the distributions that ``pip install helix-jax[extras]`` asks for itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = project["dependencies"] + [line for e in extras for line in project["optional-dependencies"][e]]
    return {canonical(re.match(r"[A-Za-z0-9_.-]+", line)[0]) for line in lines}


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize(
    ("folder", "extras"),
    [("helix_jax", ("cluster",)), ("train", ("train",)), ("eval", ("train", "test")), ("docs", ("docs",))],
)
def test_what_is_imported_is_declared(folder, extras):
    distributions, known = importlib.metadata.packages_distributions(), declared(*extras)
    undeclared = {
        f"{path} imports {name}"
        for name, path in imported(ROOT / folder).items()
        if not known & set(map(canonical, distributions.get(name, [])))
    }
    assert not undeclared


def test_only_the_spreading_of_reads_needs_the_cluster():
    """The library imports, and so needs, its extra nowhere else."""
    needing = [
        path.relative_to(ROOT / "helix_jax").as_posix()
        for path in sorted((ROOT / "helix_jax").rglob("*.py"))
        if re.search(r"^\s*(import|from) (dask|distributed)\b", path.read_text("utf-8"), re.MULTILINE)
    ]
    assert needing == ["reads/spread.py"]


def test_extras_name_what_jax_has():
    """An extra that JAX does not know is ignored by pip with a warning."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    known = importlib.metadata.metadata("jax").get_all("Provides-Extra")
    for extra in ("cuda", "tpu"):
        (line,) = project["optional-dependencies"][extra]
        assert re.match(r"jax\[(\w+)\]", line)[1] in known
