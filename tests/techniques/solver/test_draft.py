import numpy as np
import pytest
import torch
from torch import Tensor

from exact import EVERY, small_net
from example_nets import SHAPE, hand_made
from slimwright.coupling import choose, couple
from slimwright.graph import Net
from slimwright.graph.net import compute
from slimwright.graph.ops import op_of
from slimwright.importers import capture
from slimwright.techniques.solver.draft import Draft, Origin, side_by_side


def values(net: Net, images: Tensor) -> dict[str, Tensor]:
    """Every value of a net, by name."""
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        for node in net.nodes:
            module = net.module_of(node) if op_of(node.op).module is not None else None
            found[node.name] = images if node.op == "input" else compute(net, node, module, found.__getitem__)
    return found


def test_at_the_start_every_value_is_its_own_origin() -> None:
    net = capture(hand_made("Concat"), SHAPE)
    assert {name: origin.values for name, origin in Draft.of(net).origins.items()} == {
        node.name: (node.name,) for node in net.nodes
    }


@pytest.mark.parametrize("name", EVERY)
def test_the_origin_of_what_is_solved_against_has_the_shape_of_its_value(name: str) -> None:
    net = small_net(name)
    coupling = couple(net)
    draft = Draft.of(net).cut(choose(coupling, 0.5), coupling)
    images = torch.randn(2, *SHAPE)
    old, new = values(net, images), values(draft.net, images)
    for value, origin in draft.origins.items():
        if draft.net[value].op in ("conv2d", "linear", "batch_norm", "add", "relu"):
            assert origin.of([old[v] for v in origin.values]).shape == new[value].shape


def test_a_layer_that_reads_nothing_cut_equals_its_origin() -> None:
    net = capture(hand_made("Separable"), SHAPE)
    draft = Draft.of(net).cut({couple(net).groups[0].name: np.array([0, 3])})
    images = torch.randn(2, *SHAPE)
    old, new = values(net, images), values(draft.net, images)
    for layer, kept in (("stem", [0, 3]), ("depthwise", [0, 3]), ("doubled", [0, 1, 6, 7])):
        name = next(n.name for n in net.nodes if n.tensors.get("weight") == f"{layer}.weight")
        origin = draft.origins[name]
        assert origin.kept is not None and origin.kept.tolist() == kept
        torch.testing.assert_close(new[name], origin.of([old[name]]))


def test_cuts_compose() -> None:
    net = capture(hand_made("Residual"), SHAPE)
    once = Draft.of(net).cut({couple(net).groups[0].name: np.array([0, 2, 3, 5])})
    twice = once.cut({couple(once.net).groups[0].name: np.array([1, 3])})
    kept = twice.origins["conv2d"].kept
    assert kept is not None and kept.tolist() == [2, 5] and twice.reference is net


def test_origins_side_by_side() -> None:
    net = capture(hand_made("Concat"), SHAPE)
    left, right = (node.name for node in net.nodes if node.op == "conv2d" and node.source == net.input.name)
    both = side_by_side([Origin((left,)), Origin((right,), 1, torch.tensor([2, 0]))], net)
    assert both is not None and both.kept is not None
    assert both.values == (left, right) and both.kept.tolist() == [0, 1, 2, 3, 6, 4]
    assert side_by_side([Origin((left,)), None], net) is None
    assert side_by_side([Origin((left,)), Origin((right,), 2)], net) is None
