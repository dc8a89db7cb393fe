"""Segmentation, restoration, keypoints and regression through every job: tiny nets, tiny pictures, real runtimes."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from dense_folders import HIGH, WIDE, mask_home, pair_home, point_table
from onnx_files import exported
from scripted_target import Scripted
from shared_workshop import shared_workshop
from slimwright import Budget, Bundle, Settings, load_bundle, shrink
from slimwright.cli.sources import load_data
from slimwright.data import StreamedData
from slimwright.jobs.apply import applied_sides
from slimwright.jobs.export import Request, export
from slimwright.jobs.inspect import Subject, inspect
from slimwright.jobs.verify import verify
from slimwright.measure import Original, TaskCard, original_file, original_of
from slimwright.runtimes import Precision
from slimwright.search import Evaluate, Evaluation, Journal, Space, measured_plan
from slimwright.targets import Effort, Local
from slimwright.tasks import Task, forward_of, task_for
from slimwright.techniques import applied
from slimwright.train import Schedule, fit, mean_loss


def wide(stride: int, last: nn.Module, *more: nn.Module) -> nn.Module:
    """Three layers, of which the middle one can be cut."""
    torch.manual_seed(0)
    first = nn.Conv2d(3, 12, 3, stride, 1), nn.ReLU(), nn.Conv2d(12, 12, 3, 1, 1), nn.ReLU()
    return nn.Sequential(*first, last, *more)


@dataclass(frozen=True)
class Kind:
    """A task: its data, a net for it, and what a report says of its metric."""

    data: Callable[[Path], str]  # makes it in a folder, and names it
    net: Callable[[], nn.Module]
    metric: str
    shown: str


def ages(home: Path) -> str:
    path = point_table(home)
    lines = path.read_text().splitlines()[1:]
    (home / "left.csv").write_text("\n".join(["path,left [px]", *(",".join(line.split(",")[:2]) for line in lines)]))
    return f"table:{home / 'left.csv'}@{HIGH}x{WIDE}"


KINDS = {
    "segmentation": Kind(
        lambda home: f"masks:{mask_home(home)}@{HIGH}x{WIDE}", lambda: wide(2, nn.Conv2d(12, 3, 1)), "mIoU", r"[\d.]+ %"
    ),
    "restoration": Kind(
        lambda home: f"pairs:{pair_home(home)}@{HIGH // 2}x{WIDE // 2}",
        lambda: wide(1, nn.Conv2d(12, 12, 3, 1, 1), nn.PixelShuffle(2)),
        "PSNR",
        r"[\d.]+ dB",
    ),
    "keypoints": Kind(
        lambda home: f"points:{point_table(home)}@{HIGH}x{WIDE}",
        lambda: wide(2, nn.Conv2d(12, 2, 1)),
        "PCK@0.1",
        r"[\d.]+ %",
    ),
    "regression": Kind(
        ages,
        lambda: wide(2, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 1)),
        "mean absolute error",
        r"[\d.]+ px",
    ),
}


def in_float(space: Space, evaluate: Evaluate, journal: Journal) -> Evaluation:
    """The policy, without INT8 candidates: each is converted and run, which takes its time."""
    return measured_plan(replace(space, encodings=()), evaluate, journal)


@dataclass(frozen=True)
class Done:
    """A net, its data and task, and what shrink made of it."""

    kind: Kind
    original: Original
    data: StreamedData
    task: Task
    bundle: Bundle


def trained(kind: Kind, data: StreamedData) -> nn.Module:
    """A net that knows a little of its data."""
    net = kind.net().eval()
    forward = forward_of(net)
    shapes = [tuple(output.shape) for output in forward(torch.zeros(1, *data.image_shape))]
    return fit(net, data, Schedule(epochs=15, batch_size=4, rate=0.02), task=task_for(data, shapes, forward))


@pytest.fixture(scope="module", params=KINDS)
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Done:
    kind, home = KINDS[request.param], tmp_path_factory.mktemp(request.param)
    data = load_data(kind.data(home))
    assert isinstance(data, StreamedData)
    original = original_of(trained(kind, data), [data.image_shape])
    if request.param == "segmentation":  # as somebody else exported it
        file = exported(trained(kind, data), home / "net.onnx", data.image_shape, dynamic=True)
        original = original_file(file, [data.image_shape])
    task = task_for(data, original.output_shapes, original.forward)
    how = Settings(target=Scripted(), tune_epochs=1, cache=home / "cache", policy=in_float, workshop=shared_workshop())
    budget = Budget(macs="0.6x", max_drop=0)
    bundle = shrink(original, data=data, budget=budget, out=home / "b", task=task, settings=how)
    return Done(kind, original, data, task, bundle)


def test_it_is_shrunk_tuned_and_reported_in_its_own_metric(done: Done) -> None:
    manifest = done.bundle.manifest
    assert manifest.task.metric.name == done.kind.metric == done.task.metric.name
    assert manifest.result.macs <= 0.6 * manifest.original.macs and manifest.proof.passed
    metric = manifest.task.metric.metric
    page = (done.bundle.path / "report.html").read_text()
    assert re.fullmatch(done.kind.shown, metric.shown(manifest.summary.score))
    assert metric.shown(manifest.summary.score) in page and metric.title in page


def test_its_bundle_says_how_outputs_are_read(done: Done) -> None:
    said = load_bundle(done.bundle.path).manifest.task
    assert said == TaskCard.of(done.task) and (said.form is None) == (said.name == "regression")


def test_it_is_verified(done: Done) -> None:
    checks = {one.what: one for one in verify(load_bundle(done.bundle.path), done.data, Scripted())}
    for side in ("original", "result"):
        check = checks[f"{done.kind.metric}, {side}"]
        assert check.passed and re.fullmatch(done.kind.shown, check.found) and check.promised == check.found


def test_its_recipe_is_applied_again(done: Done) -> None:
    data = done.task.data(done.data, done.original.forward)
    work = applied(done.bundle.recipe, done.original.net, data, task=done.task)
    sides = applied_sides(done.original, done.data, done.task, work)
    assert sides["result"]["macs"] == done.bundle.manifest.result.macs
    chosen = next(one for one in done.bundle.manifest.candidates if one.chosen)
    assert sides["result"]["validation_score"] == pytest.approx(chosen.validation_score, rel=0.05, abs=0.5)


def test_it_is_inspected_and_exported_with_its_score(done: Done, tmp_path: Path) -> None:
    (seen,) = inspect([Subject("net", done.original)], data=done.data)
    score = done.bundle.summary.score_original
    assert seen.measured.score == pytest.approx(score, rel=1e-3)
    wanted: list[tuple[str, Precision]] = [("onnxruntime", "fp32")]
    if done.kind.metric == "mIoU":  # INT8 takes its time, so one task must do
        wanted.append(("onnxruntime", "int8"))
    request = Request(tuple(wanted), effort=Effort(runs=3), rounds=1, workshop=shared_workshop())
    fp32, *int8 = export(done.original, request, data=done.data, out=tmp_path / "x", target=Local()).artefacts
    assert fp32.passed and fp32.score == pytest.approx(score, rel=1e-3)
    for one in int8:
        assert one.proof is not None and one.proof.agreement > 0.9 and one.score == pytest.approx(score, abs=10)


def test_it_learns_by_its_own_loss(done: Done) -> None:
    torch.manual_seed(1)
    model = done.kind.net()
    before = mean_loss(model, done.data, "train", done.task)
    fit(model, done.data, Schedule(epochs=6, batch_size=4, rate=0.02), task=done.task)
    assert mean_loss(model, done.data, "train", done.task) < before
