"""Links of the site's pages: those that hold in the repository hold in the site, and dead ones stay, for the strict
build to fail on."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("page", "written", "made"),
    [
        ("index.md", "[a](docs/prior.md#rate)", "[a](prior.md#rate)"),
        ("index.md", "![a](docs/demo.png)", "![a](demo.png)"),
        ("index.md", "[a](helix_jax/codec.py)", "[a][helix_jax.codec]"),
        ("index.md", "[a](CONTRIBUTING.md)", "[a](contributing.md)"),
        ("prior.md", "[a](../README.md)", "[a](index.md)"),
        ("prior.md", "[a](../train/loop.py)", "[a][train.loop]"),
        ("prior.md", "[a](../helix_jax/timing/)", "[a][helix_jax.timing]"),
        ("prior.md", "[a](../tests)", "a"),
        ("prior.md", "[a](../pyproject.toml)", "a"),
        ("prior.md", "[a](https://example.org/x.py) [b](#c)", "[a](https://example.org/x.py) [b](#c)"),
        ("prior.md", "[a](../helix_jax/gone.py)", "[a](../helix_jax/gone.py)"),
        ("prior.md", "[a](../..)", "[a](../..)"),
        ("index.md", "[a](gone.txt)", "[a](gone.txt)"),
    ],
)
def test_links(page, written, made, hooks):
    where = SimpleNamespace(file=SimpleNamespace(src_uri=page))
    assert hooks.on_page_markdown(written, page=where, config=SimpleNamespace(repo_url="")) == made


def test_links_of_a_published_repository(hooks):
    where = SimpleNamespace(file=SimpleNamespace(src_uri="prior.md"))
    config = SimpleNamespace(repo_url="https://example.org/us/it")
    assert hooks.on_page_markdown("[a](../Makefile)", page=where, config=config) == (
        "[a](https://example.org/us/it/blob/HEAD/Makefile)"
    )


def test_every_module_is_in_the_api(hooks):
    text = "".join(hooks.api_pages().values())
    for path in [*(ROOT / "helix_jax").rglob("[!_]*.py"), *(ROOT / "train").rglob("[!_]*.py")]:
        assert f"::: {hooks.module_of(path.relative_to(ROOT).as_posix())}\n" in text
