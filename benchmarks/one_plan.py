"""One budget met three ways: by channels alone, by bits alone, and by one plan of everything.

Eight cases: trained nets, each with a limit on its packed file, on ONNX Runtime's file, or on its time there. Nothing
is trained after. Channels alone are planned from the same evidence; in a packed file their weights have 8 bits, rounded
by least squares, which is kinder than float. Bits alone are the whole net: rounded at one price of a bit to the size of
a packed file; with 8, 4 or 2 bits by layer for a file; in INT8 for a time. What is chosen is chosen on the validation
part; the test part is read by the final proof alone. A side that misses its budget counts as not there. (At 0.2x of the
time all three did, where INT8 alone takes 0.47x: a case of which nothing is learned, so 0.35x stands in its place.)
Rows are kept as they come: a run that was stopped goes on.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console

from lib.results import Column, Row, environment, keep, kept, parser, publish, rows_file, show
from lib.structured_networks import DATA, SEED, trained
from slimwright import Budget, Settings, shrink
from slimwright.data import Dataset
from slimwright.graph import Net
from slimwright.search import Candidate, Evaluate, Evaluation, Journal, Policy, Space, measured_plan
from slimwright.search.measured_plan import quantized_wholes, solved
from slimwright.search.planning import CHANNELS, FEW_BITS, Whole, on_images, planned_for
from slimwright.search.rounded import PACKED, is_packed, rounded
from slimwright.storage import plain_bytes
from slimwright.techniques import Quantize, Solve

OUT = Path(__file__).resolve().parents[1] / "out" / "one_plan"
AHEAD = 0.01  # of accuracy: the joint plan must be as much better than the better of the others
TRIES, NEAR = 6, 0.97  # of the size, for channels alone
BITS = 8
SIDES = ("channels", "bits", "joint")
COLUMNS = (
    Column("network", "network"),
    Column("budget", "budget"),
    Column("side", "side"),
    Column("accuracy", "accuracy, test", "{:.2%}"),
    Column("original", "original", "{:.2%}"),
    Column("within", "within budget"),
    Column("used", "used of it", "{:.3f}x"),
    Column("winner", "candidate"),
    Column("seconds", "took", "{:.0f} s"),
)


@dataclass(frozen=True)
class Case:
    """A net and a limit: how many times smaller its packed file is than numbers of four bytes, or a share of a cost."""

    network: str
    kind: Literal["packed", "file", "time"]
    much: float

    @property
    def name(self) -> str:
        """The limit in words."""
        return {"packed": "packed file {:g}x smaller", "file": "{:g}x the file", "time": "{:g}x the time"}[
            self.kind
        ].format(self.much)

    def budget(self, net: Net) -> Budget:
        """The limit."""
        if self.kind == "packed":
            return Budget(packed_bytes=f"{int(plain_bytes(net) / self.much)}B", max_drop=1.0)
        limit = f"{self.much}x"
        return Budget(size_bytes=limit, max_drop=1.0) if self.kind == "file" else Budget(latency_ms=limit, max_drop=1.0)


CASES = (
    Case("resnet20", "packed", 40),
    Case("resnet20", "packed", 80),
    Case("resnet20", "file", 0.1),
    Case("resnet20", "file", 0.06),
    Case("resnet20", "time", 0.35),
    Case("mobilenet-v2-half", "packed", 40),
    Case("mobilenet-v2-half", "file", 0.1),
    Case("mobilenet-v2-half", "time", 0.35),
)
QUICK = (Case("resnet20", "packed", 40), Case("resnet20", "file", 0.06))


def channels_alone(space: Space, evaluate: Evaluate, __: Journal) -> Evaluation:
    """Channels by plan: for a size, with as many weights as fit in 8 bits each."""
    whole = Whole("fp32", space.original)
    if not is_packed(space):
        found = planned_for(space, evaluate, whole, CHANNELS, space.limits)
        return space.best([space.original, *(solved(space, evaluate, whole, found) if found else ())])
    made, share = [space.original], space.limits[PACKED] / plain_bytes(space.net) * 32 / BITS
    step = Quantize(rounding="least squares", weight_bits=BITS, activation_bits=None, images=space.images)
    for _ in range(TRIES):
        limits = {"weight_bytes": share * space.original.cost.weight_bytes}
        found = planned_for(space, evaluate, whole, CHANNELS, limits)
        if found is None:
            break
        plan, menu = found[0].plan, found[1]
        steps = on_images([*menu.steps(plan.counts), Solve()], space.images, of=space.images)
        name = f"pruned to {share:.3f}x of the weights, {BITS} bits"
        made.append(evaluate(Candidate(name, space.recipe.of(space.net, *steps, step), plan)))
        used = space.shares(made[-1])[PACKED]
        if NEAR <= used <= 1:
            break
        share *= (1 + NEAR) / 2 / used
    return space.best(made)


def bits_alone(space: Space, evaluate: Evaluate, _: Journal) -> Evaluation:
    """The whole net with fewer bits."""
    if is_packed(space):
        return space.best([space.original, *rounded(space, evaluate, (1.0,))])
    if "size_bytes" in space.limits:
        whole = Whole("fp32", space.original)
        found = planned_for(space, evaluate, whole, FEW_BITS, space.limits)
        return space.best([space.original, *(solved(space, evaluate, whole, found) if found else ())])
    return space.best([space.original, *(whole.seen for whole in quantized_wholes(space, evaluate))])


POLICIES: dict[str, Policy] = {"channels": channels_alone, "bits": bits_alone, "joint": measured_plan}


def main() -> None:
    asked = options()
    torch.set_num_threads(1)
    say = Console(stderr=True, soft_wrap=True, highlight=False).print
    rows_at = rows_file(asked, OUT)
    cases = [case for case in (QUICK if asked.quick else CASES) if case.network in asked.networks.split(",")]
    for case in cases:
        for row in rows_of(case, kept(rows_at), quick=asked.quick):
            keep(row, rows_at)
            say(f"{row['network']}, {row['budget']}, {row['side']}: {row['accuracy']:.4f} {row['within']}")
    names = [(case.network, case.name) for case in (QUICK if asked.quick else CASES)]
    rows = [row for row in kept(rows_at) if (row["network"], row["budget"]) in names]
    rows.sort(key=lambda row: names.index((str(row["network"]), str(row["budget"]))))
    show("One budget, three ways; nothing is trained after", COLUMNS, rows, sections=("network", "budget"))
    publish(asked, headline=headline(rows), rows=rows, environment=environment("onnxruntime", seed=SEED))


def options() -> argparse.Namespace:
    known = parser(__doc__ or "")
    known.add_argument("--networks", default=",".join(dict.fromkeys(case.network for case in CASES)))
    return known.parse_args()


def rows_of(case: Case, have: list[dict[str, str | int | float]], *, quick: bool) -> Iterator[Row]:
    """The three sides of a case, but for those that are there."""
    done = {(row["network"], row["budget"], row["side"]) for row in have}
    missing = [side for side in SIDES if (case.network, case.name, side) not in done]
    if not missing:
        return
    data: Dataset = DATA["digits" if quick else "glyphs"]()
    net = trained(case.network, "digits" if quick else "glyphs", data)
    for side in missing:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="one-plan-") as folder:
            how = Settings(policy=POLICIES[side], cache=OUT / "cache", tune_epochs=0, seed=SEED)
            bundle = shrink(net, data=data, budget=case.budget(net), out=Path(folder) / "out", settings=how)
        summary, manifest = bundle.summary, bundle.manifest
        limit = next(iter(manifest.limits.values()))
        result = manifest.result
        used = {"packed": result.packed_bytes, "file": result.size_bytes, "time": summary.latency_ms}[case.kind] or 0
        yield {
            "network": case.network,
            "budget": case.name,
            "side": side,
            "accuracy": summary.score / 100,
            "original": summary.score_original / 100,
            "within": "yes" if used <= limit else "no",
            "used": used / limit,
            "winner": next(one.name for one in manifest.candidates if one.chosen),
            "seconds": time.perf_counter() - began,
        }


def headline(rows: list[dict[str, str | int | float]]) -> dict[str, float]:
    """How many cases were run, and in how many the joint plan is ahead."""
    ran = {(row["network"], row["budget"]) for row in rows if row["side"] == "joint"}
    cases: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        found = cases.setdefault((str(row["network"]), str(row["budget"])), {})
        if row["within"] == "yes":
            found[str(row["side"])] = float(row["accuracy"])
    whole = [case for case in cases.values() if "joint" in case]
    ahead = [
        case
        for case in whole
        if case["joint"] >= max((accuracy for side, accuracy in case.items() if side != "joint"), default=0.0) + AHEAD
    ]
    return {"cases": float(len(ran)), "joint_ahead": float(len(ahead))}


if __name__ == "__main__":
    main()
