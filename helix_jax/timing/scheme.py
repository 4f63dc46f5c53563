"""A scheme is everything that the writer and the reader of a timing pool agree on beforehand. It holds no data.

A scheme is given by a name (``NAMED``) or by a JSON file; ``design`` makes one from the law of a channel.
"""

import contextlib
import dataclasses
import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from helix_jax import files
from helix_jax.errors import HelixError
from helix_jax.strands import survival
from helix_jax.timing import block_coder, capacity, channel, ecc, local, paths, quantizer
from helix_jax.timing import tags as tagging
from helix_jax.timing.frame import DATA, Frame, FrameError, trits
from helix_jax.timing.graph import TALK, GraphError, TimeTable

MOST_COPIES = 255
LONGEST_TIME = 255  # in the schedule, a time is one byte
LONGEST_DURATION = 4096  # keeps the tables of the coder small
MOST_LOSS = 0.5
MOST_TAGS = 255  # bytes
MOST_SPACING = 16  # of ``design``: data rounds before a check letter where hardly a run is lost
# fields that files of earlier releases and of version 1 lack
LATER = ("version", "loss", "span", "tags", "shared", "costs")
LAWS = {"binomial": channel.Binomial, "poisson": channel.Poisson, "tabulated": channel.Tabulated}


class SchemeError(HelixError):
    """A scheme cannot be used or read; the message names the field."""


@dataclass(frozen=True)
class Scheme:
    """A timing writer and its reader.

    Attributes:
        name: A name for files and messages.
        law: The law of the run lengths.
        table: The allowed times; every transition has the same number of levels.
        copies: The number N of copies that the quantiser was designed for, and that the decoder expects.
        delta: The highest probability that a level is misread.
        duration: The time units of the data rounds of a strand, or their cost where the scheme has ``costs``.
        data: The number of the data rounds of a strand.
        spacing: For the layout of a strand (``frame.Frame``): the number of rounds before each check letter.
        parity: The parity bits of a strand, which protect the level bits.
        overhead: The time of a round beside that of its run, in time units.
        splitting: (p, q) of the state-splitting coder, or None for the range coder.
        index: The number of letters of the index (``frame.Frame``).
        check: The number of check letters at the end (``frame.Frame``).
        group: The number of strands that share an error-correcting code.
        redundancy: The number of repair strands as a share of the source strands; for version 1.
        beams: The numbers of strings that alignment follows, which it tries one after the other: the strands that were
            not read are tried again with the next one and, where the scheme has tags, with those.
        version: How the pool is protected (``arrangement``).
        loss: The probability that a strand is not read, for which version 2 plans the repair strands.
        span: The number of strands that a parity check of version 2 sees (``local``).
        tags: The tag bytes of a strand (``tags``), or 0; for version 2.
        shared: The bytes of the code of the tags that a strand writes, or 0; for version 2.
        costs: What each time counts in the coder, or None where it counts as what it is; for version 2. Every strand
            then has data rounds of the cost ``duration``, and not of that time. Where a run of time 1 is often lost,
            it had better count as more than 1, so that fewer runs are lost.

    Raises:
        SchemeError: A field is out of range.
        ChannelError: The law lacks a time of the table.
    """

    name: str
    law: channel.Law
    table: TimeTable
    copies: int
    delta: float | int
    duration: int
    data: int
    spacing: int
    parity: int
    overhead: float | int = 0.0
    splitting: tuple[int, int] | None = None
    index: int = 8
    check: int = 8
    group: int = 64
    redundancy: float | int = 0.1
    beams: tuple[int, ...] = (64, 512)
    version: int = 1
    loss: float | int = 0.0
    span: int = 4
    tags: int = 0
    shared: int = 0
    costs: TimeTable | None = None

    def __post_init__(self) -> None:
        counts = {len(times) for b, row in enumerate(self.table.times) for a, times in enumerate(row) if a != b}
        if len(counts) > 1 or 0 in counts:
            raise SchemeError(
                f"scheme {self.name}: times {self.table}: a strand layout needs the same number of levels for all "
                "12 transitions (`timing design` with --levels fixes it)"
            )
        if not (self.name and self.name.isprintable()):
            raise SchemeError(f"scheme {self.name!r}: a name is one line of letters that can be printed")
        for field, low, high in (
            ("copies", 1, MOST_COPIES), ("delta", 0.0, 1.0), ("overhead", 0.0, 1e6), ("duration", 1, LONGEST_DURATION),
            ("data", 1, self.duration), ("spacing", 1, 1 << 16), ("parity", 0, 1 << 16), ("index", 1, 20),
            ("check", 1, 64), ("group", 1, 1 << 12), ("redundancy", 0.0, 100.0),
            ("version", 1, 2), ("loss", 0.0, MOST_LOSS), ("span", min(local.RULERS), max(local.RULERS)),
            ("tags", 0, MOST_TAGS), ("shared", 0, MOST_TAGS),
        ):  # fmt: skip
            value = getattr(self, field)
            if not low <= value <= high:
                whole = "a whole number from " if isinstance(low, int) else ""
                raise SchemeError(f"scheme {self.name}: {field} is {value}, not {whole}{low} to {high}")
        if self.table.longest > LONGEST_TIME:
            raise SchemeError(f"scheme {self.name}: a time of {self.table.longest} units; at most {LONGEST_TIME}")
        if self.splitting and min(self.splitting) < 1:
            raise SchemeError(f"scheme {self.name}: splitting {self.splitting}: give two whole numbers [p, q], or null")
        for field in ("tags", "shared", "costs"):
            if getattr(self, field) and self.version < 2:
                raise SchemeError(
                    f"scheme {self.name}: {field} is for schemes of version 2: give version 2, or leave it"
                )
        if bool(self.tags) != bool(self.shared):
            raise SchemeError(f"scheme {self.name}: tags {self.tags}, shared {self.shared}: give both, or 0 for both")
        if self.tags and not self.tagging.fits:
            raise SchemeError(
                f"scheme {self.name}: the tags of {self.group} strands and {max(self.tagging.repairs)} repair symbols "
                "are more than 255: use a smaller group, or more tags"
            )
        if self.tags:
            try:
                self.frame.kinds  # noqa: B018
            except FrameError as error:
                raise SchemeError(f"scheme {self.name}: {error}") from error
        if self.costs and (self.costs.array() > 0).tolist() != (self.table.array() > 0).tolist():
            raise SchemeError(f"scheme {self.name}: costs {self.costs}: give one for each time of {self.table}")
        if self.costs and (self.splitting or self.overhead):
            raise SchemeError(f"scheme {self.name}: costs are for the range coder: leave out splitting and overhead")
        if self.tags and len(self.beams) < 2:
            raise SchemeError(f"scheme {self.name}: beams {self.beams}: tags help from the second one on, give two")
        if not self.beams or min(self.beams) < 1:
            raise SchemeError(f"scheme {self.name}: beams {self.beams}: give at least one, each at least 1")
        channel.pmf_table(self.law, self.table)

    @property
    def levels(self) -> int:
        """The number of levels of every transition."""
        return self.table.levels

    @property
    def level_bits(self) -> int:
        """The number of bits that name a level."""
        return (self.levels - 1).bit_length()

    @cached_property
    def frame(self) -> Frame:
        """The layout of a strand."""
        if self.version == 1:
            return Frame(self.data, self.spacing, trits(self.parity), self.index, self.check)
        return Frame(
            self.data, self.spacing, trits(self.parity), self.index, self.check, index_first=True,
            shared=trits(8 * self.shared), tags=tagging.PER_BYTE * self.tags,
        )  # fmt: skip

    @property
    def tagging(self) -> tagging.Tagging:
        """The code of the tags."""
        return tagging.Tagging(self.tags, self.shared, self.group)

    @property
    def counted(self) -> TimeTable:
        """What each time counts in the coder: its cost, or else the time itself."""
        return self.costs or self.table

    @property
    def path_time(self) -> float:
        """The mean time of the data rounds of a strand, in time units, if nothing stood between them."""
        if not self.costs:
            return self.duration
        chain = capacity.chain(self.costs)
        weight = chain.stationary[:, None, None] * chain.probability
        return float(self.duration * (weight * self.table.array()).sum() / (weight * self.costs.array()).sum())

    @property
    def strand_time(self) -> float:
        """The approximate mean time of a strand, in time units.

        It supposes that outside the path all transitions are equally frequent.
        """
        times = self.table.array()[~np.eye(4, dtype=bool)]  # one row for each of the 12 transitions
        kinds, rounds = self.frame.kinds, self.frame.rounds
        turned = np.count_nonzero((kinds[1:] == DATA) & (kinds[:-1] != DATA))  # data rounds that follow other letters
        chain = capacity.chain(self.counted, overhead=self.overhead)
        path = self.path_time * (1 - turned / self.data) + turned * (times @ chain.level_share).mean()
        return float(path + (rounds - self.data) * times[:, 0].mean() + rounds * self.overhead)

    @property
    def window(self) -> int:
        """The number of positions of a copy that alignment keeps: enough for the longest run, twice, and for losses."""
        longest = channel.pmf_table(self.law, self.table).shape[3] - 1
        return max(24, 8 * math.ceil((2 * longest + 8) / 8))


def to_json(scheme: Scheme) -> str:
    """Write a scheme as JSON text."""
    kind = next(name for name, law in LAWS.items() if isinstance(scheme.law, law))
    names = [field.name for field in dataclasses.fields(scheme) if scheme.version > 1 or field.name not in LATER]
    fields = {name: getattr(scheme, name) for name in names}
    fields |= {"law": {"kind": kind} | dataclasses.asdict(scheme.law), "table": str(scheme.table)}
    if scheme.costs:
        fields["costs"] = str(scheme.costs)
    return json.dumps({"format": "helix_jax timing scheme 1"} | fields, indent=2) + "\n"


def from_json(text: str, origin: str = "scheme") -> Scheme:
    """Read a scheme from JSON text, as ``to_json`` writes it.

    Raises SchemeError, which names ``origin`` and what is wrong.
    """
    try:
        fields = json.loads(text)
        if fields.pop("format", None) != "helix_jax timing scheme 1":
            raise SchemeError(f"{origin}: not a timing scheme of format 1, which `helix-jax timing design` writes")
        fields = {name: getattr(Scheme, name) for name in LATER} | fields
        wrong = sorted(fields.keys() ^ {field.name for field in dataclasses.fields(Scheme)})
        if wrong:
            raise SchemeError(f"{origin}: fields missing from it, or unknown: {', '.join(wrong)}")
        law: dict[str, Any] = {name: _tuples(value) for name, value in fields["law"].items()}
        kind = law.pop("kind", None)
        if kind not in LAWS:
            raise SchemeError(f"{origin}: law of kind {kind!r}: it is one of {', '.join(LAWS)}")
        fields["law"] = LAWS[kind](**law)
        fields["table"] = TimeTable.parse(fields["table"])
        for field in (
            "copies",
            "duration",
            "data",
            "spacing",
            "parity",
            "index",
            "check",
            "group",
            "version",
            "span",
            "tags",
            "shared",
        ):
            fields[field] = _whole(fields[field], f"{origin}: {field}")
        fields["beams"] = tuple(_whole(beam, f"{origin}: one of beams") for beam in fields["beams"])
        fields["costs"] = TimeTable.parse(fields["costs"]) if fields["costs"] else None
        splitting = tuple(_whole(n, f"{origin}: one of splitting") for n in fields["splitting"] or ())
        if len(splitting) not in (0, 2):
            raise SchemeError(f"{origin}: splitting {fields['splitting']!r}: give two whole numbers [p, q], or null")
        fields["splitting"] = splitting or None
        return Scheme(**fields)
    except SchemeError:
        raise
    except (ValueError, TypeError, AttributeError) as error:
        raise SchemeError(
            f"{origin}: not a timing scheme: {error}; write one with `helix-jax timing design`"
        ) from error


def _tuples(value):
    """Return a value of JSON with tuples in place of its lists."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _whole(value, what):
    """Return a number of JSON, which has only one kind of numbers, as an integer. What is no number stays as it is."""
    if isinstance(value, float):
        if not value.is_integer():
            raise SchemeError(f"{what} is {value}, not a whole number")
        return int(value)
    return value


def write(path: str | Path, scheme: Scheme) -> None:
    """Write a scheme to a JSON file, completely or not at all."""
    with files.atomic(path) as temporary:
        temporary.write_text(to_json(scheme))


def named(name: str) -> Scheme:
    """Return the scheme of that name, or else the one in the JSON file of that name.

    Raises SchemeError where there is neither, and for a file that holds no scheme.
    """
    if name in NAMED:
        return NAMED[name]
    path = Path(name)
    if not path.is_file():
        raise SchemeError(f"scheme {name!r}: neither a file nor one of {', '.join(NAMED)}")
    return from_json(path.read_text(errors="replace"), name)


def design(
    law: channel.Law,
    copies: int,
    delta: float | int,
    longest: int,
    levels: int,
    *,
    name: str = "designed",
    overhead: float | int = 0.0,
    splitting: tuple[int, int] | None = None,
    **fields: Any,
) -> Scheme:
    """Make a scheme from a channel law: the times that carry most per time unit, and a strand layout for them.

    The times pay for the doubt that runs lost in all copies leave about the letters (``quantizer.PRICE``), and the
    check letters are as many as that takes. The duration is rounded down to a multiple of what all times are multiples
    of, or of the splitting's q. The parity is sized for the error that the quantiser achieves, and not for ``delta``.

    Args:
        law: The law of the run lengths.
        copies: The number N of copies that the reader expects.
        delta: The highest probability that a level is misread.
        longest: The greatest allowed time M.
        levels: The number of levels of every transition.
        name: The name of the scheme.
        overhead: The time of a round beside that of its run, in time units.
        splitting: (p, q) of the state-splitting coder, or None for the range coder.
        **fields: Other fields of ``Scheme``.

    Returns:
        The scheme.

    Raises:
        SchemeError: A field is out of range.
        quantizer.QuantizerError: No times reach ``delta``.
        state_splitting.SplittingError: p:q is above the capacity.
        GraphError: No path has the duration.
    """
    duration = fields.pop("duration", 256)
    for field, value, most in (("copies", copies, MOST_COPIES), ("duration", duration, LONGEST_DURATION)):
        if not 1 <= value <= most:  # refuse now what would fail only after long searches
            raise SchemeError(f"scheme {name}: {field} is {value}, not 1 to {most}")
    chosen = quantizer.design(
        law, copies, delta, longest, levels, overhead=overhead, fewest=levels, price=quantizer.PRICE
    )
    if splitting is None:
        unit = math.gcd(*chosen.table.array().flatten().tolist())
        duration -= duration % unit if duration >= unit else 0
        data = _rounds(chosen.table, duration, overhead)
    else:
        duration -= duration % splitting[1]
        data = paths.typical_rounds(chosen.table, splitting, duration)
    parity = _parity((levels - 1).bit_length() * data, chosen.error, fields) if levels > 1 else 0
    doubt = quantizer.PRICE * quantizer.mean_doubt(capacity.chain(chosen.table, overhead=overhead), chosen.decisions)
    spacing = max(1, math.floor(min(MOST_SPACING, math.log2(3) / max(doubt, 1e-9))))
    layout: dict[str, Any] = {"spacing": spacing, "parity": parity} | fields
    return Scheme(
        name=name, law=law, table=chosen.table, copies=copies, delta=delta, overhead=overhead, splitting=splitting,
        duration=duration, data=data, **layout,
    )  # fmt: skip


def _parity(bits, error, fields):
    """Return the number of parity bits of a strand that has ``bits`` level bits.

    They suffice for the quantiser's error where one group has also lost a quarter of the strands that the redundancy
    can replace; in version 2 where it has lost as many as 99 groups in 100 do at the most.
    """
    names = ("group", "redundancy", "version", "loss", "span")
    group, redundancy, version, loss, span = (fields.get(name, getattr(Scheme, name)) for name in names)
    wrong = max(error, 1e-6)
    surprise = np.log2((1 - wrong) / wrong)
    entropy, variance = -np.log2(1 - wrong) + wrong * surprise, wrong * (1 - wrong) * surprise**2
    if version > 1:
        return local.planned_parity(group, bits, entropy, variance, survival.enough(loss, 0.01, group), span)
    return math.ceil(ecc.planned_parity(group * bits, min(entropy + redundancy / 4, 1.0), variance) / group)


def _rounds(table, duration, overhead):
    """Return the number of rounds with which the range coder makes the best use of ``duration``.

    Where a round takes time of its own, this is a smaller number.
    """
    best = block_coder.best_rounds(table, duration)
    if not overhead:
        return best
    wanted = duration / (capacity.chain(table, overhead=overhead).mean_time - overhead)
    for rounds in sorted(range(1, best + 1), key=lambda rounds: abs(rounds - wanted)):
        with contextlib.suppress(GraphError):  # there may be no path of so many rounds that takes this time
            block_coder.build_block(table, rounds, duration)
            return rounds
    return best


def _talk_like(*times: tuple[int, ...]) -> TimeTable:
    """Return the talk's table with other times in place of {1,2}, {1,3} and {1,4}."""
    others: dict[tuple[int, ...], tuple[int, ...]] = {(): ()}
    others |= zip([(1, 2), (1, 3), (1, 4)], times, strict=True)
    return TimeTable(tuple(tuple(others[talk] for talk in row) for row in TALK.times))


# The talk's slide, with a layout for five copies that lose a fifth of their runs each.
TALK_SCHEME = Scheme(
    name="talk", law=channel.TALK_LAW, table=TALK, copies=5, delta=0.02, duration=236, data=201, spacing=8, parity=14,
    check=10, redundancy=0.04, beams=(64, 512, 4096),
)  # fmt: skip
# The talk's channel with three times for each transition. The time 1 of the transitions that lose most runs counts as
# one and a half. Check letters are few, as the tags help the one strand in seven that cannot do with them.
TALK_FAST_SCHEME = Scheme(
    name="talk-fast", law=channel.TALK_LAW, table=_talk_like((1, 2, 3), (1, 2, 4), (1, 3, 6)),
    costs=_talk_like((2, 4, 6), (2, 4, 8), (3, 6, 12)), copies=5, delta=0.035, duration=768, data=281, spacing=13,
    parity=22, index=5, check=3, group=190, version=2, loss=0.01, span=8, tags=4, shared=1,
    beams=(512, 2048, 2048, 2048, 4096, 16384, 16384),
)  # fmt: skip
# Two bases per time unit and twenty copies. All copies together lose a run once in 10^17 rounds, so the letters need
# few checks.
POISSON_SCHEME = Scheme(
    name="poisson", law=channel.Poisson.uniform(2.0), table=TimeTable.uniform((1, 2, 4)), copies=20, delta=0.005,
    duration=1280, data=1028, spacing=256, parity=57, index=6, check=6, redundancy=0.01, beams=(16, 128),
)  # fmt: skip
# The same channel with four times, whose levels are in more doubt, and one repair strand.
POISSON_FAST_SCHEME = Scheme(
    name="poisson-fast", law=channel.Poisson.uniform(2.0), table=TimeTable.uniform((1, 2, 3, 5)), copies=20,
    delta=0.023, duration=728, data=560, spacing=256, parity=38, index=6, check=5, group=255, version=2, loss=0.002,
    beams=(8, 64, 512),
)  # fmt: skip
NAMED = {s.name: s for s in (TALK_SCHEME, TALK_FAST_SCHEME, POISSON_SCHEME, POISSON_FAST_SCHEME)}
