"""uint8 RGB frames -> a video file (PyAV): H.264 in MP4 or Matroska, VP9 in WebM, tagged BT.709 limited range.

The chroma is 4:2:0, which plays everywhere, or 4:4:4 for odd sizes, which 4:2:0 cannot have in H.264, and for lossless
files. Sound is copied as it is. The index is in front.
"""

import contextlib
import os
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from helix_jax.video import muxing, pictures
from helix_jax.video.clip import VideoError, VideoInfo
from helix_jax.video.signal import BT709, UNSPECIFIED, Signal
from helix_jax.video.sound import Sound

NEAR_LOSSLESS_CRF = 8  # of H.264; of VP9 it is about the same


class VideoWriter:
    """Write frames to a video file (BT.709): ``with VideoWriter(path, info) as out: out.write(block)``.

    The file is near-lossless (CRF 8) by default, in yuv420p, which QuickTime, browsers and phones play; odd sizes are
    yuv444p, since H.264 can neither hold nor crop to half a chroma sample.

    Args:
        path: The file, .mp4 or .mkv (H.264) or .webm (VP9), which appears, complete, when the block ends without an
            error; ``-`` is standard output, which gets an MP4.
        info: Size, frames and rate; all of its frames must be written.
        lossless: Keep yuv444p samples bit for bit (the file is several times larger, and not played everywhere); the
            step from RGB to 8-bit YUV costs up to 2 levels either way.
        signal: Its pixel aspect, primaries and transfer function are written; the matrix is that of BT.709.
        sound: What is heard with the frames, copied as it is.

    Raises:
        VideoError: For a path of another kind, or where the frames do not agree with ``info``.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        info: VideoInfo,
        lossless: bool = False,
        *,
        signal: Signal | None = None,
        sound: Sound | None = None,
    ):
        self.path, self.info, self.lossless = Path(path), info, lossless
        signal = signal or Signal()
        self.aspect, self.sound = signal.aspect, sound
        # Pictures of HDR keep their levels, and with them the primaries and the transfer function that give them sense.
        self.tags = [BT709 if code == UNSPECIFIED else code for code in (signal.primaries, signal.transfer)]
        muxing.check_output(path)
        if min(info.frames, info.height, info.width) < 1 or info.fps <= 0:
            raise VideoError(f"{self.path}: nothing to write: {info}")
        odd = info.height % 2 or info.width % 2
        self.pix_fmt = "yuv444p" if lossless or odd else "yuv420p"

    def __enter__(self) -> "VideoWriter":
        self._session = self._open()
        self._session.__enter__()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._session.__exit__(*error)

    @contextlib.contextmanager
    def _open(self):
        with muxing.opened(self.path, self.info, self.aspect) as container:
            self._container, self._reformatter, self._written = container, VideoReformatter(), 0
            self._stream = self._add_stream()
            self._track = None if self.sound is None else muxing.Track(container, self.sound)
            yield
            if self._written != self.info.frames:
                raise VideoError(f"{self.path}: {self._written} frames written, {self.info.frames} promised")
            container.mux(self._stream.encode())
            if self._track is not None:
                self._track.write(None)

    def _add_stream(self):
        is_vp9 = self.path.suffix.lower() == ".webm"
        stream = self._container.add_stream("libvpx-vp9" if is_vp9 else "libx264", rate=self.info.fps)
        stream.width, stream.height, stream.pix_fmt = self.info.width, self.info.height, self.pix_fmt
        if is_vp9:
            quality = {"lossless": "1"} if self.lossless else {"crf": str(NEAR_LOSSLESS_CRF), "b": "0"}
            stream.options = {"deadline": "good", "cpu-used": "5", "row-mt": "1", **quality}
        else:
            quality = {"qp": "0"} if self.lossless else {"crf": str(NEAR_LOSSLESS_CRF)}
            # tune=psnr is set because x264's psychovisual and adaptive quantisation move hard colour edges by up to 50
            # levels.
            stream.options = {"preset": "veryfast", "tune": "psnr", **quality}
        codec = stream.codec_context
        codec.time_base = 1 / self.info.fps
        muxing.shaped(self._container, stream, self.aspect)
        codec.colorspace, codec.color_range = Colorspace.ITU709, ColorRange.MPEG
        codec.color_primaries, codec.color_trc = self.tags
        return stream

    def write(self, block: np.ndarray) -> None:
        """Append uint8[n, H, W, 3] RGB frames. Raises VideoError for another dtype or shape."""
        expected = (self.info.height, self.info.width, 3)
        if block.dtype != np.uint8 or block.ndim != 4 or block.shape[1:] != expected:
            raise VideoError(f"{self.path}: frames are {block.dtype}{list(block.shape)}, not uint8[n, {expected}]")
        for rgb in block:
            frame = self._reformatter.reformat(
                av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24"),
                format=self.pix_fmt, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG,
                interpolation=pictures.PRECISE, threads=1,
            )  # fmt: skip
            frame.pts, frame.time_base = self._written, 1 / self.info.fps
            self._written += 1
            if self._track is not None:
                self._track.write(frame.pts / self.info.fps)
            self._container.mux(self._stream.encode(frame))
