"""What a fleet costs: the first deployment, each further one beside a `shrink` from scratch, and plans alone.

Ten budgets by ten subsets of the digits are built and proven, one worker, in pieces, with whole `shrink` jobs of some
of them between the pieces: each job with a cache of its own, that holds nothing. `marginal_share` is the wall time of a
further deployment as a share of such a job, and `marginal_cpu_share` the same of processor time, which other work on
the machine disturbs less. `accuracy_gap_points` is how much better the jobs' accuracy is on the test part, on average
over those. Then some are built by one and by two workers, and `--plans` squared deployments are planned by two workers:
what 10,000 take is in proportion. At last a cluster of several nodes loses a worker and a node in the middle: `lost`
deployments have no record in the end, `twice` were finished and made again.

Rows are kept as they come: a run that was stopped goes on where it was, but for `--quick`.
"""

import json
import math
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from lib.fleets import BUDGETS, SUBSETS, Fleets, hundred, options_of, planned
from lib.jobs import Ran
from lib.lost_workers import lost_workers
from lib.results import Column, Row, environment, keep, kept, parser, publish, rows_file, show

MODEL = "resnet8"
COLUMNS = (
    Column("part", "part"),
    Column("what", "what"),
    Column("deployments", "deployments", "{:,}"),
    Column("seconds", "seconds", "{:.1f}"),
    Column("cpu_s", "processor, s", "{:.1f}"),
    Column("score", "accuracy", "{:.2f} %"),
)
SAMPLED = (("latency-50", "low"), ("macs-50", "even"), ("size-20", "last-eight"), ("latency-80", "ends"))
PIECES = 3


def main() -> None:
    asked = parser(__doc__ or "")
    asked.add_argument("--plans", type=int, default=100, help="budgets, and subsets, of which all pairs are planned")
    asked.add_argument("--model", default=MODEL, help="a network of the zoo; each has a folder of its own")
    asked.add_argument("--home", type=Path, metavar="FOLDER", help="what is kept from run to run")
    chosen = asked.parse_args()
    home = chosen.home or Path(__file__).resolve().parents[1] / "out" / "fleet" / chosen.model
    with tempfile.TemporaryDirectory(prefix="fleet-") as name:
        home = Path(name) if chosen.quick else home
        file = rows_file(chosen, home)
        fleets = Fleets(str(home / "trained"), home)
        known = {(row["part"], row["what"]): row for row in kept(file)}

        def once(part: str, what: str, make: Callable[[], Row]) -> Row:
            if (part, what) not in known:
                known[part, what] = {"part": part, "what": what, **make()}
                keep(known[part, what], file)
                show("so far", COLUMNS, [*known.values()])
            return known[part, what]

        if not (home / "trained").exists():
            done = fleets.run("train", chosen.model, "--data", "digits", "--out", fleets.model)
            _check(done, 0)
        plans = 4 if chosen.quick else chosen.plans
        rows = [*_rows(fleets, once, plans=plans, quick=chosen.quick)]
    publish(
        chosen,
        headline=_headline(rows),
        rows=rows,
        environment={**environment("onnxruntime", "ray", seed=0), "network": chosen.model},
    )


def _rows(
    fleets: Fleets, once: Callable[[str, str, Callable[[], Row]], Row], *, plans: int, quick: bool
) -> Iterator[Row]:
    sampled = SAMPLED[:1] if quick else SAMPLED
    subsets = {name: SUBSETS[name] for name in (["low", "even"] if quick else SUBSETS)}
    budgets = ["latency-50", "macs-50", "size-20"] if quick else [*BUDGETS]
    whole = hundred(subsets)
    pairs = [{"subset": subset, "budget": budget} for subset in subsets for budget in budgets]
    first, rest = pairs[:1], pairs[1:]
    pieces = 1 if quick else PIECES
    yield once("fleet", "first", lambda: _fleet(fleets, whole, first))
    for piece, (budget, subset) in enumerate(sampled):
        yield once("scratch", f"{subset}/{budget}", lambda b=budget, s=subset: _scratch(fleets, b, s))  # type: ignore[misc]
        if piece < pieces:
            some = rest[: len(rest) * (piece + 1) // pieces]
            known = len(rest) * piece // pieces
            yield once(
                "fleet",
                f"piece {piece + 1}",
                lambda p=some, n=known: _fleet(fleets, whole, [*first, *p], done=n + 1),  # type: ignore[misc]
            )
    for subset, budget in ((pair["subset"], pair["budget"]) for pair in pairs):
        yield once("proven", f"{subset}/{budget}", lambda s=subset, b=budget: _proven(fleets, s, b))  # type: ignore[misc]
    for workers in (1, 2):
        yield once("workers", str(workers), lambda n=workers: _workers(fleets, n, quick=quick))  # type: ignore[misc]
    yield once("planned", f"{plans} by {plans}", lambda: _planned(fleets, plans, plans))
    yield once("lost", "worker and node", lambda: lost_workers(fleets, few=quick))


def _fleet(fleets: Fleets, whole: Mapping[str, object], pairs: list[dict[str, str]], done: int = 0) -> Row:
    """Build a part of the fleet, of which so many are done already."""
    plan = fleets.plan("plan", {**whole, "deployments": pairs})
    ran = fleets.run("fleet", str(plan), "--out", str(fleets.home / "fleet"), "--workers", "0")
    _check(ran, 0, 1)
    return _row(ran, len(pairs) - done)


def _scratch(fleets: Fleets, budget: str, subset: str) -> Row:
    """One deployment as a job of its own, with a cache of its own."""
    out = fleets.home / "shrunk"
    shutil.rmtree(fleets.home / "fresh", ignore_errors=True)
    shutil.rmtree(out, ignore_errors=True)
    ran = fleets.run(
        "shrink", fleets.model, "--data", "digits", *options_of(budget, subset), "--out", str(out), cache="fresh"
    )
    _check(ran, 0, 1)
    summary = json.loads((out / "manifest.json").read_text())["summary"]
    return {**_row(ran, 1), "score": summary["score"], "within": int(summary["within_budget"])}


def _proven(fleets: Fleets, subset: str, budget: str) -> Row:
    """What was proven of a deployment."""
    found = json.loads((fleets.home / "fleet" / "deployments" / subset / f"{budget}.json").read_text())
    model = found["model"]
    ratio = model["result"]["latency_ms"] / model["original"]["latency_ms"]
    return {
        "deployments": 1,
        "seconds": found["seconds"],
        "cpu_s": math.nan,
        "score": model["result"]["score"],
        "score_original": model["original"]["score"],
        "latency_ratio": round(ratio, 4),
        "within": int(found["within_budget"]),
        "network": model["candidate"],
        "tried": found["tried"],
    }


def _workers(fleets: Fleets, count: int, *, quick: bool) -> Row:
    """A few subsets by a few budgets, built by so many workers from a warm cache."""
    names = [*SUBSETS][: 2 if quick else 4]
    some = hundred({name: SUBSETS[name] for name in names})
    some["budgets"] = {
        name: some["budgets"][name] for name in (["macs-50"] if quick else ["macs-50", "macs-30", "size-20"])
    }
    plan, out = fleets.plan(f"workers-{count}", some), fleets.home / f"workers-{count}"
    shutil.rmtree(out, ignore_errors=True)
    ran = fleets.run("fleet", str(plan), "--out", str(out), "--workers", str(count))
    _check(ran, 0, 1)
    stage = json.loads((out / "fleet.json").read_text())["seconds"]["deploy"]
    return {**_row(ran, len(some["budgets"]) * len(names)), "seconds": stage}


def _planned(fleets: Fleets, budgets: int, subsets: int) -> Row:
    """Plan many deployments of one evidence, by two workers."""
    plan = fleets.plan("planned", planned(budgets, subsets))
    ran = fleets.run("fleet", str(plan), "--dry-run", "--quiet", "--json", "--workers", "2")
    _check(ran, 0, 1)
    text = ran.said[ran.said.index("{") : ran.said.rindex("}") + 1]
    return _row(ran, len(json.loads(text)))


def _row(ran: Ran, deployments: int) -> dict[str, str | int | float]:
    return {
        "deployments": deployments,
        "seconds": round(ran.seconds, 2),
        "cpu_s": round(ran.cpu_s, 2),
        "score": math.nan,
    }


def _check(ran: Ran, *fine: int) -> None:
    if ran.status not in fine:
        raise SystemExit(f"exit status {ran.status}\n{ran.said}")


def _headline(rows: list[Row]) -> dict[str, float]:
    parts: dict[str, list[Row]] = {}
    for row in rows:
        parts.setdefault(str(row["part"]), []).append(row)
    scratch, further = parts["scratch"], [row for row in parts["fleet"] if row["what"] != "first"]
    deployments = sum(int(row["deployments"]) for row in further)

    def share(key: str) -> float:
        each = sum(float(row[key]) for row in further) / deployments
        return each / statistics.mean(float(row[key]) for row in scratch)

    scores = {row["what"]: float(row["score"]) for row in parts["proven"]}
    within = [int(row["within"]) for row in parts["proven"]]
    one, two = (float(row["seconds"]) for row in parts["workers"])
    (plans,), (lost,) = parts["planned"], parts["lost"]
    return {
        "marginal_share": share("seconds"),
        "marginal_cpu_share": share("cpu_s"),
        "first_s": float(parts["fleet"][0]["seconds"]),
        "accuracy_gap_points": statistics.mean(float(row["score"]) - scores[row["what"]] for row in scratch),
        "within_budget_share": sum(within) / len(within),
        "planned": float(plans["deployments"]),
        "planned_10000_s": float(plans["seconds"]) * 10_000 / float(plans["deployments"]),
        "speedup_2_workers": one / two,
        "lost": float(lost["lost"]),
        "twice": float(lost["twice"]),
    }


if __name__ == "__main__":
    main()
