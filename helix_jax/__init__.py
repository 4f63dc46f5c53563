"""helix_jax: video in DNA.

    clip --AV1, tokenizer--> sections --mixing--> payload --outer code, packets--> words --TK-SCONE--> strands --> FASTA

``encode`` and ``decode`` store video, ``pack`` and ``unpack`` store bytes, and ``recover`` turns a sequencer's reads
into strands. ``helix_jax.codec`` is the map of the data's way, and ``helix_jax.reference`` is the same integer path in
NumPy, without JAX. Each name is imported when it is first used.
"""

import typing

if typing.TYPE_CHECKING:
    from helix_jax.codec import decode, encode, film
    from helix_jax.config import CodecConfig
    from helix_jax.errors import HelixError
    from helix_jax.nets import load
    from helix_jax.packing import pack, unpack
    from helix_jax.reads.recover import recover
    from helix_jax.strands.pool import Pool
    from helix_jax.strands.received import Report
    from helix_jax.video import Clip, open_video

    __version__: str

_HOMES = {
    "Clip": "helix_jax.video",
    "CodecConfig": "helix_jax.config",
    "HelixError": "helix_jax.errors",
    "Pool": "helix_jax.strands.pool",
    "Report": "helix_jax.strands.received",
    "decode": "helix_jax.codec",
    "encode": "helix_jax.codec",
    "film": "helix_jax.codec",
    "load": "helix_jax.nets",
    "open_video": "helix_jax.video",
    "pack": "helix_jax.packing",
    "recover": "helix_jax.reads.recover",
    "unpack": "helix_jax.packing",
}

__all__ = [
    "Clip",
    "CodecConfig",
    "HelixError",
    "Pool",
    "Report",
    "__version__",
    "decode",
    "encode",
    "film",
    "load",
    "open_video",
    "pack",
    "recover",
    "unpack",
]


def __dir__():
    return sorted([*globals(), *__all__])


if not typing.TYPE_CHECKING:  # a type checker that saw this function would take every name for there

    def __getattr__(name):
        """A public name, imported when it is first asked for; ``__version__`` is that of the installed package."""
        import importlib
        import importlib.metadata

        if name == "__version__":
            return importlib.metadata.version("helix-jax")
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_HOMES[name]), name)
