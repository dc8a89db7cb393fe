"""How many published networks can be captured, pruned by half, proven and exported: slimwright and torch-pruning.

    captured   the captured net gives the model's own scores, bit for bit, at batches of two and three
    pruned     half of the channels that may go are gone, it still runs, and has at least 3 % fewer parameters
    exact      its scores are the original's with those channels out of sight (`slimwright.coupling.masked`): up to 1e-8
               of the largest score in float64, up to 1e-5 in float32 where a network insists on that; `norms` counts
               norms and means over channels, which are then taken over those that are left
    exported   ONNX Runtime computes the pruned network from an ONNX file, up to 1e-4

Networks of other tasks (`other_tasks.py`: detection, segmentation, super-resolution, text, pairs, sound, video) are
cut by us alone, and counted apart; `--only other` runs just these.

Networks are those of `architectures.py`, at the image size they were published at, with random weights. The headline
counts convolutional and hybrid ones; `--kinds` runs others, which are counted apart. Each network runs in a process of
its own for each side, stage by stage within a limit in CPU seconds (`coverage_sides.py`); what crashes or hangs ends
alone. The peer (Fang et al. 2023, arXiv 2301.12900) captures nothing, and where it cuts norms over channels its result
is not compared. Seconds are CPU seconds of one process on one thread.

Every result is appended to `--rows` at once. `--resume` goes on with the latest run of the same request, keeping what
it has.
"""

import argparse
import fnmatch
import json
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from lib.architectures import KINDS, Architecture, architectures, watched
from lib.coverage_sides import LIMITS, SEED, Task, work
from lib.other_task_side import ENOUGH
from lib.other_tasks import KIND, OTHER_TASKS
from lib.results import Column, environment, keep, kept, parser, publish, show

OUT = Path(__file__).resolve().parents[1] / "out" / "coverage"
OURS, PEER = "slimwright", "torch-pruning"
SIDES = {"ours": (OURS,), "peer": (PEER,), "both": (OURS, PEER)}
HEADLINE_KINDS = ("convolutional", "hybrid")
QUICK = (  # the eight smallest convolutional networks and the two smallest hybrids of the list
    *("timm/starnet_s050", "timm/dla46x_c", "torchvision/squeezenet1_1", "torchvision/squeezenet1_0"),
    *("torchvision/shufflenet_v2_x0_5", "timm/mobilevitv2_050", "timm/mobilenetv3_small_050", "timm/lcnet_035"),
    *("timm/mobilevit_xxs", "timm/edgenext_xx_small"),
)
WALL = 6  # seconds on the clock per CPU second allowed: for what sleeps, or a machine that others use
Row = dict[str, Any]
SHORT_COLUMNS = (
    Column("kind", "kind"),
    Column("name", "network"),
    Column("captured", "captured"),
    Column("pruned", "pruned"),
    Column("params_left", "params"),
    Column("exact", "exact"),
    Column("exported", "ONNX"),
    Column("peer", "peer"),
    Column("seconds", "s", "{:.0f}"),
    Column("reason", "why"),
)
OTHER_COLUMNS = (
    Column("name", "network"),
    Column("left", "params left"),
    Column("error", "off by", "{:.0e}"),
    Column("whole", "why more"),
)
SUMMARY_COLUMNS = (
    Column("kind", "kind"),
    Column("side", "side"),
    Column("models", "networks"),
    Column("captured", "captured"),
    Column("pruned", "pruned"),
    Column("exact", "exact"),
    Column("norms", "with norms"),
    Column("exported", "exported"),
    Column("seconds", "median s", "{:.1f}"),
)


@dataclass
class Running:
    """A child process with what it has told so far."""

    task: Task
    process: BaseProcess
    pipe: "connection.Connection[Any, Any]"
    row: Row
    deadline: float = 0.0
    ended: bool = field(default=False)

    def read(self) -> None:
        """Take in all messages that have come; a closed pipe ends the task."""
        try:
            while not self.ended and self.pipe.poll():
                self._take(self.pipe.recv())
        except (EOFError, OSError):
            self._died()

    def expire(self) -> None:
        """Kill a process that is over its time on the clock."""
        self.process.kill()
        self.row["reason"] = f"{self.row['stage']}: no end in sight (out of time on the clock)"
        self._end()

    def _take(self, message: tuple[Any, ...]) -> None:
        match message:
            case ("stage", name, limit):
                self.row["stage"] = name
                self.deadline = time.monotonic() + WALL * limit + 60
            case ("seconds", name, seconds):
                self.row["stages"][name] = round(seconds, 2)
                self.deadline = time.monotonic() + 120
            case ("found", findings):
                self.row |= findings
            case ("failed", kind, detail):
                self.row["reason"] = f"{self.row['stage']}: {kind}: {detail}"
                self._end()
            case ("done",):
                self.row["stage"] = "done"
                self._end()

    def _died(self) -> None:
        self.process.join(30)
        code = self.process.exitcode or 0
        stage = self.row["stage"]
        if code == -signal.SIGPROF:
            limit = LIMITS[self.task.side][stage] * self.task.patience
            self.row["stages"][stage] = limit
            self.row["reason"] = f"{stage}: out of time ({limit:.0f} CPU s)"
        else:
            how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            self.row["reason"] = f"{stage}: the process ended with {how}"
        self._end()

    def _end(self) -> None:
        self.ended = True
        self.row["seconds"] = round(sum(self.row["stages"].values()), 1)
        self.process.join(30)
        if self.process.is_alive():
            self.process.kill()
        self.pipe.close()


def main() -> None:
    asked = options()
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # before the children load torch
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    say = Console(stderr=True, soft_wrap=True, highlight=False).print
    others = [other_task(name) for name in OTHER_TASKS]
    if asked.only == "other":
        asked.only, asked.kinds, asked.side = "", KIND, "ours"
    listed = (
        sorted(map(watched, QUICK), key=lambda one: one.params)
        if asked.quick
        else architectures(OUT)
        if asked.kinds != KIND
        else []
    )
    networks = wanted([*listed, *others], asked)
    request = json.dumps([asked.only, asked.kinds, asked.quick, asked.until])
    run, rows = earlier(asked.rows, request) if asked.resume else (datetime.now(UTC).isoformat(), [])
    have = {(row["name"], row["side"]) for row in rows}
    sides = SIDES[asked.side]
    tasks = [
        Task(one, side, asked.until, asked.patience)
        for one in networks
        for side in sides
        if side == OURS or one.kind != KIND
    ]
    tasks = [task for task in tasks if (task.architecture.name, task.side) not in have]
    for number, row in enumerate(results(tasks, asked.jobs), 1):
        rows.append(row)
        keep({"run": run, "request": request, **row}, asked.rows)
        say(f"{number}/{len(tasks)} {row['name']} {row['side']} {row['seconds']} s: {shortfall(row) or 'all'}")
    order = {one.name: number for number, one in enumerate(networks)}
    rows = sorted((row for row in rows if row["name"] in order), key=lambda row: order[row["name"]])
    report(rows, sides)
    versions = environment("torch-pruning", "timm", "torchvision", "onnxruntime", seed=SEED)
    allowed = {"limits_cpu_s": limits(asked.patience)}
    publish(asked, headline=headline(rows), rows=rows, environment={**versions, **allowed})


def other_task(name: str) -> Architecture:
    """A network of another task as one of the survey."""
    parameters = sum(parameter.numel() for parameter in OTHER_TASKS[name].make().parameters())
    return Architecture(name, KIND, OTHER_TASKS[name].shapes[0], parameters)


def options() -> argparse.Namespace:
    known = parser(__doc__ or "")
    known.add_argument("--side", choices=SIDES, default="both")
    known.add_argument("--only", metavar="PATTERNS", default="", help="networks by name: 'resnet*,timm/vgg*'; other")
    known.add_argument(
        "--kinds", metavar="KINDS", default=",".join((*HEADLINE_KINDS, KIND)), help=f"of {','.join((*KINDS, KIND))}"
    )
    known.add_argument("--jobs", type=int, default=2, help="how many processes at once")
    known.add_argument("--until", default="", choices=["", *LIMITS[OURS]], help="stop behind this stage")
    known.add_argument("--patience", type=float, default=1.0, help="multiplies every limit")
    known.add_argument("--rows", type=Path, metavar="FILE", default=OUT / "rows.jsonl", help="results, as they come")
    known.add_argument("--resume", action="store_true", help="go on with the latest run of this request")
    return known.parse_args()


def limits(patience: float) -> dict[str, dict[str, float]]:
    """CPU seconds per side and stage, as this run allowed them."""
    return {side: {stage: most * patience for stage, most in stages.items()} for side, stages in LIMITS.items()}


def wanted(networks: Sequence[Architecture], asked: argparse.Namespace) -> list[Architecture]:
    """Those that were asked for, small ones first."""
    patterns = [pattern.strip() for pattern in asked.only.split(",") if pattern.strip()]
    chosen = [
        one
        for one in networks
        if one.kind in asked.kinds.split(",")
        and (
            not patterns
            or any(fnmatch.fnmatch(name, p) for p in patterns for name in (one.name, one.name.partition("/")[2]))
        )
    ]
    if not chosen:
        raise SystemExit(f"no network is called {asked.only!r}; names are like timm/resnet10t and torchvision/resnet18")
    return chosen


def earlier(path: Path, request: str) -> tuple[str, list[Row]]:
    """The latest run of the same request: its name, and its rows."""
    same = [line for line in kept(path) if line["request"] == request]
    if not same:
        return datetime.now(UTC).isoformat(), []
    run = str(same[-1]["run"])
    return run, [{k: v for k, v in line.items() if k not in ("run", "request")} for line in same if line["run"] == run]


def results(tasks: Sequence[Task], jobs: int) -> Iterator[Row]:
    """Run every task in a fresh process, `jobs` at a time, and yield its row when it has ended, however it did."""
    waiting = list(reversed(tasks))
    running: list[Running] = []
    while waiting or running:
        while waiting and len(running) < jobs:
            running.append(started(waiting.pop()))
        patience = max(0.0, min(one.deadline for one in running) - time.monotonic())
        connection.wait([one.pipe for one in running], timeout=patience)
        for one in running:
            one.read()
            if not one.ended and time.monotonic() > one.deadline:
                one.expire()
        yield from (one.row for one in running if one.ended)
        running = [one for one in running if not one.ended]


def started(task: Task) -> Running:
    one = task.architecture
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lib.preloaded"])  # found by PYTHONPATH: the server gets no other path
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(task, theirs), daemon=True)
    process.start()
    theirs.close()
    row: Row = {
        "name": one.name, "kind": one.kind, "side": task.side, "params": one.params, "image": list(one.image_shape),
        "captured": False, "pruned": False, "exact": False, "exported": False, "norms": 0, "params_left": 1.0,
        "stage": "start", "stages": {}, "seconds": 0.0, "reason": "",
    }  # fmt: skip
    return Running(task, process, ours, row, deadline=time.monotonic() + 300)


def shortfall(row: Row) -> str:
    """Why a network is not all that it should be, or nothing."""
    reasons = [row["reason"]] if row["reason"] else []
    stages = row["stages"]
    if row["side"] == OURS and not row["captured"] and "compare" in stages and "capture_error" in row:
        reasons.append(f"capture is off by {row['capture_error']:.0e}")
    if not row["pruned"] and "params_left" in row and ("forward" in stages or "prune" in stages) and not reasons:
        frozen = next(iter(row.get("frozen") or {"": 0}))
        reasons.append(f"{row['params_left']:.1%} of the parameters are left{': ' + frozen if frozen else ''}")
    if not row["exact"] and "error" in row:
        reasons.append(f"off by {row['error']:.0e}, where pruning changes {row['effect']:.0e}")
    if not row["exported"] and "export_error" in row:
        reasons.append(f"ONNX Runtime is off by {row['export_error']:.0e}")
    return "; ".join(reasons)


def report(rows: Sequence[Row], sides: Sequence[str]) -> None:
    """Print what falls short on the first side, then how many of each kind do not."""
    peers = {row["name"]: row for row in rows if row["side"] == PEER}
    short = [
        {
            **{key: row[key] for key in ("name", "kind")},
            **{key: "yes" if row[key] else "-" for key in ("captured", "pruned", "exact", "exported")},
            "params_left": f"{row['params_left']:.0%}",
            "peer": ("pruned" if peers[row["name"]]["pruned"] else "-") if row["name"] in peers else "",
            "seconds": row["seconds"],
            "reason": shortfall(row)[:160],
        }
        for row in rows
        if row["side"] == sides[0] and shortfall(row)
    ]
    if short:
        short.sort(key=lambda row: (*KINDS, KIND).index(row["kind"]))
        show(f"What falls short: {sides[0]}", SHORT_COLUMNS, short, sections=("kind",))
    other = [
        {"whole": "", "error": math.nan, **row, "left": f"{row['params_left']:.2f}"}
        for row in rows
        if row["kind"] == KIND
    ]
    if other:
        show(f"Other tasks: parameters left after halving (at most {ENOUGH}, or why)", OTHER_COLUMNS, other)
    show("Networks by kind", SUMMARY_COLUMNS, summary(rows, sides), sections=("kind",))


def summary(rows: Sequence[Row], sides: Sequence[str]) -> list[Row]:
    found = []
    for kind in (*KINDS, KIND):
        for side in sides:
            mine = [row for row in rows if row["kind"] == kind and row["side"] == side]
            if mine:
                found.append(
                    {
                        "kind": kind,
                        "side": side,
                        "models": len(mine),
                        "captured": sum(row["captured"] for row in mine) if side == OURS else "",
                        **{key: sum(bool(row[key]) for row in mine) for key in ("pruned", "exact", "exported")},
                        "norms": sum(bool(row["pruned"] and row["norms"]) for row in mine),
                        "seconds": median(row["seconds"] for row in mine),
                    }
                )
    return found


def headline(rows: Sequence[Row]) -> dict[str, float]:
    """Counts over convolutional and hybrid networks; those of the other kinds under names of their own."""
    found: dict[str, float] = {}
    for prefix, kinds in (("", HEADLINE_KINDS), ("other_", tuple(k for k in KINDS if k not in HEADLINE_KINDS))):
        mine = [row for row in rows if row["kind"] in kinds]
        if not mine:
            continue
        ours = [row for row in mine if row["side"] == OURS]
        peer = [row for row in mine if row["side"] == PEER]
        found[f"{prefix}models"] = len({row["name"] for row in mine})
        found[f"{prefix}captured"] = sum(row["captured"] for row in ours)
        found[f"{prefix}pruned_exact"] = sum(row["pruned"] and row["exact"] for row in ours)
        found[f"{prefix}exported_equal"] = sum(row["pruned"] and row["exported"] for row in ours)
        found[f"{prefix}peer_pruned"] = sum(row["pruned"] for row in peer)
        found[f"{prefix}peer_pruned_exact"] = sum(row["pruned"] and row["exact"] for row in peer)
        found[f"{prefix}peer_exported_equal"] = sum(row["pruned"] and row["exported"] for row in peer)
    other = [row for row in rows if row["kind"] == KIND]
    if other:
        found["other_tasks"] = len(other)
        found["other_tasks_exact"] = sum(row["captured"] and row["pruned"] and row["exact"] for row in other)
        found["other_tasks_exported_equal"] = sum(row["pruned"] and row["exported"] for row in other)
    return found


if __name__ == "__main__":
    main()
