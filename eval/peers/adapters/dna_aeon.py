"""DNA-Aeon (MW55/DNA-Aeon), built as its README says; its two programs work on files of its checkout.

Settings: sync (bytes between two checks of the inner code), redundancy (of the outer code).
"""

import json
import subprocess
import sys

from eval.peers import protocol

PROGRAM = "arithmetic_modulator_error_correction"
CODEBOOK = "cw_40_60_hp3"  # in its folder codewords
# Of our files in its folder data, whose names its programs derive from one another; its outer code stores the name in a
# chunk, of 14 bytes by default.
NAME = "peer"


def version(request):
    """Return the commit; what it needs must be built."""
    checkout = request.checkout
    for path in (PROGRAM, "NOREC4DNA/venv/bin/python3", f"codewords/{CODEBOOK}.fasta"):
        if not (checkout / path).exists():
            raise FileNotFoundError(f"{path}: not in the checkout; build it as DNA-Aeon's README says")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=checkout, check=True, capture_output=True, text=True
    )
    return f"DNA-Aeon {commit.stdout.strip()}", 1


def config(request, length=0):
    """Return its configuration: the checkout's own, but for files, sync, redundancy and the strands' length."""
    made = json.loads((request.checkout / "config.json").read_text())
    made["general"] |= {"sync": request.setting["sync"], "as_fasta": True, "threads": 2}
    made["general"]["codebook"] = {
        "words": f"./codewords/{CODEBOOK}.fasta",
        "motifs": f"./codewords/{CODEBOOK}.json",
    }
    made["NOREC4DNA"]["package_redundancy"] = request.setting["redundancy"]
    made["encode"] |= {"input": f"data/{NAME}", "output": f"data/{NAME}.fasta", "same_length": True}
    made["decode"] |= {
        "input": f"data/{NAME}.fasta", "output": f"data/{NAME}.txt", "NOREC4DNA_config": f"data/{NAME}.ini",
        "length": length,
    }  # fmt: skip
    return made


def run(request, script, made):
    """Run one of its scripts with a configuration."""
    path = request.checkout / f"{NAME}.json"
    path.write_text(json.dumps(made))
    subprocess.run([sys.executable, script, "-c", path.name], cwd=request.checkout, check=True)


def encode(request, data):
    """Return the strands, and what its decoder needs: the outer code's file and the strands' length."""
    made, folder = config(request), request.checkout / "data"
    (folder / NAME).write_bytes(data)
    run(request, "encode.py", made)
    lines = (folder / f"{NAME}.fasta").read_text().splitlines()
    strands = [line for line in lines if line and not line.startswith(">")]
    return strands, {"ini": (folder / f"{NAME}.ini").read_text(), "length": len(strands[0])}, None


def decode(request, state, received):
    """Return the content."""
    folder, back = request.checkout / "data", request.checkout / "data" / "results" / NAME
    back.unlink(missing_ok=True)
    (folder / f"{NAME}.ini").write_text(state["ini"])
    text = "".join(f">{number}\n{each.strand}\n" for number, each in enumerate(received))
    (folder / f"{NAME}.fasta").write_text(text)
    run(request, "decode.py", config(request, state["length"]))
    return back.read_bytes(), None


if __name__ == "__main__":
    protocol.serve(protocol.Peer(version, encode, decode))
