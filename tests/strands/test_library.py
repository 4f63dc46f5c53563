"""Libraries of primer pairs: what is read, what is refused by name, and which file gets which pair."""

import itertools

import pytest

from helix_jax.errors import HelixError
from helix_jax.strands import library
from helix_jax.strands.library import Pair

GOOD = "name,left,right\na,ACGTAC,TTGCAA\nb,acgtag,GGGTTC\n"


@pytest.fixture
def written(tmp_path):
    """written(content) -> path: a file with that content, as text or bytes."""

    def write(content):
        path = tmp_path / "library.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        "\ufeff" + GOOD.replace("\n", "\r\n"),  # as spreadsheets write it
        "name, left, right\na, ACGTAC , TTGCAA\nb, acgtag, GGGTTC\n",
        "right,note,left,name\nTTGCAA,first,ACGTAC,a\n\nGGGTTC,,ACGTAG,b\n",
        '"name","left","right"\n"a","ACGTAC","TTGCAA"\n"b","ACGTAG","GGGTTC"',
    ],
)
def test_what_is_read(written, content):
    pairs = library.read(written(content))
    assert list(pairs.values()) == [Pair("a", "ACGTAC", "TTGCAA"), Pair("b", "ACGTAG", "GGGTTC")]
    assert list(pairs) == ["a", "b"]
    assert pairs["b"].reverse == "GAACCC"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("name,left,right\n", "holds no pairs"),
        ("name,left\na,ACGT\n", "no column right"),
        ("name;left;right\na;ACGT;ACGG\n", "no column name, left, right"),
        (">a\nACGT\n", "no column name, left, right"),
        ("name,left,right\n,ACGT,ACGG\n", "pair 1: it has no name"),
        ("name,left,right\na,ACGT,ACGG\nb,ACGU,ACGG\n", r"pair 2 \(b\): the left primer 'ACGU' holds letters"),
        ("name,left,right\na,ACGT,ACNG\n", "right primer 'ACNG' holds letters"),
        ("name,left,right\na,ACGT\n", "the right primer is missing"),
        (GOOD + "a,CCCTTA,CCATTA\n", "two pairs have the name a"),
        (GOOD + "c,ACGTAC,TTGCAA\n", "a and c are the same pair"),
        (GOOD + "c,TTGCAA,GTACGT\n", "a and c are the same pair"),  # of the other strand of the DNA
        (b"PK\x03\x04\xff\xfe\x00", "is no CSV file"),
        ('name,left,right\na,"ACGT,ACGG\n', "is no CSV file"),
    ],
)
def test_what_is_refused(written, content, words):
    path = written(content)
    with pytest.raises(library.LibraryError, match=words) as caught:
        library.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_missing_pair(written, tmp_path):
    with pytest.raises(HelixError, match="no such file"):
        library.read(tmp_path / "none.csv")
    path = written(GOOD)
    assert library.pick(path, "b").left == "ACGTAG"
    with pytest.raises(library.LibraryError, match=r"no pair 'c'; there are a, b$"):
        library.pick(path, "c")
    many = "".join(
        f"p{n},{''.join(word)},GGGGGG\n" for n, word in zip(range(30), itertools.product("ACT", repeat=4), strict=False)
    )
    with pytest.raises(library.LibraryError, match=r"p0, p1, .*p11, \.\.\. \(30 in all\)"):
        library.pick(written("name,left,right\n" + many), "q")


# ---- which file gets which pair ----------------------------------------------------------------------------

PAIRS = {f"p{n}": Pair(f"p{n}", "ACGTACGT"[n:] + "A" * n, "GGC" + "T" * n) for n in range(6)}
NAMES = ["c", "a", "e", "b"]


def test_each_file_has_a_pair_of_its_own_in_the_order_of_names():
    given = library.assign(NAMES, PAIRS, {})
    assert {name: pair.name for name, pair in given.items()} == {"a": "p0", "b": "p1", "c": "p2", "e": "p3"}
    assert given == library.assign(NAMES[::-1], PAIRS, {})


def test_whatever_is_done_already_changes_no_pair():
    """Each subset of the files may be done when another host looks, or when the command is run again."""
    given = library.assign(NAMES, PAIRS, {})
    for count in range(len(NAMES) + 1):
        for done in itertools.combinations(NAMES, count):
            assert library.assign(NAMES, PAIRS, {name: given[name] for name in done}) == given


def test_new_files_get_free_pairs():
    given = library.assign(NAMES, PAIRS, {})
    more = library.assign([*NAMES, "aa", "z"], PAIRS, given)
    assert {name: more[name] for name in NAMES} == given
    assert (more["aa"].name, more["z"].name) == ("p4", "p5")
    # a file that is no longer among the names keeps its pair from the others
    assert library.assign(["x"], PAIRS, given)["x"].name == "p4"


def test_too_few_pairs_and_another_library_are_refused():
    given = library.assign(NAMES, PAIRS, {})
    with pytest.raises(library.LibraryError, match=r"3 files need .* has 2 that are free \(4 are taken already\)"):
        library.assign([*NAMES, "x", "y", "z"], PAIRS, given)
    with pytest.raises(library.LibraryError, match=r"7 files need .* has 6 that are free: make"):
        library.assign(list("abcdefg"), PAIRS, {})
    with pytest.raises(library.LibraryError, match="a was written with pair p0, ACGTACGT and GGC, which this library"):
        library.assign(NAMES, PAIRS | {"p0": Pair("p0", "ACGTACGT", "GGCA")}, given)
    with pytest.raises(library.LibraryError, match="does not have"):
        library.assign(NAMES, {name: pair for name, pair in PAIRS.items() if name != "p0"}, given)
