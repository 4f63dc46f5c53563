"""``python -m helix_jax.cli``."""

from helix_jax.cli.app import main

if __name__ == "__main__":
    main()
