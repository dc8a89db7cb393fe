import torch
from torch import nn

from slimwright.importers import capture
from slimwright.lowering.steps import LEAST, with_steps_for_biases, with_steps_for_weights


def test_rows_that_are_next_to_nothing_beside_their_bias_are_raised_and_no_others() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(32, 4))
    for layer in (model[0], model[2], model[4]):
        with torch.no_grad():
            layer.weight[1] *= 1e-9  # type: ignore[operator, index]
            layer.bias[1] = -2.0  # type: ignore[operator]
    net, images = capture(model.eval(), (3, 6, 6)), torch.randn(4, 3, 6, 6)
    changed = with_steps_for_biases(net)
    for node in net.weighted():
        before, after = (n.tensors[node.tensors["weight"]].flatten(1) for n in (net, changed))
        assert torch.equal(before[[0, 2, 3]], after[[0, 2, 3]])
        assert float(after[1].abs().max()) == 2 * LEAST
    one, other = (n.run(images)[0] for n in (net, changed))
    assert float((one - other).abs().max()) <= 0.01 * float(one.abs().max())


def test_a_net_without_such_rows_stays_as_it_is() -> None:
    net = capture(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1, bias=False)), (3, 6, 6))
    assert with_steps_for_biases(net) is net


def test_small_weights_are_made_larger_and_what_they_read_smaller() -> None:
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
    model = nn.Sequential(first, nn.ReLU(), second, nn.ConvTranspose2d(8, 4, 2))
    with torch.no_grad():
        first.weight *= 1e4
        second.weight *= 1e-5
        second.weight[3] = 1e-12
    net, images = capture(model.eval(), (3, 8, 8)), torch.randn(4, 3, 8, 8)
    changed = with_steps_for_weights(net, 1e-6)
    weights = [changed.tensors[node.tensors["weight"]].flatten(1) for node in changed.weighted()]
    steps = [float(rows.abs().amax(1).sort().values[1]) / 127 for rows in weights]  # that of the dead row left out
    assert min(steps) >= 1e-6 and len(changed.nodes) == len(net.nodes) + 1
    assert torch.equal(net.run(images)[0], changed.run(images)[0])
    assert with_steps_for_weights(net, 1e-12) is net
