"""The demo's job killed at moments spread over its run, each time followed by the same command: does the same ship?

Half of the kills end the whole process group, the other half the parent alone. Each starts from a cache that holds the
trained network and nothing else. What counts: whether the winner is that of a job which was not killed, how many
evaluations that were under way were lost, what is left over in the cache, beside the output, among temporary files and
processes, and how much of the time before the kill was saved.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lib.jobs import command, run, surroundings
from lib.results import Column, Row, environment, parser, publish, show

MODEL, DATA, BUDGET = "resnet8-wide", "digits", ("--latency", "0.33x", "--max-drop", "1.0")
KILLS, QUICK_KILLS = 100, 2
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
    known.add_argument("--jobs", type=int, default=1, help="at a time; what is saved means little with several")
    chosen = known.parse_args()
    kills = QUICK_KILLS if chosen.quick else KILLS
    with tempfile.TemporaryDirectory(prefix="kill-and-resume-") as name:
        home = Path(name)
        run(["train", MODEL, "--data", DATA, "--out", str(home / "net")], home / "trained", home / "scratch")
        whole = run(_arguments(home / "whole"), _cache(home, "whole-cache"), home / "scratch")
        winner = _winner(home / "whole")

        def killed(number: int) -> Row:
            moment = whole.seconds * (number + 0.5) / kills
            row = _killed(home / str(number), moment, winner, whole.seconds, group=number % 2 == 0)
            shutil.rmtree(home / str(number))
            print(json.dumps(row), file=sys.stderr, flush=True)
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


def _arguments(out: Path) -> list[str]:
    return ["shrink", MODEL, "--data", DATA, *BUDGET, "--out", str(out)]


def _cache(home: Path, name: str) -> Path:
    """A cache that holds the trained network alone."""
    cache = home / name
    cache.mkdir(parents=True)
    for path in (home / "trained").glob(f"{MODEL}-*"):
        shutil.copy(path, cache)
    return cache


def _killed(folder: Path, moment: float, winner: str, whole_s: float, *, group: bool) -> Row:
    """Start the job, kill it after `moment` seconds, run it again, and look at what there is."""
    folder.mkdir()
    (folder / "trained").symlink_to(folder.parent / "trained")
    cache, scratch, out = _cache(folder, "cache"), folder / "scratch", folder / "out"
    scratch.mkdir()
    child = subprocess.Popen(
        command(*_arguments(out)), env=surroundings(cache, scratch), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    time.sleep(moment)
    ended = child.poll() is not None
    if not ended:
        (os.killpg if group else os.kill)(child.pid, signal.SIGKILL)
        child.wait()
    journaled, lost = _journal(cache), len(list(cache.glob("jobs/*/.*.part")))
    again = run(_arguments(out), cache, scratch)
    kept = [line for line in journaled if line in set(_journal(cache))]
    return {
        "moment": round(moment, 1),
        "whole_group": "yes" if group else "no",
        "same_winner": "yes" if again.status in (0, 1) and _winner(out) == winner else "no",
        "lost": lost + len(journaled) - len(kept),
        "leftovers": _leftovers(folder),
        "seconds": round(again.seconds, 1),
        "saved": round(whole_s - again.seconds, 1),
    }


def _journal(cache: Path) -> list[str]:
    """The whole lines of a job's journal."""
    lines = [line for path in cache.glob("jobs/*/journal.jsonl") for line in path.read_text().splitlines(True)]
    return [line for line in lines if line.endswith("\n")]


def _winner(out: Path) -> str:
    candidates = json.loads((out / "manifest.json").read_text())["candidates"]
    return str(next(one["name"] for one in candidates if one["chosen"]))


def _leftovers(folder: Path) -> int:
    """Hidden folders and temporary files that nobody will finish, and processes of the job that still run."""
    files = [path for path in folder.rglob("*") if path.name.endswith(".part")]
    files += [path for path in (folder / "scratch").iterdir() if path.name not in ("said", "peak")]
    until = time.monotonic() + GONE_S
    while (running := _processes(f"{folder}{os.sep}")) and time.monotonic() < until:
        time.sleep(0.5)
    return len(files) + running


def _processes(mark: str) -> int:
    """How many processes have `mark` in their environment."""
    found = 0
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            found += mark.encode() in path.read_bytes() and int(path.parent.name) != os.getpid()
        except OSError:
            continue
    return found


if __name__ == "__main__":
    main()
