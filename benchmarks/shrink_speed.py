"""How long a whole `shrink` takes, with a fresh cache and again with a warm one, and how much memory it uses.

The demo's net is trained on digits, which does not count. The others have random weights and random images, since
neither time nor memory depends on what they hold. Their metric is the distance to the original, and their limit is so
low that INT8 alone does not reach it: every stage has its turn. Seconds are of the wall clock, from start to end of the
command, so run it on a machine that does nothing else. Memory is that of the largest process.
"""

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from lib.jobs import run
from lib.results import Column, Row, environment, options, publish, show

COLUMNS = (
    Column("network", "network"),
    Column("cache", "cache"),
    Column("seconds", "seconds", "{:.1f}"),
    Column("peak_mb", "peak memory, MB", "{:,.0f}"),
    Column("latency_ratio", "latency, of the original's", "{:.2f}x"),
    Column("winner", "candidate"),
    Column("stages", "stages, seconds"),
)


@dataclass(frozen=True)
class Job:
    """A job: the key of its headline, and what the command line names."""

    key: str
    network: str
    model: str
    data: str
    budget: tuple[str, ...]


TUNED = ("--max-drop", "100", "--tune-epochs", "0")
JOBS = (
    Job("demo", "demo's net", "resnet8-wide", "digits", ("--latency", "0.33x", "--max-drop", "1.0")),
    Job("resnet18_64", "ResNet-18 at 64x64", "lib.random_jobs:resnet18", "lib.random_jobs:images_64",
        ("--task", "imitation", "--latency", "0.25x", *TUNED)),
    Job("mobilenet_v2_224", "MobileNetV2 at 224x224", "lib.random_jobs:mobilenet_v2", "lib.random_jobs:images_224",
        ("--task", "imitation", "--latency", "0.25x", *TUNED)),
    Job("resnet50_224", "ResNet-50 at 224x224", "lib.random_jobs:resnet50", "lib.random_jobs:images_224",
        ("--task", "imitation", "--latency", "0.2x", *TUNED)),
)  # fmt: skip
QUICK = ("lib.random_jobs:small", "lib.random_jobs:few_images_16")  # instead of every network and its images


def main() -> None:
    chosen = options(__doc__ or "")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="shrink-speed-") as name:
        for job in JOBS:
            rows += _both(replace(job, model=QUICK[0], data=QUICK[1]) if chosen.quick else job, Path(name) / job.key)
            show("whole jobs so far", COLUMNS, rows)
    fresh = {str(row["key"]): row for row in rows if row["cache"] == "fresh"}
    headline = {f"{job.key}_s": float(fresh[job.key]["seconds"]) for job in JOBS}
    headline |= {"mobilenet_v2_peak_mb": float(fresh["mobilenet_v2_224"]["peak_mb"])}
    headline |= {"largest_warm_s": max(float(row["seconds"]) for row in rows if row["cache"] == "warm")}
    publish(chosen, headline=headline, rows=rows, environment=environment("onnxruntime", seed=0))


def _both(job: Job, folder: Path) -> list[Row]:
    """The job with a fresh cache, and then again."""
    cache = folder / "cache"
    if ":" not in job.model:
        run(["train", job.model, "--data", job.data, "--out", str(folder / "net")], cache, folder / "scratch")
    rows: list[Row] = []
    for kind in ("fresh", "warm"):
        out = folder / "out"
        ran = run(["shrink", job.model, "--data", job.data, *job.budget, "--out", str(out)], cache, folder / "scratch")
        if ran.status not in (0, 1):
            raise SystemExit(f"{job.network}: exit status {ran.status}\n{ran.said}")
        manifest = json.loads((out / "manifest.json").read_text())
        rows.append(
            {
                "key": job.key,
                "network": job.network,
                "cache": kind,
                "seconds": round(ran.seconds, 1),
                "peak_mb": round(ran.peak_mb),
                "latency_ratio": round(manifest["summary"]["latency_ratio"], 3),
                "score": manifest["summary"]["score"],
                "winner": next(one["name"] for one in manifest["candidates"] if one["chosen"]),
                "stages": ", ".join(f"{stage} {taken:.1f}" for stage, taken in manifest["seconds"].items()),
            }
        )
    return rows


if __name__ == "__main__":
    main()
