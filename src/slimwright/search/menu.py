"""What a plan chooses from: the knobs of every technique, priced; and what a choice makes of the net."""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, Self

from slimwright.cost import Cost
from slimwright.evidence import Evidence
from slimwright.graph.encoding import FLOAT32
from slimwright.progress import Tell, silent
from slimwright.search.dual import Bound, CostOf, Dual, Sum
from slimwright.search.knapsack import Plan, Problem
from slimwright.search.moments import PEAK, Moments
from slimwright.search.pieces import Piece
from slimwright.search.predictor import Predictor
from slimwright.techniques import TECHNIQUES, Choice, Knob, Observed, Step, Technique
from slimwright.techniques.knobs import Key

FLOAT_BYTES = FLOAT32.bits // 8


@dataclass(frozen=True)
class Menu:
    """The knobs that each technique offers, and what predicts the costs of a choice."""

    observed: Observed
    predictor: Predictor
    knobs: Mapping[str, Sequence[Knob]]  # by the technique's name
    techniques: Sequence[Technique]
    duals: dict[Hashable, Dual] = field(default_factory=dict, repr=False, compare=False)  # that limits do not change

    @classmethod
    def priced(
        cls,
        predictor: Predictor,
        evidence: Evidence,
        techniques: Sequence[Technique] = TECHNIQUES,
        *,
        images: int,
        device: str = "cpu",
        tell: Tell = silent,
    ) -> Self:
        """Let every technique offer its knobs for the predictor's net, by evidence from so many images.

        The evidence must be that of all classes, added up. `device` prices ranks.
        """
        sees = Observed(
            predictor.net,
            predictor.coupling,
            evidence,
            predictor.sizes,
            predictor.ladders,
            predictor.factors,
            images=images,
            device=device,
            tell=tell,
        )
        knobs = {technique.name: technique.knobs(sees) for technique in techniques}
        return cls(sees, predictor, {name: found for name, found in knobs.items() if found}, techniques)

    def problem(
        self,
        costs: "Costs",
        *,
        alone: str | None = None,
        without: Collection[str] = (),
        weights: Mapping[str, float] | None = None,
        coarse: bool = False,
    ) -> Problem:
        """Return the choice to make: of one technique's knobs `alone`, or of all but those `without`.

        What is not open stays whole. The damage of a technique's knobs counts by its entry in `weights`. `coarse` has
        channels in the steps that the runtime likes, where they may be single.
        """
        choices = self.predictor.choices
        instead = choices.coarse() if coarse else {}
        sizes: dict[Key, Sequence[int]] = {key: found[:1] for key, found in self.predictor.sizes.items()}
        damage: dict[Key, Callable[[int], float]] = {}
        for name, knobs in self.knobs.items():
            weight = (weights or {}).get(name, 1.0)
            for knob in knobs:
                is_open = alone in (None, name) and name not in without
                settings = instead.get(knob.key, knob.settings)
                sizes[knob.key] = settings if is_open else settings[:1]
                damage[knob.key] = _weighted(knob, weight)
        every = {key: damage.get(key, _none) for key in sizes}
        sums_at, missed = costs.sums_at, self.predictor.missed if "latency_ms" in costs.every else _nothing

        said = costs.basis, alone, frozenset(without), frozenset((weights or {}).items()), coarse
        known: dict[Hashable, Dual] = {}

        def dual_at(share: float) -> Dual:
            duals = known if share else self.duals  # every plan has another share: those are not kept
            if (said, share) not in duals:
                duals[said, share] = Dual(self.predictor, sizes, every, sums_at(share) or {})
            return duals[said, share]

        bounded = sums_at(0.0) is not None

        def least_at(limits: Mapping[str, float]) -> Bound | None:
            return Moments.of(self.predictor).least(sizes, every, limits[PEAK])

        return Problem(
            sizes,
            every,
            costs,
            relief_falls=PEAK not in costs.every,
            dual=(lambda counts: dual_at(missed(counts))) if bounded else None,
            steps=dict.fromkeys(choices.steps, choices.rank_step) if coarse else choices.steps,
            program=least_at if {*costs.every} == {PEAK} and not costs.own else None,
        )

    @property
    def coarse_step(self) -> int | None:
        """The step that the runtime likes, where channels may be single ones; None where they come in such steps."""
        liked = self.predictor.choices.rank_step
        return liked if liked != self.predictor.step else None

    def steps(self, choice: Choice) -> list[Step]:
        """Return the steps of a recipe that lead to a choice."""
        return [
            step
            for technique in self.techniques
            for step in technique.steps(self.observed, self.knobs.get(technique.name, ()), choice)
        ]

    def used(self, choice: Choice) -> dict[str, str]:
        """Return the techniques of whose knobs a choice lowers any: what they do to a network, by name."""
        done = {technique.name: technique.done for technique in self.techniques}
        return {name: done[name] for name, knobs in self.knobs.items() if any(_lowers(k, choice) for k in knobs)}

    def costs(self, original: Cost, whole_net: Cost, tensor_share: float, limited: Sequence[str]) -> "Costs":
        """Return what predicts the limited costs of a choice for a precision, of which `whole_net` was measured.

        `tensor_share` of its time goes to layers that multiply by weights, and is predicted from the table's; the rest
        from the elements that other layers write. What a knob of its own `saves` is a share of the original's cost.
        """
        assert whole_net.latency_ms is not None and whole_net.size_bytes is not None and original.size_bytes is not None
        predictor = self.predictor
        matrices = predictor.weight_bytes(predictor.whole)
        every: dict[str, _Cost] = {
            "latency_ms": _Latency(predictor, whole_net.latency_ms, tensor_share),
            "size_bytes": _Linear(
                predictor.weight_bytes,
                _bytes_of,
                original.size_bytes - matrices,
                whole_net.size_bytes / original.size_bytes,
                in_bits=True,
            ),
            "weight_bytes": _Linear(  # biases and norms beside the matrices
                predictor.weight_bytes, _bytes_of, original.weight_bytes - matrices, in_bits=True
            ),
            "macs": _Linear(predictor.layer_macs, _macs_of, predictor.products),
            "energy_mj": _Linear(
                predictor.layer_macs,
                _macs_of,
                predictor.products,
                (whole_net.energy_mj or 0.0) / max(original.macs, 1),
            ),
            PEAK: _Peak(predictor),
        }
        own = [knob for knobs in self.knobs.values() for knob in knobs if knob.saves is not None]
        wholes = {name: float(getattr(whole_net, name) or 0.0) for name in limited}
        basis = original, whole_net, tensor_share, tuple(limited)
        return Costs({name: every[name] for name in limited}, own, wholes, basis)


class _Cost(Protocol):
    """One cost: of a choice, and as a sum over layers."""

    def __call__(self, choice: Choice) -> float:
        """Return what is predicted of a choice."""

    def sum_at(self, missed: float) -> Sum | None:
        """Return the same as a sum, where so much of emptied caches is paid; None where it is none."""


@dataclass(frozen=True)
class Costs:
    """Predicts costs by name, less what knobs of their `own` save of those of the whole net."""

    every: Mapping[str, _Cost]
    own: Sequence[Knob]
    wholes: Mapping[str, float]
    basis: Hashable  # all that they depend on besides the menu

    def __call__(self, choice: Choice) -> Mapping[str, float]:
        """Return the costs of a choice."""
        found = {name: cost(choice) for name, cost in self.every.items()}
        for knob in self.own:
            saved = knob.saves(choice[knob.key]) if knob.saves is not None else {}
            found = {name: cost - self.wholes[name] * saved.get(name, 0.0) for name, cost in found.items()}
        return found

    def sums_at(self, missed: float) -> dict[str, Sum] | None:
        """Return the costs as sums over layers, where so much of emptied caches is paid; None where one is none."""
        sums = {name: cost.sum_at(missed) for name, cost in self.every.items()}
        found = {name: one for name, one in sums.items() if one is not None}
        return None if self.own or len(found) < len(sums) else found


@dataclass(frozen=True)
class _Linear:
    """So much `each` of what is `counted` over layers, `of` a piece, and of a `rest`."""

    counted: Callable[[Choice], float]
    of: CostOf
    rest: float
    each: float = 1.0
    in_bits: bool = False  # it falls with the bits of weights

    def __call__(self, choice: Choice) -> float:
        return self.each * (self.rest + self.counted(choice))

    def sum_at(self, _: float) -> Sum:
        byte = self.each if self.in_bits else 0.0
        return Sum(lambda name, piece: self.each * self.of(name, piece), self.each * self.rest, byte=byte)


class _Latency:
    """Milliseconds, where the whole net was measured to take `whole_ms`; a net without layers has nothing to plan."""

    def __init__(self, predictor: Predictor, whole_ms: float, tensor_share: float) -> None:
        self.predictor, self.whole_ms, self.tensor_share = predictor, whole_ms, tensor_share

    @cached_property
    def _predicted(self) -> Callable[[Choice], float]:
        return self.predictor.latency(self.whole_ms, self.tensor_share)

    def __call__(self, choice: Choice) -> float:
        return self._predicted(choice) if self.predictor.shapes else 0.0

    def sum_at(self, missed: float) -> Sum | None:
        predictor, whole = self.predictor, self.predictor.whole
        if not predictor.shapes:
            return None
        scale = self.whole_ms * self.tensor_share / sum(predictor.layer_ms(whole).values())
        rest, others = self.whole_ms * (1 - self.tensor_share), predictor.other_bytes(whole)
        constant, per_channel = predictor.other_bytes_by_channel
        share = rest / others if others else 0.0
        return Sum(
            lambda name, piece: scale * predictor.piece_ms(name, piece, missed),
            share * constant if others else rest,
            {group: share * each for group, each in per_channel.items()},
        )


@dataclass(frozen=True)
class _Peak:
    """Activation memory, which is no sum."""

    predictor: Predictor

    def __call__(self, choice: Choice) -> float:
        return self.predictor.peak_activation_bytes(choice)

    def sum_at(self, _: float) -> None:
        return None


def _macs_of(_: str, piece: Piece) -> float:
    return float(piece.weights * piece.pixels)


def _bytes_of(_: str, piece: Piece) -> float:
    return float(FLOAT_BYTES * piece.weights)


def _lowers(knob: Knob, choice: Choice) -> bool:
    return choice.get(knob.key, knob.settings[0]) < knob.settings[0]


def _weighted(knob: Knob, weight: float) -> Callable[[int], float]:
    return lambda setting: weight * knob.damage(setting)


def _nothing(_: Choice) -> float:
    return 0.0


def _none(_: int) -> float:
    return 0.0


def predicted_ms(plan: Plan | None) -> float | None:
    """Return the milliseconds that a plan predicts; None without a plan, or one that latency did not limit."""
    return None if plan is None else plan.predicted.get("latency_ms")
