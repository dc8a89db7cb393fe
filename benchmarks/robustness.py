"""What a stranger sends, and what a kill leaves: inputs changed at random, attacks by hand, jobs that are killed.

Inputs of every kind are written by the tools that write such files, changed at random, and read by the command line in
a fork of its own. What counts: errors that are not ours, commands that take more than ten seconds, crashes of the
interpreter, files that appear or change where the command was not asked to write, and commands that take more than a
gigabyte for such a small file. Attacks (`lib/attacks.py`) hold if they are refused with an error of ours, and nothing
outside was read or changed. A small job is killed at moments spread over its run and begun again (`lib/kills.py`).
"""

import random
import tempfile
from pathlib import Path

import torch
from rich.console import Console

from lib.attacks import SECRET, Place, attacks
from lib.forks import Files, files_below, run_forked, warmed
from lib.hostile_kinds import KINDS, Kind
from lib.kills import SMALL_JOB, headline_of, killed_jobs
from lib.mutations import mutated
from lib.results import Column, Row, environment, parser, publish, show

SEED, CASES, KILLS = 0, 150, 12
QUICK_CASES, QUICK_KILLS, QUICK_ATTACKS = 6, 1, 3  # of the last, each so manieth
MOST_BYTES = 10**9
COLUMNS = (
    Column("kind", "input"),
    Column("mutations", "changed"),
    Column("read", "read all the same"),
    Column("refused", "refused"),
    Column("foreign", "other errors"),
    Column("hangs", "hangs"),
    Column("crashes", "crashes"),
    Column("escapes", "escapes"),
    Column("slowest_s", "slowest", "{:.1f} s"),
)
ATTACKS = (Column("attack", "attack"), Column("held", "held"))


def main() -> None:
    known = parser(__doc__ or "")
    known.add_argument("--cases", type=int, default=CASES, help=f"of each kind of input; {CASES}")
    known.add_argument("--kills", type=int, default=KILLS, help=f"moments of the job; {KILLS}")
    known.add_argument("--seed", type=int, default=SEED, help="of what is changed")
    asked = known.parse_args()
    if asked.quick:
        asked.cases, asked.kills = QUICK_CASES, QUICK_KILLS
    torch.set_num_threads(1)
    say = Console(stderr=True, soft_wrap=True, highlight=False).print
    rows = []
    for name, kind in KINDS.items():
        rows.append(_mutations(name, kind, asked.cases, asked.seed))
        say(f"{name}: {rows[-1]}")
    show("Inputs changed at random, read by the command line", COLUMNS, rows)
    with tempfile.TemporaryDirectory(prefix="robustness-") as name:
        killed = killed_jobs(SMALL_JOB, asked.kills, Path(name))
        bundle = Path(name) / "whole"
        every = list(attacks(bundle))[:: QUICK_ATTACKS if asked.quick else 1]
        tried: list[Row] = []
        for title, attack in every:
            with tempfile.TemporaryDirectory(prefix="robustness-") as inner:
                tried.append({"attack": title, "held": "yes" if attack(_place(Path(inner), bundle)) else "no"})
            say(f"{title}: {tried[-1]['held']}")
        show("Attacks by hand", ATTACKS, tried)
    kills = headline_of(killed.rows)
    headline = {
        **{key: float(sum(int(row[key]) for row in rows)) for key in ("mutations", "foreign", "hangs", "crashes")},
        "escapes": float(sum(int(row["escapes"]) for row in rows)),
        "kills": kills["kills"],
        "lost": kills["most_evaluations_lost"],
        "leftovers": kills["leftovers"],
        "same_winner": kills["same_winner"],
        "attacks": float(len(tried)),
        "held": float(sum(row["held"] == "yes" for row in tried)),
    }
    everything = [*rows, *tried, *killed.rows]
    publish(asked, headline=headline, rows=everything, environment=environment("onnxruntime", seed=asked.seed))


def _mutations(name: str, kind: Kind, cases: int, seed: int) -> Row:
    """Change an input of a kind `cases` times, and have it read; what is wrong is said with its number."""
    counts = dict.fromkeys(("read", "refused", "foreign", "hangs", "crashes", "escapes"), 0)
    slowest, say = 0.0, Console(stderr=True, soft_wrap=True, highlight=False).print
    with tempfile.TemporaryDirectory(prefix="robustness-") as held:
        home = Path(held)
        path = kind.write(home)
        whole = path.read_bytes()
        sound = warmed(list(kind.reads), home)
        if sound.status != 0:
            raise SystemExit(f"{name}, as it was written: {sound.said}")
        for number in range(cases):
            path.write_bytes(mutated(whole, random.Random(f"{seed}-{name}-{number}")))
            before = files_below(home)
            case = run_forked(list(kind.reads), home)
            escaped = _elsewhere(kind, home, before)
            faults = {"foreign": case.foreign, "hangs": case.hangs, "crashes": case.crashed, "escapes": escaped}
            faults["foreign"] |= case.peak_bytes > MOST_BYTES
            for key, is_so in faults.items():
                counts[key] += is_so
            counts["read" if case.status == 0 else "refused"] += not any(faults.values())
            if any(faults.values()):
                say(f"{name}, case {number}: {[key for key in faults if faults[key]]} {case.said[-800:]}")
            slowest = max(slowest, case.seconds)
    return {"kind": name, "mutations": cases, **counts, "slowest_s": round(slowest, 2)}


def _elsewhere(kind: Kind, home: Path, before: Files) -> bool:
    """True where a file appeared or changed that the command was not asked to write."""
    after = files_below(home)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    return any(path.relative_to(home).parts[0] not in kind.writes for path in changed)


def _place(folder: Path, bundle: Path) -> Place:
    for name in ("home", "outside"):
        (folder / name).mkdir()
    (folder / "outside" / "secret").write_text(SECRET)
    return Place(folder / "home", folder / "outside" / "secret", bundle)


if __name__ == "__main__":
    main()
