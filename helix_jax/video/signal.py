"""How the samples of a picture are to be shown: what AV1 pools keep of a clip beside its size and its frame rate."""

from dataclasses import dataclass
from fractions import Fraction

BT709, UNSPECIFIED = 1, 2  # code points of ITU-T H.273, the same for primaries, transfer function and matrix


@dataclass(frozen=True)
class Signal:
    """The colours and the pixel aspect of a clip. The default is that of pictures which were made from RGB.

    Attributes:
        aspect: Width of a pixel over its height, upright.
        primaries: Colour primaries, a code point of ITU-T H.273.
        transfer: Transfer function, likewise: 16 is PQ and 18 is HLG.
        matrix: Matrix from RGB to YUV, likewise.
        full_range: Whether the samples use their whole range.
    """

    aspect: Fraction = Fraction(1)
    primaries: int = BT709
    transfer: int = BT709
    matrix: int = BT709
    full_range: bool = False
