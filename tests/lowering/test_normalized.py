"""A net that takes levels gives for them what the net gave for normalized images, at the edges too."""

from pathlib import Path

import pytest
import torch
from torch import nn

from slimwright.errors import ModelError
from slimwright.graph import Net, load_net, save_net
from slimwright.importers import capture
from slimwright.lowering.normalized import CENTRED, FLIPPED, SCALED, normalizing
from slimwright.techniques import fold_batch_norm

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


@pytest.fixture
def net() -> Net:
    """Padded convolutions with a batch norm, and a second reader of the images."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 8, 5, padding=2), nn.BatchNorm2d(8)
            self.head = nn.Conv2d(11, 4, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.head(torch.cat([self.norm(self.conv(x)), x], 1))
            return y

    torch.manual_seed(0)
    return capture(Two().eval(), (3, 16, 16))


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("scale", [255.0, 1.0])
def test_levels_give_what_normalized_images_gave(net: Net, scale: float, flipped: bool) -> None:
    levels = torch.randint(0, 256, (3, 3, 16, 16)).float()
    mean, std = (value * 255 / scale for value in (MEAN, STD))
    images = ((levels.flip(1) if flipped else levels) / scale - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1)
    made = normalizing(net, mean, std, scale, flipped=flipped)
    (expected,), (found,) = net.run(images), made.run(levels)
    assert float((found - expected).abs().max()) < 2e-6 * float(expected.abs().max())
    assert [node.name for node in made.inputs] == [node.name for node in net.inputs]
    assert (FLIPPED in {node.name for node in made.nodes}) == flipped


def test_the_operations_stay_in_front_when_norms_are_folded(net: Net, tmp_path: Path) -> None:
    made = fold_batch_norm(normalizing(net, MEAN, STD, 255.0))
    assert made[CENTRED].op == "sub" and made[SCALED].op == "mul" and "batch_norm" not in {n.op for n in made.nodes}
    assert made.readers[made.input.name] == (CENTRED,) and set(made.readers[SCALED]) == set(net.readers[net.input.name])
    save_net(made, tmp_path / "net")
    levels = torch.rand(2, 3, 16, 16) * 255
    assert torch.equal(load_net(tmp_path / "net").run(levels)[0], made.run(levels)[0])


def test_one_number_stands_for_every_channel(net: Net) -> None:
    levels = torch.rand(2, 3, 16, 16) * 255
    made = normalizing(net, torch.tensor([0.5]), torch.tensor([0.25]), 255.0)
    assert torch.allclose(made.run(levels)[0], net.run((levels / 255 - 0.5) / 0.25)[0], atol=1e-5)


def test_a_net_of_something_else_than_images_is_told() -> None:
    with pytest.raises(ModelError, match=r"takes \[8\], which is not an image"):
        normalizing(capture(nn.Linear(8, 2), (8,)), MEAN, STD, 255.0)
