"""What a decoder must know besides the strands: forbidden motifs and primers, as options or as a comment in FASTA."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Written:
    """How strands were written, as far as their letters do not tell.

    motifs: forbidden words. left, right: primers. primers_exempt: GC windows leave the primers out. All of them empty
    for a pool in a named constraint set without primers.
    """

    motifs: tuple[str, ...] = ()
    left: str = ""
    right: str = ""
    primers_exempt: bool = False

    @classmethod
    def given(cls, motifs, primers, primers_exempt):
        """What the caller gives, or None where that is nothing and the strands' file may tell."""
        left, right = primers
        found = cls(tuple(motifs), left, right, primers_exempt)
        return None if found == cls() else found

    def comment(self):
        """Text for the comments of header strands, empty where there is nothing to tell."""
        fields = (
            ("forbid", ",".join(self.motifs)),
            ("left", self.left),
            ("right", self.right),
            ("windows", "strand" if self.primers_exempt else ""),
        )
        return "".join(f" {name}={value.upper() if name != 'windows' else value}" for name, value in fields if value)

    @classmethod
    def from_comment(cls, text):
        """Inverse of ``comment``; what it does not know, and what is no base, is passed over."""
        fields = dict(word.split("=", 1) for word in text.split() if "=" in word)
        words = [fields.get("left", ""), fields.get("right", ""), *fields.get("forbid", "").split(",")]
        left, right, *motifs = ("" if set(word.upper()) - set("ACGT") else word for word in words)
        return cls(tuple(filter(None, motifs)), left, right, fields.get("windows") == "strand")

    @property
    def ends(self):
        """Bases of both primers together."""
        return len(self.left) + len(self.right)
