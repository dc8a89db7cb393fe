"""Layers that are called several times are solved at all their calls at once."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from example_nets import lively
from shared_layers import NETS
from slimwright.coupling import choose, couple
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.solver.drift import drifted
from slimwright.techniques.solver.jobs import Job, jobs_of
from slimwright.techniques.solver.refit import refit

Shapes = list[tuple[int, ...]]


def pictures(shapes: Shapes, count: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, *shape, generator=generator) for shape in shapes]


def apart(net: Net, other: Net, inputs: list[Tensor]) -> float:
    """Mean squared difference of the outputs, as a share of their variance."""
    pairs = zip(net.run(inputs), other.run(inputs), strict=True)
    return sum(float((one - two).square().mean() / one.var()) for one, two in pairs)


@pytest.mark.parametrize("name", NETS)
def test_solved_weights_make_up_for_cut_channels_at_every_call(name: str) -> None:
    make, shapes, _, _ = NETS[name]
    torch.manual_seed(0)
    net = capture(lively(make()), shapes)
    coupling = couple(net)
    draft = Draft.of(net).cut(choose(coupling, 0.75, seed=0), coupling)
    solved = refit(draft, tuple(pictures(shapes, 128, 1)))
    fresh = pictures(shapes, 32, 2)
    assert not solved.unsolved
    assert apart(net, solved.net, fresh) < 0.2 * apart(net, draft.net, fresh)
    for calls in solved.net.layers.values():
        assert len({tuple(solved.net[call].tensors.items()) for call in calls}) == 1


class Tower(nn.Module):
    """Two images, one tower, and a bias-free layer with a batch norm of its own behind each of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mid = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 6, 3, bias=False)
        self.norms, self.fc = nn.ModuleList([nn.BatchNorm2d(6), nn.BatchNorm2d(6)]), nn.Linear(12, 3)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        values = [F.relu(self.stem(x)) for x in (one, other)]
        values = [F.relu(norm(self.mid(x))).mean((2, 3)) for x, norm in zip(values, self.norms, strict=True)]
        return self.fc(torch.cat(values, 1))  # type: ignore[no-any-return]


def test_copies_are_cut_without_loss_from_a_layer_with_two_batch_norms() -> None:
    """Exact but for the ridge: to 1e-3 of the scores' standard deviation."""
    shapes: Shapes = [(1, 6, 6), (1, 6, 6)]
    net = capture(lively(Tower()), shapes)
    tensors = {name: net.tensors[name].clone() for name in ("stem.weight", "stem.bias")}
    for tensor in tensors.values():
        tensor[1], tensor[5] = tensor[0], tensor[2]
    net = net.edited(tensors=tensors)
    draft = Draft.of(net).cut({couple(net).groups[0].name: np.array([0, 2, 3, 4, 6, 7])})
    solved = refit(draft, tuple(pictures(shapes, 200, 1)))
    fresh = pictures(shapes, 64, 2)
    assert apart(net, draft.net, fresh) > 1e-2
    assert apart(net, solved.net, fresh) ** 0.5 < 1e-3
    assert [node.shape for node in solved.net.nodes] == [node.shape for node in draft.net.nodes]


def jobs(name: str) -> list[Job]:
    make, shapes, _, _ = NETS[name]
    net = capture(lively(make()), shapes)
    coupling = couple(net)
    draft = Draft.of(net).cut(choose(coupling, 0.5, seed=0), coupling)
    found, unsolved = jobs_of(draft, drifted(draft))
    assert not unsolved
    return [job for job in found if job.calls]


def test_what_a_block_reads_of_itself_is_foreseen() -> None:
    found = jobs("recurrent")
    twice = [False, True, True]
    assert [[call.foreseen for call in job.calls] for job in found] == [twice, twice, [False]]  # the stem is not solved


def test_all_levels_of_a_pyramid_come_before_its_head() -> None:
    found = jobs("pyramid")
    assert [len(job.calls) for job in found][-2:] == [3, 3]
    assert not any(call.foreseen for job in found for call in job.calls)
