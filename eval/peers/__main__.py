"""``python -m eval.peers``: see ``eval.peers.command``."""

from eval.peers.command import main

if __name__ == "__main__":
    main()
