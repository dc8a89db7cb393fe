from pathlib import Path

import pytest
import torch

from slimwright.codec.parameters import SHIPPED, parameters, saved, shapes
from slimwright.codec.photographs import TEST, TRAINING
from slimwright.codec.sampling import sample
from slimwright.codec.training import Plan, plan_of, trained
from slimwright.errors import CodecError
from slimwright.progress import Event, silent
from small_pictures import drawn

PLAN = Plan(rough=4, exact=1, measured=1, checkpoint=2)


class Killed(Exception):
    """What stands for a kill."""


@pytest.mark.slow
def test_a_training_that_was_stopped_goes_on_to_the_same_parameters(tmp_path: Path) -> None:
    pictures = [drawn(80, 80)]

    def killed(event: Event) -> None:
        if event.done == 3:
            raise Killed

    whole = trained(pictures, PLAN, tmp_path / "whole", silent)
    with pytest.raises(Killed):
        trained(pictures, PLAN, tmp_path / "parts", killed)
    assert len(list((tmp_path / "parts").iterdir())) == 1
    again = trained(pictures, PLAN, tmp_path / "parts", silent)
    assert all(torch.equal(again[name], whole[name]) for name in whole)
    found = saved(whole, tmp_path / "shared.safetensors")
    assert {name: tensor.shape for name, tensor in found.tensors.items()} == shapes()


def test_a_crop_follows_from_its_number() -> None:
    pictures = [drawn(600, 300), drawn(50, 20)]
    for number in range(12):
        one, other = sample(pictures, number, 3), sample(pictures, number, 3)
        assert torch.equal(one.crop, other.crop) and one.step == other.step
        assert one.crop.shape == (1, 3, 256, 256)


def test_a_plan_has_as_many_iterations_as_asked_for() -> None:
    for iterations in (4, 100, 1600):
        plan = plan_of(iterations, 0)
        assert plan.rough + plan.exact == iterations
    assert plan_of(1600, 0) == Plan()


def test_no_photograph_is_trained_on_and_tested_on() -> None:
    assert not set(TRAINING) & set(TEST)


def test_other_tensors_are_no_parameters(tmp_path: Path) -> None:
    with pytest.raises(CodecError, match="not shared parameters"):
        parameters(_damaged(tmp_path))
    tensors = dict(parameters().tensors)
    del tensors["offsets"]
    with pytest.raises(CodecError, match="lacks 'offsets'"):
        saved(tensors, tmp_path / "few.safetensors")


def _damaged(folder: Path) -> Path:
    data = bytearray(SHIPPED.read_bytes())
    data[-5] ^= 1
    (folder / "damaged.safetensors").write_bytes(data)
    return folder / "damaged.safetensors"
