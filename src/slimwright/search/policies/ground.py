"""What a search chooses from: the knobs of a net in one precision, and which settings can still meet the limits.

Actions that cannot lead to a net within the limits are not offered, so none has to be punished: a setting is allowed
where the limits can be met with all knobs that are still to come at their least. AMC bounds its actions in this way (He
et al. 2018, arXiv 1802.03494). Exact for multiply-accumulates, weights and memory; for measured costs as exact as their
prediction, which is corrected by what was measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from slimwright.coupling import couple
from slimwright.graph import Net
from slimwright.search.knapsack import Plan, Problem
from slimwright.search.menu import Menu
from slimwright.search.planning import CHANNELS, Whole, problem_for
from slimwright.search.predictor import Predictor
from slimwright.search.space import Evaluation, Space
from slimwright.techniques import Remove, Step
from slimwright.techniques.knobs import Choice, Key
from slimwright.techniques.remove import removed
from slimwright.techniques.solver.draft import Draft

WHOLE_FROM, WHOLE_RANK_FROM = 0.8, 0.5  # shares from which on a group, or a rank, stays whole; ours


@dataclass(frozen=True)
class Ground:
    """A net that is shrunk: how the whole of it was measured, its knobs, and the steps that come `before` them."""

    net: Net
    whole: Whole
    menu: Menu
    problem: Problem
    before: tuple[Step, ...] = ()

    @property
    def keys(self) -> list[Key]:
        """The knobs that can be turned, in execution order, ranks behind channels."""
        return [key for key, settings in self.problem.sizes.items() if len(settings) > 1]

    @cached_property
    def channels(self) -> frozenset[Key]:
        """The knobs that are channels of groups; all others are ranks."""
        return frozenset(knob.key for knob in self.menu.knobs.get(CHANNELS, ()))

    def wanted(self, key: Key, share: float) -> float:
        """Return the setting that a share, 0 to 1, stands for: the whole from `WHOLE_FROM` on, and less in proportion.

        So a random share leaves a knob whole with a fair chance, however many settings it has.
        """
        return min(share / self._whole_from(key), 1.0) * self.problem.sizes[key][0]

    def share(self, key: Key, setting: int) -> float:
        """Return a share that stands for a setting: what `wanted` undoes."""
        part = setting / self.problem.sizes[key][0]
        return 1.0 if part == 1 else part * self._whole_from(key)

    def _whole_from(self, key: Key) -> float:
        return WHOLE_FROM if key in self.channels else WHOLE_RANK_FROM

    def steps(self, choice: Choice) -> list[Step]:
        """Return the steps of a recipe that lead to a choice."""
        return [*self.before, *self.menu.steps(choice)]

    def plan(self, choice: Choice, original: Menu) -> Plan:
        """Return what is predicted of a choice; what is no more there of the original net counts as whole."""
        damage = sum(self.problem.damage[key](setting) for key, setting in choice.items())
        counts = {**original.predictor.whole, **choice}
        return Plan(counts, damage, dict(self.problem.costs(choice)), feasible=True)


def ground_of(space: Space, whole: Whole, alone: str | None = None) -> Ground:
    """Return the original in one precision, with the knobs of one technique `alone`, or with all of them."""
    return Ground(space.net, whole, space.menu(), problem_for(space, whole, tuple(space.limits), alone=alone))


def ground_without(space: Space, whole: Whole, layers: Sequence[str], seen: Evaluation) -> Ground:
    """Return the net without some layers, measured as `seen`, and the groups that it shares with the original.

    The order in which channels go is that of the original's evidence.
    """
    menu, draft = space.menu(), Draft.of(space.net)
    for name in layers:
        draft = removed(draft, name)
    coupling, old = couple(draft.net), menu.predictor
    predictor = Predictor(draft.net, coupling, old.table, old.step, transformed=old.transformed)
    if "latency_ms" in space.limits and predictor.shapes:
        predictor.measure(space.tell)
    knobs = [knob for knob in menu.knobs.get(CHANNELS, ()) if predictor.sizes.get(knob.key) == [*knob.settings]]
    what = replace(
        menu.observed,
        net=draft.net,
        coupling=coupling,
        settings=predictor.sizes,
        ladders=predictor.ladders,
        factors=predictor.factors,
    )
    smaller = Menu(what, predictor, {CHANNELS: knobs}, menu.techniques)
    gone = old.weight_bytes(old.whole) - predictor.weight_bytes(predictor.whole)
    assert space.original.cost.size_bytes is not None
    in_float = replace(space.original.cost, macs=seen.cost.macs, size_bytes=space.original.cost.size_bytes - gone)
    costs = smaller.costs(in_float, seen.cost, seen.tensor_share, tuple(space.limits))
    here = Whole(seen.name, seen, whole.quantize)
    return Ground(draft.net, here, smaller, smaller.problem(costs), (Remove(layers=tuple(layers)),))


class Descent:
    """Settings that are chosen knob by knob, so that what is still to come can meet the limits."""

    def __init__(self, ground: Ground, aims: Mapping[str, float]) -> None:
        self.ground, self.aims = ground, aims
        sizes = ground.problem.sizes
        self.choice: dict[Key, int] = {key: sizes[key][-1 if len(sizes[key]) > 1 else 0] for key in sizes}

    def allowed(self, key: Key) -> list[int]:
        """Return the settings of a knob with which the limits can be met, largest first; the least where none can."""
        settings = self.ground.problem.sizes[key]
        return [setting for setting in settings if self._fits({**self.choice, key: setting})] or [settings[-1]]

    def nearest(self, key: Key, share: float) -> int:
        """Return the allowed setting nearest to what a share stands for."""
        return nearest(self.allowed(key), self.ground.wanted(key, share))

    def choose(self, key: Key, setting: int) -> None:
        """Set a knob."""
        self.choice[key] = setting

    def share(self) -> float:
        """Return the limited cost so far, what is to come at its least, as a share of the aim: the largest of them."""
        return share_of(self.ground, self.choice, self.aims)

    def _fits(self, choice: Choice) -> bool:
        return share_of(self.ground, choice, self.aims) <= 1


def nearest(settings: Sequence[int], wanted: float) -> int:
    """Return the setting nearest to a number; of two, the first."""
    return min(settings, key=lambda setting: abs(setting - wanted))


def share_of(ground: Ground, choice: Choice, aims: Mapping[str, float]) -> float:
    """Return the predicted costs of a choice as shares of what is aimed at: the largest of them."""
    costs = ground.problem.costs(choice)
    return max(costs[name] / aim for name, aim in aims.items())


def followed(ground: Ground, aims: Mapping[str, float], shares: Mapping[Key, float]) -> Choice:
    """Return the choice nearest to what shares stand for, knob by knob, that can meet the aims."""
    descent = Descent(ground, aims)
    for key in ground.keys:
        descent.choose(key, descent.nearest(key, shares[key]))
    return descent.choice
