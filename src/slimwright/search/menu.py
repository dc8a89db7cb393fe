"""What a plan chooses from: the knobs of every technique, priced; and what a choice makes of the net."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from slimwright.cost import Cost
from slimwright.search.dual import Dual, Sum
from slimwright.search.knapsack import Plan, Problem
from slimwright.search.pieces import Piece
from slimwright.search.predictor import Predictor
from slimwright.techniques import Choice, Knob, Observed, Step, Technique
from slimwright.techniques.knobs import Key

Costs: TypeAlias = Callable[[Choice], Mapping[str, float]]
FLOAT_BYTES = 4  # of a number
Sums: TypeAlias = Callable[[Choice], Mapping[str, Sum]]  # of choices that use about as much memory as one does


@dataclass(frozen=True)
class Menu:
    """The knobs that each technique offers, and what predicts the costs of a choice."""

    observed: Observed
    predictor: Predictor
    knobs: Mapping[str, Sequence[Knob]]  # by the technique's name
    techniques: Sequence[Technique]

    def problem(
        self,
        costs: Costs,
        limited: Collection[str],
        *,
        alone: str | None = None,
        without: Collection[str] = (),
        weights: Mapping[str, float] | None = None,
        sums: Sums | None = None,
    ) -> Problem:
        """Return the choice to make: of one technique's knobs `alone`, or of all but those `without`.

        What is not open stays whole. The damage of a technique's knobs counts by its entry in `weights`. Where
        `sums` say of what the costs are, the plan's distance to the best one is known.
        """
        sizes: dict[Key, Sequence[int]] = {key: found[:1] for key, found in self.predictor.sizes.items()}
        damage: dict[Key, Callable[[int], float]] = {}
        for name, knobs in self.knobs.items():
            weight = (weights or {}).get(name, 1.0)
            for knob in knobs:
                is_open = alone in (None, name) and name not in without
                sizes[knob.key] = knob.settings if is_open else knob.settings[:1]
                damage[knob.key] = _weighted(knob, weight)
        every = {key: damage.get(key, _none) for key in sizes}
        dual = (lambda counts: Dual(self.predictor, sizes, every, sums(counts))) if sums else None
        return Problem(sizes, every, costs, relief_falls="peak_activation_bytes" not in limited, dual=dual)

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

    def costs(self, original: Cost, whole_net: Cost, tensor_share: float, limited: Sequence[str]) -> Costs:
        """Return what predicts the limited costs of a choice for a precision, of which `whole_net` was measured.

        `tensor_share` of its time goes to layers that multiply by weights, and is predicted from the table's; the rest
        from the elements that other layers write. What a knob of its own `saves` is a share of the original's cost.
        """
        assert whole_net.latency_ms is not None and whole_net.size_bytes is not None and original.size_bytes is not None
        predictor = self.predictor
        timed = "latency_ms" in limited and predictor.shapes  # a net without layers has nothing to plan
        latency = predictor.latency(whole_net.latency_ms, tensor_share) if timed else lambda _: 0.0
        size = whole_net.size_bytes / original.size_bytes
        other_bytes = original.size_bytes - predictor.weight_bytes(predictor.whole)
        other_weights = original.weight_bytes - predictor.weight_bytes(predictor.whole)  # biases and norms
        every: dict[str, Callable[[Choice], float]] = {
            "latency_ms": latency,
            "size_bytes": lambda counts: size * (other_bytes + predictor.weight_bytes(counts)),
            "macs": predictor.macs,
            "weight_bytes": lambda counts: other_weights + predictor.weight_bytes(counts),
            "peak_activation_bytes": predictor.peak_activation_bytes,
            "energy_mj": lambda counts: (whole_net.energy_mj or 0.0) * predictor.macs(counts) / original.macs,
        }
        own = [knob for knobs in self.knobs.values() for knob in knobs if knob.saves is not None]
        wholes = {name: float(getattr(whole_net, name) or 0.0) for name in limited}

        def predicted(choice: Choice) -> Mapping[str, float]:
            found = {name: every[name](choice) for name in limited}
            for knob in own:
                saved = knob.saves(choice[knob.key]) if knob.saves is not None else {}
                found = {name: cost - wholes[name] * saved.get(name, 0.0) for name, cost in found.items()}
            return found

        return predicted

    def sums(self, original: Cost, whole_net: Cost, tensor_share: float, limited: Collection[str]) -> Sums | None:
        """Return the same costs as sums over layers; None where one of them is no sum: peak memory."""
        if "peak_activation_bytes" in limited or ("latency_ms" in limited and not self.predictor.shapes):
            return None
        assert whole_net.latency_ms is not None and whole_net.size_bytes is not None and original.size_bytes is not None
        predictor, whole = self.predictor, self.predictor.whole
        size = whole_net.size_bytes / original.size_bytes
        other_bytes = original.size_bytes - predictor.weight_bytes(whole)
        other_weights = original.weight_bytes - predictor.weight_bytes(whole)
        energy = (whole_net.energy_mj or 0.0) / max(original.macs, 1)

        def macs(_: str, piece: Piece) -> float:
            return float(piece.weights * piece.pixels)

        def weight_bytes(_: str, piece: Piece) -> float:
            return float(FLOAT_BYTES * piece.weights)

        def latency(counts: Choice) -> Sum:
            missed = predictor.missed(counts)
            layers_ms = sum(predictor.layer_ms(whole).values())
            scale = (whole_net.latency_ms or 0.0) * tensor_share / layers_ms
            rest = (whole_net.latency_ms or 0.0) * (1 - tensor_share)
            constant, per_channel = predictor.other_bytes_by_channel
            share = rest / max(predictor.other_bytes(whole), 1)
            each = {group: share * value for group, value in per_channel.items()}
            if not predictor.other_bytes(whole):
                constant, share = 1.0, rest
            return Sum(lambda name, piece: scale * predictor.piece_ms(name, piece, missed), share * constant, each)

        def found(counts: Choice) -> Mapping[str, Sum]:
            every: dict[str, Callable[[], Sum]] = {
                "latency_ms": lambda: latency(counts),
                "size_bytes": lambda: Sum(
                    lambda name, piece: size * weight_bytes(name, piece), size * other_bytes, byte=size
                ),
                "weight_bytes": lambda: Sum(weight_bytes, other_weights, byte=1.0),
                "macs": lambda: Sum(macs, float(predictor.products)),
                "energy_mj": lambda: Sum(
                    lambda name, piece: energy * macs(name, piece), energy * float(predictor.products)
                ),
            }
            return {name: every[name]() for name in limited}

        own = any(knob.saves is not None for knobs in self.knobs.values() for knob in knobs)
        return None if own else found


def _lowers(knob: Knob, choice: Choice) -> bool:
    return choice.get(knob.key, knob.settings[0]) < knob.settings[0]


def _weighted(knob: Knob, weight: float) -> Callable[[int], float]:
    return lambda setting: weight * knob.damage(setting)


def _none(_: int) -> float:
    return 0.0


def predicted_ms(plan: Plan | None) -> float | None:
    """Return the milliseconds that a plan predicts; None without a plan, or one that latency did not limit."""
    return None if plan is None else plan.predicted.get("latency_ms")
