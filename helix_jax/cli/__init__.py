"""The command `helix-jax`: one module for each group of subcommands, and what they share."""


def main():
    """Run the command, as the entry point does."""
    from helix_jax.cli.app import main

    main()
