"""What can be done to a network: it is observed once, and every technique offers its knobs, priced."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from slimwright.cost import Budget, memory_there
from slimwright.cost.latency import LatencyTable
from slimwright.coupling import couple
from slimwright.errors import DataError
from slimwright.evidence import FORMAT, Evidence, Portions, load_evidence, observe, sums_bytes
from slimwright.jobs.bench import Bench
from slimwright.jobs.forecast import BATCH, portions_of
from slimwright.jobs.stages import Stages
from slimwright.kept import kept_at
from slimwright.measure import Decision, Outcome
from slimwright.progress import Event
from slimwright.runtimes.known import RUNTIMES
from slimwright.runtimes.layers import TRANSFORMED, timed_by
from slimwright.search import PACKED, Goal, Menu, Predictor, Space, Tuning, factorisable
from slimwright.targets import layer_table
from slimwright.units import megabytes

Kind: TypeAlias = tuple[bool, bool]  # of a menu: latency counts; the file's size counts, and latency does not


@dataclass(frozen=True)
class Proposed:
    """The space of a job, what its policy noted, and the menu, once it was asked for."""

    space: Space
    decisions: list[Decision]
    menus: list[Menu]


def proposed(bench: Bench, budget: Budget, tune: Tuning, *, stages: Stages, cache: Path) -> Proposed:
    """Return what a policy can choose from. The network is observed, and knobs are priced, when they are asked for."""
    original, decisions, menus = bench.original(), list[Decision](), list[Menu]()
    limits = budget.absolute(original.cost)

    def menu() -> Menu:
        if not menus:
            with stages("observe"):
                evidence = observed(bench, cache, tune.seed).all()
            with stages("plan"):
                timed, stored = kind_of(budget)
                table = layer_table(bench.place.target, timed_by(bench.place.runtime), cache)
                menus.append(menu_of(bench, evidence, table, timed=timed, stored=stored))
        return menus[0]

    def note(what: str, outcome: Outcome, why: str) -> None:
        decisions.append(Decision(what=what, outcome=outcome, why=why))

    space = Space(
        goal=Goal(budget, limits, bench.given.task.metric),
        net=bench.given.net,
        original=original,
        encodings=["int8"] if "int8" in RUNTIMES[bench.place.runtime].precisions else [],
        images=bench.given.data.size("calibration"),
        menu=menu,
        recipe=bench.method.recipe,
        tune=tune,
        note=note,
        tell=bench.tell,
    )
    return Proposed(space, decisions, menus)


def observed(bench: Bench, cache: Path, seed: int) -> Evidence:
    """Return evidence from the calibration part; kept under a key of the net's and the images' content."""
    given = bench.given
    portions = _portions(bench)
    said = json.dumps([FORMAT, given.net.digest, bench.context["calibration"], bench.context["task"], seed,
                       *([portions.sums] if portions.sums < sum(sums_bytes(given.net).values()) else [])])  # fmt: skip
    path = kept_at(cache, "evidence", said)
    with suppress(DataError):  # what is missing or damaged is observed again
        return load_evidence(path)
    evidence = observe(
        given.net,
        given.data.batches("calibration", BATCH),
        task=given.task,
        seed=seed,
        images=given.data.size("calibration"),
        memory_bytes=portions.sums,
        alive_bytes=portions.alive,
        taylor=False,  # no knob reads it, and it takes a pass
        device=bench.method.device,
        checkpoint=kept_at(cache, "observing", said),
        tell=bench.tell,
    )
    evidence.save(path)
    return evidence


def _portions(bench: Bench) -> Portions:
    """What observing may spend; it says so where memory is short. Raises RequestError where the least does not fit."""
    net, there = bench.given.net, memory_there(bench.method.memory_bytes)
    found = portions_of(net, bench.given.task, device=bench.method.device, there=there)
    if found != Portions():
        note = f"memory is short: sums take {megabytes(found.sums)} at most, values {megabytes(found.alive)}"
        if found.sums < sum(sums_bytes(net).values()):
            note += "; the widest layers are not observed, and stay as they are"
        bench.tell(Event("memory", 1, 1, note))
    return found


def kind_of(budget: Budget) -> Kind:
    """Return which menu a budget is planned from."""
    timed = budget.concerns("latency_ms") or budget.concerns(PACKED)
    return timed, budget.concerns("size_bytes") and not timed


def menu_of(bench: Bench, evidence: Evidence, table: LatencyTable, *, timed: bool, stored: bool = False) -> Menu:
    """Price the knobs of every technique. The channel step and, if latency counts, layers are measured, or known.

    Where the file's size counts and time does not (`stored`), layers may have fewer bits and compute in float.
    """
    net, tell = bench.given.net, bench.tell
    runtime, coupling = timed_by(bench.place.runtime), couple(net)
    tell(Event("plan", 0, 3, "find the channel step"))
    liked = table.step()
    step = liked if timed else 1  # other costs count each channel; but ranks that a runtime does not like do not pay
    ranks = factorisable(net, evidence, liked)
    transformed, few = TRANSFORMED.get(runtime, 1.0), RUNTIMES[bench.place.runtime].weight_bits if stored else ()
    bits = {name: few for name in net.layers if few and name in evidence.layers}
    predictor = Predictor(
        net,
        coupling,
        table,
        step,
        ranks=ranks,
        bits=bits,
        rank_step=liked,
        transformed=transformed,
        block=table.block,
    )
    if timed:
        predictor.measure(tell)
    table.save()
    tell(Event("plan", 2, 3, f"{len(table)} layer shapes known, channels in steps of {step}"))
    images, method = bench.given.data.size("calibration"), bench.method
    menu = Menu.priced(predictor, evidence, method.techniques, images=images, device=method.device, tell=tell)
    tell(Event("plan", 3, 3))
    return menu
