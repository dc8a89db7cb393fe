"""What each layer is solved against: by hand, for layers behind a stem that has lost some of its channels."""

import functools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from example_nets import SHAPE, lively
from layers_by_hand import INF, affine_of, bounded, broken, layer, least_squares, pictures, values_of
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.techniques.fold import affine
from slimwright.techniques.solver.refit import refit

Join = Callable[[Tensor, Tensor], Tensor]


# sums


class Sum(nn.Module):
    """Two convolutions, `y` and then `z`, read what the stem gives; `join` puts together what they give."""

    def __init__(self, join: Join, *, norm: bool = False) -> None:
        super().__init__()
        self.join = join
        self.stem, self.fc = nn.Conv2d(1, 6, 3), nn.Linear(4, 3)
        self.y, self.z = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 4, 3, padding=1, bias=not norm)
        self.bn = nn.BatchNorm2d(4) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        y, z = self.y(x), self.z(x)
        return self.fc(torch.sigmoid(self.join(y, self.bn(z) if self.bn is not None else z)).mean((2, 3)))  # type: ignore[no-any-return]


def sum_net(join: Join, *, norm: bool = False) -> Net:
    torch.manual_seed(5)
    return capture(lively(Sum(join, norm=norm)), SHAPE)


def pooled(z: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(z, 1)


SUMS: dict[str, Join] = {"y + z": lambda y, z: y + z, "z + y": lambda y, z: z + y}
OTHERS: dict[str, Join] = {  # of which a layer is solved against what it gave itself
    "y + 2 z": lambda y, z: torch.add(y, z, alpha=2),
    "z + 2 y": lambda y, z: torch.add(z, y, alpha=2),
    "z - y": lambda y, z: z - y,
    "y * z": lambda y, z: y * z,
    "z + z": lambda y, z: torch.sigmoid(y) * (z + z),
    "z + 1": lambda y, z: torch.sigmoid(y) * (z + 1.0),
    "z twice": lambda y, z: (y + z) * z,
    "z against a mean": lambda y, z: pooled(y) + z,
    "a mean against z": lambda y, z: z + pooled(y),
}


@pytest.mark.parametrize("name", SUMS)
def test_the_last_side_of_a_sum_makes_up_for_what_the_other_lost(name: str) -> None:
    """It gives what the sum was, less what the other gives now; the first side what it gave.

    To 1e-4 of the largest weight: convolutions round by the processor, and the ridge makes of it 300 times as much.
    """
    net = sum_net(SUMS[name])
    draft = broken(net)
    solved = refit(draft, pictures()).net
    was, now = values_of(net), values_of(solved)
    y, z = layer(net, "y"), layer(net, "z")
    for node, wanted in ((y, was(y.name)), (z, was("add") - now(y.name))):
        weight, bias = least_squares(draft.net, node, now("relu"), wanted)
        path = net.paths[node.name]
        most = 1e-4 * float(weight.abs().max())
        torch.testing.assert_close(solved.tensors[f"{path}.weight"].flatten(1), weight, rtol=1e-4, atol=most)
        torch.testing.assert_close(solved.tensors[f"{path}.bias"], bias, rtol=1e-4, atol=most)
    alone, _ = least_squares(draft.net, z, now("relu"), was(z.name))
    assert not torch.allclose(solved.tensors["z.weight"].flatten(1), alone, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_plain_sum_of_two_alike_leaves_each_layer_to_itself(name: str) -> None:
    net = sum_net(OTHERS[name])
    draft = broken(net)
    solved = refit(draft, pictures()).net
    was, now = values_of(net), values_of(solved)
    for path in "yz":
        node = layer(net, path)
        weight, bias = least_squares(draft.net, node, now("relu"), was(node.name))
        torch.testing.assert_close(solved.tensors[f"{path}.weight"].flatten(1), weight, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(solved.tensors[f"{path}.bias"], bias, rtol=1e-4, atol=1e-5)


def test_a_value_that_the_net_returns_is_what_its_layer_is_solved_against() -> None:
    net = sum_net(SUMS["y + z"])
    net = replace(net, outputs=(*net.outputs, layer(net, "z").name))
    draft = broken(net)
    solved = refit(draft, pictures()).net
    z = layer(net, "z")
    weight, _ = least_squares(draft.net, z, values_of(solved)("relu"), values_of(net)(z.name))
    torch.testing.assert_close(solved.tensors["z.weight"].flatten(1), weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm_alone", [True, False])
def test_a_sum_is_reached_through_a_batch_norm(norm_alone: bool) -> None:
    """By hand: (sum - other - shift) / scale. Where the norm is read alone, (norm - shift) / scale. To 1e-4."""
    net = sum_net((lambda y, z: torch.sigmoid(y) * z) if norm_alone else SUMS["y + z"], norm=True)
    draft = broken(net)
    solved = refit(draft, pictures()).net
    was, now = values_of(net), values_of(solved)
    scale, shift = affine_of(net)
    goal = was("batch_norm") if norm_alone else was("add") - now(layer(net, "y").name)
    z = layer(net, "z")
    weight, bias = least_squares(draft.net, z, now("relu"), (goal - shift) / scale)
    torch.testing.assert_close(solved.tensors["z.weight"].flatten(1), weight, rtol=1e-4, atol=1e-5)
    made = F.conv2d(now("relu"), weight.reshape(4, 6, 3, 3), bias, padding=1) * scale + shift
    torch.testing.assert_close(now("batch_norm"), made, rtol=1e-4, atol=1e-4)  # which took the bias


# what activations cut off


class Cut(nn.Module):
    """A convolution whose result, perhaps through a norm and a sum, goes through some activations."""

    def __init__(self, count: int, *, norm: bool, side: bool) -> None:
        super().__init__()
        self.stem, self.z, self.count = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 4, 3, padding=1), count
        self.y = nn.Conv2d(6, 4, 1) if side else None
        self.bn = nn.BatchNorm2d(4) if norm else None
        self.fc = nn.Linear(4 * count, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        y = self.y(x) if self.y is not None else None
        z = self.bn(self.z(x)) if self.bn is not None else self.z(x)
        z = y + z if y is not None else z
        return self.fc(torch.cat([torch.sigmoid(z) for _ in range(self.count)], 1).mean((2, 3)))  # type: ignore[no-any-return]


@functools.cache
def uncut(count: int, *, norm: bool, side: bool) -> Net:
    torch.manual_seed(6)
    return capture(lively(Cut(count, norm=norm, side=side)), SHAPE)


def cut_net(*bounds: tuple[float, float], norm: bool = False, side: bool = False) -> Net:
    """Weights are so large that what the convolution gives lies on both sides of all bounds."""
    net = uncut(len(bounds), norm=norm, side=side)
    for (low, high), name in zip(bounds, [n.name for n in net.nodes if n.op == "sigmoid"], strict=True):
        net = bounded(net, name, low, high)
    return net.edited(tensors={"z.weight": 8 * net.tensors["z.weight"]})


@pytest.mark.parametrize(("low", "high"), [(0, INF), (0, 6), (-1, 2), (-INF, INF)])
@pytest.mark.parametrize(("norm", "side"), [(False, False), (True, False), (True, True)])
def test_what_an_activation_cuts_off_on_both_sides_alike_is_let_go(
    low: float, high: float, norm: bool, side: bool
) -> None:
    """Three rounds: where wish and gift lie beyond the same bound, the gift is the wish. To 1e-3."""
    net = cut_net((low, high), norm=norm, side=side)
    draft = broken(net)
    solved = refit(draft, pictures()).net
    was, now, z = values_of(net), values_of(solved), layer(net, "z")
    end = "add" if side else "batch_norm" if norm else z.name
    other = now(layer(net, "y").name) if side else torch.zeros(())
    scale, shift = affine_of(net)
    wish = was(end)
    plain = weight, bias = least_squares(draft.net, z, now("relu"), (wish - other - shift) / scale)
    assert bool((wish < -1.5).any()) and bool((wish > 6.5).any())
    for _ in range(3 if low > -INF else 0):
        gift = F.conv2d(now("relu"), weight.reshape(4, 6, 3, 3), bias, padding=1) * scale + shift + other
        free = ((wish <= low) & (gift <= low)) | ((wish >= high) & (gift >= high))
        eased = (torch.where(free, gift, wish) - other - shift) / scale
        start = draft.net.edited(tensors={"z.weight": weight.reshape(4, 6, 3, 3)})
        weight, bias = least_squares(start, z, now("relu"), eased)
    torch.testing.assert_close(solved.tensors["z.weight"].flatten(1), weight, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(solved.tensors["z.bias"], bias, rtol=1e-3, atol=1e-3)
    assert torch.allclose(weight, plain[0], rtol=1e-2, atol=1e-2) is (low == -INF)


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ((0, INF), (0, 6), (0, INF)),
        ((0, 6), (0, INF), (0, INF)),
        ((-1, 2), (-2, 1), (-2, 2)),
        ((0, 1), (-1, 0.5), (-1, 1)),
        ((0, INF), (-INF, INF), (-INF, INF)),
        ((-INF, INF), (0, 6), (-INF, INF)),
    ],
)
def test_only_what_all_readers_cut_off_is_let_go(
    one: tuple[float, float], other: tuple[float, float], alike: tuple[float, float]
) -> None:
    """Two activations are as one between the outermost bounds: the same weights, to 1e-4."""
    found, wanted = (
        refit(broken(cut_net(*bounds)), pictures()).net.tensors["z.weight"] for bounds in ((one, other), (alike, alike))
    )
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_what_the_net_returns_is_not_let_go() -> None:
    net = cut_net((0, INF))
    net = replace(net, outputs=(*net.outputs, layer(net, "z").name))
    plain = refit(broken(cut_net((-INF, INF))), pictures()).net.tensors["z.weight"]
    torch.testing.assert_close(refit(broken(net), pictures()).net.tensors["z.weight"], plain, rtol=1e-4, atol=1e-4)


# batch norms


SHARES = (1.0, -0.5, 1.1e-3, -1.1e-3, 0.9e-3, -0.9e-3, 0.0)  # of the largest scale: the last three are dead


def dead_net(*, bias: bool) -> Net:
    """A convolution into a norm with these scales, and nothing that cuts off what it gives."""
    torch.manual_seed(7)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 7, 3, bias=bias), nn.BatchNorm2d(7), nn.Sigmoid(),
        nn.Flatten(), nn.Linear(28, 3),
    )  # fmt: skip
    net = capture(lively(model), SHAPE)
    deviation = (net.tensors["3.running_var"] + 1e-5).sqrt()
    return net.edited(tensors={"3.weight": 3 * torch.tensor(SHARES) * deviation})


@pytest.mark.parametrize("bias", [True, False])
def test_channels_that_a_norm_scales_to_nothing_are_left_as_they_are(bias: bool) -> None:
    """Below a thousandth of the largest scale; the others are solved. Dead ones give what they gave to 1e-5."""
    net = dead_net(bias=bias)
    draft = broken(net)
    solved = refit(draft, pictures()).net
    same = [torch.equal(a, b) for a, b in zip(solved.tensors["2.weight"], net.tensors["2.weight"], strict=True)]
    assert same == [False] * 4 + [True] * 3
    if bias:
        assert (solved.tensors["2.bias"] == net.tensors["2.bias"]).tolist() == same
    for before, after in zip(affine(net, net["batch_norm"]), affine(solved, solved["batch_norm"]), strict=True):
        torch.testing.assert_close(after[4:], before[4:], rtol=1e-5, atol=1e-6)
    assert all(bool(tensor.isfinite().all()) for tensor in solved.tensors.values())


def test_a_dead_channel_has_no_say_in_what_few_images_can_tell() -> None:
    """The same weights as without it, to 1e-5: its wish is not divided by a scale of nothing."""

    def solved(share: float) -> Tensor:
        net = dead_net(bias=True)
        scale = net.tensors["3.weight"].clone()
        scale[4:] = share * scale[0]
        found = refit(broken(net.edited(tensors={"3.weight": scale})), pictures(40))
        assert not found.unsolved.keys() & {layer(net, "2").name}
        return found.net.tensors["2.weight"][:4]

    torch.testing.assert_close(solved(0.0), solved(1e-7), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["2d", "1d"])
def test_a_norm_stated_anew_scales_and_shifts_as_before(kind: str) -> None:
    """To 1e-5, where what it reads varies less than its epsilon, too; its statistics are those of what it reads."""
    torch.manual_seed(8)
    two = kind == "2d"
    layers = (nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4)) if two else (nn.Flatten(), nn.Linear(96, 4), nn.BatchNorm1d(4))
    tail = (nn.Flatten(), nn.Linear(16, 3)) if two else (nn.Linear(4, 3),)
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), *layers, nn.Sigmoid(), *tail)
    for module in model:
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -1.0, 1.0)
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    net = capture(model.eval(), SHAPE)
    norm = net["batch_norm"]
    path = net.paths[norm.source]
    small = torch.tensor([1.0, 1e-3, 1e-2, 1.0])
    weight = net.tensors[f"{path}.weight"]
    net = net.edited(tensors={f"{path}.weight": weight * small.reshape(-1, *[1] * (weight.dim() - 1))})
    images = pictures(300)
    solved = refit(broken(net), images).net
    for before, after in zip(affine(net, norm), affine(solved, solved["batch_norm"]), strict=True):
        torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
    x = values_of(solved, images)(norm.source).double()
    axes = tuple(axis for axis in range(x.dim()) if axis != 1)
    assert float(x.var(axes, correction=0)[1]) < 1e-5
    torch.testing.assert_close(
        solved.tensors[norm.tensors["running_mean"]].double(), x.mean(axes), rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(
        solved.tensors[norm.tensors["running_var"]].double(), x.var(axes, correction=0), rtol=1e-4, atol=1e-10
    )


def test_a_norm_without_weights_of_its_own_is_not_stated_anew() -> None:
    """Its mean alone takes the bias of the layer in front."""
    torch.manual_seed(9)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3, bias=False), nn.BatchNorm2d(4, affine=False), nn.Sigmoid(),
        nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip
    net = capture(model.eval(), SHAPE)
    net = net.edited(tensors={"3.running_var": torch.tensor([0.1, 0.2, 0.3, 0.4])})
    draft = broken(net)
    solved = refit(draft, pictures()).net
    assert torch.equal(solved.tensors["3.running_var"], net.tensors["3.running_var"])
    scale, shift = affine_of(net)
    conv, was, now = layer(net, "2"), values_of(net), values_of(solved)
    weight, bias = least_squares(draft.net, conv, now("relu"), (was("batch_norm") - shift) / scale)
    torch.testing.assert_close(solved.tensors["2.weight"].flatten(1), weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        solved.tensors["3.running_mean"], net.tensors["3.running_mean"] - bias, rtol=1e-4, atol=1e-5
    )
