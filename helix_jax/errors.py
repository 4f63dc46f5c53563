"""What can go wrong by the user's doing: the base class of every error that the library raises on purpose.

An error of another class is a mistake of ours, and keeps its traceback. ``HelixError`` is a ``ValueError``, so that
code which catches that goes on working.
"""


class HelixError(ValueError):
    """An input, an option or a combination of them that cannot be worked with.

    The message is one line that names the thing, its value and the remedy.
    """


class DecodeError(HelixError):
    """A pool or reads that cannot be decoded; the message says why and what would help.

    Attributes:
        report: What is known of the reads or the strands all the same, a ``ReadReport`` or a ``Report``; None without.
    """

    def __init__(self, message: str, report: object = None) -> None:
        super().__init__(message)
        self.report = report
