"""What became of every candidate, knob and layer of a job, and why: the decisions of a report."""

from collections.abc import Iterator, Sequence

from slimwright.cost.budget import called
from slimwright.measure import CandidateRecord, Decision, Outcome
from slimwright.search import Evaluation, Menu, Space
from slimwright.techniques import Solve


def verdicts(
    space: Space, best: Evaluation, made: Sequence[Evaluation], noted: Sequence[Decision], menu: Menu | None
) -> list[Decision]:
    """Return the decisions of a job: the chosen candidate's first, then what the policy noted, then all others."""
    why = f"{space.time_share(best):.2f}x the original's time, measured; "
    lost = space.metric.number(space.drop(best))
    why += f"{lost} {space.metric.step} of {space.metric.name} lost on the validation part"
    chosen = Decision(what=f"candidate '{best.name}'", outcome="kept", why=why)
    noted = [*_of_plan(best), *noted]
    others = [_of_candidate(space, best, one) for one in made if one.key not in (best.key, space.original.key)]
    return [chosen, *noted, *others, *(_of_network(space, best, menu) if menu else ())]


def reachable(space: Space, made: Sequence[Evaluation]) -> list[str]:
    """Say what can be had in place of the budget: the least loss within the limits, and the least cost within the drop.

    Both were measured, on the validation part.
    """
    metric, most, said = space.metric, space.budget.max_drop, []
    ships = [one for one in made if one.key == space.original.key or space.ships(one)]
    fits = [one for one in ships if all(share <= 1 for share in space.shares(one).values())]
    if fits and space.limits:
        best = min(fits, key=space.drop)
        lost = metric.number(space.drop(best))
        said.append(f"within the limits {lost} {metric.step} of {metric.name} are lost, by '{best.name}'")
    holds = [one for one in ships if space.drop(one) <= most]
    if holds and space.limits:
        best = min(holds, key=lambda one: sum(max(share - 1, 0.0) for share in space.shares(one).values()))
        costs = " and ".join(f"{_of_original(space, best, name)} of {called(name)}" for name in space.limits)
        said.append(f"with at most {most:g} {metric.step} lost there are {costs}, by '{best.name}'")
    return said


def _of_original(space: Space, one: Evaluation, name: str) -> str:
    return f"{float(getattr(one.cost, name)) / float(getattr(space.original.cost, name)):.2f}x"


def _of_plan(best: Evaluation) -> Iterator[Decision]:
    """How far from the least damage the chosen plan can be."""
    plan = best.candidate.plan
    if plan is not None and plan.gap is not None:
        why = f"its predicted damage is at most {100 * plan.gap:.2g} % above the least that is possible"
        yield Decision(what=f"plan of '{best.name}'", outcome="kept", why=why)


def _of_candidate(space: Space, best: Evaluation, one: Evaluation) -> Decision:
    outcome: Outcome = "not chosen" if space.ships(one) else "taken back"
    return Decision(what=f"candidate '{one.name}'", outcome=outcome, why=space.why_not(one, best))


def _of_network(space: Space, best: Evaluation, menu: Menu) -> Iterator[Decision]:
    """What the chosen plan does to each group of channels and to each layer's rank."""
    net, coupling, plan = space.net, menu.observed.coupling, best.candidate.plan
    damages = {knob.key: knob for knobs in menu.knobs.values() for knob in knobs}
    for group in coupling.groups:
        label = net.paths[group.name.partition("[")[0]]
        left = plan.counts[group.name] if plan else group.size
        why = "the plan leaves it whole" if plan else "the chosen candidate is not pruned"
        if group.name in coupling.balanced and len(menu.predictor.sizes[group.name]) == 1:
            why = "grouped layers need equal parts of it and of other channels at once, which planning does not do"
        elif group.name not in damages:
            why = "its reader is too large to observe"
        elif left < group.size:
            why = f"predicted damage {damages[group.name].damage(left):.1e} nats"
        what = f"{label}: {group.size} -> {left} channels" if left < group.size else f"{label}: all {left} channels"
        yield Decision(what=what, outcome="kept" if left < group.size else "left whole", why=why)
    for name, factors in menu.predictor.factors(plan.counts).items() if plan else ():
        ranks = " and ".join(map(str, factors.ranks))
        yield Decision(
            what=f"{net.paths[name]}: {factors.kind} at {ranks}", outcome="kept", why="the plan lowers its rank"
        )
    for node, reason in coupling.frozen.items():
        yield Decision(what=f"{net.paths[node]}: all channels", outcome="left whole", why=f"they must stay: {reason}")


def candidate_of(one: Evaluation, *, chosen: bool) -> CandidateRecord:
    """Return what a bundle keeps of a candidate."""
    plan, steps = one.candidate.plan, one.candidate.recipe.steps
    assert one.cost.latency_ms is not None and one.cost.size_bytes is not None
    return CandidateRecord(
        name=one.name,
        precision=one.precision,
        predicted_latency_ms=one.candidate.predicted_ms,
        predicted_damage=plan.damage if plan else None,
        predicted_gap=plan.gap if plan else None,
        latency_ms=one.cost.latency_ms,
        size_bytes=one.cost.size_bytes,
        macs=one.cost.macs,
        validation_score=one.score,
        images=next((step.images for step in steps if isinstance(step, Solve)), None),
        proven=one.proven,
        chosen=chosen,
    )
