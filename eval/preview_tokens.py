"""Do tokens make a better preview than AV1? The PSNR of both in as many bytes.

    python -m eval.preview_tokens VIDEOS [--clips NAME ...] [--frames 32]

A clip is made smaller, coded as tokens (``codec.encode``, mode prior, several qualities), decoded and
scaled up again as a preview is (``stream.av1.resize``). For the bytes that this takes (without those of the header,
which has room for a preview of either kind) the best preview in AV1 is searched for (``stream.preview``). The table has
each size and quality that no other one beats.
"""

import argparse
from collections.abc import Iterator

import numpy as np

from eval import clips
from eval.metrics import psnr
from helix_jax import codec, video
from helix_jax.config import CodecConfig
from helix_jax.errors import HelixError
from helix_jax.stream import av1, preview
from helix_jax.video import planes

SCALES = (3 / 8, 1 / 4, 1 / 8)
QUALITIES = (10, 5, 0)
MOST = 4096  # bytes; a larger one is no preview


def scaled(clip: video.Clip, size: tuple[int, int]) -> video.Clip:
    """Return a clip at another size."""
    frames = [planes.rgb(frame, clip.signal) for frame in av1.resize(clip.yuv(), size)]
    return video.Clip(np.stack(frames), clip.info.fps)


def of_tokens(clip: video.Clip, scale: float, quality: int) -> tuple[int, float]:
    """Return the bytes of a clip that is made smaller and coded as tokens, and the PSNR in dB of what is shown."""
    small = scaled(clip, av1.scaled((clip.info.height, clip.info.width), scale))
    config = CodecConfig(codec="tokens", mode="prior", quality=quality, verify=False, constraints="strand")
    pool = codec.encode(small, config=config)
    _, blocks, _ = codec.decode({pool.strands.shape[1]: pool.strands})
    back = scaled(video.Clip(np.concatenate(list(blocks)), clip.info.fps), clip.frames.shape[1:3])
    return pool.header.content_bytes, psnr(clip.frames, back.frames)


def rows(clip: clips.Clip) -> Iterator[tuple[int, str, float, float]]:
    """Yield bytes, what the tokens are, and the PSNR in dB of tokens and of AV1, for the tokens that none beats."""
    found = []
    for scale in SCALES:
        for quality in QUALITIES:
            size, shown = of_tokens(clip, scale, quality)
            found.append((size, shown, f"{scale:.2f} of each side, quality {quality}"))
    best = -np.inf
    for size, shown, name in sorted(found):
        if shown > best and size <= MOST:
            best = shown
            try:
                other = preview.preview(clip, size).psnr
            except HelixError:
                other = float("nan")
            yield size, name, shown, other


def main() -> None:
    """Print a table for each clip."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="VIDEOS")
    parser.add_argument("--clips", nargs="*", default=[])
    parser.add_argument("--frames", type=int, default=32)
    args = parser.parse_args()
    for path in clips.clips_of(args.folder, args.clips):
        print(f"\n{path.name}\n| bytes | tokens | PSNR dB | AV1, PSNR dB |\n| ---: | --- | ---: | ---: |")
        for size, name, shown, other in rows(clips.load(path, args.frames)):
            print(f"| {size:,} | {name} | {shown:.2f} | {other:.2f} |", flush=True)


if __name__ == "__main__":
    main()
