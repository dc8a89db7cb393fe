"""Data and tasks with targets of their own through every job: shrink, export, inspect and verify, on tiny nets."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from scripted_target import Scripted
from slimwright import Budget, Settings, load_bundle, shrink
from slimwright.cli.sources import load_data
from slimwright.data import Dataset, whole
from slimwright.evidence import observe
from slimwright.jobs.export import Request, export
from slimwright.jobs.inspect import Subject, inspect
from slimwright.jobs.verify import verify
from slimwright.measure import original_of
from slimwright.search import Candidate, Evaluate, Evaluation, Journal, Space
from slimwright.tasks import Task, forward_of, task_for
from slimwright.techniques import Solve
from slimwright.train import Schedule, fit
from slow import slow

LETTERS = "abc"


class Reader(nn.Module):
    """A probability for each letter and the blank in each of 12 frames."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(
            nn.Conv2d(3, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 16, 3, 2, 1), nn.ReLU(), nn.AvgPool2d((4, 1))
        )
        self.scores = nn.Conv1d(16, len(LETTERS) + 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.scores(self.tower(x).squeeze(2)).transpose(1, 2).softmax(2)
        return y


def embedder() -> nn.Module:
    """Ten numbers for a picture."""
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


def faces(home: Path) -> str:
    """Ten identities, each a pattern with noise."""
    rng = np.random.default_rng(0)
    for who in range(10):
        (home / f"person{who}").mkdir(parents=True)
        pattern = rng.integers(0, 256, (4, 4, 3)).repeat(4, 0).repeat(4, 1)
        for index in range(6):
            noisy = np.clip(pattern + rng.normal(0, 12, pattern.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(home / f"person{who}" / f"{index}.png")
    return f"identities:{home}@16"


def receipts(home: Path) -> str:
    """Forty lines of letters; each letter is a colour."""
    home.mkdir()
    rng, listed = np.random.default_rng(0), []
    for number in range(40):
        text = "".join(LETTERS[k] for k in rng.integers(0, 3, rng.integers(1, 5)))
        levels = np.zeros((16, 10 * len(text), 3), np.uint8)
        for place, letter in enumerate(text):
            levels[:, 10 * place + 2 : 10 * place + 9, LETTERS.index(letter)] = 200 + number
        Image.fromarray(levels).save(home / f"{number}.png")
        listed.append(f"{number}.png\t{text}\n")
    (home / "labels.txt").write_text("".join(listed))
    (home / "alphabet.txt").write_text("\n".join(LETTERS) + "\n")
    return f"lines:{home}@16x48"


@pytest.fixture(params=[slow("embedding"), "ctc"])
def named(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Dataset, nn.Module]:
    torch.manual_seed(0)
    if request.param == "embedding":
        return request.param, load_data(faces(tmp_path / "faces")), embedder().eval()
    return request.param, load_data(receipts(tmp_path / "receipts")), Reader().eval()


def solved(space: Space, evaluate: Evaluate, journal: Journal) -> Evaluation:
    """One candidate: the whole network solved again."""
    return evaluate(Candidate("solved again", space.recipe.of(space.net, Solve())))


def test_a_task_runs_through_every_job(named: tuple[str, Dataset, nn.Module], tmp_path: Path) -> None:
    name, data, model = named
    original = original_of(model, [data.image_shape])
    task = task_for(data, original.output_shapes, original.forward, name)
    how = Settings(target=Scripted(), tune_epochs=0, policy=solved)
    budget = Budget(macs="1x", max_drop=100)
    shrink(original, data=data, budget=budget, out=tmp_path / "b", task=task, settings=how)
    bundle = load_bundle(tmp_path / "b")
    assert bundle.manifest.task.name == name and bundle.manifest.proof.passed and bundle.manifest.reading.passed
    checks = {check.what: check for check in verify(bundle, data, Scripted())}
    assert checks["outputs agree with the network"].passed and checks[f"{task.metric.name}, result"].passed
    exported = export(original, Request((("onnxruntime", "fp32"),)), data=data, out=tmp_path / "e", target=Scripted())
    (artefact,) = exported.artefacts
    assert artefact.passed and artefact.score == exported.original_score
    (seen,) = inspect([Subject("net", original)], data=data, timed=False)
    assert seen.measured.score == exported.original_score


def test_a_task_is_observed_and_teaches(named: tuple[str, Dataset, nn.Module]) -> None:
    """What is drawn has gradients, and a net that begins anew comes nearer to its teacher."""
    name, data, teacher = named
    original = original_of(teacher, [data.image_shape])
    task = task_for(data, original.output_shapes, original.forward, name)
    taught = task.data(data, original.forward)
    evidence = observe(original.net, taught.batches("calibration", 8), task=task)
    assert all(float(one.fisher.abs().sum()) > 0 for one in evidence.layers.values())
    torch.manual_seed(1)
    student = type(teacher)() if name == "ctc" else embedder()
    before = score_of(student, taught, task)
    fit(student, taught, Schedule(epochs=3), task=task, teacher=teacher)
    assert score_of(student, taught, task) < before


def score_of(student: nn.Module, data: Dataset, task: Task) -> float:
    """The mean loss of the training images."""
    inputs, targets = whole(data, "train")
    return float(task.loss(forward_of(student)(inputs), targets).mean())
