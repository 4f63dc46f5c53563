"""``python -m eval.report``: see ``eval.report.command``."""

from eval.report.command import main

if __name__ == "__main__":
    main()
