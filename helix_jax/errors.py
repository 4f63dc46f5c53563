"""What can go wrong by the user's doing: the base class of every error that the library raises on purpose.

An error of another class is a mistake of ours, and keeps its traceback. ``HelixError`` is a ``ValueError``, so that
code which catches that goes on working.
"""


class HelixError(ValueError):
    """An input, an option or a combination of them that cannot be worked with.

    The message is one line that names the thing, its value and the remedy.
    """


class BudgetError(HelixError):
    """A rate or a budget that does not pay for a clip.

    Attributes:
        most: What may be taken, with its unit.
        reasons: What takes more, each a clause.
        remedies: What would help besides a larger budget.
    """

    def __init__(self, most: str, reasons: tuple[str, ...], remedies: tuple[str, ...]) -> None:
        self.most, self.reasons, self.remedies = most, reasons, remedies
        *others, last = remedies
        super().__init__(f"{most} are too few: {', and '.join(reasons)}; give more, {', '.join(others)} or {last}")

    def beside(self, other: "BudgetError") -> "BudgetError":
        """Return the error of two ways to write the clip, neither of which is paid for."""
        remedies = tuple(dict.fromkeys([*self.remedies, *other.remedies]))
        return BudgetError(self.most, (*self.reasons, *other.reasons), remedies)

    def with_sound(self, taken: str, rate: float) -> "BudgetError":
        """Return the error with what the clip's sound takes, at a rate in kbit/s."""
        remedies = (f"a lower --sound than {rate:g}", "--no-sound", *self.remedies)
        return BudgetError(self.most, (*self.reasons, f"the sound takes {taken} of it"), remedies)


class DecodeError(HelixError):
    """A pool or reads that cannot be decoded; the message says why and what would help.

    Attributes:
        report: What is known of the reads or the strands all the same, a ``ReadReport`` or a ``Report``; None without.
    """

    def __init__(self, message: str, report: object = None) -> None:
        super().__init__(message)
        self.report = report
