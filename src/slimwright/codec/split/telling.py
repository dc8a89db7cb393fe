"""What is said of a split: its cuts, its alternatives and what to know of them, as records and as a table."""

from collections.abc import Sequence
from dataclasses import asdict

from slimwright.codec.split.beside import ON_PHONE, RAW, SPLIT, Way
from slimwright.codec.split.links import Link
from slimwright.codec.split.planning import Planned
from slimwright.codec.split.rates import step_of
from slimwright.codec.split.records import Alternative, CutRecord, LinkRecord, Manifest, Measured, Parts, Predicted
from slimwright.codec.split.timing import Machines, Times
from slimwright.codec.split.trying import Results

HEADS = ("way", "bytes", "largest", "phone ms", "link ms", "server ms", "total ms", "metric")


def parts_record(times: Times) -> Parts:
    """Return times as a record."""
    return Parts(**asdict(times))


def link_record(link: Link, machines: Machines) -> LinkRecord:
    """Return a link and the machines as a record."""
    return LinkRecord(**asdict(link), **asdict(machines))


def cut_records(plans: Sequence[Planned], results: Results, link: Link, machines: Machines) -> list[CutRecord]:
    """Return every cut with what was predicted and, of those that were tried, what was measured."""
    return [_cut_record(plan, results, link, machines) for plan in plans]


def alternatives(ways: Sequence[Way], link: Link, machines: Machines) -> list[Alternative]:
    """Return the ways as records, with their totals over a link."""
    return [
        Alternative(
            kind=way.kind,
            quality=way.quality,
            sent_bytes=way.sent_bytes,
            file_bytes=way.file_bytes,
            largest_bytes=way.largest_bytes,
            parts=parts_record(way.times),
            total_ms=total_of(way, link, machines),
            score=way.score,
        )
        for way in ways
    ]


def total_of(way: Way, link: Link, machines: Machines) -> float:
    """Return the milliseconds from the image to the answer."""
    every = way.times.total_ms(machines, link, way.sent_bytes)
    return every if way.sends else every - link.transfer_ms(0)


def notes_on(ways: Sequence[Way], link: Link, machines: Machines) -> list[str]:
    """Return what to know of a split beside the numbers."""
    totals = {way.kind: total_of(way, link, machines) for way in ways}
    notes = []
    if machines == Machines():
        notes.append("phone and server are both taken to be as fast as this machine")
    else:
        notes.append(
            f"the phone is taken to be {machines.phone_slowdown:g} times as slow as this machine, and the server "
            f"{machines.server_speedup:g} times as fast"
        )
    quicker = [kind for kind, total in totals.items() if total < totals[SPLIT]]
    notes += [f"{kind} answers sooner over this link, and has no need of the split" for kind in quicker]
    if RAW not in totals:
        notes.append("the levels of the pictures are not known, so nothing is said of JPEG, WebP and raw pictures")
    return notes


def rows_of(said: Manifest) -> list[tuple[str, ...]]:
    """Return the alternatives as rows of texts, under `HEADS`."""
    link, metric = said.link, said.metric.metric
    rows = []
    for way in said.alternatives:
        phone = (way.parts.phone_ms + way.parts.encode_ms) * link.phone_slowdown
        server = (way.parts.decode_ms + way.parts.server_ms) / link.server_speedup
        times = [phone, max(way.total_ms - phone - server, 0.0), server, way.total_ms]
        name = way.kind if way.quality is None else f"{way.kind}, quality {way.quality}"
        sizes = ["", ""] if way.kind == ON_PHONE else [f"{way.sent_bytes:,.1f}", f"{way.largest_bytes:,}"]
        rows.append((name, *sizes, *(f"{one:.2f}" for one in times), metric.shown(way.score)))
    return rows


def as_markdown(said: Manifest) -> str:
    """Return the alternatives as a table in Markdown, with the notes below."""
    link = said.link
    lines = [
        f"# {said.model}, cut behind `{said.after}`",
        "",
        f"Over {link.name}: {link.uplink_mbps:g} Mbit/s upwards, a round trip of {link.rtt_ms:g} ms. No message takes "
        f"more than {said.most_bytes} bytes. Link times are computed from the bytes; all else is measured.",
        "",
        f"| {' | '.join(HEADS)} |",
        f"|{'---|' * len(HEADS)}",
        *(f"| {' | '.join(row)} |" for row in rows_of(said)),
        "",
        *(f"- {note}" for note in said.notes),
    ]
    return "\n".join(lines) + "\n"


def _cut_record(plan: Planned, results: Results, link: Link, machines: Machines) -> CutRecord:
    tried = results.tried.get(plan.cut.after)
    measured = None
    if tried is not None:
        measured = Measured(
            step=step_of(tried.fitted.exponent),
            message_bytes=tried.message_bytes,
            largest_bytes=max(tried.sizes),
            parts=parts_record(tried.times),
            total_ms=tried.times.total_ms(machines, link, tried.message_bytes),
            drop=tried.drop,
        )
    return CutRecord(
        after=plan.cut.after,
        values=list(plan.cut.values),
        numbers=plan.cut.numbers,
        predicted=Predicted(
            message_bytes=plan.message_bytes,
            parts=parts_record(plan.times),
            total_ms=plan.times.total_ms(machines, link, plan.message_bytes),
        ),
        measured=measured,
        why=results.why.get(plan.cut.after, ""),
    )


def cut_rows(said: Manifest) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the heads and the rows of all cuts."""
    heads = ("behind", "numbers", "bytes, predicted", "ms, predicted", "bytes, measured", "ms, measured", "drop")
    rows: list[tuple[str, ...]] = []
    for cut in said.cuts:
        one = cut.measured
        seen = ("", "", "")
        if one is not None:
            seen = (f"{one.message_bytes:,.1f}", f"{one.total_ms:.2f}", said.metric.metric.number(one.drop))
        predicted = (f"{cut.predicted.message_bytes:,.1f}", f"{cut.predicted.total_ms:.2f}")
        rows.append((cut.after, f"{cut.numbers:,}", *predicted, *seen))
    return heads, rows
