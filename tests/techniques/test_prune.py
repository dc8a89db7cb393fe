import numpy as np
import pytest
import torch
from torch import Tensor, nn

from example_nets import SHAPE, hand_made, net_of
from slimwright.coupling import couple
from slimwright.coupling.balance import ladders
from slimwright.errors import DataError
from slimwright.evidence import Evidence, observe
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.techniques import prune
from slimwright.techniques.prune import Removal, removal, removals
from structures import structure


def one_reader(channels: int = 5) -> Net:
    """A linear layer behind a ReLU behind a convolution over the whole image: one position, one tap per channel."""
    torch.manual_seed(3)
    return net_of(nn.Conv2d(1, channels, 6), nn.ReLU(), nn.Flatten(), nn.Linear(channels, 3), shape=SHAPE)


def observed(net: Net, count: int = 300) -> tuple[Evidence, Tensor]:
    images = torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1))
    return observe(net, [(images, torch.zeros(count, dtype=torch.int64))], classes=1), images


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
    assert found.order[0] == 2 and found.damage[1] < 1e-2 * found.damage[2]  # the ridge's share


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
