"""A fleet on a cluster of several nodes that loses a worker and a node while it works: is anything lost, or done twice?

The nodes are processes of this machine (`ray.cluster_utils`). The fleet is a process of its own, the command line as a
user starts it. Once a first deployment is finished a worker that deploys is killed, and after the second one a node
with all that is on it.
"""

import json
import math
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lib.fleets import SUBSETS, Fleets, hundred
from lib.jobs import command, surroundings
from lib.results import Row

STORE_BYTES = 500_000_000
NODES, POLL_S, MOST_S = 3, 0.2, 3600.0
QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}


def lost_workers(fleets: Fleets, *, few: bool) -> Row:
    """Return how many deployments had no record in the end, and how many that were finished were made again."""
    from ray.cluster_utils import Cluster

    os.environ.update(QUIET)
    names = [*SUBSETS][1:3]
    content = hundred({name: SUBSETS[name] for name in names})
    kinds = ["macs-50", "size-20"] if few else ["macs-70", "macs-50", "macs-30", "size-50", "size-20"]
    content["budgets"] = {name: content["budgets"][name] for name in kinds}
    wanted = {f"{subset}/{budget}" for subset in names for budget in kinds}
    plan, out = fleets.plan("lost", content), fleets.home / "lost"
    shutil.rmtree(out, ignore_errors=True)
    began = time.perf_counter()
    store: dict[str, Any] = {"object_store_memory": STORE_BYTES}
    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **store})
    nodes = [cluster.add_node(num_cpus=1, **store) for _ in range(NODES - 1)]
    arguments = ("fleet", str(plan), "--out", str(out), "--address", cluster.address, "--workers", str(len(nodes)))
    environment = {**surroundings(fleets.home / "cache", fleets.home / "scratch"), **QUIET}
    with (fleets.home / "lost.log").open("w") as log:
        job = subprocess.Popen(command(*arguments), env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            first = _waited(job, out, 1)
            killed = _kill_a_worker()
            second = _waited(job, out, len(first) + 1)
            cluster.remove_node(nodes[-1], allow_graceful=False)
            job.wait(MOST_S)
        finally:
            job.kill()
            cluster.shutdown()
    made = _finished(out)
    record = json.loads((out / "fleet.json").read_text())
    named = [one["name"] for one in record["deployed"]]
    return {
        "deployments": len(wanted),
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_s": math.nan,
        "score": math.nan,
        "lost": len(wanted - set(named)) + len(record["failed"]),
        "twice": len(named) - len(set(named)) + sum(made.get(name) != when for name, when in second.items()),
        "killed_workers": killed,
        "killed_nodes": 1,
        "finished_at_the_kills": len(second),
    }


def _finished(out: Path) -> dict[str, Any]:
    """When each deployment that is finished was written: a record that is written again has another time."""
    folder = out / "deployments"
    files = [path for path in folder.rglob("*.json") if not path.name.startswith(".")] if folder.is_dir() else []
    return {path.relative_to(folder).with_suffix("").as_posix(): path.stat().st_mtime_ns for path in files}


def _waited(job: "subprocess.Popen[bytes]", out: Path, count: int) -> dict[str, Any]:
    """Wait until so many deployments are finished."""
    until = time.monotonic() + MOST_S
    while len(found := _finished(out)) < count:
        if job.poll() is not None or time.monotonic() > until:
            raise SystemExit(f"the fleet ended with {len(found)} deployments before anything was killed")
        time.sleep(POLL_S)
    return found


def _kill_a_worker() -> int:
    """Kill a worker of this process's cluster that works for the fleet; return how many were."""
    for folder in Path("/proc").glob("[0-9]*"):
        number = int(folder.name)
        if _text(number, "cmdline").startswith("ray::_on_worker") and os.getpid() in _ancestors(number):
            os.kill(number, signal.SIGKILL)
            return 1
    return 0


def _ancestors(number: int) -> Iterator[int]:
    """The processes that a process descends from."""
    while number > 1:
        number = int(_text(number, "stat").rpartition(")")[2].split()[1] or 0)
        yield number


def _text(number: int, name: str) -> str:
    try:
        return Path(f"/proc/{number}/{name}").read_text()
    except OSError:  # it has ended
        return ") S 0"
