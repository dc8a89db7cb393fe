import numpy as np
import pytest
import torch
from torch import Tensor, nn

from example_nets import HAND_MADE, SHAPE, hand_made, lively, net_of
from slimwright.coupling import couple
from slimwright.errors import DataError
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.progress import silent
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.solver.refit import Solver, refit

Keep = dict[str, list[int]]


def pruned(net: Net, keep: Keep, images: Tensor) -> tuple[Net, Net]:
    """The net cut to `keep`, without and with its weights solved again."""
    draft = Draft.of(net).cut({name: np.array(kept) for name, kept in keep.items()})
    return draft.net, refit(draft, images).net


def error(net: Net, other: Net, images: Tensor) -> float:
    """Mean squared difference of the scores, as a share of their variance."""
    with torch.no_grad():
        wanted, got = net.to_module()(images), other.to_module()(images)
    return float((got - wanted).square().mean() / wanted.var())


def pictures(count: int = 200, seed: int = 1) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def repeating(net: Net, layer: str, copies: dict[int, int]) -> Net:
    """The net with some channels of a layer made copies of others."""
    tensors = {name: net.tensors[name].clone() for name in (f"{layer}.weight", f"{layer}.bias")}
    for copy, of in copies.items():
        for tensor in tensors.values():
            tensor[copy] = tensor[of]
    return net.edited(tensors=tensors)


def test_copies_are_cut_without_loss() -> None:
    """Exact but for the ridge: to 1e-3 of the scores' standard deviation."""
    net = repeating(capture(hand_made("Flat"), SHAPE), "conv", {1: 0, 3: 2})
    group = couple(net).groups[0]
    small, solved = pruned(net, {group.name: [0, 2]}, pictures())
    fresh = pictures(seed=2)
    assert error(net, small, fresh) > 1e-3
    assert error(net, solved, fresh) ** 0.5 < 1e-3
    assert [n.shape for n in solved.nodes] == [n.shape for n in small.nodes]


def test_linear_combinations_are_cut_without_loss() -> None:
    """Channels without a nonlinearity in between: a mix of the others can be read from the others."""
    net = net_of(nn.Conv2d(1, 5, 3), nn.Conv2d(5, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3), shape=SHAPE)
    weight, bias = net.tensors["0.weight"].clone(), net.tensors["0.bias"].clone()
    weight[4], bias[4] = 0.5 * weight[0] - weight[2], 0.5 * bias[0] - bias[2] + 0.3
    net = net.edited(tensors={"0.weight": weight, "0.bias": bias})
    small, solved = pruned(net, {couple(net).groups[0].name: [0, 1, 2, 3]}, pictures())
    fresh = pictures(seed=2)
    assert error(net, small, fresh) > 1e-3
    assert error(net, solved, fresh) ** 0.5 < 5e-3


@pytest.mark.parametrize("name", HAND_MADE)
def test_without_a_change_the_weights_stay(name: str) -> None:
    net = capture(hand_made(name), SHAPE)
    draft = Draft.of(net)
    assert refit(draft, pictures(64)) is draft


@pytest.mark.parametrize("name", ["Residual", "Concat", "Separable", "Gated", "Flat"])
@pytest.mark.parametrize("seed", range(2))
def test_solving_lowers_the_error_of_a_cut(name: str, seed: int) -> None:
    net = capture(hand_made(name, seed), SHAPE)
    keep = {g.name: list(range(g.size - g.size // 3)) for g in couple(net).groups}
    small, solved = pruned(net, keep, pictures(400))
    assert error(net, solved, pictures(seed=2)) < error(net, small, pictures(seed=2))


class Stream(nn.Module):
    """A residual stream of 6 channels, whose branches have 8 of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.up1, self.down1, self.bn1 = (
            nn.Conv2d(6, 8, 3, padding=1),
            nn.Conv2d(8, 6, 1, bias=False),
            nn.BatchNorm2d(6),
        )
        self.up2, self.down2 = nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(8, 6, 1)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        y = y + self.bn1(self.down1(torch.relu(self.up1(y))))
        y = y + self.down2(torch.relu(self.up2(y)))
        return self.fc(y.mean((2, 3)))  # type: ignore[no-any-return]


def test_what_a_residual_sum_lost_is_made_up_for_by_the_next_branch() -> None:
    """The second branch lost no channel, yet solving it takes part of the first one's error out of the stream."""
    net = capture(lively(Stream()), SHAPE)
    up1 = next(n.name for n in net.nodes if n.tensors.get("weight") == "up1.weight")
    _, solved = pruned(net, {up1: [0, 1, 2, 3]}, pictures(400))
    second = ("up2.weight", "up2.bias", "down2.weight", "down2.bias")
    assert all(not torch.equal(solved.tensors[name], net.tensors[name]) for name in second)
    uncorrected = solved.edited(tensors={name: net.tensors[name] for name in second})
    assert stream_error(net, solved) < stream_error(net, uncorrected)


def stream_error(net: Net, other: Net) -> float:
    """Mean squared difference of what the last sum leaves in the stream, on fresh images."""
    images = pictures(seed=2)
    streams: list[Tensor] = []
    for each in (net, other):
        module = each.to_module()
        module.get_submodule("fc").register_forward_hook(lambda _, x, __: streams.append(x[0].detach()))
        module(images)
    return float((streams[0] - streams[1]).square().mean())


def test_layers_before_the_first_change_are_untouched() -> None:
    net = capture(hand_made("Flat"), SHAPE)
    hidden = couple(net).groups[-1]
    _, solved = pruned(net, {hidden.name: [0, 1, 2]}, pictures())
    for name in ("conv.weight", "conv.bias", "wide.weight", "wide.bias"):
        assert torch.equal(solved.tensors[name], net.tensors[name])
    assert torch.equal(solved.tensors["hidden.weight"], net.tensors["hidden.weight"][:3])
    assert not torch.equal(solved.tensors["fc.weight"], net.tensors["fc.weight"][:, :3])


def called_twice() -> Net:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.mid = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 4, 1)
            self.conv, self.fc = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.mid(torch.relu(self.stem(x))))
            return self.fc(torch.relu(self.conv(torch.relu(self.conv(y)))).mean((2, 3)))  # type: ignore[no-any-return]

    return capture(lively(Shared()), SHAPE)


def test_values_that_no_layer_waits_for_are_let_go() -> None:
    net = called_twice()
    draft = Draft.of(net).cut({couple(net).groups[0].name: np.arange(4)})
    solver = Solver(draft, [pictures(64)], "cpu", silent, {})
    with torch.no_grad():
        assert not solver.solved().unsolved
    assert [[key.name for key in chunk] for chunk in solver.values.held] == [[net.input.name]]


def test_a_batch_norm_behind_two_layers_takes_no_bias_of_either() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.bn, self.fc = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(4), nn.Linear(8, 3)
            self.left, self.right = nn.Conv2d(6, 4, 1, bias=False), nn.Conv2d(6, 4, 3, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.stem(x))
            both = [torch.relu(self.bn(conv(y))).mean((2, 3)) for conv in (self.left, self.right)]
            return self.fc(torch.cat(both, 1))  # type: ignore[no-any-return]

    net = capture(lively(Shared()), SHAPE)
    small, solved = pruned(net, {couple(net).groups[0].name: [0, 1, 2, 3]}, pictures(400))
    assert torch.equal(solved.tensors["bn.running_mean"], net.tensors["bn.running_mean"])
    assert {"left.bias", "right.bias"} <= set(solved.tensors)
    assert error(net, solved, pictures(seed=2)) < error(net, small, pictures(seed=2))


def test_the_same_images_give_the_same_weights() -> None:
    net = capture(hand_made("Residual"), SHAPE)
    keep = {couple(net).groups[0].name: [0, 1, 4]}
    assert pruned(net, keep, pictures())[1].digest == pruned(net, keep, pictures())[1].digest


def test_without_images_nothing_can_be_solved() -> None:
    with pytest.raises(DataError, match="no calibration images"):
        refit(Draft.of(capture(hand_made("Residual"), SHAPE)), pictures(0))


def test_too_few_images_move_the_bias_alone() -> None:
    net = capture(hand_made("Flat"), SHAPE)
    draft = Draft.of(net).cut({couple(net).groups[0].name: np.array([0, 1, 3])})
    solved = refit(draft, pictures(12))
    hidden = next(node.name for node in net.nodes if node.tensors.get("weight") == "hidden.weight")
    assert list(solved.unsolved) == [hidden, net.outputs[0]] and "12 positions" in solved.unsolved[hidden]
    for layer in ("hidden", "fc"):
        assert torch.equal(solved.net.tensors[f"{layer}.weight"], net.tensors[f"{layer}.weight"])
        assert not torch.equal(solved.net.tensors[f"{layer}.bias"], net.tensors[f"{layer}.bias"])
    with torch.no_grad():
        wanted, got = (n.to_module()(pictures(12)).mean(0) for n in (net, solved.net))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_what_a_relu_cuts_off_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same cut with and without rounds of relaxation: the value behind the ReLU is nearer to the original's."""
    layers = (nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 2))
    net = net_of(*layers, nn.Flatten(), nn.Linear(4, 3), shape=SHAPE)
    norm = next(node for node in net.nodes if node.op == "batch_norm")  # shifted down: most of it is cut off
    net = net.edited(tensors={norm.tensors["bias"]: torch.full((6,), -0.5)})
    keep: Keep = {couple(net).groups[0].name: [0, 1, 2, 3]}
    behind = [node.name for node in net.nodes if node.op == "relu"][1]

    def error_behind_the_relu() -> float:
        _, solved = pruned(net, keep, pictures(400))
        ends = [Net(n.nodes, n.tensors, (behind,)).to_module() for n in (net, solved)]
        with torch.no_grad():
            wanted, got = (end(pictures(seed=2)) for end in ends)
        return float((got - wanted).square().mean())

    relaxed = error_behind_the_relu()
    monkeypatch.setattr("slimwright.techniques.solver.refit.RELU_ROUNDS", 0)
    assert relaxed < 0.9 * error_behind_the_relu()


def test_batch_norms_behind_a_change_hold_the_statistics_of_what_they_read() -> None:
    """In train mode, on the images it was solved on, the net gives what it gives in eval mode: to 1e-3."""
    torch.manual_seed(0)
    net = net_of(
        nn.Conv2d(1, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3),
        shape=SHAPE,
    )  # fmt: skip
    images = pictures()
    _, solved = pruned(net, {couple(net).groups[0].name: [0, 2, 5]}, images)
    module, reads = solved.to_module(), []
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    norms[1].register_forward_hook(lambda _, inputs, output: reads.append((inputs[0], output)))
    with torch.no_grad():
        module.eval()(images)
        norms[1].train()(reads[0][0])
    torch.testing.assert_close(reads[1][1], reads[0][1], rtol=1e-3, atol=1e-3)
    mean, variance = reads[0][0].mean((0, 2, 3)), reads[0][0].var((0, 2, 3), correction=0)
    assert not torch.allclose(net.tensors["4.running_mean"], mean, atol=1e-3)
    torch.testing.assert_close(solved.tensors["4.running_mean"], mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(solved.tensors["4.running_var"], variance, rtol=1e-4, atol=1e-5)
