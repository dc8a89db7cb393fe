import torch
from torch import nn

from slimwright.importers import capture
from slimwright.lowering.steps import LEAST, with_steps_for_biases


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
