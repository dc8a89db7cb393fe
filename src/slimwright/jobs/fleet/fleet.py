"""A fleet: one model, many budgets, many subsets of its classes.

The network is observed once. Each deployment is then plan, solve, prove.

Read from the top: `fleet` is a column of calls like `shrink`. What is finished lies on the shelf under a key of all
that shapes it, so a fleet that was killed goes on, and one that is done redoes nothing. One failure stops no other.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from slimwright.data import Dataset, places_of
from slimwright.errors import DataError, RequestError
from slimwright.jobs.fleet.base import Base, base_of, with_test
from slimwright.jobs.fleet.deploying import Order, deployed, order_key, predicted
from slimwright.jobs.fleet.log import Written, log_of, nearest
from slimwright.jobs.fleet.plan_file import ALL, Deployment, FleetPlan, Ground
from slimwright.jobs.fleet.shelf import Shelf
from slimwright.jobs.fleet.stock import Site, stock_of
from slimwright.jobs.fleet.workers import Crew, Workers, workers
from slimwright.jobs.given import check_inputs
from slimwright.jobs.opened import Settings
from slimwright.jobs.stages import Stages
from slimwright.measure import FLEET, Fleet, Original, Predicted
from slimwright.progress import Event, Tell, told
from slimwright.tasks import Making, Task

AT_ONCE = 100  # deployments of one ground that are planned in one go


def fleet(
    model: Original,
    plan: FleetPlan,
    *,
    data: Dataset,
    out: Path | str,
    task: Task | Making | str | None = None,
    settings: Settings | None = None,
    crew: Crew | None = None,
    tell: Tell | None = None,
) -> Fleet:
    """Return what became of every deployment of a plan; models, records and a page are at `out`.

    `out` is a folder, or any address that fsspec knows. Deployments that are finished there are not made again, unless
    `settings.fresh`. Nothing is fine-tuned. Raises RequestError for what cannot be done, and DataError where model,
    data and task do not fit one another; what goes wrong with one deployment is said in the record.
    """
    settings, shelf, crew = settings or Settings(), Shelf.at(out), crew or Crew()
    _check(plan, data, model)
    shelf.check_is_fleets(FLEET, force=settings.force)
    with told(tell) as tell:
        stages = Stages(tell)
        base = with_test(base_of(model, data, task, settings, _runtimes(plan), stages=stages))
        log = log_of(shelf, plan, base, fresh=settings.fresh)
        written = Written(shelf, plan, base, stages, log)
        written.base()
        written.all()
        with stages("deploy"), workers(crew, settings.workshop) as hands:
            _deploy(hands, base, written)
        return written.all()


def fleet_plans(
    model: Original,
    plan: FleetPlan,
    *,
    data: Dataset,
    task: Task | Making | str | None = None,
    settings: Settings | None = None,
    crew: Crew | None = None,
    tell: Tell | None = None,
) -> dict[str, Predicted]:
    """Return what would be planned for every deployment, by name: all of it predicted. Nothing is built.

    Raises as `fleet` does, and RequestError where one of them cannot be planned.
    """
    settings, crew = settings or Settings(), crew or Crew()
    _check(plan, data, model)
    found: dict[str, Predicted] = {}
    with told(tell) as tell:
        base = base_of(model, data, task, settings, _runtimes(plan), stages=Stages(tell))
        parts = [part for group in _grounds(plan.every).values() for part in _parts(group)]
        with workers(crew, settings.workshop) as hands:
            given, running = hands.share(as_it_is, base), dict[Any, list[Deployment]]()
            while parts or running:
                while parts and len(running) < hands.most:
                    part = parts.pop(0)
                    running[hands.begin(predicted, given, part)] = part
                ticket, outcome = hands.ended([*running])
                part = running.pop(ticket)
                if outcome.why:
                    raise RequestError(f"deployment '{part[0].name}' cannot be planned: {outcome.why}")
                found |= {one.name: each for one, each in zip(part, outcome.value, strict=True)}
                tell(Event("plan", len(found), len(plan.every), part[0].subset))
    return {one.name: found[one.name] for one in plan.every}


def as_it_is(_: Site, base: Base) -> Base:
    """Share a base itself."""
    return base


def _check(plan: FleetPlan, data: Dataset, model: Original) -> None:
    """Raise DataError where classes are not the data's, and RequestError where the model scores others."""
    check_inputs(model.net, data)
    for name, classes in plan.subsets.items():
        if classes == ALL:
            continue
        try:
            places_of(classes, data.labels)
        except DataError as error:
            raise DataError(f"subset '{name}': {error}") from error
        if len(model.output_shapes) != 1 or model.output_shapes[0][-1] != len(data.labels):
            raise RequestError(
                f"subset '{name}' is of the data's {len(data.labels)} classes, and the model does not score these "
                "alone: it returns " + " and ".join(str([*shape]) for shape in model.output_shapes)
            )


def _runtimes(plan: FleetPlan) -> dict[str, bool]:
    """The runtimes of a plan, and whether the latency of layers counts there."""
    found: dict[str, bool] = {}
    for one in plan.every:
        found[one.runtime] = found.get(one.runtime, False) or one.asked.latency is not None
    return found


def _grounds(every: Iterable[Deployment]) -> dict[Ground, list[Deployment]]:
    """Deployments by what they share, in the order in which they were first met."""
    found: dict[Ground, list[Deployment]] = {}
    for one in every:
        found.setdefault(one.ground, []).append(one)
    return found


def _parts(some: list[Deployment]) -> Iterable[list[Deployment]]:
    return (some[start : start + AT_ONCE] for start in range(0, len(some), AT_ONCE))


def _deploy(hands: Workers, base: Base, written: Written) -> None:
    """Begin what is not finished, take in what ends, and show it."""
    plan, log, stocks = written.plan, written.log, dict[Ground, Any]()
    given, grounds = hands.share(as_it_is, base), _grounds(plan.every)
    waiting = [one for one in plan.every if one.name not in log.deployed]
    running: dict[Any, Deployment] = {}
    while waiting or running:
        written.told(len(running))
        while waiting and len(running) < hands.most:
            one = _next(waiting, running.values())
            waiting.remove(one)
            if one.ground not in stocks:
                stocks[one.ground] = hands.share(stock_of, given, grounds[one.ground])
            order = Order(one, order_key(base.context, one), nearest(one, log.deployed.values()))
            running[hands.begin(deployed, stocks[one.ground], order, written.shelf.address)] = one
        ticket, outcome = hands.ended([*running])
        one = running.pop(ticket)
        log.take(one, outcome.value, outcome.why)
        written.now_and_then()
        if not any(other.ground == one.ground for other in (*waiting, *running.values())):
            del stocks[one.ground]
    written.told(0)


def _next(waiting: Sequence[Deployment], running: Iterable[Deployment]) -> Deployment:
    """The first that shares its ground with none under way, if there is one: what ends first is learned from."""
    busy = {one.ground for one in running}
    return next((one for one in waiting if one.ground not in busy), waiting[0])
