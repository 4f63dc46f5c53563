"""What a pool does not keep of a clip, stated together with the remedy."""

import shlex
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from helix_jax.video.clip import VideoInfo
from helix_jax.video.pictures import Traits


@dataclass(frozen=True)
class Codec:
    """What a codec of pictures keeps.

    Attributes:
        bits: Bits per sample.
        kept: The kinds of loss that it does not have.
    """

    bits: int
    kept: frozenset[str]


CODECS = {"tokens": Codec(8, frozenset()), "av1": Codec(10, frozenset({"aspect", "hdr", "gamut"}))}

# Kind of loss -> the words for many clips; ``of_clip`` says more of one clip.
OF_MANY = {
    "streams": "have several video streams, of which the default one is stored",
    "aspect": "have pixels that are not square, which is not stored",
    "hdr": "are HDR, and are stored without conversion in 8-bit SDR: see --tone-map",
    "gamut": "have wide colours, which are stored as if of BT.709: see --tone-map",
    "depth": "have more bits per sample than are stored",
    "alpha": "are transparent in places, and are stored over black",
    "interlaced": "are interlaced, and are stored as they are: see --deinterlace",
}


def of_clip(
    name: str,
    info: VideoInfo,
    traits: Traits,
    *,
    streams: tuple[int, int],
    aspect: Fraction,
    alpha: bool,
    interlaced: bool,
    codec: str = "tokens",
) -> dict[str, str]:
    """Return a sentence for each kind of loss, without its subject, the clip.

    Args:
        name: The clip's name as the user gave it.
        info: Size, frames and rate.
        traits: What its frames have beyond 8-bit SDR pictures.
        streams: The number of video streams, and which one is stored, from 0.
        aspect: Width of a pixel over its height, upright.
        alpha: Whether something is transparent.
        interlaced: Whether its frames are interlaced.
        codec: Which of CODECS stores it.

    Returns:
        The sentences by kind of loss.
    """
    sentences, read = {}, f"ffmpeg -i {shlex.quote(name)}"
    target, stored = reencoded(name), CODECS[codec]
    if streams[0] > 1:
        other = int(streams[1] == 0)
        sentences["streams"] = (
            f"has {streams[0]} video streams, of which only number {streams[1]} is stored; take out another with: "
            f"{read} -map 0:v:{other} -c copy {target.replace('.mp4', '.mkv')}"
        )
    if aspect != 1:
        width = 2 * max(1, round(info.width * aspect / 2))
        shape = aspect * info.width / info.height
        sentences["aspect"] = (
            f"has pixels of {aspect.numerator}:{aspect.denominator} (width to height), which is not stored: what is "
            f"decoded will look {'narrow' if aspect > 1 else 'wide'}; make them square first with: {read} "
            f"-vf scale={width}:{info.height},setsar=1 {target}, or state the shape of the decoded file with: "
            f"ffmpeg -i decoded.mp4 -c copy -aspect {shape.numerator}:{shape.denominator} shaped.mp4"
        )
    if traits.transfer:
        what = ", ".join(filter(None, (traits.transfer, traits.primaries, f"{traits.bits} bits per sample")))
        sentences["hdr"] = (
            f"is HDR ({what}), and is stored without conversion in 8-bit SDR, where it looks flat; "
            "--tone-map converts it to BT.709"
        )
    elif traits.primaries:
        sentences["gamut"] = (
            f"has the colours of {traits.primaries}, which are stored as if of BT.709 and look dull; "
            "--tone-map converts them to BT.709"
        )
    if traits.bits > stored.bits and not (traits.transfer and "hdr" not in stored.kept):
        sentences["depth"] = (
            f"has {traits.bits} bits per sample, of which {stored.bits} are stored; keep the file if the rest matters"
        )
    if alpha:
        sentences["alpha"] = (
            "is transparent in places, which is not stored: it is put over black; for another background: "
            f"ffmpeg -f lavfi -i color=white:size={info.width}x{info.height}:rate={info.fps} -i {shlex.quote(name)} "
            f"-filter_complex '[0][1]overlay=shortest=1' {target}"
        )
    if interlaced:
        sentences["interlaced"] = (
            "is interlaced, and its frames are stored as they are, with combs where something moves; "
            "--deinterlace removes them"
        )
    return {kind: sentence for kind, sentence in sentences.items() if kind not in stored.kept}


def reencoded(name: str) -> str:
    """Return what a file made from another may be called, quoted for a shell."""
    path = Path("video" if name == "-" else name)
    return shlex.quote(str(path.with_name(f"{path.stem}-new.mp4")))
