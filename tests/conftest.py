"""Strict settings for every test. The devices and the cache are set before anything can touch them."""

import atexit
import os
import shutil
import tempfile

# the tables are built once per session, in a cache of its own
_CACHE = tempfile.mkdtemp(prefix="helix-jax-tests-")
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
os.environ["XDG_CACHE_HOME"] = _CACHE

import functools  # noqa: E402

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(scope="session")
def tables_of():
    """tables_of(name, length): the tables of a named set, loaded once per session."""
    from helix_jax.tk_scone import constraints, tables

    return functools.cache(lambda name, length: tables.load(constraints.named(name), length))


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache directory of this test alone (pathlib.Path)."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path
