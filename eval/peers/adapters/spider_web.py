"""SPIDER-WEB, of the package DNASpiderWeb, with its graph of runs <= 3 and 40-60 % GC in every 10 nt.

The package codes one message into one strand. The index, the strands' common length, and the way back from several
messages to a file are ours. A message's strand ends where its number is used up; it is filled up along the graph by
digits 0, which decode to the same number. Settings: bits of a strand with its index, index (its bits), check (letters
of the Varshamov-Tenengolts check at the end of the strand, 0 for none).
"""

import importlib.metadata

from eval.peers import protocol

WINDOW = 10


def version(_request):
    """Return the version of the package."""
    import dsw  # noqa: F401  # pyrefly: ignore [missing-import]

    return f"DNASpiderWeb {importlib.metadata.version('DNASpiderWeb')}", 1


def graph(request):
    """Return the graph and the vertex to start from; the graph takes half a minute, and is kept in the folder."""
    import dsw  # pyrefly: ignore [missing-import]
    import numpy as np

    kept = request.folder / "graph.npy"
    if not kept.exists():
        rules = dsw.LocalBioFilter(observed_length=WINDOW, max_homopolymer_runs=3, gc_range=[0.4, 0.6])
        vertices = dsw.find_vertices(observed_length=WINDOW, bio_filter=rules)
        made = dsw.connect_valid_graph(observed_length=WINDOW, vertices=vertices)
        np.save(kept, made)
    accessor = np.load(kept)
    return accessor, int(np.flatnonzero((accessor >= 0).any(axis=1))[0])


def encode(request, data):
    """Return the strands, and the sizes that the decoder needs."""
    import dsw  # pyrefly: ignore [missing-import]
    import numpy as np

    accessor, start = graph(request)
    index, check = request.setting["index"], request.setting["check"]
    room = request.setting["bits"] - index
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    bits = np.pad(bits, (0, -len(bits) % room)).reshape(-1, room)
    numbers = (np.arange(len(bits))[:, None] >> np.arange(index)[::-1]) & 1
    messages = np.concatenate([numbers, bits], axis=1).astype(int)
    strands = [dsw.encode(binary_message=message, accessor=accessor, start_index=start) for message in messages]
    length = max(map(len, strands))
    filled = [fill(strand, accessor, start, length) for strand in strands]
    checks = [dsw.set_vt(dna_sequence=strand, vt_length=check) if check else "" for strand in filled]
    return [a + b for a, b in zip(filled, checks, strict=True)], {"bytes": len(data), "strands": len(bits)}, None


def fill(strand, accessor, start, length):
    """Return the strand with first letters of the graph up to a length."""
    vertex = start
    for letter in strand:
        vertex = accessor[vertex]["ACGT".index(letter)]
    while len(strand) < length:
        letter = int((accessor[vertex] >= 0).argmax())
        strand, vertex = strand + "ACGT"[letter], accessor[vertex][letter]
    return strand


def decode(request, state, received):
    """Return the content; what fails its check is repaired if the package finds one way only."""
    import dsw  # pyrefly: ignore [missing-import]
    import numpy as np

    accessor, start = graph(request)
    bits, index, check = (request.setting[name] for name in ("bits", "index", "check"))
    found = {}
    for each in received:
        strand, vt = (each.strand[:-check], each.strand[-check:]) if check else (each.strand, None)
        try:
            message = dsw.decode(
                dna_sequence=strand, bit_length=bits, accessor=accessor, start_index=start, vt_check=vt
            )
        except ValueError:
            repaired = dsw.repair_dna(
                dna_sequence=strand, accessor=accessor, start_index=start, observed_length=WINDOW, vt_check=vt,
                has_indel=True,
            )[0]  # fmt: skip
            if len(repaired) != 1:
                continue
            message = dsw.decode(dna_sequence=repaired[0], bit_length=bits, accessor=accessor, start_index=start)
        found.setdefault(int("".join(map(str, message[:index])), 2), message[index:])
    rows = [found[number] for number in range(state["strands"])]
    return np.packbits(np.concatenate(rows).astype(np.uint8)).tobytes()[: state["bytes"]], None


if __name__ == "__main__":
    protocol.serve(protocol.Peer(version, encode, decode))
