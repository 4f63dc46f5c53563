"""Wukong, of DNAstorage-iSynBio/Storage-D, which works from file to file.

Settings: length, homopolymer, check_bytes (of the Reed-Solomon code in each strand), parity (one strand in three).
"""

import sys
from pathlib import Path

from eval.peers import protocol


def codec(request):
    """Import the codec of the checkout."""
    sys.path.insert(0, str(request.checkout))
    from StorageD import codec as storage_d  # pyrefly: ignore [missing-import]

    return storage_d


def version(request):
    """Return the version that the checkout states."""
    codec(request)
    return "Storage-D 1.0", 1


def encode(request, data):
    """Return the strands, and the first line of Storage-D's file, which its decoder needs."""
    setting, source = request.setting, request.folder / "content.bin"
    source.write_bytes(data)
    worker = codec(request).WukongEncode(
        input_file_path=str(source), output_dir=str(request.folder), sequence_length=setting["length"],
        max_homopolymer=setting["homopolymer"], min_gc=0.4, max_gc=0.6, rule_num=1, rs_num=setting["check_bytes"],
        add_redundancy=setting["parity"],
    )  # fmt: skip
    lines = Path(worker.common_encode()).read_text().splitlines()
    return [line for line in lines if not line.startswith(">")], lines[0], None


def decode(request, state, received):
    """Return the content."""
    path = request.folder / "received.fasta"
    path.write_text("".join(f"{line}\n" for line in [state, *(f">\n{each.strand}" for each in received)]))
    worker = codec(request).WukongDecode(input_file_path=str(path), output_dir=str(request.folder), rule_num=1)
    return Path(worker.common_decode()).read_bytes(), None


if __name__ == "__main__":
    protocol.serve(protocol.Peer(version, encode, decode))
