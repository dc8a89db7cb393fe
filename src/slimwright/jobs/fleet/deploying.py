"""One deployment: plan, solve, prove. What is finished lies on the fleet's shelf, the record last."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError

from slimwright.cost import Cost, count
from slimwright.graph import Net
from slimwright.jobs.bench import ORIGINAL
from slimwright.jobs.fleet.base import Base
from slimwright.jobs.fleet.ground import Ground
from slimwright.jobs.fleet.making import RESULT, Maker
from slimwright.jobs.fleet.plan_file import Deployment
from slimwright.jobs.fleet.shelf import Shelf
from slimwright.jobs.fleet.stock import Site, Stock, planning_ground
from slimwright.jobs.handed_over import checked_parity
from slimwright.jobs.proposed import kind_of
from slimwright.measure import (
    RECIPE,
    STEMS,
    Corrected,
    Deployed,
    ModelProof,
    Predicted,
    Proven,
    ProvenSide,
    as_json,
    drop_interval,
    misses,
)
from slimwright.reading import sha256_of
from slimwright.search import (
    PAYS,
    Candidate,
    Correction,
    Direct,
    Evaluation,
    Plan,
    Whole,
    direct_plan,
    key_of,
    planned,
)
from slimwright.storage import write_packed
from slimwright.techniques import fold_batch_norm

SCORE = "score"  # beside the costs by which a model was chosen
PROOF, PACKED_NET = "proof.json", "net.swz"


@dataclass(frozen=True)
class Order:
    """A deployment to be made, and what is known of one like it."""

    deployment: Deployment
    key: str
    corrections: Mapping[str, Correction]


def order_key(context: Mapping[str, object], one: Deployment) -> str:
    """Return the key of a deployment's result: everything that shapes it."""
    return key_of(context, one.classes, one.runtime, one.asked.model_dump(mode="json"))


def deployed(site: Site, stock: Stock, order: Order, address: str) -> Deployed:
    """Return a deployment that is finished: planned, solved and proven, or found on the shelf.

    Raises ProofError where the runtime's outputs are not those of the net, or the original's not those of the model as
    it was given.
    """
    began, shelf, one = time.perf_counter(), Shelf(address), order.deployment
    if (done := finished(shelf, one.name, order.key)) is not None:
        return done
    maker, ground, budget = site.maker(stock), stock.ground, one.budget
    space, sized, tried = ground.space(budget, stock.wholes[0].seen), budget.concerns("size_bytes"), set[str]()
    wholes = [each for each in stock.wholes if not each.quantize or sized or space.time_share(each.seen) < PAYS]

    def evaluate(candidate: Candidate) -> Evaluation:
        key = ground.model_key(candidate.recipe)
        if (known := _known(shelf, candidate, key)) is not None:
            return known
        tried.add(key)
        return maker.evaluate(candidate)

    found = direct_plan(space, evaluate, wholes, order.corrections)
    proof = _on_shelf(shelf, found.best.key) or _shipped(maker, found.best, shelf)
    record = _judged(order, proof, found, len(tried), ground, time.perf_counter() - began)
    shelf.write(_record_at(one.name), as_json(record).encode())
    return record


def finished(shelf: Shelf, name: str, key: str) -> Deployed | None:
    """Return the record of a deployment that is whole and bears this key."""
    found = record_on(shelf, _record_at(name))
    return found if found is not None and found.key == key else None


def record_on(shelf: Shelf, name: str) -> Deployed | None:
    """Return the record in a file of the shelf; None where it is missing or is none."""
    data = shelf.read(name)
    try:
        return None if data is None else Deployed.model_validate_json(data)
    except ValidationError:
        return None


def predicted(site: Site, base: Base, deployments: Sequence[Deployment]) -> list[Predicted]:
    """Return what would be planned for deployments of one ground. Nothing is built."""
    ground = planning_ground(base, deployments)
    whole = Whole("fp32", ground.whole)
    return [_predicted(ground, planned(ground.space(one.budget), whole), one) for one in deployments]


def _predicted(ground: Ground, plan: Plan, one: Deployment) -> Predicted:
    used = ground.menus[kind_of(one.budget)].used(plan.counts)
    return _of_plan(plan, " and ".join(used.values()) or ORIGINAL)


def _record_at(name: str) -> str:
    return f"deployments/{name}.json"


def _on_shelf(shelf: Shelf, key: str) -> ModelProof | None:
    """The proof of a model that another deployment shipped."""
    data = shelf.read(f"models/{key}/{PROOF}")
    try:
        return None if data is None else ModelProof.model_validate_json(data)
    except ValidationError:
        return None


def _known(shelf: Shelf, candidate: Candidate, key: str) -> Evaluation | None:
    """The evaluation of a model that another deployment shipped."""
    proof = _on_shelf(shelf, key)
    if proof is None:
        return None
    costs = {name: value for name, value in proof.chosen_by.items() if name != SCORE}
    return Evaluation(candidate, key, proof.precision, Cost(**costs), proof.chosen_by[SCORE], proven=True)  # type: ignore[arg-type]


def _shipped(maker: Maker, best: Evaluation, shelf: Shelf) -> ModelProof:
    """Prove a model on the test part, and put its files on the shelf, the proof last."""
    one, ground = maker.made[best.key], maker.ground
    seen = maker.proven(best.key)
    reading, proof = checked_parity(seen[ORIGINAL], ORIGINAL), checked_parity(seen[RESULT], RESULT)
    with TemporaryDirectory(prefix="slimwright-") as name:
        folder = Path(name)
        assert one.artefact is not None
        artefact = one.artefact.copied(folder, STEMS["result"])
        ground.given.about.write(one.net, artefact, folder)
        (folder / RECIPE).write_text(as_json(best.candidate.recipe))
        packed = write_packed(fold_batch_norm(one.net), folder / PACKED_NET, base=ground.stored_from)
        files = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
        test, outputs = maker.test(), seen[RESULT].first.outputs
        assert outputs is not None and test.exam.targets is not None
        plan = best.candidate.plan
        given = test.exam.score(test.expected)
        record = ModelProof(
            key=best.key,
            candidate=best.name,
            precision=best.precision,
            predicted=None if plan is None else _of_plan(plan, best.name),
            chosen_by={**_numbers(best.cost), SCORE: best.score},
            original=_side(ground.given.net, seen[ORIGINAL], given),
            result=_side(one.net, seen[RESULT], seen[RESULT].score),
            reading=reading,
            proof=proof,
            interval=drop_interval(ground.given.task, test.expected, outputs, test.exam.targets),
            packed_bytes=packed.size_bytes,
            is_delta=packed.is_delta,
            sha256=files,
        )
        for file in files:
            shelf.write(f"models/{best.key}/{file}", (folder / file).read_bytes())
    shelf.write(f"models/{best.key}/{PROOF}", as_json(record).encode())
    return record


def _of_plan(plan: Plan, done: str) -> Predicted:
    return Predicted(plan=done, costs=dict(plan.predicted), damage=plan.damage, feasible=plan.feasible)


def _numbers(cost: Cost) -> dict[str, float]:
    return {name: float(value) for name, value in vars(cost).items() if value is not None}


def _side(net: Net, one: Proven, score: float | None) -> ProvenSide:
    assert one.latency is not None and score is not None
    counted = count(net)
    return ProvenSide(
        score=score,
        latency_ms=one.latency.median_ms,
        size_bytes=one.artefact.size_bytes,
        macs=counted.macs,
        weight_bytes=counted.weight_bytes,
        peak_activation_bytes=counted.peak_activation_bytes,
    )


def _judged(order: Order, proof: ModelProof, found: Direct, tried: int, ground: Ground, seconds: float) -> Deployed:
    """Say whether a proven model is within a budget; limits are resolved against the original of the same proof."""
    one, metric = order.deployment, ground.given.task.metric
    limits = one.budget.absolute(cost_of(proof.original))
    drop = metric.drop(proof.original.score, proof.result.score)
    costs = {name: float(getattr(proof.result, name)) for name in limits}
    missed = misses(limits, costs, drop, one.asked.max_drop, metric)
    return Deployed(
        key=order.key,
        name=one.name,
        subset=one.subset,
        classes=list(ground.classes),
        budget=one.budget_name,
        asked=one.asked.said,
        max_drop=one.asked.max_drop,
        runtime=one.runtime,
        limits=limits,
        model=proof,
        drop=drop,
        within_budget=not missed,
        misses=missed,
        corrections={name: Corrected(**asdict(each)) for name, each in found.corrections.items()},
        tried=tried,
        seconds=seconds,
    )


def cost_of(side: ProvenSide) -> Cost:
    """Return the costs of one of a proof's models."""
    return Cost(
        side.macs,
        0,
        side.weight_bytes,
        side.peak_activation_bytes,
        latency_ms=side.latency_ms,
        size_bytes=side.size_bytes,
    )
