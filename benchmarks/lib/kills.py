"""Jobs of the command line that are killed at moments spread over their run, and begun again: what is lost and left."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lib.jobs import command, run, surroundings
from lib.results import Row

SMALL_JOB = (
    "shrink", "lib.random_jobs:small", "--data", "lib.random_jobs:few_images_16", "--task", "imitation",
    "--macs", "0.5x", "--max-drop", "100", "--tune-epochs", "0",
)  # fmt: skip
GONE_S = 30.0  # by then, what a killed parent leaves behind must have ended by itself


@dataclass(frozen=True)
class Killed:
    """What came of a job that was not killed, and of those that were."""

    seconds: float
    winner: str
    rows: Sequence[Row]


def killed_jobs(
    job: Sequence[str],
    kills: int,
    home: Path,
    *,
    trained: str = "",
    at_a_time: int = 1,
    had: Mapping[str | int | float, Row] | None = None,
    keep: Callable[[Row], None] = lambda _: None,
) -> Killed:
    """Kill a job at `kills` moments, each from a cache that holds the network `trained` and nothing else.

    Rows of `had` are taken as they are; others are given to `keep` as they come.
    """
    whole = run([*job, "--out", str(home / "whole")], _cache(home, home / "whole-cache", trained), home / "scratch")
    if whole.status not in (0, 1):
        raise SystemExit(f"the job that was not killed: exit status {whole.status}\n{whole.said}")
    winner = _winner(home / "whole")

    def killed(number: int) -> Row:
        if had and number in had:
            return had[number]
        moment = whole.seconds * (number + 0.5) / kills
        folder = home / str(number)
        folder.mkdir()
        arguments, cache = [*job, "--out", str(folder / "out")], _cache(home, folder / "cache", trained)
        row: dict[str, str | int | float] = {"kills": kills, "number": number}
        row |= _killed(arguments, folder, cache, moment, group=number % 2 == 0)
        row |= {"same_winner": "yes" if row["status"] in (0, 1) and _winner(folder / "out") == winner else "no"}
        row |= {"saved": round(whole.seconds - float(row["seconds"]), 1)}
        shutil.rmtree(folder)
        print(json.dumps(row), file=sys.stderr, flush=True)
        keep(row)
        return row

    with ThreadPoolExecutor(at_a_time) as pool:
        return Killed(whole.seconds, winner, list(pool.map(killed, range(kills))))


def headline_of(rows: Sequence[Row]) -> dict[str, float]:
    """Return what the rows say together."""
    return {
        "kills": float(len(rows)),
        "same_winner": float(sum(row["same_winner"] == "yes" for row in rows)),
        "most_evaluations_lost": max(float(row["lost"]) for row in rows),
        "leftovers": float(sum(int(row["leftovers"]) for row in rows)),
    }


def _cache(home: Path, cache: Path, trained: str) -> Path:
    """A cache that holds the trained network alone, if there is one."""
    cache.mkdir(parents=True)
    for path in (home / "trained").glob(f"{trained}-*") if trained else ():
        shutil.copy(path, cache)
    return cache


def _killed(
    arguments: Sequence[str], folder: Path, cache: Path, moment: float, *, group: bool
) -> dict[str, str | int | float]:
    """Start the job, kill it after `moment` seconds, run it again, and look at what there is."""
    scratch = folder / "scratch"
    scratch.mkdir()
    child = subprocess.Popen(
        command(*arguments), env=surroundings(cache, scratch), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    time.sleep(moment)
    if child.poll() is None:
        (os.killpg if group else os.kill)(child.pid, signal.SIGKILL)
        child.wait()
    journaled, lost = _journal(cache), len(list(cache.glob("jobs/*/.*.part")))
    again = run(arguments, cache, scratch)
    kept = [line for line in journaled if line in set(_journal(cache))]
    left = _leftovers(folder)
    return {
        "moment": round(moment, 1),
        "whole_group": "yes" if group else "no",
        "lost": lost + len(journaled) - len(kept),
        "leftovers": len(left),
        "left": ", ".join(left),
        "status": again.status,
        "seconds": round(again.seconds, 1),
    }


def _journal(cache: Path) -> list[str]:
    """The whole lines of a job's journal."""
    lines = [line for path in cache.glob("jobs/*/journal.jsonl") for line in path.read_text().splitlines(True)]
    return [line for line in lines if line.endswith("\n")]


def _winner(out: Path) -> str:
    """The name of what was shipped; nothing where no bundle was written."""
    if not (out / "manifest.json").exists():
        return ""
    candidates = json.loads((out / "manifest.json").read_text())["candidates"]
    return str(next(one["name"] for one in candidates if one["chosen"]))


def _leftovers(folder: Path) -> list[str]:
    """Hidden folders and temporary files that nobody will finish, and processes of the job that still run."""
    files = {path for path in folder.rglob("*") if path.name.endswith(".part")}
    files |= {path for path in (folder / "scratch").iterdir() if path.name not in ("said", "peak")}
    until = time.monotonic() + GONE_S
    while (running := _processes(f"{folder}{os.sep}")) and time.monotonic() < until:
        time.sleep(0.5)
    return [*(str(path.relative_to(folder)) for path in sorted(files)), *running]


def _processes(mark: str) -> list[str]:
    """The command lines of the processes that have `mark` in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append((path.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found
