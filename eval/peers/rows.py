"""The peers, how each is installed, and the settings that are measured."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ADAPTERS = Path(__file__).parent / "adapters"
OURS = "helix_jax"


@dataclass(frozen=True)
class Peer:
    """A program that stores files in strands.

    Attributes:
        name: its name on the command line.
        home: its repository or package.
        script: the script that serves it (``protocol``).
        install: commands that install it.
        checkout: whether it is used from a checkout of its repository.
    """

    name: str
    home: str
    script: Path
    install: str
    checkout: bool = False


@dataclass(frozen=True)
class Row:
    """A setting of a peer.

    Attributes:
        peer: the peer.
        label: the setting in words.
        setting: the setting, as the script takes it.
        most_bytes: the most content that it is measured with, where it is slow.
        rules: the named set of ours that is nearest to its rules, which its row is compared with; "" for our own rows.
    """

    peer: Peer
    label: str
    setting: dict[str, Any] = field(default_factory=dict)
    most_bytes: int = 1 << 62
    rules: str = ""


PEERS = {
    peer.name: peer
    for peer in (
        Peer(OURS, "this repository", ADAPTERS / "ours.py", "pip install -e ."),
        Peer(
            "wukong",
            "DNAstorage-iSynBio/Storage-D (MIT)",
            ADAPTERS / "wukong.py",
            "git clone https://github.com/DNAstorage-iSynBio/Storage-D storage-d\n"
            "peers-venv/bin/pip install tqdm reedsolo pandas primer3-py",
            checkout=True,
        ),
        Peer("yyc", "Chamaeleo (MIT)", ADAPTERS / "yyc.py", "peers-venv/bin/pip install Chamaeleo reedsolo"),
        Peer(
            "hedges",
            "whpress/hedges (MIT, with Schifra, GPL-2)",
            ADAPTERS / "hedges.py",
            "git clone https://github.com/whpress/hedges hedges   # compiled with g++ when it is measured",
            checkout=True,
        ),
        Peer(
            "dna-aeon",
            "MW55/DNA-Aeon (MIT)",
            ADAPTERS / "dna_aeon.py",
            "git clone --recurse-submodules https://github.com/MW55/DNA-Aeon dna-aeon\n"
            "(cd dna-aeon && python3.9 setup.py)   # numpy must be older than 1.24",
            checkout=True,
        ),
        Peer(
            "spider-web",
            "HaolingZHANG/DNASpiderWeb (BGI research licence)",
            ADAPTERS / "spider_web.py",
            "peers-venv/bin/pip install DNASpiderWeb   # imported as dsw; the package dsw is something else",
        ),
    )
}


def ours(rules: str, length: int, redundancy: float, label: str = "") -> Row:
    """Return a row of ours."""
    setting = {"constraints": rules, "length": length, "redundancy": redundancy}
    return Row(PEERS[OURS], label or f"`{rules}`, {length} nt, redundancy {redundancy:.3g}", setting)


def wukong(label: str, check_bytes: int, parity: bool) -> Row:
    """Return a row of Wukong, with the rules of its example."""
    setting = {"length": 150, "homopolymer": 4, "check_bytes": check_bytes, "parity": parity}
    return Row(PEERS["wukong"], f"150 nt, runs <= 4, {label}", setting, rules="strand")


def hedges(label: str, rate: int) -> Row:
    """Return a row of HEDGES at one of its code rates, with strands of 300 nt including its primers."""
    return Row(PEERS["hedges"], f"rate {label}, RS(255,223)", {"rate": rate, "length": 254}, rules="helix")


def spider_web(label: str, check: int) -> Row:
    """Return a row of SPIDER-WEB."""
    setting = {"bits": 256, "index": 12, "check": check}
    return Row(PEERS["spider-web"], f"runs <= 3, GC of 10 nt, {label}", setting, 8192, rules="helix")


ROWS = (
    ours("helix", 150, 0.1),
    ours("strand", 150, 0.1),
    wukong("no check", 0, False),
    wukong("RS 4 B and parity", 4, True),
    Row(PEERS["yyc"], "240 bits a segment, runs <= 4", {"segment": 240}, rules="strand"),
    spider_web("check of 10 nt", 10),
    hedges("0.75", 1),
    hedges("0.5", 3),
    Row(PEERS["dna-aeon"], "its config.json: sync 2, redundancy 0.4", {"sync": 2, "redundancy": 0.4}, 4096, "helix"),
)
