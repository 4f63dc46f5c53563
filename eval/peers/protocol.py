"""How a peer is asked: one request to a process of its own, in the Python that has the peer.

A script serves one peer. It is run as ``PYTHON SCRIPT ACTION FOLDER CALLS SETTING CHECKOUT`` with this repository on
the path, and calls ``serve``. This module needs nothing but Python itself: the peers' environments have nothing else.
The files of the folder:
  data           the content
  strands        one strand a line, without primers, which ``encode`` writes
  state          JSON of whatever else the decoder must know
  received       what decoding gets, a line each: the strand, the number of its reads, and one of the reads
  back           the content that decoding returned
  answer         JSON of what was measured
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ACTIONS = ("version", "encode", "decode", "reads")


@dataclass(frozen=True)
class Received:
    """A strand as it was read.

    Attributes:
        strand: the strand, over ACGT.
        copies: number of its reads.
        read: one of these reads.
    """

    strand: str
    copies: int
    read: str


@dataclass(frozen=True)
class Request:
    """What a script is asked.

    Attributes:
        folder: folder of the files, which may also keep files of the peer's.
        setting: the peer's setting.
        checkout: folder of the peer's repository, or None.
    """

    folder: Path
    setting: dict[str, Any]
    checkout: Path | None


@dataclass(frozen=True)
class Peer:
    """A peer, as its script serves it. All functions get the request first.

    Attributes:
        version: returns the version, and the number of bytes that are stored without padding.
        encode: takes bytes; returns the strands and the state, and the seconds if the peer has measured them itself.
        decode: takes the state and [Received]; returns the bytes, and the seconds or None.
        reads: the same for raw reads, for a peer that turns reads into strands; None for the others.
    """

    version: Callable[[Request], tuple[str, int]]
    encode: Callable[[Request, bytes], tuple[list[str], Any, float | None]]
    decode: Callable[[Request, Any, list[Received]], tuple[bytes, float | None]]
    reads: Callable[[Request, Any, list[Received]], tuple[bytes, float | None]] | None = None


def serve(peer: Peer, arguments: list[str] | None = None) -> None:
    """Answer the request of the command line.

    Encoding and decoding are called as often as asked, and the seconds are those of the last call, so that what a peer
    compiles or builds at first does not count.
    """
    action, folder, calls, setting, checkout = sys.argv[1:] if arguments is None else arguments
    request = Request(Path(folder).resolve(), json.loads(setting), Path(checkout) if checkout else None)
    answer: dict[str, Any] = {}
    if action == "version":
        answer["version"], answer["unit"] = peer.version(request)
        answer["reads"] = peer.reads is not None
    elif action == "encode":
        data = (request.folder / "data").read_bytes()
        (strands, state, own), seconds = _timed(lambda: peer.encode(request, data), int(calls))
        answer["seconds"] = seconds if own is None else own
        (request.folder / "strands").write_text("".join(f"{strand}\n" for strand in strands))
        (request.folder / "state").write_text(json.dumps(state))
    else:
        function = peer.reads if action == "reads" else peer.decode
        assert function is not None, "the peer does not turn reads into strands"
        state = json.loads((request.folder / "state").read_text())
        lines = [line.split() for line in (request.folder / "received").read_text().splitlines()]
        received = [Received(strand, int(copies), read) for strand, copies, read in lines]
        (back, own), seconds = _timed(lambda: function(request, state, received), int(calls))
        answer["seconds"] = seconds if own is None else own
        (request.folder / "back").write_bytes(back)
    (request.folder / "answer").write_text(json.dumps(answer))


def _timed(call, calls):
    """Return what the last of ``calls`` calls returns, and its seconds."""
    for _ in range(calls - 1):
        call()
    begin = time.perf_counter()
    return call(), time.perf_counter() - begin
