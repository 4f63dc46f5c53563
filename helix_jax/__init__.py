"""helix_jax: video in DNA.

    clip --tokenizer--> tokens --mixing--> payload --outer code, packets--> words --TK-SCONE--> strands --> FASTA

``helix_jax.codec`` is the map: ``encode`` and ``decode`` for video, ``pack`` and ``unpack`` for bytes.
``helix_jax.reference`` is the same integer path in NumPy, without JAX.
"""

__version__ = "0.1.0"
