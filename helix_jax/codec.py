"""THE MAP: video (or bytes) -> strands of DNA and back, in the order of the data.

    clip uint8[T, H, W, 3]
      | tokenizer.tiles      Haar patches -> causal conv net -> FSQ: k base-4 digits per token
      | rate                 which digits are worth their nucleotides
    tokens uint8[t, h, w, k]
      | coding               raw digits, or entropy-coded under an exact integer model (prior)
      | tk_scone.mixing      raw: neighbours to different strands; digits made uniform
    payload bytes
      | strands.outer        RaptorQ: repair packets
      | strands.packets      index + payload + check
      | strands.header       what the decoder must know, in strands of its own
    words uint32[n, ceil(K / 32)]
      | tk_scone.coder       constraint automaton + range coder: bits -> bases
    strands uint8[n, L] -> FASTA

``encode`` and ``decode`` do this for video, ``pack`` and ``unpack`` for bytes.
"""

import dataclasses
import hashlib
import math
from dataclasses import dataclass

import numpy as np

from helix_jax import coding, parallel, rate
from helix_jax.config import CodecConfig
from helix_jax.prior import conceal as guesses
from helix_jax.strands import checker, outer, packets
from helix_jax.strands import header as headers
from helix_jax.tk_scone import coder, constraints, mixing, tables
from helix_jax.tokenizer import conceal, tiles
from helix_jax.video import VideoInfo
from helix_jax.weights import Model

BATCH = 16384  # strands per call of the constrained coder: one compilation serves pools of any size


class DecodeError(ValueError):
    """The pool cannot be decoded; the message says why and what would help."""


@dataclass(frozen=True, eq=False)
class Pool:
    """A written pool.

    strands: uint8[n, L + primers], header strands first. header: what the decoder will read.
    layout: how the bits of a strand are shared out. constraints: the set they obey.
    header_strands: how many of them carry the header.
    """

    strands: np.ndarray
    header: headers.Header
    layout: packets.PacketLayout
    constraints: constraints.Constraints
    header_strands: int


@dataclass(frozen=True)
class Report:
    """What became of a pool's strands; counts of strands, packets and tokens.

    unreadable: strands that break the constraints or fail their check (damaged, or of another pool).
    rejected: packets that passed their check and were found to be wrong by the payload's hash.
    lost_packets of source_packets: past the outer code's reach. lost_tokens: share of tokens concealed.
    verified: the hash of the whole payload matches.
    """

    strands: int
    header_strands: int
    unreadable: int
    duplicates: int
    packets: int
    packets_received: int
    source_packets: int
    lost_packets: int
    rejected: int
    lost_tokens: float
    verified: bool


# ---- video -----------------------------------------------------------------------------------------


def encode(video, model: Model, config: CodecConfig, *, prior=None, motifs=(), key=None, progress=None) -> Pool:
    """Video -> pool of strands.

    video: helix_jax.video reader (``info`` and ``blocks(n)``). prior: prior.weights.Prior of the tokenizer; without it
    tokens are written raw. config: quality, rate and budget among the rest. key: 8 bytes, the pool's id; by default a
    hash of the content, so that the same clip gives the same pool. progress: called as progress(station, done, total).
    Raises ConstraintError, VideoError or ValueError with the reason.
    """
    _check_pair(model, prior)
    _check_rate(config)
    info = video.info
    chosen, table = _station(config, motifs, progress)
    step = _at(progress, "tokens", info.frames)
    positions = tiles.encode(model.params, model.config, video.blocks(), info.height, info.width, step, positions=True)
    coded, layout = _within_rate(positions, info, config, prior, table, progress)
    if config.verify:
        coding.verify(coded, prior, progress=progress)
    key = key or _content_key(coded.tokens, info)
    payload = mixing.to_bytes(mixing.mix(coded.symbols(layout, config.mixing), key, config.mixing))
    fields = {
        "kind": "video",
        "mode": coded.mode,
        "frames": info.frames,
        "height": info.height,
        "width": info.width,
        "fps": info.fps,
        "digits": coded.tokens.shape[-1],
        "model_hash": model.digest[:8],
        "prior_hash": prior.digest[:6] if prior and coded.mode != "raw" else bytes(6),
    }
    return _write(payload, coded.content_bytes, fields, chosen, table, layout, config, key, progress)


def _check_rate(config):
    if not 0 <= config.quality <= rate.BEST:
        raise ValueError(f"quality {config.quality}: give 0 to {rate.BEST}")
    if config.rate < 0 or config.budget < 0:
        raise ValueError(f"rate {config.rate:g}, budget {config.budget}: give more than 0 nucleotides")
    if config.quality < rate.BEST and (config.rate or config.budget):
        raise ValueError("quality, or a rate or budget of nucleotides: give one of them")


def _within_rate(positions, info, config, prior, table, progress):
    """Positions -> (coding.Coding, packets.PacketLayout) at the quality that the configuration asks for."""
    rungs = rate.ladder(positions.shape[-1], config.mode != "raw" and prior is not None)

    def attempt(rung):
        tokens, _ = rate.tokens_at(rung, positions, prior, progress=progress)
        coded = coding.encode(tokens, config.mode, prior, progress=progress)
        layout = coded.layout(table.bits, config.strands.redundancy)
        return (coded, layout), (layout.packets + headers.header_strands(table.bits)) * _total_length(config.strands)

    if not config.rate and not config.budget:
        return attempt(rate.rung_of(rungs, config.quality))[0]
    limits = [config.rate * info.frames * info.height * info.width, config.budget]
    budget = min(limit for limit in limits if limit)
    found, least = rate.best_within(rungs, attempt, int(budget))
    if found is None:
        raise ValueError(
            f"{int(budget):,} nucleotides are too few: this clip takes {least:,} at the lowest quality of mode "
            f"{config.mode}; give more, or less redundancy, or a smaller picture"
        )
    return found


def decode(strands, model: Model, *, prior=None, motifs=(), primers=("", ""), key=None, progress=None):
    """Pool -> video.

    strands: dict of length -> uint8[n, length], as ``fasta.read`` gives. model, prior: as given to ``encode``.
    The prior guesses lost tokens; without it their neighbours are copied.
    Returns (VideoInfo, iterator of uint8[n, H, W, 3] blocks, Report). Lost tokens are concealed and counted
    in the report. Raises DecodeError when nothing can be shown.
    """
    _check_pair(model, prior)
    received = read_pool(strands, motifs=motifs, primers=primers, key=key, progress=progress)
    head, recovered = received.header, received.recovered
    _check_header(head, model, prior)
    lost = recovered.lost | recovered.suspect
    if lost.all():
        raise DecodeError(
            "the payload does not match its hash, and no surplus of strands tells which packet is wrong: "
            "more strands are needed"
            if recovered.suspect.any()
            else f"none of the {len(lost)} source packets can be recovered: more strands are needed"
        )
    info = VideoInfo(frames=head.frames, height=head.height, width=head.width, fps=head.fps)
    grid = tiles.grid_shape(info.frames, info.height, info.width)
    symbols = mixing.unmix(_digits(received), head.key, head.mixing)
    try:
        tokens, missing = coding.decode(
            head.mode, grid, head.digits, symbols, lost, head.mixing, prior, progress=progress
        )
    except coding.CodingError as error:
        raise DecodeError(str(error)) from error
    if missing.all():
        raise DecodeError(
            f"every segment of the video has lost some of its {len(lost)} packets: more strands are needed"
        )
    if missing.any():
        tokens = guesses.fill_lost(prior, tokens, missing) if prior else conceal.fill_lost(tokens, missing)
    tokens = rate.whole_tokens(tokens, model.config.digits)
    step = _at(progress, "pictures", info.frames)
    blocks = tiles.decode(model.params, model.config, tokens, info.frames, info.height, info.width, step)
    return info, blocks, dataclasses.replace(received.report, lost_tokens=float(missing.mean()))


def _check_pair(model, prior):
    if prior is not None and prior.tokenizer != model.digest:
        raise ValueError(
            f"the prior belongs to tokenizer {prior.tokenizer[:8].hex()}, not to {model.digest[:8].hex()}: "
            "give the two that were trained together, with --model and --prior"
        )


def _check_header(head, model, prior):
    if head.kind != "video":
        raise DecodeError("this pool holds bytes, not video: use `helix-jax unpack`")
    if head.model_hash != model.digest[:8]:
        raise DecodeError(
            f"this pool was encoded with model {head.model_hash.hex()}, not {model.digest[:8].hex()}: "
            "give that one with --model"
        )
    if not 1 <= head.digits <= model.config.digits:
        raise DecodeError(f"the header says {head.digits} digits a token, the model has {model.config.digits}: forged?")
    tokens = math.prod(tiles.grid_shape(head.frames, head.height, head.width))
    room = 4 * head.symbol_bytes // head.digits * head.sources
    if head.mode == "raw" and (tokens > room or 4 * head.symbol_bytes % head.digits):
        raise DecodeError(
            f"the header says {head.frames} frames of {head.width}x{head.height} pixels, {tokens:,} tokens of "
            f"{head.digits} digits, and the payload has room for {room:,}: forged?"
        )
    if head.mode != "raw" and (prior is None or prior.digest[:6] != head.prior_hash):
        given = "none was given" if prior is None else f"not {prior.digest[:6].hex()}"
        raise DecodeError(
            f"this pool was coded in mode {head.mode} with prior {head.prior_hash.hex()}, {given}: "
            "give that one with --prior"
        )


# ---- bytes -----------------------------------------------------------------------------------------


def pack(data, config: CodecConfig, *, motifs=(), key=None, progress=None) -> Pool:
    """Bytes -> pool of strands; 0 bytes and 1 byte work too. See ``encode``."""
    chosen, table = _station(config, motifs, progress)
    layout = packets.plan(table.bits, len(data), config.strands.redundancy)
    key = key or _content_key(np.frombuffer(data, np.uint8), None)
    padded = data.ljust(layout.sources * layout.symbol_bytes, b"\0")
    symbols = mixing.from_bytes(np.frombuffer(padded, np.uint8).reshape(-1, layout.symbol_bytes))
    payload = mixing.to_bytes(mixing.mix(symbols, key, config.mixing))
    return _write(payload, len(data), {"kind": "bytes"}, chosen, table, layout, config, key, progress)


def unpack(strands, *, motifs=(), primers=("", ""), key=None, progress=None):
    """Pool -> (bytes, Report). Raises DecodeError unless every byte is recovered and the payload's hash matches."""
    received = read_pool(strands, motifs=motifs, primers=primers, key=key, progress=progress)
    if received.header.kind != "bytes":
        raise DecodeError("this pool holds video, not bytes: use `helix-jax decode`")
    report = received.report
    if report.lost_packets:
        raise DecodeError(
            f"{report.lost_packets} of {report.source_packets} source packets are lost or doubtful, "
            "past the repair packets: more strands are needed"
        )
    if not report.verified:
        raise DecodeError(
            "the bytes do not match their hash, and the wrong packet cannot be located: nothing is returned"
        )
    symbols = mixing.unmix(_digits(received), received.header.key, received.header.mixing)
    return mixing.to_bytes(symbols).tobytes()[: received.header.content_bytes], report


# ---- strands, both ways ----------------------------------------------------------------------------------


def _station(config, motifs, progress):
    step = _at(progress, "tables", 1)  # seconds where motifs or a right primer make the automaton large
    if step:
        step(0)
    primers = config.strands
    chosen = constraints.custom(
        constraints.named(config.constraints), motifs=motifs, left=primers.left_primer, right=primers.right_primer
    )
    table = tables.load(chosen, config.strands.length)
    if step:
        step(1)
    return chosen, table


def _write(payload, content_bytes, fields, chosen, table, layout, config, key, progress):
    """Payload uint8[sources, symbol bytes] -> Pool."""
    blob = payload.tobytes()
    layout = dataclasses.replace(layout, payload_bytes=len(blob))
    symbols = outer.encode(layout, blob)
    head = headers.Header(
        constraints=chosen.name,
        tables_hash=table.digest[:8],
        key=key,
        content_bytes=content_bytes,
        digest=outer.payload_digest(blob),
        sources=layout.sources,
        symbol_bytes=layout.symbol_bytes,
        index_bits=layout.index_bits,
        check_bits=layout.check_bits,
        repairs=layout.repairs,
        mixing=config.mixing,
        **fields,
    )
    first = headers.header_packets(head, table.bits)
    words = np.concatenate([first, packets.pack(layout, key, np.arange(len(symbols)), symbols)])
    arrays, shape = coder.on_device(table)
    step = _at(progress, "strands", len(words))
    bases = parallel.map_batches(coder.write, arrays, words, batch=BATCH, progress=step, shape=shape)
    left, right = (constraints.to_bases(p, "primer").astype(np.uint8) for p in (chosen.left, chosen.right))
    ends = [np.tile(p, (len(bases), 1)) for p in (left, right)]
    return Pool(np.concatenate([ends[0], bases, ends[1]], axis=1), head, layout, chosen, len(first))


@dataclass(frozen=True, eq=False)
class Received:
    """What ``read_pool`` found: the header, the layout it implies, the payload as far as it goes, and the report."""

    header: headers.Header
    layout: packets.PacketLayout
    constraints: constraints.Constraints
    length: int
    recovered: outer.Recovered
    report: Report


def find_header(strands, *, motifs=(), primers=("", ""), key=None, progress=None):
    """Find the header of a pool by trying the named sets on each strand length.

    Returns (Header, Constraints, Tables, words uint32[n, W] of the readable strands that are not header strands,
    number of distinct strands, number of header strands).
    Raises DecodeError if there is none, or more than one and ``key`` does not pick one.
    """
    found, refused = {}, None
    for total, group in sorted(strands.items(), key=lambda item: -len(item[1])):
        length = total - len(primers[0]) - len(primers[1])
        if length < 1:
            continue
        core = np.unique(group[:, len(primers[0]) : len(primers[0]) + length], axis=0)
        for chosen in _likely_sets(core, motifs, primers):
            try:
                table = tables.load(chosen, length)
                readable = headers.usable(table.bits)
            except constraints.ConstraintError:
                continue
            if not readable:
                continue
            arrays, shape = coder.on_device(table)
            words, ok = parallel.map_batches(coder.read, arrays, core, batch=BATCH, shape=shape)
            try:
                valid, is_header = headers.find_headers(words[ok], table.bits)
            except headers.HeaderError as error:
                refused = error
                continue
            valid = [h for h in valid if h.constraints == chosen.name and h.tables_hash == table.digest[:8]]
            for head in valid:
                found[head.key] = (head, chosen, table, words[ok][~is_header], len(core), int(is_header.sum()))
            if valid:
                break
    if key is not None:
        found = {k: v for k, v in found.items() if k == key}
    if not found and refused:
        raise DecodeError(str(refused)) from refused
    if not found:
        raise DecodeError(
            "no header strand of a helix_jax pool can be read"
            + (f" with key {key.hex()}" if key else "")
            + ": too few strands, other primers or motifs (give the ones used when writing), or not such a pool"
        )
    if len(found) > 1:
        raise DecodeError("several pools are mixed: pick one with --key " + " or --key ".join(k.hex() for k in found))
    return next(iter(found.values()))


def _likely_sets(core, motifs, primers):
    """The named sets in the order worth trying: fewest violations in a sample first, then the tightest rules."""
    sample = core[np.linspace(0, len(core) - 1, min(len(core), 2000)).astype(int)]
    choices = [
        constraints.custom(s, motifs=motifs, left=primers[0], right=primers[1]) for s in constraints.NAMED.values()
    ]
    broken = [checker.check(sample, choice).violations for choice in choices]
    order = sorted(range(len(choices)), key=lambda n: (broken[n], n))
    return [choices[n] for n in order if broken[n] < len(sample)]


def read_pool(strands, *, motifs=(), primers=("", ""), key=None, progress=None) -> Received:
    """Strands -> payload, as far as the outer code reaches; see ``decode``."""
    if not strands:
        raise DecodeError("no strands")
    head, chosen, table, words, distinct, header_strands = find_header(
        strands, motifs=motifs, primers=primers, key=key, progress=progress
    )
    layout = head.layout(table.bits)
    index, symbols, good = packets.unpack(layout, head.key, words)
    index, symbols = index[good], symbols[good]
    step = progress and (lambda _, blocks: progress("repair", 1, blocks))
    recovered = outer.decode(layout, index, symbols, outer.matching(head.digest), step)
    everything = sum(len(group) for group in strands.values())
    report = Report(
        strands=everything,
        header_strands=header_strands,
        unreadable=distinct - header_strands - len(index),
        duplicates=everything - distinct,
        packets=layout.packets,
        packets_received=len(np.unique(index)),
        source_packets=layout.sources,
        lost_packets=int((recovered.lost | recovered.suspect).sum()),
        rejected=len(recovered.rejected),
        lost_tokens=0.0,
        verified=recovered.verified,
    )
    return Received(head, layout, chosen, table.length, recovered, report)


def _digits(received):
    """Recovered payload as digits uint8[sources, 4 * symbol bytes]."""
    payload = np.frombuffer(received.recovered.payload, np.uint8)
    return mixing.from_bytes(payload.reshape(received.layout.sources, received.layout.symbol_bytes))


def _total_length(strands):
    return strands.length + len(strands.left_primer) + len(strands.right_primer)


def _content_key(content, info):
    return hashlib.sha256(repr((info, content.shape)).encode() + content.tobytes()).digest()[:8]


def _at(progress, station, total):
    """The progress callback of one station: called with how many more of ``total`` are done."""
    return progress and (lambda done: progress(station, done, total))


# ---- figures -----------------------------------------------------------------------------------------


def densities(strands, bits, length, content_bytes):
    """(gross, net) in bits per nucleotide (DESIGN section 1, promise 3).

    gross: K / L of the constrained coder. net: content bits over all nucleotides of all strands, header, index, check,
    repair and primers included.
    """
    return bits / length, 8 * content_bytes / strands.size if strands.size else 0.0


__all__ = [
    "DecodeError",
    "Pool",
    "Report",
    "decode",
    "densities",
    "encode",
    "pack",
    "read_pool",
    "unpack",
]
