"""``python -m eval.timing``: see ``eval.timing.command``."""

from eval.timing.command import main

if __name__ == "__main__":
    main()
