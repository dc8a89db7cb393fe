from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from example_nets import SHAPE, classification, hand_made, net_of
from slimwright.coupling import couple
from slimwright.coupling.balance import Ladder, ladders
from slimwright.coupling.channels import ChannelGroup
from slimwright.errors import DataError
from slimwright.evidence import Evidence, observe
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.progress import Event
from slimwright.techniques import prune
from slimwright.techniques.prune import Removal, removal, removals
from structures import shuffled, structure


def one_reader(channels: int = 5) -> Net:
    """A linear layer behind a ReLU behind a convolution over the whole image: one position, one tap per channel."""
    torch.manual_seed(3)
    return net_of(nn.Conv2d(1, channels, 6), nn.ReLU(), nn.Flatten(), nn.Linear(channels, 3), shape=SHAPE)


def observed(net: Net, count: int = 300) -> tuple[Evidence, Tensor]:
    images = torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1))
    return observe(
        net, [(images, torch.zeros(count, dtype=torch.int64))], task=classification(net[net.outputs[0]].shape[1])
    ), images


def brute_force(net: Net, seen: Evidence, images: Tensor, dropped: list[int]) -> float:
    """Least squares by hand: the nats lost when the linear layer reproduces its outputs without some inputs."""
    first = net.to_module().get_submodule("0")
    x = torch.relu(first(images)).flatten(1).detach().double()
    x = x - x.mean(0)
    y = x @ net.tensors["3.weight"].double().T
    left = [c for c in range(x.shape[1]) if c not in dropped]
    fitted = x[:, left] @ torch.linalg.lstsq(x[:, left], y, driver="gelsd").solution if left else 0 * y
    fisher = 0.5 * seen.layers[net.outputs[0]].fisher[0] / seen.images[0]
    return float(((y - fitted).square().mean(0) * fisher).sum())


def test_damage_is_that_of_least_squares_channel_by_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a negligible ridge, to 1e-4 relative: the evidence is float32 arithmetic."""
    monkeypatch.setattr(prune, "RIDGE", 1e-12)
    net = one_reader()
    seen, images = observed(net)
    (group,) = couple(net).groups
    found = removal(net, seen.all(), group)
    alone = [brute_force(net, seen, images, [c]) for c in range(5)]
    assert found.order[0] == int(np.argmin(alone))
    for gone in range(1, 5):
        dropped = found.order[:gone].tolist()
        assert found.damage[gone] == pytest.approx(brute_force(net, seen, images, dropped), rel=1e-4)
        choices = [brute_force(net, seen, images, [*dropped[:-1], c]) for c in range(5) if c not in dropped[:-1]]
        assert found.damage[gone] == pytest.approx(min(choices), rel=1e-4)  # greedy: the least at each step


def test_a_duplicate_goes_first_and_costs_next_to_nothing() -> None:
    net = one_reader()
    weight, bias = net.tensors["0.weight"].clone(), net.tensors["0.bias"].clone()
    weight[3], bias[3] = weight[1], bias[1]
    net = net.edited(tensors={"0.weight": weight, "0.bias": bias})
    seen, _ = observed(net)
    (group,) = couple(net).groups
    found = removal(net, seen.all(), group)
    assert found.order[0] in (1, 3) and found.order[1] not in (1, 3)
    assert found.damage[1] < 0.01 * found.damage[2]


def test_a_channel_that_is_never_on_costs_next_to_nothing() -> None:
    net = one_reader()
    bias = net.tensors["0.bias"].clone()
    bias[2] = -1e3
    net = net.edited(tensors={"0.bias": bias})
    seen, _ = observed(net)
    (group,) = couple(net).groups
    found = removal(net, seen.all(), group)
    assert found.order[0] == 2 and found.damage[1] < 0.1 * found.damage[2]  # the ridge's share


@pytest.mark.parametrize("name", ["Residual", "Concat", "Separable", "Gated", "Flat"])
def test_damage_never_falls_and_every_channel_goes_once(name: str) -> None:
    net = capture(hand_made(name), SHAPE)
    seen, _ = observed(net)
    coupling = couple(net)
    found = removals(net, seen, coupling)
    assert found.keys() == {group.name for group in coupling.groups}
    for group in coupling.groups:
        order, damage = found[group.name].order, found[group.name].damage
        assert sorted(order.tolist()) == list(range(group.size))
        assert damage[0] == 0 and damage[-1] == np.inf and len(damage) == group.size + 1
        assert bool((np.diff(damage[:-1]) >= 0).all())


def test_removals_tell_how_many_channels_are_gone() -> None:
    net = capture(hand_made("Residual"), SHAPE)
    seen, _ = observed(net)
    coupling, events = couple(net), list[Event]()
    removals(net, seen, coupling, tell=events.append)
    total = sum(group.size for group in coupling.groups)
    done = [event.done for event in events]
    assert done == sorted(done) and done[0] == 0 and done[-1] == total and {event.total for event in events} == {total}


def test_the_channels_to_keep_are_those_that_go_last() -> None:
    found = Removal(np.array([2, 0, 3, 1]), np.array([0.0, 1.0, 2.0, 3.0, np.inf]))
    assert found.keep(2).tolist() == [1, 3] and found.keep(4).tolist() == [0, 1, 2, 3]


def test_evidence_of_another_net_is_refused(residual: Net) -> None:
    seen, _ = observed(one_reader())
    with pytest.raises(DataError, match="another net"):
        removals(residual, seen, couple(residual))


def test_thin_evidence_promises_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine images for five weights: more is predicted to be lost than with the ridge that many images have."""
    net = one_reader()
    seen, _ = observed(net, 9)
    (group,) = couple(net).groups
    careful = removal(net, seen.all(), group)
    monkeypatch.setattr(prune, "THIN", 0)
    careless = removal(net, seen.all(), group)
    assert bool((careful.damage[1:-1] > careless.damage[1:-1]).all())
    many, _ = observed(net, 10)
    monkeypatch.undo()
    enough = removal(net, many.all(), group)
    monkeypatch.setattr(prune, "THIN_RIDGE", 0.5)
    assert removal(net, many.all(), group).damage.tolist() == enough.damage.tolist()


def test_down_a_ladder_the_least_of_what_may_go_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two parts of three channels, each read by outputs of its own: one of each at a time, the cheapest two first."""
    monkeypatch.setattr(prune, "RIDGE", 1e-12)
    torch.manual_seed(3)
    net = net_of(nn.Conv2d(1, 6, 6), nn.ReLU(), nn.Conv2d(6, 4, 1, groups=2), nn.Flatten(), shape=SHAPE)
    seen, images = observed(net)
    (group,) = couple(net).groups
    ladder = ladders(couple(net), lambda size, parts: range(size, 0, -parts))[group.name]
    found = removal(net, seen.all(), group, ladder)

    def lost(dropped: list[int]) -> float:
        x = torch.relu(net.to_module().get_submodule("0")(images)).flatten(1).detach().double()
        x = x - x.mean(0)
        weight, errors = net.tensors["2.weight"].flatten(1).double(), []
        for part in (0, 1):
            inside = x[:, 3 * part : 3 * part + 3]
            left = [c - 3 * part for c in range(3 * part, 3 * part + 3) if c not in dropped]
            y = inside @ weight[2 * part : 2 * part + 2].T
            fitted = inside[:, left] @ torch.linalg.lstsq(inside[:, left], y, driver="gelsd").solution
            errors.append((y - fitted).square().mean(0))
        fisher = 0.5 * seen.layers["conv2d_1"].fisher[0] / seen.images[0]
        return float((torch.cat(errors) * fisher).sum())

    for gone in (2, 4):
        dropped = sorted(found.order[:gone].tolist())
        assert [c // 3 for c in dropped] == [0] * (gone // 2) + [1] * (gone // 2)
        assert found.damage[gone] == pytest.approx(lost(dropped), rel=1e-4)
    assert lost(found.order[:2].tolist()) == pytest.approx(
        min(lost([a, b]) for a in range(3) for b in range(3, 6)), rel=1e-4
    )
    assert np.isinf(found.damage[[1, 3, 5, 6]]).all() and sorted(found.order.tolist()) == list(range(6))


def test_groups_of_equal_parts_have_an_order_with_a_ladder_only() -> None:
    net = capture(hand_made("Grouped"), SHAPE)
    seen, _ = observed(net)
    coupling = couple(net)
    free = {group.name for group in coupling.groups} - coupling.balanced
    assert removals(net, seen, coupling).keys() == free
    down = ladders(coupling, lambda size, parts: [size, parts])
    assert removals(net, seen, coupling, down).keys() == free | coupling.balanced


def test_channels_of_a_column_go_together() -> None:
    """Rows of a shuffle are the parts of a grouped convolution: one channel of each goes at a time."""
    net = capture(structure("ShuffleV1"), SHAPE)
    seen, _ = observed(net)
    down = ladders(couple(net), lambda size, parts: range(size, 0, -1))
    orders = removals(net, seen, couple(net), down)
    assert orders
    for name, found in orders.items():
        units = {tuple(sorted(unit.tolist())) for members in down[name].cells for unit in members}
        each = down[name].cells[0].shape[1]
        gone = found.order.reshape(-1, each)
        assert each > 1 and {tuple(sorted(unit)) for unit in gone.tolist()} == units
        assert np.isfinite(found.damage[[len(found.order) - size for size in down[name].sizes]]).all()
        assert np.isfinite(found.damage).sum() == len(down[name].rungs)


# removal by hand, from layers of any shape


class Readers(nn.Module):
    """Twelve channels behind a ReLU, and one layer or two that read them: its outputs, averaged, are the scores."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.stem = nn.Conv2d(1, 12, 3)
        self.square, self.pointwise = nn.Conv2d(12, 3, 2, stride=2), nn.Conv2d(12, 2, 1)
        self.grouped = nn.Conv2d(12, 6, (4, 1), groups=2)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.stem(x))
        if self.kind == "two layers":
            return torch.cat([self.square(y).mean((2, 3)), self.pointwise(y).mean((2, 3))], 1)
        return self.grouped(shuffled(y, 2) if self.kind == "in columns" else y).mean((2, 3))  # type: ignore[no-any-return]


def readers(kind: str) -> tuple[Net, ChannelGroup, Ladder]:
    """The net, the group of the stem's channels, and one unit after the other down to the last of each part."""
    torch.manual_seed(4)
    net = capture(Readers(kind).eval(), SHAPE)
    coupling = couple(net)
    (group,) = coupling.groups
    one_by_one = Ladder((np.arange(12)[:, None],), tuple((size,) for size in range(12, 0, -1)))
    return net, group, ladders(coupling, lambda size, _: range(size, 0, -1)).get(group.name, one_by_one)


def inverse_by_hand(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """The inverse covariance [D, D] of the windows of `x`.

    The ridge is a thousandth of the mean variance, and a hundredth where there are fewer than two windows for a tap.
    """
    windows = F.unfold(x.double(), tuple(kernel), stride=tuple(stride)).transpose(0, 1).flatten(1)
    covariance = windows.cov(correction=0)
    share = 1e-2 if windows.shape[1] < 2 * len(windows) else 1e-3
    ridge = share * covariance.diagonal().mean() * torch.eye(len(windows), dtype=torch.float64)
    inverse: Tensor = torch.linalg.inv(covariance + ridge)
    return inverse


class ByHand:
    """The nats lost when channels S go at once and each layer makes up for it: tr F W_S (H^-1)_SS^-1 W_S^T."""

    def __init__(self, net: Net, seen: Evidence, images: Tensor, group: ChannelGroup) -> None:
        self.parts: list[tuple[list[list[int]], Tensor, Tensor]] = []  # columns of each channel, weights, inverse
        for place in group.of("in"):
            layer = net.to_module().get_submodule(net.paths[place.node])
            assert isinstance(layer, nn.Conv2d)
            worth = 0.5 * seen.layers[place.node].fisher.sum(0) / len(images)
            weight = (layer.weight.double().flatten(1) * worth.sqrt()[:, None]).detach().chunk(layer.groups)
            inputs, taps = layer.weight.shape[1], layer.weight[0, 0].numel()
            x = Net(net.nodes, net.tensors, (net[place.node].source,)).to_module()(images).detach()
            for number, part in enumerate(x.chunk(layer.groups, 1)):
                here = [[p - number * inputs for p in at if p // inputs == number] for at in place.positions.tolist()]
                columns = [[p * taps + tap for p in at for tap in range(taps)] for at in here]
                self.parts.append((columns, weight[number], inverse_by_hand(part, layer.kernel_size, layer.stride)))

    def __call__(self, gone: Sequence[int]) -> float:
        lost = 0.0
        for columns, weight, inverse in self.parts:
            at = torch.tensor([column for channel in gone for column in columns[channel]], dtype=torch.int64)
            lost += float((weight[:, at].T * torch.linalg.solve(inverse[at][:, at], weight[:, at].T)).sum())
        return lost


def assert_as_by_hand(found: Removal, by_hand: ByHand, ladder: Ladder) -> None:
    """Of the units that may go, always that whose channels would each cost the least; damage to 1e-3."""
    left = [[unit.tolist() for unit in cell] for cell in ladder.cells]
    gone: list[int] = []
    for rung in ladder.rungs[1:]:
        while any(len(cell) > stay for cell, stay in zip(left, rung, strict=True)):
            over = [cell for cell, stay in zip(left, rung, strict=True) if len(cell) > stay]
            cell, unit = min(
                ((cell, unit) for cell in over for unit in cell),
                key=lambda both: sum(by_hand([*gone, channel]) for channel in both[1]),
            )
            cell.remove(unit)
            gone += unit
        assert found.damage[len(gone)] == pytest.approx(by_hand(gone), rel=1e-3)
    assert found.order[: len(gone)].tolist() == gone


@pytest.mark.parametrize("kind", ["two layers", "grouped", "in columns"])
def test_damage_is_that_of_all_layers_that_read_the_channels(kind: str) -> None:
    net, group, ladder = readers(kind)
    seen, images = observed(net, 100)
    found = removal(net, seen.all(), group, ladder)
    assert len(ladder.rungs) > 2 and len(list(group.of("in"))) == (2 if kind == "two layers" else 1)
    assert_as_by_hand(found, ByHand(net, seen, images, group), ladder)


@pytest.mark.parametrize("images", [11, 12, 23])  # each is four windows; 24 weights read them in each of two groups
def test_evidence_is_thin_below_two_positions_for_a_weight_of_one_group(images: int) -> None:
    net, group, ladder = readers("grouped")
    seen, pictures = observed(net, images)
    assert_as_by_hand(removal(net, seen.all(), group, ladder), ByHand(net, seen, pictures, group), ladder)


def test_damage_does_not_depend_on_the_scale_of_what_is_read() -> None:
    """Channels a thousand times smaller and weights that make up for it: the same to 1e-3."""
    net, group, ladder = readers("two layers")
    small = net.edited(
        tensors={
            name: net.tensors[name] * (1e-3 if name.startswith("stem") else 1e3)
            for name in ("stem.weight", "stem.bias", "square.weight", "pointwise.weight")
        }
    )
    plain, scaled = (removal(n, observed(n)[0].all(), group, ladder) for n in (net, small))
    assert plain.order.tolist() == scaled.order.tolist()
    np.testing.assert_allclose(scaled.damage, plain.damage, rtol=1e-3)


def test_channels_of_which_none_is_ever_on_cost_nothing() -> None:
    net, group, ladder = readers("two layers")
    dead = net.edited(tensors={"stem.bias": torch.full((12,), -1e3)})
    found = removal(dead, observed(dead)[0].all(), group, ladder)
    assert sorted(found.order.tolist()) == list(range(12)) and (found.damage[:-1] < 1e-9).all()


def test_sums_whose_rounding_exceeds_the_ridge_promise_no_gain() -> None:
    """A channel that is never on, whose variance came out below zero: it goes first, and costs little."""
    net = one_reader()
    net = net.edited(tensors={"0.bias": torch.where(torch.arange(5) == 2, -1e3, net.tensors["0.bias"])})
    seen = observed(net)[0].all()
    reader = seen.layers[net.outputs[0]]
    gram = reader.gram.clone()
    gram[0, 0, 2, 2] -= 0.01 * gram.diagonal(0, 2, 3).mean()
    seen = replace(seen, layers={**seen.layers, net.outputs[0]: replace(reader, gram=gram)})
    found = removal(net, seen, couple(net).groups[0])
    assert found.order[0] == 2 and 0 <= found.damage[1] < 0.1 * found.damage[2]


def test_channels_that_two_groups_of_a_layer_read_have_no_order() -> None:
    """Two copies side by side, one for each group: not even a ladder orders them, but what the layer gives has one."""

    class Copies(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.grouped = nn.Conv2d(1, 4, 3), nn.Conv2d(8, 4, 1, groups=2)
            self.fc = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.stem(x))
            return self.fc(torch.relu(self.grouped(torch.cat([y, y], 1))).mean((2, 3)))  # type: ignore[no-any-return]

    net = capture(Copies().eval(), SHAPE)
    coupling = couple(net)
    down = ladders(coupling, lambda size, _: range(size, 0, -1))
    both = next(group for group in coupling.groups if group.name == "conv2d")
    assert [cut.positions.tolist() for cut in both.of("in")] == [[[0, 4], [1, 5], [2, 6], [3, 7]]]
    assert len(down["conv2d"].rungs) == 4
    assert removals(net, observed(net)[0], coupling, down).keys() == {"conv2d_1"}


def test_groups_whose_readers_were_not_observed_have_no_order() -> None:
    net = capture(hand_made("Concat"), SHAPE)
    seen, _ = observed(net)
    every = removals(net, seen, couple(net))
    blind = replace(seen, layers={name: sums for name, sums in seen.layers.items() if name != "conv2d_2"})
    unread = {g.name for g in couple(net).groups if all(cut.node != "conv2d_2" for cut in g.of("in"))}
    assert 0 < len(unread) < len(every) and removals(net, blind, couple(net)).keys() == unread


def test_channels_that_nothing_reads_have_no_order() -> None:
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.fc, self.other = nn.Conv2d(1, 4, 3), nn.Linear(4, 3), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.stem(x)).mean((2, 3))
            return torch.cat([self.fc(y), self.other(y)], 1)

    both = capture(TwoHeads().eval(), SHAPE)
    net = replace(both, outputs=("linear",))
    coupling = couple(net)
    assert [list(group.of("in")) == [] for group in coupling.groups] == [False, True]
    assert removals(net, observed(net)[0], coupling).keys() == {coupling.groups[0].name}


class OnTwo(nn.Module):
    """One linear layer on two values of the same channels."""

    def __init__(self, channels: int = 5) -> None:
        super().__init__()
        self.stem, self.shared = nn.Conv2d(1, channels, (6, 3), stride=3), nn.Linear(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.stem(x))  # [N, channels, 1, 2]
        return self.shared(y[:, :, 0, 0]) + torch.tanh(self.shared(y[:, :, 0, 1]))  # type: ignore[no-any-return]


def test_the_damage_in_a_layer_that_is_called_twice_is_that_of_one_set_of_weights_for_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prune, "RIDGE", 1e-12)
    torch.manual_seed(3)
    net = capture(OnTwo(), SHAPE)
    seen, images = observed(net)
    (group,) = couple(net).groups
    assert len([*group.of("in")]) == 2 and len(seen.layers) == 2
    found = removals(net, seen, couple(net))[group.name]
    y = torch.relu(net.to_module().get_submodule("stem")(images)).detach().double()[:, :, 0]  # [N, channels, 2]
    x = torch.cat([y[:, :, 0], y[:, :, 1]])
    x = x - x.mean(0)
    wanted, left = x @ net.tensors["shared.weight"].double().T, [c for c in range(5) if c != found.order[0]]
    fitted = x[:, left] @ torch.linalg.lstsq(x[:, left], wanted, driver="gelsd").solution
    (name,) = {net.layer_called[place.node] for place in group.of("in")}
    fisher = 0.5 * seen.layers[name].fisher[0] / seen.images[0]
    assert found.damage[1] == pytest.approx(float(((wanted - fitted).square().mean(0) * fisher).sum()), rel=1e-4)
