"""The demo's job killed at moments spread over its run, each time followed by the same command: does the same ship?

Half of the kills end the whole process group, the other half the parent alone. Each starts from a cache that holds the
trained network and nothing else. What counts: whether the winner is that of a job which was not killed, how many
evaluations that were under way were lost, what is left over in the cache, beside the output, among temporary files and
processes, and how much of the time before the kill was saved.

Rows are kept as they come: a run that was stopped goes on where it was, but for `--quick`.
"""

import tempfile
from pathlib import Path

from lib.jobs import run
from lib.kills import SMALL_JOB, headline_of, killed_jobs
from lib.results import Column, Row, environment, keep, kept, parser, publish, show

MODEL = "resnet8-wide"
DEMO = ("shrink", MODEL, "--data", "digits", "--latency", "0.33x", "--max-drop", "1.0")
KILLS, QUICK_KILLS = 100, 2
ROWS = Path(__file__).resolve().parents[1] / "out" / "kills" / "rows.jsonl"
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
    with tempfile.TemporaryDirectory(prefix="kill-and-resume-") as name:
        home = Path(name)
        if chosen.quick:
            found = killed_jobs(SMALL_JOB, QUICK_KILLS, home, at_a_time=chosen.jobs)
        else:
            run(["train", MODEL, "--data", "digits", "--out", str(home / "net")], home / "trained", home / "scratch")
            had: dict[str | int | float, Row] = {
                row["number"]: row for row in kept(chosen.rows) if row["kills"] == chosen.kills
            }
            found = killed_jobs(
                DEMO, chosen.kills, home, trained=MODEL, at_a_time=chosen.jobs, had=had,
                keep=lambda row: keep(row, chosen.rows),
            )  # fmt: skip
    show(
        f"{len(found.rows)} kills of a job of {found.seconds:.0f} s, whose winner is '{found.winner}'",
        COLUMNS,
        found.rows,
    )
    publish(chosen, headline=headline_of(found.rows), rows=found.rows, environment=environment("onnxruntime", seed=0))


if __name__ == "__main__":
    main()
