"""Nets cut in two for a link: bytes, time and metric beside JPEG, WebP and the whole net on the phone.

Two classifiers of 32x32 glyphs and a detector of glyphs in 64x64 scenes are trained here. Every cut is predicted and
every cut is measured, so that what the prediction would have chosen can be compared with the best one. A cut counts for
a link where its mean message takes at most a fifth of what a JPEG takes; JPEG is counted at its smaller size, without
the tables that both sides could know, at the lowest quality that costs as little of the metric on validation images.
Phones are taken to be `PHONE` times as slow as this machine. Times of parts come from one process in which all
artefacts have their turns, and totals add the link's. A cut's regret is told with the link's round trip, as a
user feels it, and without, where it cannot hide a wrong choice; of all cuts, and of those that are small enough.

Where a JPEG is already small, the server's part is trained for coarser messages, with the original as teacher: "split,
trained" is the cut for 4G after `--tune-minutes`.

Ten thousand images, some random, some perturbed, some hostile, are sent through each net's chosen cuts: how many of
their messages exceed the cap. The test part takes no part in any choice.
"""

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from lib.kept_nets import trained_once
from lib.own_nets import OWN
from lib.results import Column, Row, environment, keep, kept, parser, publish, rows_file, show
from lib.structured_networks import DATA, trained
from slimwright.codec.split.beside import SPLIT, Way, ways_beside
from slimwright.codec.split.job import JUDGED, RUNTIME, Job, Request
from slimwright.codec.split.judging import Judge
from slimwright.codec.split.links import Link, links
from slimwright.codec.split.making import plans_of, way_of
from slimwright.codec.split.message import message
from slimwright.codec.split.planning import Planned
from slimwright.codec.split.telling import total_of
from slimwright.codec.split.timing import ID, Machines
from slimwright.codec.split.trying import Results, Tried, tried
from slimwright.data import Dataset, Inputs, count_of, digits, taken
from slimwright.errors import ModelError
from slimwright.graph import Net, load_net, save_net
from slimwright.importers import capture
from slimwright.measure import original_of
from slimwright.progress import Tell, silent
from slimwright.runtimes import Workshop
from slimwright.targets import Local
from slimwright.tasks import task_for
from slimwright.techniques import fold_batch_norm
from slimwright.train import Schedule
from slimwright.zoo import build

OUT = Path(__file__).resolve().parents[1] / "out" / "split"
SEED = 0
CLASSIFIERS = ("resnet20", "mobilenet-v2-half")
DETECTOR = "detector"
QUICK = ("resnet8",)  # of digits: trained in seconds
PHONE, SERVER = 4.0, 1.0  # times as slow, and as fast, as this machine
MAX_DROP, SHARE = 1.0, 5  # points, and the part of a JPEG that a message may take
HOSTILE, QUICK_HOSTILE = 10_000, 1_000
AT_ONCE, STEPS = 250, 3  # images, and steps of an attack that enlarges messages
TRIED = 3  # cuts that the product measures
TRAINED, QUICK_MINUTES = "split, trained", 0.1
MACHINES = Machines(PHONE, SERVER)
LINK = links()["4g"]
REGRETS = ("cut_regret_percent", "cut_regret_without_trip_percent", "cut_regret_of_three_percent")
COLUMNS = (
    Column("network", "network"),
    Column("link", "link"),
    Column("way", "way"),
    Column("bytes", "bytes", "{:.1f}"),
    Column("largest_bytes", "largest", "{:,.0f}"),
    Column("total_ms", "ms", "{:.2f}"),
    Column("score", "metric", "{:.2f}"),
    Column("lost_points", "points lost", "{:.2f}"),
)


def main() -> None:
    known = parser(__doc__ or "")
    known.add_argument("--networks", default=",".join((*CLASSIFIERS, DETECTOR)), help="any of these, or vgg16-half")
    known.add_argument("--tune-minutes", type=float, default=5.0, help="for the server's part, of each net; 0: none")
    asked = known.parse_args()
    torch.set_num_threads(1)
    path = rows_file(asked, OUT)
    minutes = QUICK_MINUTES if asked.quick else asked.tune_minutes
    for name in QUICK if asked.quick else asked.networks.split(","):
        known_rows: list[Row] = [row for row in kept(path) if row["network"] == name]
        if not known_rows:
            known_rows = list(rows_of(name, QUICK_HOSTILE if asked.quick else HOSTILE))
            for row in known_rows:
                keep(row, path)
        if minutes and not any(row.get("way") == TRAINED for row in known_rows):
            after = next(str(row["cut"]) for row in known_rows if row.get("way") == SPLIT and row["link"] == LINK.name)
            keep(trained_row(name, after, minutes), path)
    rows = kept(path)
    show("Split inference", COLUMNS, [row for row in rows if "score" in row], sections=("network", "link"))
    publish(asked, headline=headline(rows), rows=rows, environment=environment("onnxruntime", "pillow", seed=SEED))


def rows_of(name: str, hostile: int) -> Iterator[Row]:
    """Every way over every link, and how many messages of hostile images exceed the cap."""
    tell = Console(stderr=True, soft_wrap=True, highlight=False).print
    with tempfile.TemporaryDirectory() as folder, Workshop() as workshop:
        job = _job(name, workshop, Path(folder), lambda event: tell(f"{name}: {event}"))
        whole = workshop.convert(job.net, RUNTIME, "fp32", Path(folder) / "whole")
        plans = plans_of(job, whole)
        results = tried(job, plans, whole)
        last = Judge.of(job.original, job.data, job.task, "test")
        beside = ways_beside(job, last, results.whole_ms)
        jpeg = min((way for way in beside if way.kind.startswith("JPEG")), key=lambda way: way.sent_bytes)
        most = jpeg.sent_bytes / SHARE
        found: dict[str, Way] = {}
        for link in links().values():
            best = _best(results, link, most)
            after = best.cut.after
            found[after] = found.get(after) or way_of(job, best, last)
            for way in (found[after], *beside):
                yield _row(name, link, way, after if way is found[after] else "", last)
            for limit, size in (("a fifth of a JPEG", most), ("none", math.inf)):
                regrets = _regrets(plans, results, link, size)
                yield {"network": name, "link": link.name, "cuts": len(plans), "limit": limit, **regrets}
        for after in found:
            chosen = results.tried[after]
            sizes = _hostile_sizes(chosen, last.inputs, hostile)
            exceeded = sum(size > chosen.most_bytes for size in sizes)
            yield {
                "network": name,
                "cut": after,
                "hostile": len(sizes),
                "cap": chosen.most_bytes,
                "largest_hostile": max(sizes),
                "cap_exceeded": exceeded,
            }


def trained_row(name: str, after: str, minutes: float) -> Row:
    """A cut whose server's part is trained for coarser messages."""
    with tempfile.TemporaryDirectory() as folder, Workshop() as workshop:
        job = _job(name, workshop, Path(folder), silent)
        job = replace(job, request=replace(job.request, tune_minutes=minutes))
        whole = workshop.convert(job.net, RUNTIME, "fp32", Path(folder) / "whole")
        plans = [plan for plan in plans_of(job, whole) if plan.cut.after == after]
        chosen = tried(job, plans, whole).tried[after]
        last = Judge.of(job.original, job.data, job.task, "test")
        return _row(name, LINK, way_of(job, chosen, last), after, last) | {"way": TRAINED, "minutes": minutes}


def headline(rows: Sequence[Row]) -> dict[str, float]:
    """The worst of all nets and links."""
    ways = [row for row in rows if "score" in row]
    jpeg: dict[object, float] = {}
    for row in ways:
        if str(row["way"]).startswith("JPEG"):
            jpeg[row["network"]] = min(float(row["bytes"]), jpeg.get(row["network"], math.inf))

    def worst(way: str, key: Callable[[Row], float]) -> float:
        return max((key(row) for row in ways if row["way"] == way), default=math.nan)

    def share(row: Row) -> float:
        return float(row["bytes"]) / jpeg[row["network"]]

    regrets = [row for row in rows if "cut_regret_percent" in row]
    classifiers = [row for row in ways if row["way"] == SPLIT and row["network"] != DETECTOR]
    return {
        "bytes_over_jpeg": worst(SPLIT, share),
        "bytes_over_jpeg_classifiers": max(map(share, classifiers), default=math.nan),
        "bytes_over_jpeg_trained": worst(TRAINED, share),
        "loss_points": worst(SPLIT, lambda row: float(row["lost_points"])),
        "loss_points_trained": worst(TRAINED, lambda row: float(row["lost_points"])),
        "cap_exceeded": sum(int(row["cap_exceeded"]) for row in rows if "cap_exceeded" in row),
        **{key: max((float(row[key]) for row in regrets), default=math.nan) for key in REGRETS},
    }


def _row(name: str, link: Link, way: Way, cut: str, last: Judge) -> dict[str, str | int | float]:
    return {
        "network": name,
        "link": link.name,
        "way": way.kind,
        "cut": cut,
        "bytes": way.sent_bytes,
        "file_bytes": way.file_bytes,
        "largest_bytes": way.largest_bytes,
        "total_ms": total_of(way, link, MACHINES),
        "score": way.score,
        "lost_points": last.task.metric.drop(last.score, way.score),
    }


def _job(name: str, workshop: Workshop, folder: Path, tell: Tell) -> Job:
    data, net = _subject(name, tell)
    original = original_of(net, [])
    task = task_for(data, original.output_shapes, original.forward, None)
    request = Request(LINK, MACHINES, max_drop=MAX_DROP, name=name, cache=OUT / "cache")
    judge = Judge.of(original, data, task, "validation", JUDGED)
    return Job(original, fold_batch_norm(original.net), data, task, request, judge, Local(), workshop, folder, tell)


def _subject(name: str, tell: Tell) -> tuple[Dataset, Net]:
    """The data and the trained net of a name."""
    if name == DETECTOR:
        return OWN[DETECTOR].data(), _detector()
    if name in QUICK:
        few = digits(SEED)
        sizes = {"classes": len(few.labels), "in_channels": few.image_shape[0]}
        schedule = Schedule(epochs=4, seed=SEED)
        return few, trained_once(name, lambda: build(name, **sizes), few, schedule, OUT, tell=tell)
    data = DATA["glyphs"]()
    return data, trained(name, "glyphs", data)


def _detector() -> Net:
    """The detector, trained once."""
    place = OUT / DETECTOR
    try:
        return load_net(place)
    except ModelError:
        net = capture(OWN[DETECTOR].trained(), OWN[DETECTOR].shapes[0])
        save_net(net, place)
        return net


def _best(results: Results, link: Link, most: float) -> Tried:
    """The cut that was measured to be best of those that are small enough and keep the metric."""
    every = list(results.tried.values())
    some = [one for one in every if one.message_bytes <= most and one.drop <= MAX_DROP]
    return min(some or every, key=lambda one: one.times.total_ms(MACHINES, link, one.message_bytes))


def _regrets(plans: Sequence[Planned], results: Results, link: Link, most: float) -> dict[str, float]:
    """By how much the cut that is predicted to be best is slower than the best one that was measured, in percent."""
    best = _best(results, link, most)
    small = [plan for plan in plans if plan.message_bytes <= most and plan.cut.after in results.tried]
    ordered = sorted(small, key=lambda plan: plan.times.total_ms(MACHINES, link, plan.message_bytes))
    chosen = [results.tried[plan.cut.after] for plan in ordered] or [best]

    def total(one: Tried, trip_ms: float) -> float:
        return one.times.total_ms(MACHINES, link, one.message_bytes) - trip_ms

    def regret(one: Tried, trip_ms: float = 0.0) -> float:
        return max(100 * (total(one, trip_ms) / total(best, trip_ms) - 1), 0.0)

    few = min(chosen[:TRIED], key=lambda one: total(one, 0.0))
    return dict(zip(REGRETS, (regret(chosen[0]), regret(chosen[0], link.rtt_ms), regret(few)), strict=True))


def _hostile_sizes(chosen: Tried, inputs: Inputs, count: int) -> list[int]:
    """The bytes of the messages of hostile images."""
    rng, sizes = torch.Generator().manual_seed(SEED), list[int]()
    phone = chosen.fitted.phone
    for number in range(math.ceil(count / AT_ONCE)):
        images = taken(inputs, torch.randint(count_of(inputs), (AT_ONCE,), generator=rng))
        assert isinstance(images, Tensor)
        given = KINDS[number % len(KINDS)](images, rng, chosen)
        values = [one.numpy() for one in phone.run((given,))]
        sizes += [
            len(message(one, chosen.fitted.tables, ID, chosen.most_bytes)) for one in chosen.fitted.of_each(values)
        ]
    return sizes[:count]


def _noisy(images: Tensor, rng: torch.Generator, _: Tried) -> Tensor:
    return images + torch.randn(images.shape, generator=rng) * torch.rand(len(images), 1, 1, 1, generator=rng) * 3


def _noise(images: Tensor, rng: torch.Generator, _: Tried) -> Tensor:
    return torch.randn(images.shape, generator=rng) * 10 ** (4 * torch.rand(len(images), 1, 1, 1, generator=rng))


def _shuffled(images: Tensor, rng: torch.Generator, _: Tried) -> Tensor:
    order = torch.randperm(images[0].numel(), generator=rng)
    return images.flatten(1)[:, order].view_as(images)


def _boards(images: Tensor, rng: torch.Generator, _: Tried) -> Tensor:
    signs = torch.randint(2, images.shape, generator=rng) * 2 - 1
    return signs * (1 + 99 * torch.rand(len(images), 1, 1, 1, generator=rng))


def _attacked(images: Tensor, _: torch.Generator, chosen: Tried) -> Tensor:
    """Images moved to where their components are larger, by the sign of the gradient."""
    module, found = chosen.fitted.phone.to_module(), images.clone()
    for _step in range(STEPS):
        found.requires_grad_()
        made = module(found)
        sums = [one.abs().sum() for one in ([made] if isinstance(made, Tensor) else made)]
        (gradient,) = torch.autograd.grad(sums, found)
        found = (found + gradient.sign()).detach()
    return found


KINDS: tuple[Callable[[Tensor, torch.Generator, Tried], Tensor], ...] = (_noisy, _noise, _shuffled, _boards, _attacked)


if __name__ == "__main__":
    main()
