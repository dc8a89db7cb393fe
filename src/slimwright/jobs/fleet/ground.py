"""What deployments of the same classes on the same runtime share: the network cut to them, and its priced knobs.

The head is cut and the evidence of the classes added up; no data is observed again. Evidence of the head is that of the
whole network's loss on images of these classes, which is near that of the cut network's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from slimwright.cost import Budget, Cost, count
from slimwright.data import of_classes, places_of
from slimwright.evidence import Evidence
from slimwright.graph import Net
from slimwright.jobs.bench import ORIGINAL, Bench, Given, Method, Place
from slimwright.jobs.fleet.base import Base
from slimwright.jobs.given import given_of
from slimwright.jobs.opened import Settings
from slimwright.jobs.proposed import Kind, kind_of, menu_of
from slimwright.measure import Exam, Original, kept_to, outputs_of
from slimwright.progress import silent
from slimwright.runtimes import Workshop
from slimwright.runtimes.known import RUNTIMES
from slimwright.search import Candidate, Evaluation, Goal, Journal, Menu, Space, key_of
from slimwright.tasks import Task, task_for
from slimwright.techniques import Recipe, recipe_type


@dataclass(frozen=True)
class Ground:
    """One network for some classes on one runtime, before anything was done to it."""

    key: str
    settings: Settings
    runtime: str
    classes: tuple[str, ...]
    original: Original
    given: Given
    exam: Exam  # of the validation part, by which candidates are chosen
    whole: Evaluation  # the original, at the costs of the network of all classes
    menus: Mapping[Kind, Menu]
    method: Method
    stored_from: Net  # from which models are stored as deltas

    def space(self, budget: Budget, whole: Evaluation | None = None) -> Space:
        """Return what can be chosen for a budget."""
        original = whole or self.whole
        return Space(
            goal=Goal(budget, budget.absolute(original.cost), self.given.task.metric),
            net=self.given.net,
            original=original,
            encodings=["int8"] if "int8" in RUNTIMES[self.runtime].precisions else [],
            images=self.given.data.size("calibration"),
            menu=lambda: self.menus[kind_of(budget)],
            recipe=self.method.recipe,
            tune=self.settings.tuning,
            note=lambda what, outcome, why: None,
        )

    def model_key(self, recipe: Recipe) -> str:
        """Return the key of the model that a recipe makes here."""
        return key_of(self.key, recipe.model_dump(mode="json"))

    @cached_property
    def nothing(self) -> Candidate:
        """The candidate that nothing is done to."""
        return Candidate(ORIGINAL, self.method.recipe.of(self.given.net))


def ground_of(base: Base, classes: tuple[str, ...], runtime: str, kinds: Sequence[Kind]) -> Ground:
    """Return what deployments of these classes on a runtime share, with menus of the kinds that they need."""
    settings = base.settings
    original, data, places = base.original, base.data, tuple[int, ...]()
    if classes:
        places = places_of(classes, data.labels)
        original, data = kept_to(original, places), of_classes(data, places)
    task = task_for(data, original.output_shapes, original.forward, base.wanted)
    given = given_of(original, task, data, settings.licence)
    exam = given.exam()
    key = key_of(base.context, classes, runtime)
    method = Method(settings.techniques, recipe_type(settings.techniques), settings.device, settings.memory_bytes)
    evidence = evidence_of(base.evidence, given.net, task, places)
    menus = {}
    bench = _bench(base, given, runtime, method)
    for timed, stored in dict.fromkeys(kinds):
        menus[timed, stored] = menu_of(bench, evidence, base.tables[runtime], timed=timed, stored=stored)
    ground = Ground(
        key=key,
        settings=settings,
        runtime=runtime,
        classes=classes or tuple(data.labels),
        original=original,
        given=replace(given, exam=lambda: exam),
        exam=exam,
        whole=base.measured[runtime],
        menus=menus,
        method=method,
        stored_from=base.stored_from,
    )
    return replace(ground, whole=_as_cut(ground))


def evidence_of(evidence: Evidence, net: Net, task: Task, places: Sequence[int]) -> Evidence:
    """Return evidence of the classes at `places`, added up, for the net whose head was cut to them.

    () is all of them. A layer that gives scores of fewer classes has the evidence of these alone.
    """
    if not places:
        return evidence.all()
    found, rows = evidence.of(places), torch.tensor(places)
    layers = {}
    for name, sums in found.layers.items():
        outputs = len(net.tensors[net[name].tensors["weight"]])
        cut = sums.fisher.shape[1] != outputs
        layers[name] = replace(sums, fisher=sums.fisher.index_select(1, rows)) if cut else sums
    return replace(found, layers=layers, net_digest=net.digest)


def _bench(base: Base, given: Given, runtime: str, method: Method) -> Bench:
    """A bench to price knobs on: nothing is built there."""
    place = Place(runtime, base.settings.target, Workshop())
    return Bench(given, place, method, Journal(Path()), base.context, silent)


def _as_cut(ground: Ground) -> Evaluation:
    """The original for some classes: as the whole was measured, counted anew, and scored on the validation part."""
    net, exam, whole = ground.given.net, ground.exam, ground.whole
    counted, before = count(net), whole.cost
    assert exam.targets is not None and before.size_bytes is not None
    cost = Cost(
        counted.macs,
        counted.params,
        counted.weight_bytes,
        counted.peak_activation_bytes,
        latency_ms=before.latency_ms,
        size_bytes=before.size_bytes - (before.weight_bytes - counted.weight_bytes),
    )
    score = ground.given.task.score(outputs_of(net, exam.inputs), exam.targets)
    key = ground.model_key(ground.nothing.recipe)
    return replace(whole, candidate=ground.nothing, key=key, cost=cost, score=score)
