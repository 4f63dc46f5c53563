"""docs/tour.ipynb runs from any folder, and what is stored in it is what it shows.

After a change to the notebook, or to what it shows: ``python tests/test_tour.py`` executes it and stores the outputs.
"""

import base64
import copy
import io
import itertools
import os
import re
import tempfile
from pathlib import Path

import matplotlib.image
import nbclient
import nbformat
import numpy as np
import pytest
import traitlets
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager

OPTIMISED = True  # see tests/conftest.py

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "tour.ipynb"
REMEDY = "look at the notebook, then `python tests/test_tour.py` stores what it shows now"
TOLERANCE = 0.02  # of a number with a decimal point, and of a picture's grey: machines and versions differ a little
NUMBER = re.compile(r"-?\d+\.\d+")
PATH = re.compile(r"(?<![\w.<])(?:/[\w.+-]+){2,}|[A-Z]:\\")
MOST_BYTES = 1_000_000
TIMEOUT = 300  # seconds for a cell; all take half a minute on one core


class Kernel(AsyncKernelManager):
    """A kernel of this Python, whatever kernels are registered."""

    @traitlets.default("kernel_spec_manager")
    def _only_native(self):
        return KernelSpecManager(parent=self, kernel_dirs=[], ensure_native_kernel=True)


def execute(notebook, folder):
    """Run all cells, in place."""
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    client = nbclient.NotebookClient(
        notebook,
        kernel_name="python3",
        kernel_manager_class=Kernel,
        timeout=TIMEOUT,
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    # on the CPU: what other devices there are belong to the test session
    client.execute(env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)})
    for cell in code_cells(notebook):
        cell.outputs = joined(cell.outputs)
    return notebook


def joined(outputs):
    """The same outputs with one print after another as one text, however the kernel cut them."""
    merged = []
    for output in outputs:
        if merged and output.output_type == merged[-1].output_type == "stream" and output.name == merged[-1].name:
            merged[-1].text += output.text
        else:
            merged.append(output)
    return merged


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(cell):
    """What a cell printed, and the text that stands for each of its pictures."""
    return "\n".join(o.text if o.output_type == "stream" else o.data.get("text/plain", "") for o in cell.outputs)


def pictures(cell):
    """float[H, W] grey values, 0..1, of the PNGs of a cell."""
    found = [o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", ())]
    images = [matplotlib.image.imread(io.BytesIO(base64.b64decode(data)), format="png") for data in found]
    return [image[..., :3].mean(axis=-1) for image in images]


def coarse(image, across=24):
    """Means over a grid of patches: what does not change with the hinting of fonts."""
    edges = [np.linspace(0, size, across + 1).astype(int)[:-1] for size in image.shape]
    sums = np.add.reduceat(np.add.reduceat(image, edges[0], axis=0), edges[1], axis=1)
    areas = [np.diff(np.append(edge, size)) for edge, size in zip(edges, image.shape, strict=True)]
    return sums / np.outer(*areas)


@pytest.fixture(scope="module")
def stored():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    return notebook


@pytest.fixture(scope="module")
def executed(stored, tmp_path_factory):
    return execute(copy.deepcopy(stored), tmp_path_factory.mktemp("anywhere"))


def test_stored_notebook_is_clean(stored):
    assert NOTEBOOK.stat().st_size < MOST_BYTES
    assert set(stored.metadata) <= {"kernelspec", "language_info"}
    assert set(stored.metadata.language_info) == {"name"}, "the version of Python: " + REMEDY
    for number, cell in enumerate(code_cells(stored), 1):
        assert cell.execution_count == number, f"cell {cell.id} was not executed in its turn: {REMEDY}"
    for cell in stored.cells:
        assert not cell.metadata, f"cell {cell.id}: metadata {dict(cell.metadata)}"
        for output in cell.get("outputs", ()):
            assert output.output_type in ("stream", "display_data"), f"cell {cell.id}: {output.output_type}"
            assert output.get("name") != "stderr", f"cell {cell.id} warns: {output.text}"
            assert not output.get("metadata"), f"cell {cell.id}: {output.metadata}"
        if cell.cell_type == "code":
            assert not PATH.search(texts(cell)), f"cell {cell.id} shows a path: {PATH.search(texts(cell))[0]}"


def test_links_lead_somewhere(stored):
    text = "\n".join(cell.source for cell in stored.cells if cell.cell_type == "markdown")
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    assert targets
    for target in targets:
        assert target.startswith("https://") or (NOTEBOOK.parent / target).exists(), f"no file {target}"


def test_only_public_names(stored):
    for cell in code_cells(stored):
        assert not re.search(r"\w\._(?!_)|import _", cell.source), f"cell {cell.id} uses a private name"


def test_executes_and_shows_what_is_stored(stored, executed):
    """Numbers with a decimal point agree within a tolerance, all other text exactly, pictures roughly."""
    stale = []
    for old, new in zip(code_cells(stored), code_cells(executed), strict=True):
        assert not any(o.get("name") == "stderr" for o in new.outputs), f"cell {new.id} warns: {texts(new)}"
        before, after = texts(old), texts(new)
        numbers = [np.array(NUMBER.findall(text), float) for text in (before, after)]
        same = NUMBER.sub("#", before) == NUMBER.sub("#", after)
        if not same or not np.allclose(*numbers, rtol=TOLERANCE, atol=TOLERANCE):
            stale.append(f"cell {old.id}: stored\n{before}\nand shown now\n{after}")
        shown = [pictures(cell) for cell in (old, new)]
        assert bool(shown[1]) == ("plt.show()" in new.source), f"cell {new.id}: {len(shown[1])} pictures"
        for one, other in itertools.zip_longest(*shown):
            if one is None or other is None or np.abs(coarse(one) - coarse(other)).mean() > TOLERANCE:
                stale.append(f"cell {old.id}: another picture is stored than is shown now")
    assert not stale, "\n".join([*stale, REMEDY])


if __name__ == "__main__":
    current = nbformat.read(NOTEBOOK, as_version=4)
    with tempfile.TemporaryDirectory() as anywhere:
        execute(current, anywhere)
    for name in ("kernelspec", "language_info"):
        kept = {"kernelspec": ("name", "display_name", "language"), "language_info": ("name",)}[name]
        current.metadata[name] = {key: current.metadata[name][key] for key in kept}
    nbformat.write(current, NOTEBOOK)
