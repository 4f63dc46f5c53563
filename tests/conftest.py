"""Strict settings for every test. The devices and the cache are set before anything can touch them."""

import atexit
import os
import shutil
import tempfile

# the tables are built once per session, in a cache of its own, which the workers of xdist share
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="helix-jax-tests-")
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

import fractions
import functools
import importlib.util
import pathlib

import hypothesis
import jax
import jaxtyping
import numpy as np
import pytest

# Annotations of the library are checked at each call, with shapes; a whole number is a float too, as it is for Python.
# Not those of the command line, for which typer has None where an option is not given, and not those of the checker of
# strands, whose inner functions would be wrapped anew at each call: it would take twenty times as long.
LIBRARY = pathlib.Path(importlib.util.find_spec("helix_jax").origin).parent
CHECKED = [".".join(path.relative_to(LIBRARY.parent).with_suffix("").parts) for path in LIBRARY.rglob("[!_]*.py")]
jaxtyping.install_import_hook(
    [name for name in CHECKED if not name.startswith(("helix_jax.cli", "helix_jax.strands.checker"))],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)
jaxtyping.config.update("jaxtyping_remove_typechecker_stack", True)  # else each error is shown three times

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)

# XLA compiles in two thirds of the time without its newest kernels. What `make slow` runs has them, and so have the
# processes that tests start, since XLA reads its flags once, at the first compilation. JAX 0.12 does not have this flag
# any more, and an unknown one ends the process.
if not os.environ.get("OPTIMISED") and "XLA_FLAGS" not in os.environ and jax.__version_info__[:2] == (0, 10):
    os.environ["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false"
    jax.jit(lambda x: x + 1)(0)
    del os.environ["XLA_FLAGS"]

# what is compiled is kept for the other worker, for later modules and for commands in processes of their own
importlib.import_module("helix_jax.parallel").keep_compiled()


hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(scope="module", autouse=True)
def compiler_effort(request):
    """Without most optimisations of the compiler, a third of the time of all tests, except for modules that say
    ``OPTIMISED = True``, most because they run longer than they compile. So it is in processes that tests start. The
    tour and what `make slow` runs are optimised, so that both kinds of program are tested."""
    full = os.environ.get("OPTIMISED") or getattr(request.module, "OPTIMISED", False)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(not full))
    if jax.config.values["jax_disable_most_optimizations"] == bool(full):
        jax.clear_caches()  # programs that were compiled the other way
        jax.config.update("jax_disable_most_optimizations", not full)


LONGEST = ("tests/train", "tests/multihost", "tests/test_readme", "tests/test_tour")


@pytest.hookimpl(tryfirst=True)  # before the mark decides
def pytest_collection_modifyitems(config, items):
    """The longest files first, so that two workers are done together; what slow.txt lists is marked slow."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))
    listed = pathlib.Path(__file__).with_name("slow.txt").read_text().splitlines()
    slow = {line.split("  #")[0] for line in listed if not line.startswith("#")}
    for item in items:
        if item.nodeid in slow:
            item.add_marker(pytest.mark.slow)
            slow.discard(item.nodeid)
    if slow and len({item.path for item in items}) > 100:  # all files are collected, and not some
        raise pytest.UsageError(f"tests/slow.txt lists what is not there: {', '.join(sorted(slow))}")


@pytest.fixture(scope="session", autouse=True)
def quiet():
    """No line on standard error for what takes long on a busy machine."""
    from helix_jax.cli import console

    console.QUIET = 1e6


@pytest.fixture
def one_shape(monkeypatch):
    """Batches of 64 rows, so that the tests share what is compiled."""
    from helix_jax import parallel

    plain = parallel.map_batches

    def fixed(function, constants, *batched, batch, **options):
        return plain(function, constants, *batched, batch=64, **options)

    monkeypatch.setattr(parallel, "map_batches", fixed)


@pytest.fixture
def cheap_sets(monkeypatch):
    """Only those named sets whose tables are built in no time, also with motifs and primers: a pool of an unknown set
    is looked for in all of them."""
    from helix_jax.tk_scone import constraints

    few = {name: constraints.NAMED[name] for name in ("strand", "goldman", "wide")}
    monkeypatch.setattr(constraints, "NAMED", few)


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


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory):
    """Weights of a tiny random tokenizer (pathlib.Path): one compilation each way for all tests that take it."""
    from helix_jax.config import TokenizerConfig
    from helix_jax.tokenizer import model, weights

    config = TokenizerConfig(width=16, encoder_blocks=1, decoder_blocks=1, tile=(4, 8, 8))
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    weights.save(path, model.init(jax.random.key(0), config), config, {})
    return path


@pytest.fixture(scope="session")
def prior_of():
    """prior_of(digits, tokenizer=bytes(32), start=None): prior.weights.Prior with a random net.
    start: tables.Start of mode `context`; by default without knowledge, as mode `prior` is."""
    from helix_jax.config import PriorConfig
    from helix_jax.prior.weights import Prior, fresh_starts

    def make(digits, tokenizer=bytes(32), start=None):
        context, mixed = fresh_starts(digits)
        config = PriorConfig(width=16, blocks=2, hidden=12, digits=digits)
        return Prior(
            params=_random_net(config),
            config=config,
            context=start or context,
            mixed=mixed,
            importance=np.ones(digits, np.int32),
            tokenizer=tokenizer,
            digest=bytes(range(100, 132)),
        )

    return make


@pytest.fixture(scope="session")
def prior_file(tmp_path_factory, weights_file):
    """Weights of a tiny random prior of the tokenizer of ``weights_file`` (pathlib.Path)."""
    from helix_jax.config import PriorConfig
    from helix_jax.prior import weights as prior_weights
    from helix_jax.tokenizer import weights

    config = PriorConfig(width=16, blocks=1, hidden=16)
    path = tmp_path_factory.mktemp("prior") / "prior.safetensors"
    prior_weights.save(path, _random_net(config), config, weights.load(weights_file).digest, {})
    return path


def _random_net(config):
    """Parameters of a prior's net, rounded and none of them zero throughout, in whole 256ths as both weights and sums
    may be. Drawn by NumPy: a new net of JAX compiles for seconds."""
    from helix_jax.prior import net

    generator = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), config))

    def drawn(leaf):
        steps = np.rint(256 * generator.normal(0, leaf.shape[0] ** -0.5, leaf.shape))
        return np.clip(steps, -127, 127).astype(np.float32) / 256

    return jax.tree.map(drawn, shapes)


@pytest.fixture(scope="session")
def walk():
    """walk(grid, digits, seed=0) -> uint8[t, h, w, k]: tokens that change slowly in time and space, the same on every
    machine."""
    return _walk


def _walk(grid, digits, seed=0):
    t, h, w = grid
    n = np.arange(t * h * w * digits, dtype=np.uint64) + np.uint64(1 + (seed << 32))
    for factor in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB):  # splitmix64
        n = (n ^ n >> np.uint64(30)) * np.uint64(factor)
    steps = (n >> np.uint64(61) == 0).astype(np.int64).reshape(*grid, digits)  # one in eight
    y, x = np.mgrid[:h, :w]
    place = (y // 3 + x // 4)[None, :, :, None] + np.arange(digits) // 2
    return ((np.cumsum(steps, axis=0) + place) % 4).astype(np.uint8)


@pytest.fixture(scope="session")
def make_clip():
    """make_clip(path, frames, height, width, fps="30000/1001", sound=False, times=None, aspect=1) -> path: a moving
    picture by PyAV. times: of each frame, in frames. aspect: of a pixel."""
    return _make_clip


def _make_clip(path, frames, height, width, fps="30000/1001", sound=False, times=None, aspect=fractions.Fraction(1)):
    import av

    t, y, x = np.mgrid[:frames, :height, :width]
    pictures = np.stack([40 + 5 * t + x, 60 + 2 * y + t, 200 - x - 2 * t], axis=-1).clip(0, 255).astype(np.uint8)
    rate = fractions.Fraction(fps)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv444p"
        stream.codec_context.sample_aspect_ratio = aspect
        audio = container.add_stream("aac", rate=48000) if sound else None
        for number, rgb in zip(times or range(frames), pictures, strict=True):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if audio:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.rate, silence.pts = 48000, 0
            container.mux(audio.encode(silence))
            container.mux(audio.encode())
    return path


@pytest.fixture(scope="session")
def run_cli():
    """run_cli(*arguments): `helix-jax` in this process; the result has exit_code, stdout and stderr."""
    return _run_cli


def _run_cli(*arguments):
    from typer.testing import CliRunner

    from helix_jax.cli import app

    result = CliRunner().invoke(app.app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="session")
def on_terminal():
    """on_terminal(*arguments): `helix-jax` as a process whose standard error is a terminal; the result is its exit
    status, standard output, and what the terminal got (bytes)."""
    return _on_terminal


def _on_terminal(*arguments):
    import pty
    import subprocess
    import sys

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "helix_jax.cli", *map(str, arguments)]
    environment = os.environ | {"TERM": "xterm"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=environment) as child:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # the child's end is closed
                break
            if not part:
                break
            shown += part
        printed = child.stdout.read()
    os.close(ours)
    return child.returncode, printed, shown


# ---- the masked prior: small nets with weights large enough to reach its limits, and tables of such ----------


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
    from helix_jax.config import PriorConfig
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
