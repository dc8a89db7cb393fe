"""A search that costs seconds a candidate, each of which is journaled.

Weights are solved on few images, multiply-accumulates are counted, and torch scores some of the validation part. No
runtime converts or times anything.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from slimwright.cost import Budget, Cost, count
from slimwright.cost.latency import LatencyTable
from slimwright.coupling import couple
from slimwright.data import ArrayData, Dataset, Part, tensors_of, whole
from slimwright.errors import RequestError
from slimwright.evidence import observe
from slimwright.graph import Net
from slimwright.search import (
    Candidate,
    Evaluation,
    Goal,
    Journal,
    Menu,
    Predictor,
    Space,
    Tuning,
    factorisable,
    key_of,
    open_journal,
)
from slimwright.tasks import Classification
from slimwright.techniques import Recipe, apply

ANY_DROP = 100.0


@dataclass
class Counted:
    """Judges candidates of one net on one data set; `asked` are those of the last search, in order, each once.

    `tested` takes in their scores on the test part, by key: no search sees them.
    """

    net: Net
    data: ArrayData
    journal: Journal
    tested: dict[str, float]
    asked: dict[str, Evaluation] = field(default_factory=dict)

    def __call__(self, candidate: Candidate) -> Evaluation:
        """Return a candidate with its score and its counts."""
        said = candidate.recipe.model_dump(mode="json")
        key = key_of(self.net.digest, self.data.name, {p: self.data.size(p) for p in self.data.parts}, said)
        found = self.journal.once(key, lambda: self._judged(candidate))
        cost = Cost(**found["cost"])
        self.tested[key] = found["test_score"]
        return self.asked.setdefault(key, Evaluation(candidate, key, "fp32", cost, found["score"], found["proven"]))

    def _judged(self, candidate: Candidate) -> dict[str, Any]:
        task = Classification(self.data.labels)
        try:
            net = apply(candidate.recipe, self.net, self.data, task=task)
        except RequestError:
            return {"cost": asdict(_untimed(self.net)), "score": 0.0, "test_score": 0.0, "proven": False}
        score, test_score = (_score(net, task, self.data, part) for part in ("validation", "test"))
        return {"cost": asdict(_untimed(net)), "score": score, "test_score": test_score, "proven": True}


def _score(net: Net, task: Classification, data: Dataset, part: Part) -> float:
    inputs, labels = whole(data, part)
    assert labels is not None
    return task.score(net.run(tensors_of(inputs)), labels)


def _untimed(net: Net) -> Cost:
    """The exact counts. No limit here is on time, so every net takes as long."""
    counted = count(net)
    return replace(counted, latency_ms=1.0, size_bytes=counted.weight_bytes)


def first(data: Dataset, sizes: dict[Part, int]) -> ArrayData:
    """Return the first images of each part."""
    parts: dict[Part, Any] = {}
    for part, most in sizes.items():
        images, labels = whole(data, part)
        parts[part] = (images[:most], None if labels is None else labels[:most])
    return ArrayData(data.name, data.labels, parts)


@dataclass(frozen=True)
class Subject:
    """A net, the few images that judge it, and the menu of its knobs."""

    name: str
    net: Net
    data: ArrayData
    menu: Callable[[], Menu]
    tested: dict[str, float] = field(default_factory=dict)  # scores on the test part of all that was judged, by key

    def counted(self, folder: Path) -> Counted:
        """Return what judges candidates, with what was judged before."""
        return Counted(self.net, self.data, open_journal(folder / self.name), self.tested)

    def space(self, evaluate: Counted, limit: str) -> Space:
        """Return a limit on multiply-accumulates; nothing is tuned."""
        original = evaluate(Candidate("original", Recipe.of(self.net)))
        budget = Budget(macs=limit, max_drop=0.0)
        goal = Goal(budget, budget.absolute(original.cost), Classification(self.data.labels).metric)
        images = self.data.size("calibration")
        return Space(goal, self.net, original, (), images, self.menu, Recipe, Tuning(0), lambda *_: None)


def menu_of(net: Net, data: Dataset) -> Menu:
    """Observe a net on the calibration part, and price channels and ranks."""
    evidence = observe(
        net,
        data.batches("calibration", 64),
        task=Classification(data.labels),
        seed=0,
        images=data.size("calibration"),
        taylor=False,
    ).all()
    predictor = Predictor(net, couple(net), LatencyTable(_no_time, None, {}), 1, ranks=factorisable(net, evidence, 1))
    return Menu.priced(predictor, evidence, images=data.size("calibration"))


def _no_time(_: Sequence[object], __: int) -> list[float]:
    raise AssertionError("nothing is timed here")
