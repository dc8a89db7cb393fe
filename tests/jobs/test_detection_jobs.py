"""A detector whose outputs are those of an exported YOLO goes through every job, by the metric of detection."""

import functools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from scripted_target import Scripted
from slimwright import Budget, Bundle, Settings, shrink
from slimwright.data import SceneData, scenes
from slimwright.data.glyphs import parsed_scenes
from slimwright.jobs.export import Request, export
from slimwright.jobs.verify import verify
from slimwright.measure import Original, original_of
from slimwright.targets import Effort
from slimwright.tasks import Detection, detecting, forward_of, task_for
from slimwright.train import Schedule, fit

SIDE = 32
WANTED = "boxes,classes=2,size=32,glyphs=1,difficulty=0,train=160,calibration=24,validation=24,test=30"


class Maps(nn.Module):
    """The maps of CenterNet from few layers."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((3, 16, 2), (16, 32, 2), (32, 32, 1), (32, 32, 1))
        layers = [(nn.Conv2d(i, o, 3, s, 1), nn.BatchNorm2d(o), nn.ReLU()) for i, o, s in sizes]
        self.body, self.head = nn.Sequential(*(one for three in layers for one in three)), nn.Conv2d(32, 6, 1)
        nn.init.constant_(self.head.bias[:2], -2)  # type: ignore[index]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        heat, size, offset = self.head(self.body(x)).split(2, 1)
        return heat.sigmoid(), size, offset


class Exported(nn.Module):
    """CenterNet's maps as an anchor-free YOLO gives them: [N, 4 + K, A], centre and size in pixels, and scores."""

    def __init__(self, maps: nn.Module) -> None:
        super().__init__()
        self.maps = maps
        line, column = torch.meshgrid(torch.arange(SIDE // 4), torch.arange(SIDE // 4), indexing="ij")
        self.register_buffer("grid", torch.stack([column, line]).float()[None])

    def forward(self, x: Tensor) -> Tensor:
        heat, size, offset = self.maps(x)
        return torch.cat([(self.get_buffer("grid") + offset) * 4, size * 4, heat], 1).flatten(2)


@functools.cache
def data() -> SceneData:
    return scenes(parsed_scenes(WANTED))


@functools.cache
def detector() -> Original:
    """Trained until it finds something."""
    torch.manual_seed(0)
    maps = Maps()
    fit(maps, data(), Schedule(epochs=5, batch_size=16), task=detecting(data(), forward_of(maps)))
    return original_of(Exported(maps).eval(), [data().image_shape])


@pytest.fixture(scope="module")
def task() -> Detection:
    found = task_for(data(), detector().output_shapes, detector().forward, "detection-50")
    assert isinstance(found, Detection) and found.said == "read as: YOLO anchor-free, 2 classes, in pixels"
    return found


@pytest.fixture(scope="module")
def bundle(task: Detection, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    how = Settings(target=Scripted(), tune_epochs=0)
    out = tmp_path_factory.mktemp("detected") / "b"
    return shrink(detector(), data=data(), budget=Budget(macs="0.7x", max_drop=100), out=out, task=task, settings=how)


def test_a_detector_is_shrunk_by_its_own_metric(bundle: Bundle) -> None:
    card, summary = bundle.manifest.task, bundle.summary
    assert (card.name, card.metric.name, card.metric.unit) == ("detection-50", "mAP@.5", "%")
    assert card.form is not None and card.form.kind == "yolo"  # what a kit decodes
    assert bundle.manifest.result.macs <= 0.7 * bundle.manifest.original.macs and bundle.manifest.proof.passed
    assert summary.score_original > 40 and summary.score > 0.5 * summary.score_original
    assert "mAP@.5" in (bundle.path / "report.html").read_text()


def test_a_bundle_of_a_detector_is_verified_without_naming_the_task(bundle: Bundle) -> None:
    checks = {one.what: one for one in verify(bundle, data(), Scripted())}
    assert checks["mAP@.5, original"].passed and checks["mAP@.5, result"].passed
    assert checks["outputs agree with the network"].passed


def test_a_detector_is_exported_with_its_score(task: Detection, tmp_path: Path) -> None:
    request = Request((("onnxruntime", "fp32"),), effort=Effort(runs=2, warm_up=1), rounds=1)
    made = export(detector(), request, data=data(), out=tmp_path / "e", task=task)
    (one,) = made.artefacts
    assert one.passed and made.metric is not None and made.metric.name == "mAP@.5"
    assert one.score == pytest.approx(made.original_score, abs=0.5)
