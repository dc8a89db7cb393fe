"""The demo's job killed at moments spread over its run, each time followed by the same command: does the same ship?

Half of the kills end the whole process group, the other half the parent alone. Each starts from a cache that holds the
trained network and nothing else. What counts: whether the winner is that of a job which was not killed, how many
evaluations that were under way were lost, what is left over in the cache, beside the output, among temporary files and
processes, and how much of the time before the kill was saved.

Rows are kept as they come: a run that was stopped goes on where it was, but for `--quick`.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lib.jobs import command, run, surroundings
from lib.results import Column, Row, environment, keep, kept, parser, publish, show

MODEL = "resnet8-wide"
DEMO = ("shrink", MODEL, "--data", "digits", "--latency", "0.33x", "--max-drop", "1.0")
QUICK = (
    "shrink", "lib.random_jobs:small", "--data", "lib.random_jobs:few_images_16", "--task", "imitation",
    "--macs", "0.5x", "--max-drop", "100", "--tune-epochs", "0",
)  # fmt: skip
KILLS, QUICK_KILLS = 100, 2
ROWS = Path(__file__).resolve().parents[1] / "out" / "kills" / "rows.jsonl"
GONE_S = 30.0  # by then, what a killed parent leaves behind must have ended by itself
COLUMNS = (
    Column("moment", "killed after", "{:.1f} s"),
    Column("whole_group", "whole group"),
    Column("same_winner", "same winner"),
    Column("lost", "evaluations lost"),
    Column("leftovers", "leftovers"),
    Column("seconds", "rerun", "{:.1f} s"),
    Column("saved", "saved", "{:.1f} s"),
)


def main() -> None:
    known = parser(__doc__ or "")
    known.add_argument("--kills", type=int, default=KILLS, help="moments, spread evenly over the run")
    known.add_argument("--jobs", type=int, default=1, help="at a time; what is saved means little with several")
    known.add_argument("--rows", type=Path, metavar="FILE", default=ROWS, help="results, as they come")
    chosen = known.parse_args()
    kills = QUICK_KILLS if chosen.quick else chosen.kills
    had = {} if chosen.quick else {row["number"]: row for row in kept(chosen.rows) if row["kills"] == kills}
    with tempfile.TemporaryDirectory(prefix="kill-and-resume-") as name:
        home, job = Path(name), QUICK if chosen.quick else DEMO
        if not chosen.quick:
            run(["train", MODEL, "--data", "digits", "--out", str(home / "net")], home / "trained", home / "scratch")
        whole = run([*job, "--out", str(home / "whole")], _cache(home, home / "whole-cache"), home / "scratch")
        if whole.status not in (0, 1):
            raise SystemExit(f"the job that was not killed: exit status {whole.status}\n{whole.said}")
        winner = _winner(home / "whole")

        def killed(number: int) -> Row:
            if number in had:
                return had[number]
            moment = whole.seconds * (number + 0.5) / kills
            folder = home / str(number)
            folder.mkdir()
            arguments, cache = [*job, "--out", str(folder / "out")], _cache(home, folder / "cache")
            row = {"kills": kills, "number": number}
            row |= _killed(arguments, folder, cache, moment, group=number % 2 == 0)
            row |= {"same_winner": "yes" if row["status"] in (0, 1) and _winner(folder / "out") == winner else "no"}
            row |= {"saved": round(whole.seconds - float(row["seconds"]), 1)}
            shutil.rmtree(folder)
            print(json.dumps(row), file=sys.stderr, flush=True)
            if not chosen.quick:
                keep(row, chosen.rows)
            return row

        with ThreadPoolExecutor(chosen.jobs) as pool:
            rows = list(pool.map(killed, range(kills)))
        show(f"{kills} kills of a job of {whole.seconds:.0f} s, whose winner is '{winner}'", COLUMNS, rows)
    headline = {
        "kills": float(kills),
        "same_winner": float(sum(row["same_winner"] == "yes" for row in rows)),
        "most_evaluations_lost": max(float(row["lost"]) for row in rows),
        "leftovers": float(sum(int(row["leftovers"]) for row in rows)),
    }
    publish(chosen, headline=headline, rows=rows, environment=environment("onnxruntime", seed=0))


def _cache(home: Path, cache: Path) -> Path:
    """A cache that holds the trained network alone, if there is one."""
    cache.mkdir(parents=True)
    for path in (home / "trained").glob(f"{MODEL}-*"):
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


if __name__ == "__main__":
    main()
