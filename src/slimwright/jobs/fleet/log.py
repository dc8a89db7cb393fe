"""What became of deployments so far: taken in as it comes, written as a record and a page, and found again later."""

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from slimwright.jobs.fleet.base import Base
from slimwright.jobs.fleet.deploying import cost_of, finished, order_key
from slimwright.jobs.fleet.plan_file import Deployment, FleetPlan
from slimwright.jobs.fleet.shelf import Shelf
from slimwright.jobs.given import versions
from slimwright.jobs.stages import Stages
from slimwright.measure import FLEET, FLEET_PAGE, DataCard, Deployed, Failed, Fleet, as_json
from slimwright.progress import Event
from slimwright.report import fleet_page
from slimwright.search import Correction
from slimwright.storage import write_packed

BASE_NET = "base.swz"
SHOWN_S = 10.0  # between two pages while it lasts


@dataclass(frozen=True)
class Log:
    """Deployments by name: those that are finished, and those that failed."""

    deployed: dict[str, Deployed] = field(default_factory=dict)
    failed: dict[str, Failed] = field(default_factory=dict)

    def take(self, one: Deployment, record: Deployed | None, why: str) -> None:
        """Take in what came of a deployment: a record, or why there is none."""
        if record is not None:
            self.deployed[one.name] = record
        else:
            self.failed[one.name] = Failed(name=one.name, subset=one.subset, budget=one.budget_name, why=why)


def log_of(shelf: Shelf, plan: FleetPlan, base: Base, *, fresh: bool) -> Log:
    """Return what an earlier run of the same plan left finished on the shelf; nothing if `fresh`."""
    if fresh:
        for name in (*shelf.names("deployments"), *shelf.names("models")):
            shelf.remove(name)
        return Log()
    there = set(shelf.names("deployments"))
    wanted = [one for one in plan.every if f"deployments/{one.name}.json" in there]
    found = {one.name: finished(shelf, one.name, order_key(base.context, one)) for one in wanted}
    return Log({name: record for name, record in found.items() if record is not None})


def nearest(one: Deployment, finished: Iterable[Deployed]) -> Mapping[str, Correction]:
    """Return the corrections of the finished deployment that is most like one; {} where there is none.

    Of those on the same runtime with limits on the same costs, one with the same classes comes first, and then that
    whose limits are nearest as factors.
    """
    budget = one.budget

    def far(other: Deployed) -> tuple[bool, float]:
        limits = budget.absolute(cost_of(other.model.original))
        return other.subset != one.subset, sum(abs(math.log(limits[name] / other.limits[name])) for name in limits)

    limited = {*budget.limited()}
    alike = [each for each in finished if each.runtime == one.runtime and each.limits.keys() == limited]
    if not (learned := [each for each in alike if each.corrections]):
        return {}
    found = min(learned, key=far).corrections
    return {name: Correction(each.predicted, each.measured) for name, each in found.items()}


@dataclass
class Written:
    """Where the record and the page of a fleet are written."""

    shelf: Shelf
    plan: FleetPlan
    base_found: Base
    stages: Stages
    log: Log
    last: float = field(default_factory=time.monotonic)

    def base(self) -> None:
        """Write the net from which models are stored as deltas."""
        with TemporaryDirectory(prefix="slimwright-") as folder:
            path = Path(folder) / BASE_NET
            write_packed(self.base_found.stored_from, path)
            self.shelf.write(BASE_NET, path.read_bytes())

    def told(self, running: int) -> None:
        """Say how far the fleet is."""
        done, failed = len(self.log.deployed) + len(self.log.failed), len(self.log.failed)
        note = f"{running} under way" + (f", {failed} failed" if failed else "")
        self.stages.tell(Event("deploy", done, len(self.plan.every), note))

    def now_and_then(self) -> None:
        """Write all again, where that was some seconds ago."""
        if time.monotonic() - self.last > SHOWN_S:
            self.all()

    def all(self) -> Fleet:
        """Write the record and the page, in the order of the plan."""
        base, names = self.base_found, [one.name for one in self.plan.every]
        found = Fleet(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=self.stages.seconds,
            model=base.settings.name,
            seed=base.settings.seed,
            versions=versions(),
            machine=dict(base.settings.target.about()),
            task=base.card,
            data=DataCard.of(base.data),
            deployed=[self.log.deployed[name] for name in names if name in self.log.deployed],
            failed=[self.log.failed[name] for name in names if name in self.log.failed],
        )
        self.shelf.write(FLEET, as_json(found).encode())
        self.shelf.write(FLEET_PAGE, fleet_page(found, len(names)).encode())
        self.last = time.monotonic()
        return found
