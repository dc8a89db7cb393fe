import pytest
import torch
from torch import Tensor, nn

from example_nets import lively
from slimwright.cost import count
from slimwright.errors import RequestError
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.techniques.fold import folded
from slimwright.techniques.merge import branches, merge_branches, streamline, streamlines
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.solver.refit import refit
from slimwright.zoo import build

SHAPE = (3, 16, 16)


class Block(nn.Module):
    """An inception block with batch norms, behind a stem with a pooling and a normalisation."""

    def __init__(self, *, pooled: bool = True) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), nn.LocalResponseNorm(5)
        )
        self.one = unit(8, 3, 1)
        self.three = nn.Sequential(unit(8, 4, 1), unit(4, 5, 3))
        self.five = nn.Sequential(unit(8, 2, 1), unit(2, 4, 5))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), unit(8, 2, 1)) if pooled else None
        self.fc = nn.Linear(14 if pooled else 12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        parts = [self.one(x), self.three(x), self.five(x), *([self.pooled(x)] if self.pooled else [])]
        return self.fc(torch.cat(parts, 1).mean((2, 3)))  # type: ignore[no-any-return]


def unit(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def pictures(count: int = 150, seed: int = 1) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def block(*, pooled: bool = True, padding: str | None = None) -> Net:
    torch.manual_seed(0)
    model = Block(pooled=pooled)
    for conv in (model.three[1][0], model.five[1][0]):  # type: ignore[index]
        conv.padding = padding or conv.padding
    return capture(lively(model), SHAPE)


def scores(net: Net, images: Tensor) -> Tensor:
    with torch.no_grad():
        return net.to_module()(images)  # type: ignore[no-any-return]


def error(net: Net, other: Net) -> float:
    wanted, got = scores(net, pictures(seed=2)), scores(other, pictures(seed=2))
    return float((got - wanted).square().mean() / wanted.var())


@pytest.mark.parametrize("padding", [None, "same"])
def test_a_pointwise_branch_merges_exactly(padding: str | None) -> None:
    net = block(pooled=False, padding=padding)
    draft = folded(Draft.of(net))
    (concat,) = branches(draft.net)
    merged = merge_branches(draft, concat)
    torch.testing.assert_close(scores(merged.net, pictures(4)), scores(net, pictures(4)), rtol=1e-5, atol=1e-5)
    assert len(merged.net[concat].reads) == 2
    reducer = next(n for n in merged.net.nodes if n.shape[1] == 4 + 3 and n.op == "conv2d")
    assert merged.origins[reducer.name].size(net) == 7


def test_a_pooling_branch_merges_into_the_larger_kernel_and_is_solved() -> None:
    net = block()
    draft = folded(Draft.of(net))
    (concat,) = branches(draft.net)
    merged = merge_branches(draft, concat)
    assert not [n for n in merged.net.nodes if n.op == "max_pool2d" and n.arguments["stride"] == (1, 1)]
    assert merged.net[concat].shape == net[concat].shape and len(merged.net[concat].reads) == 2
    solved = refit(merged, pictures())
    assert error(net, solved.net) < 0.3 * error(net, merged.net) and error(net, solved.net) < 0.05
    assert not solved.unsolved


def test_a_streamlined_convolution_takes_the_stride_and_is_solved_through_its_relu() -> None:
    net = block()
    assert streamlines(net) == ["conv2d"]
    slim = streamline(Draft.of(net), "conv2d")
    conv = slim.net["conv2d"]
    assert conv.arguments["stride"] == (2, 2) and conv.shape == (1, 8, 8, 8)
    assert not {"max_pool2d", "lrn"} & {n.op for n in slim.net.nodes if n.name in slim.net.readers["conv2d"]}
    assert count(slim.net).macs < count(net).macs
    solved = refit(slim, pictures())
    assert error(net, solved.net) < 0.3 * error(net, slim.net)


def test_what_cannot_merge_is_left_alone_and_told() -> None:
    net = block()
    assert branches(net) == []  # batch norms stand between
    with pytest.raises(RequestError, match=r"no concatenation 'cat' .*fold batch norms"):
        merge_branches(Draft.of(net), "cat")
    with pytest.raises(RequestError, match=r"no convolution 'conv2d_1' .*there are conv2d"):
        streamline(Draft.of(net), "conv2d_1")
    with pytest.raises(RequestError, match="no convolution 'nothing'"):
        streamline(Draft.of(net), "nothing")


def test_a_pooling_over_all_positions_is_no_part_of_a_layer() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AvgPool2d(14), nn.Flatten(), nn.Linear(4, 2))
    assert streamlines(capture(model.eval(), SHAPE)) == []


def test_the_blocks_of_googlenet_have_two_branches_of_the_papers_widths() -> None:
    """3x3' and 5x5' widths: the standard widths of the absorbed branches added, as Li et al. 2018 describe."""
    with torch.device("meta"):
        model = build("googlenet", classes=10)
    net = capture(model.to_empty(device="cpu").apply(_plain).eval(), (3, 224, 224))
    draft = Draft.of(net)
    assert len(streamlines(net)) == 2 and len(branches(net)) == 9
    draft = streamline(draft, streamlines(net)[0])
    draft = streamline(draft, streamlines(net)[1])
    assert [draft.net[name].arguments["stride"] for name in streamlines(net)] == [(4, 4), (2, 2)]
    assert [draft.net[name].arguments["padding"] for name in streamlines(net)] == [(3, 3), (1, 1)]
    found = []
    for concat in branches(net):
        draft = merge_branches(draft, concat)
        found.append(tuple(draft.net[name].shape[1] for name in draft.net[concat].reads))
    assert found == [
        (192, 64), (320, 160), (400, 112), (384, 128), (384, 128), (400, 128), (576, 256), (576, 256), (768, 256),
    ]  # fmt: skip


def _plain(module: nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        nn.init.constant_(parameter, 0.01)
