"""HEDGES (whpress/hedges): its functions behind hedges.cpp, compiled with -O2 into the folder.

Its seconds are those of its functions in memory. Settings: rate (number in its table of code rates), length.
"""

import subprocess
from pathlib import Path

from eval.peers import protocol

DRIVER = Path(__file__).with_name("hedges.cpp")


def program(request, action, *arguments):
    """Run the program, which is compiled once in a folder, and return the words that it prints."""
    built, source = request.folder / "hedges", request.checkout
    if not built.exists():
        command = ["g++", "-O2", "-std=c++11", "-w", f"-I{source}", "-o", built, DRIVER]
        subprocess.run([*command, source / "DNAcode.cpp", source / "RSecc.cpp"], check=True)
    setting = request.setting
    command = [built, action, str(setting["rate"]), str(setting["length"]), request.folder, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()


def version(request):
    """Return the version, and the bytes of a packet."""
    unit, number = program(request, "unit")
    return f"HEDGES {number}", int(unit)


def encode(request, data):
    """Return the strands, and the number of packets and bytes."""
    seconds, packets = program(request, "encode")
    strands = (request.folder / "strands").read_text().split()
    return strands, {"packets": packets, "bytes": len(data)}, float(seconds)


def decode(request, state, _received):
    """Return the content."""
    (seconds,) = program(request, "decode", state["packets"])
    return (request.folder / "back").read_bytes()[: state["bytes"]], float(seconds)


if __name__ == "__main__":
    protocol.serve(protocol.Peer(version, encode, decode))
