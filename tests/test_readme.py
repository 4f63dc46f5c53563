"""The commands of the README and of the pages that continue it run as they stand there, in a folder with stand-ins for
the files that they name. All links of all pages lead somewhere.

In this process, to share what is compiled: ``python -m X`` by runpy, ``helix-jax`` by its app. Training is cut to
two steps of a tiny net, and other commands that say they take hours are left out.
"""

import itertools
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helix_jax.cli import demonstration
from helix_jax.video import images

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = (README, *(ROOT / "docs" / name for name in ("use.md", "training.md", "benchmarks.md")))
LINKING = (README, ROOT / "CHANGELOG.md", ROOT / "helix_jax/pretrained/CARD.md", *sorted((ROOT / "docs").glob("*.md")))
KINDS = ("helix-jax ", "python -m ", "make ")
# A minute or more, or what other tests run in every run (tests/eval/test_quality.py, coding/test_search.py): -m slow
SLOW = (
    "eval.density",
    "eval.throughput",
    "eval.scaling",
    "--devices",
    "--budget",
    "eval.quality",
    "eval.mixing",
    "eval.report",
    "train.joint",  # tests/train/test_joint.py
    "timing design",  # tests/cli/test_timing.py
    "--scheme talk -o notes.out",  # likewise, of a smaller scheme
    "--effort",
)
TINY = (
    "steps=2",
    "batch=8",
    "log.every=1",
    "log.probe=2",
    "model.width=8",
    "data.frames=8",
    "data.size=16",
)
TINY_JOINT = ("model.tile=2,8,8", "prior.frames=2", "prior.width=8")
TINY_CUT = ("--frames", "8", "--size", "16", "--smallest", "8", "16", "--workers", "1")
WRITES = ("-o", "--output", "--out", "--run", "--json")  # options whose value is made by the command


def commands():
    """Command lines of the pages' ```bash blocks, comments included. One that is repeated counts where it first is."""
    found = {}
    for page in PAGES:
        blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        lines = "".join(blocks).replace("\\\n", " ").splitlines()
        for line in (line.strip() for line in lines):
            if line.startswith(KINDS):
                found.setdefault(tuple(words(line)), line)
    return list(found.values())


def words(line):
    return shlex.split(line, comments=True)


def anchors(text):
    """The fragments that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def takes_hours(line):
    return "hours" in line.partition("#")[2] and "train." not in line


def is_slow(line):
    return any(name in line for name in SLOW)


@pytest.fixture
def folder(tmp_path, monkeypatch, make_clip):
    """The working folder: the configurations, and a short clip in place of the shipped one."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "shipped").mkdir()
    monkeypatch.setattr(demonstration, "CLIP", make_clip(tmp_path / "shipped" / "flower.mp4", 16, 64, 72))
    monkeypatch.setattr("helix_jax.parallel.use_all_cores", lambda: None)  # a test session has eight devices
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stand_in(arguments, make_clip):
    """Make the files and folders that a command reads and that are not there yet; clips of one size, for which alone
    everything is compiled."""
    for before, word in zip(["", *arguments], arguments, strict=False):
        path = Path(word)
        if path.exists() or before in WRITES or word.startswith("-"):
            continue
        if path.suffix == ".mp4":
            make_clip(path, 9, 24, 32)
        elif path.suffix == ".png":
            path.parent.mkdir(exist_ok=True)
            count = 3 if "%" in word else 1
            images.write(path, iter([np.full((count, 24, 32, 3), 99, np.uint8)]), count)
        elif path.suffix == ".txt":
            path.write_text("Some notes.\n" * 4)
        elif before == "--data" or word.endswith("/"):
            path.mkdir(parents=True)
            named = arguments[arguments.index("--clips") + 1 :] if "--clips" in arguments else []
            named = list(itertools.takewhile(lambda word: not word.startswith("-"), named))
            for name in [f"{clip}.mp4" for clip in named] or ("one.mp4", "two.mp4"):
                make_clip(path / name, 9, 24, 32)


def perform(line, run_cli, make_clip, monkeypatch):
    program, *arguments = words(line)
    if program == "helix-jax":
        stand_in(arguments, make_clip)
        result = run_cli(*arguments)
        assert result.exit_code == 0, f"{line}\n{result.stderr}"
        return
    module, arguments = arguments[1], arguments[2:]
    stand_in(arguments, make_clip)
    if module == "train.prepare":
        arguments += TINY_CUT
    elif "--config" in arguments and "--devices" not in arguments:
        changes = TINY + (TINY_JOINT if module == "train.joint" else ())
        arguments += [word for value in changes for word in ("--set", value)]
    if "--devices" in arguments or module == "eval.scaling":  # how many devices there are is told before JAX starts
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-m", module, *arguments], env=environment, check=True)
        return
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    # runpy warns where the module is loaded already, and has it run as a copy of its own
    monkeypatch.delitem(sys.modules, module, raising=False)
    runpy.run_module(module, run_name="__main__")


def test_commands_run(folder, one_shape, run_cli, make_clip, monkeypatch, capsys):
    """In the order of the pages, since one reads what another wrote."""
    chosen = [c for c in commands() if not (c.startswith("make ") or takes_hours(c) or is_slow(c))]
    assert len(chosen) >= 5
    for line in chosen:
        with monkeypatch.context() as patch:
            perform(line, run_cli, make_clip, patch)
        for option, value in zip(words(line), words(line)[1:], strict=False):
            assert option not in WRITES or Path(value).exists(), f"{line}: {value} was not written"


@pytest.mark.slow
@pytest.mark.parametrize("line", [c for c in commands() if is_slow(c)])
def test_long_commands_run(line, folder, run_cli, make_clip, monkeypatch, capsys):
    perform(line, run_cli, make_clip, monkeypatch)


def test_it_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_make_targets():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = {target for line in commands() if line.startswith("make ") for target in words(line)[1:]}
    used |= {target for page in PAGES for target in re.findall(r"`make ([a-z]+)`", page.read_text())}
    assert {"demo", "test"} <= used <= targets


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.name)
def test_links_and_figures(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        name, _, fragment = target.partition("#")
        other = page.parent / name if name else page
        assert other.exists(), f"{page.name}: no file {name}"
        assert not fragment or fragment in anchors(other.read_text()), f"{page.name}: no heading for {target}"
    assert not re.findall(r"@[A-Z]+@", text), f"{page.name}: a figure is still to be filled in"
