import pytest
import torch
from torch import Tensor, nn

from example_nets import SHAPE, hand_made, lively, net_of
from slimwright.cost import count
from slimwright.errors import RequestError
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.techniques.remove import collapsed, collapsible, removable, removed
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.solver.refit import refit
from slimwright.zoo import build


def scores(net: Net, images: Tensor) -> Tensor:
    with torch.no_grad():
        return net.to_module()(images)  # type: ignore[no-any-return]


def pictures(count: int, shape: tuple[int, ...] = SHAPE, seed: int = 1) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def error(net: Net, other: Net, shape: tuple[int, ...] = SHAPE) -> float:
    wanted, got = (scores(n, pictures(100, shape, seed=2)) for n in (net, other))
    return float((got - wanted).square().mean() / wanted.var())


def test_without_its_branch_a_sum_is_its_shortcut() -> None:
    net = capture(hand_made("Residual"), SHAPE)
    small = removed(Draft.of(net), "add").net
    zeroed = net.edited(
        tensors={f"conv2.{role}": torch.zeros_like(net.tensors[f"conv2.{role}"]) for role in ("weight", "bias")}
    )
    torch.testing.assert_close(scores(small, pictures(3)), scores(zeroed, pictures(3)))
    assert "conv2.weight" not in small.tensors and count(small).macs < count(net).macs


def test_a_gate_can_go() -> None:
    net = capture(hand_made("Gated"), SHAPE)
    assert [name for name in removable(net) if net[name].op == "mul"] == ["mul"]  # the other one is read by no gate
    small = removed(removed(Draft.of(net), "mul"), "mul_1").net
    assert not {"squeeze.weight", "excite.weight"} & set(small.tensors)


def test_a_layer_of_equal_shape_is_passed_by() -> None:
    net = net_of(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.Flatten(), nn.Linear(64, 3), shape=SHAPE
    )
    small = removed(Draft.of(net), "conv2d_1").net
    assert small["flatten"].source == "relu" and "2.weight" not in small.tensors


def test_the_layers_behind_take_a_pointwise_one_in_exactly() -> None:
    net = net_of(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 9, 1, bias=False), nn.Conv2d(9, 5, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(20, 3), shape=SHAPE,
    )  # fmt: skip
    small = removed(Draft.of(net), "conv2d_1").net
    assert tuple(small.tensors["3.weight"].shape) == (5, 4, 3, 3)
    torch.testing.assert_close(scores(small, pictures(5)), scores(net, pictures(5)), rtol=1e-5, atol=1e-6)


def test_a_removed_layer_takes_its_norm_along_and_what_follows_is_solved() -> None:
    layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Conv2d(6, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(20, 3))
    net = capture(lively(model), SHAPE)
    draft = removed(Draft.of(net), "conv2d_1")
    assert "batch_norm" not in {node.op for node in draft.net.nodes}
    assert error(net, refit(draft, pictures(300)).net) < 0.5 * error(net, draft.net)


def test_a_block_collapses_to_one_convolution_that_is_solved() -> None:
    """Nearly linear inside: the block's ReLU is far from zero, so one convolution can say it."""
    torch.manual_seed(0)

    class Bent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.up, self.down = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 1), nn.Conv2d(6, 4, 3, padding=1)
            self.fc = nn.Linear(4, 3)
            nn.init.constant_(self.up.bias, 20.0)  # type: ignore[arg-type]

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.fc((x + self.down(torch.relu(self.up(x)))).mean((2, 3)))  # type: ignore[no-any-return]

    net = capture(Bent().eval(), SHAPE)
    (name,) = collapsible(net)
    draft = collapsed(Draft.of(net), name)
    assert draft.net[name].op == "conv2d" and "up.weight" not in draft.net.tensors
    solved = refit(draft, pictures(400))
    assert error(net, solved.net) < 0.05 < error(net, draft.net)


def test_the_walk_over_a_resnet_keeps_the_stem_strides_and_the_head() -> None:
    net = capture(build("resnet20").eval(), (3, 32, 32))
    walk = removable(net)
    convs = [name for name in walk if net[name].op == "conv2d"]
    assert "conv2d" not in walk and "linear" not in walk
    assert all(net[name].arguments["stride"] == (1, 1) for name in convs)
    assert (
        len([name for name in walk if net[name].op == "add"]) == len(collapsible(net)) == 7
    )  # 9 blocks, 2 with a stride
    small = Draft.of(net)
    for name in collapsible(net):
        small = removed(small, name)
    assert len([n for n in small.net.nodes if n.op == "add"]) == 2


def test_what_must_stay_is_told() -> None:
    net = capture(hand_made("Flat"), SHAPE)
    for name in ("conv2d", "linear", "nothing"):
        with pytest.raises(RequestError, match=f"'{name}' is no layer that can be removed"):
            removed(Draft.of(net), name)
    with pytest.raises(RequestError, match="cannot collapse"):
        collapsed(Draft.of(net), "conv2d")


def test_a_kernel_beyond_twice_the_image_is_refused(residual: Net) -> None:
    with pytest.raises(
        RequestError, match=r"a 2147483647x2147483647 convolution: its images are 6x6, and of a kernel .*11"
    ):
        collapsed(Draft.of(residual), collapsible(residual)[0], 2**31 - 1)
