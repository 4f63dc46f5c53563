"""helix_jax: video in DNA.

    clip --tokenizer--> tokens --mixing--> payload --outer code, packets--> words --TK-SCONE--> strands --> FASTA

``helix_jax.codec`` is the map: ``encode`` and ``decode`` for video, ``pack`` and ``unpack`` for bytes.
``helix_jax.reference`` is the same integer path in NumPy, without JAX.
"""

import typing

if typing.TYPE_CHECKING:
    __version__: str
else:  # a type checker that saw this function would take every name for there

    def __getattr__(name):
        """``__version__``: of the installed package, which has it from pyproject.toml; read when asked for."""
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib.metadata

        return importlib.metadata.version("helix-jax")
