from pathlib import Path

import pytest
import torch

from slimwright.cli.sources import load_original
from slimwright.cli.trained import Training
from slimwright.data import digits, scenes
from slimwright.data.glyphs import parsed_scenes
from slimwright.errors import ModelError
from slimwright.tasks import Detection, forward_of, task_for
from slimwright.train import Schedule, fit, mean_loss
from slimwright.zoo import build

FEW = parsed_scenes("boxes,classes=3,size=32,glyphs=1,difficulty=0,train=96,calibration=8,validation=32,test=8")


def test_the_detector_gives_three_maps_and_the_segmenter_one() -> None:
    with torch.device("meta"):
        maps = build("glyph-detector", classes=7, in_channels=1).eval()(torch.empty(2, 1, 96, 64))
        scores = build("glyph-unet", classes=5, in_channels=3).eval()(torch.empty(2, 3, 64, 96))
    assert [tuple(one.shape) for one in maps] == [(2, 7, 24, 16), (2, 2, 24, 16), (2, 2, 24, 16)]
    assert tuple(scores.shape) == (2, 5, 64, 96)


def test_the_detector_learns_from_boxes_alone() -> None:
    data, model = scenes(FEW), build("glyph-detector", classes=3)
    task = task_for(data, [(1, 3, 8, 8), (1, 2, 8, 8), (1, 2, 8, 8)], forward_of(model))
    assert isinstance(task, Detection) and task.said.startswith("read as: CenterNet, 3 classes")
    before = mean_loss(model, data, "validation", task)
    fit(model, data, Schedule(epochs=5, batch_size=16), task=task)
    assert mean_loss(model, data, "validation", task) < 0.5 * before


def test_a_network_for_another_task_is_told_before_it_is_trained(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="glyph-detector is a network for detection, and 'digits' is data for classif"):
        load_original("glyph-detector", digits(), training=Training(cache=tmp_path))
    with pytest.raises(ModelError, match=r"resnet8 is a network for classification, and 'scenes:boxes.*for detection"):
        load_original("resnet8", scenes(FEW), training=Training(cache=tmp_path))
