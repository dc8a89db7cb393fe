"""A technique, a task and a policy that are not of the house: the main job runs with each of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from scripted_target import Scripted
from shared_workshop import shared_workshop
from slimwright import Budget, Bundle, Settings, load_bundle, shrink
from slimwright.data import Dataset, Targets, whole
from slimwright.errors import RequestError
from slimwright.graph import load_net
from slimwright.measure.original import original_of
from slimwright.search import Candidate, Evaluate, Evaluation, Journal, Space, measured_plan
from slimwright.tasks import Classification, Forward, Making, Metric, Outputs, Task, forward_of, scored, task_for
from slimwright.techniques import TECHNIQUES, Choice, Knob, Observed, Solve, Step, Technique, Work, apply, recipe_type
from small_digits import few_digits, small_digit_net

KEY = "rounded layers"


class Round(Step):
    """Round the weights of some layers to multiples of a step."""

    step: Literal["round-layers"] = "round-layers"
    layers: tuple[str, ...]
    to: float = 1 / 64


def rounded(step: Round, work: Work) -> Work:
    net = work.draft.net
    names = [net[layer].tensors["weight"] for layer in step.layers]
    tensors = {name: (net.tensors[name] / step.to).round() * step.to for name in names}
    return replace(work, draft=work.draft.changed(net.edited(tensors=tensors), {}))


def knobs(observed: Observed) -> list[Knob]:
    """How many layers stay as they are; each that is rounded is said to save a fifth of the MACs."""
    layers = len(list(observed.net.weighted()))
    return [
        Knob(
            KEY,
            range(layers, -1, -1),
            lambda left: 1e-9 * (layers - left),
            lambda left: {"macs": 0.2 * (layers - left)},
        )
    ]


def steps(observed: Observed, _: Sequence[Knob], choice: Choice) -> list[Round]:
    layers = [node.name for node in observed.net.weighted()]
    left = choice.get(KEY, len(layers))
    return [Round(layers=tuple(layers[left:]))] if left < len(layers) else []


def sentence(step: Round) -> str:
    return f"Round {len(step.layers)} layers."


ROUND = Technique(Round, rounded, sentence, knobs=knobs, steps=steps, done="rounded")


def rounding(space: Space, evaluate: Evaluate, journal: Journal) -> Evaluation:
    """Plan as ever, and ship the plan that rounds, though what it is said to save is made up."""
    made: list[Evaluation] = []

    def seen(candidate: Candidate) -> Evaluation:
        made.append(evaluate(candidate))
        return made[-1]

    measured_plan(space, seen, journal)
    return next(one for one in made if "rounded" in one.name)


def test_a_technique_of_ones_own_is_planned_applied_reported_and_read_back(tmp_path: Path) -> None:
    techniques = (*TECHNIQUES, ROUND)
    found = job(tmp_path, Budget(minimise="macs", max_drop=100), techniques=techniques, policy=rounding)
    chosen = next(one for one in found.manifest.candidates if one.chosen)
    assert "rounded" in chosen.name and chosen.proven
    read = load_bundle(found.path, techniques).recipe
    assert (read.original, read.steps) == (found.recipe.original, found.recipe.steps)
    assert any(isinstance(step, Round) for step in found.recipe.steps)
    assert "Round " in (found.path / "report.html").read_text()
    again = apply(found.recipe, small_digit_net(), few_digits(), techniques=techniques)
    assert again.digest == load_net(found.path / "net").digest


def test_two_techniques_of_one_name_are_refused() -> None:
    class Other(Step):
        step: Literal["round"] = "round"

    with pytest.raises(RequestError, match="two techniques call their steps 'round'"):
        recipe_type((*TECHNIQUES, replace(ROUND, step=Other)))


@dataclass(frozen=True)
class Even:
    """Whether a digit is even: a metric of its own over a classifier's scores."""

    inner: Classification
    name: str = "even or odd"

    @property
    def metric(self) -> Metric:
        return Metric("parity errors", "errors in 100", "errors", higher_is_better=False)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.inner.classes

    @property
    def outputs(self) -> int:
        return 1

    def check(self, shapes: Sequence[Sequence[int]]) -> None:
        self.inner.check(shapes)

    def data(self, data: Dataset, original: Forward) -> Dataset:
        return data

    def class_of(self, targets: Targets) -> Tensor:
        return self.inner.class_of(targets)

    def loss(self, outputs: Outputs, targets: Targets, *, label_smoothing: float = 0.0) -> Tensor:
        return self.inner.loss(outputs, targets, label_smoothing=label_smoothing)

    def drawn_loss(self, outputs: Outputs, numbers: Tensor) -> Tensor:
        return self.inner.drawn_loss(outputs, numbers)

    def distance(self, outputs: Outputs, wanted: Outputs, temperature: float) -> Tensor:
        return self.inner.distance(outputs, wanted, temperature)

    def score(self, outputs: Outputs, targets: Targets) -> float:
        assert isinstance(targets, Tensor)
        return 100 * float((outputs[0].argmax(1) % 2 != targets % 2).double().mean())

    def agreement(self, found: Outputs, expected: Outputs) -> float:
        return float((found[0].argmax(1) % 2 == expected[0].argmax(1) % 2).float().mean())


def test_a_task_of_ones_own_decides_and_is_reported(tmp_path: Path) -> None:
    task = Even(Classification(few_digits().labels))
    found = job(tmp_path, Budget(macs="0.5x", max_drop=100), task=task)
    metric = found.manifest.task.metric
    assert (found.manifest.task.name, metric.name, metric.higher_is_better) == ("even or odd", "parity errors", False)
    assert found.summary.drop == pytest.approx(found.summary.score - found.summary.score_original)
    assert 0 <= found.summary.score_original <= 50
    assert "parity errors" in (found.path / "report.html").read_text().lower()


def halves(space: Space, evaluate: Evaluate, journal: Journal) -> Evaluation:
    """Solve the whole network again, and ship whichever is better."""
    made = [space.original, evaluate(Candidate("solved again", space.recipe.of(space.net, Solve())))]
    journal.add("what I thought", {"tried": len(made)})
    space.note("my policy", "kept", "it is short")
    return space.best(made)


def test_a_policy_of_ones_own_chooses_what_ships(tmp_path: Path) -> None:
    found = job(tmp_path, Budget(macs="1x", max_drop=100), policy=halves)
    assert [one.name for one in found.manifest.candidates] == ["original", "solved again"]
    assert {"my policy": "kept"}.items() <= {one.what: one.outcome for one in found.manifest.decisions}.items()


class Twins(nn.Module):
    """Two pictures in, a mask and a number out: nothing that has classes."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.mask, self.number = nn.Conv2d(8, 2, 1), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.tower(x)
        return self.mask(y), self.number(y.mean((2, 3)))


def test_a_network_without_classes_is_shrunk_by_imitation(tmp_path: Path) -> None:
    torch.manual_seed(0)
    found = job(tmp_path, Budget(macs="0.6x", max_drop=100), model=Twins().eval(), task_name="imitation")
    assert found.manifest.task.name == "imitation" and found.summary.score_original == 0
    assert 0 < found.summary.score < 100 and found.manifest.proof.passed
    assert found.manifest.result.macs <= 0.6 * found.manifest.original.macs
    assert found.manifest.result.output_shapes == [[1, 2, 32, 32], [1, 1]]


def darkest(outputs: Outputs, targets: Targets) -> float:
    """How often the pixel that the mask puts first is where the number of the picture's class says."""
    assert isinstance(targets, Tensor)
    return 100 * float((outputs[0][:, 0].flatten(1).argmax(1) % 10 == targets).double().mean())


def test_a_metric_of_ones_own_judges_a_net_that_imitates(tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = scored("darkest pixel", darkest, Metric("hits"))
    found = job(tmp_path, Budget(macs="0.6x", max_drop=100), model=Twins().eval(), task=task)
    data, (images, labels) = few_digits(), whole(few_digits(), "test")
    assert (found.manifest.task.name, found.manifest.task.metric.name) == ("darkest pixel", "hits")
    expected = darkest(forward_of(load_net(found.path / "net").to_module())(images), labels)
    assert found.summary.score == pytest.approx(expected, abs=100 * 1.5 / data.size("test"))


def job(
    folder: Path,
    budget: Budget,
    *,
    model: nn.Module | None = None,
    task_name: str | None = None,
    task: Task | Making | None = None,
    **settings: object,
) -> Bundle:
    """The main job on the small net, on a board whose times follow its work."""
    data = few_digits()
    original = original_of(model or small_digit_net(), [data.image_shape])
    wanted = task_for(data, original.output_shapes, original.forward, task or task_name)
    how = Settings(target=Scripted(), tune_epochs=0, workshop=shared_workshop(), **settings)  # type: ignore[arg-type]
    return shrink(original, data=data, budget=budget, out=folder / "b", task=wanted, settings=how)
