"""The command `helix-jax`: one module for each group of subcommands, and the parts that they share."""


def main() -> None:
    """Run the command `helix-jax`; this is the installed entry point."""
    from helix_jax.cli.app import main

    main()
