"""Replace layers by thinner ones (`low_rank.py` has the forms, `decompose.py` the decompositions)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from slimwright.cost import check_memory
from slimwright.data import Inputs, Targets, count_of, like, whole
from slimwright.errors import RequestError
from slimwright.evidence import Evidence, observe, together_within
from slimwright.techniques.knobs import Choice, Knob, Observed
from slimwright.techniques.low_rank import Factors, Kind, factorise, filled, outline
from slimwright.techniques.memory_plan import factorising_bytes
from slimwright.techniques.ranks import rank_damages, rank_kinds
from slimwright.techniques.technique import Step, Technique, Work
from slimwright.techniques.tune import Tune

BATCH = 64


class Ranks(BaseModel):
    """How one layer is factorised."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Kind
    ranks: tuple[Annotated[int, Field(gt=0)], ...]


class Factorise(Step):
    """Replace layers by thinner ones, from their weights.

    With `images`, so many calibration images are observed first, and errors of the outputs count, not of the weights.
    """

    step: Literal["factorise"] = "factorise"
    layers: dict[str, Ranks]
    images: int = Field(0, ge=0)


def _apply(step: Factorise, work: Work) -> Work:
    factors = {name: Factors(wanted.kind, wanted.ranks) for name, wanted in step.layers.items()}
    if work.cost_only:
        return replace(work, draft=work.draft.changed(filled(outline(work.draft.net, factors)), {}))
    evidence = _observed(step, work) if step.images else None
    net = factorise(work.draft.net, factors, evidence, device=work.device, tell=work.tell)
    return replace(work, draft=work.draft.changed(net, {}))


def _observed(step: Factorise, work: Work) -> Evidence:
    inputs, targets = whole(work.data, "calibration")
    count = min(step.images, count_of(inputs))

    def part(of: Inputs | Targets, start: int) -> Inputs | Targets:
        return like(of, lambda tensor: tensor[start : min(start + BATCH, count)])

    batches = ((part(inputs, start), part(targets, start)) for start in range(0, count, BATCH))
    net, spent = work.draft.net, together_within(work.draft.net, batch=BATCH, there=work.there)
    check_memory("factorising layers", factorising_bytes(net, step.layers), work.there, "factorise without images")
    return observe(
        net,
        batches,
        task=work.task,
        images=count,
        taylor=False,
        memory_bytes=spent.sums,
        alive_bytes=spent.alive,
        device=work.device,
        tell=work.tell,
    )


def _sentence(step: Factorise) -> str:
    ranks = ", ".join(
        f"{name}: {wanted.kind} at {' and '.join(map(str, wanted.ranks))}" for name, wanted in step.layers.items()
    )
    return f"Factorise layers. Kind and rank: {ranks}."


def _knobs(observed: Observed) -> list[Knob]:
    """A knob for each rank of a layer that may be lowered."""
    prices = _Prices(observed)
    keys = [item + name for name, of in rank_kinds(observed.net, observed.settings).items() for item in of]
    return [Knob(key, observed.settings[key], partial(prices.damage, key)) for key in keys]


@dataclass(frozen=True)
class _Prices:
    """What lower ranks are predicted to damage, found once it is asked for: a plan of channels alone never does."""

    observed: Observed

    @cached_property
    def _damages(self) -> Mapping[str, NDArray[np.float64]]:
        seen = self.observed
        return rank_damages(seen.net, seen.evidence, seen.settings, device=seen.device, tell=seen.tell)

    def damage(self, key: str, rank: int) -> float:
        """Return the damage of a rank; beyond those that are priced nothing is lost."""
        if rank == self.observed.settings[key][0]:
            return 0.0
        damage = self._damages[key]
        return float(damage[rank]) if rank < len(damage) else 0.0


def _steps(observed: Observed, _: Sequence[Knob], choice: Choice) -> list[Factorise]:
    factors = observed.factors(choice)
    layers = {name: Ranks(kind=wanted.kind, ranks=wanted.ranks) for name, wanted in factors.items()}
    return [Factorise(layers=layers, images=observed.images)] if layers else []


FACTORISE = Technique(Factorise, _apply, _sentence, knobs=_knobs, steps=_steps, done="factorised")


def in_turns(
    layers: Mapping[str, Ranks], groups: Iterable[Iterable[str]], tune: Tune, *, images: int = 0
) -> tuple[Step, ...]:
    """Return steps that factorise one group of layers after the other, and train behind each.

    Training takes the epochs of `tune` for each layer of a group, so every grouping trains as long in all. All layers
    in one group is one-shot; each in a group of its own is iterative (Astrid and Lee 2017, arXiv 1701.07148); anything
    between is what Astrid, Lee and Seo 2018 (ETRI J. 40(4)) call the hybrid, of which only the name was found.
    `images` is as in `Factorise`. Raises RequestError where a layer is in no group, or in two.
    """
    turns = [tuple(group) for group in groups]
    grouped = [name for turn in turns for name in turn]
    if sorted(grouped) != sorted(layers):
        wrong = {*layers} ^ {*grouped} or {name for name in grouped if grouped.count(name) > 1}
        raise RequestError(f"each layer must be in one group, and '{min(wrong)}' is not; there are {', '.join(layers)}")
    return tuple(
        step
        for turn in turns
        for step in (
            Factorise(layers={name: layers[name] for name in turn}, images=images),
            tune.model_copy(update={"epochs": tune.epochs * len(turn)}),
        )
    )
