"""``python -m helix_jax.reference``: see ``helix_jax.reference.archive``."""

from helix_jax.reference.archive import main

if __name__ == "__main__":
    main()
