import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from slimwright.evidence import columns, taps
from slimwright.evidence.windows import add_moments, groups_of
from slimwright.graph import Net
from slimwright.graph.net import Node, Ref, Value, checked


def conv_net(weight: Tensor, shape: tuple[int, ...], **arguments: Value) -> Net:
    """One convolution that reads [N, *shape]."""
    image = Node("image", "input", shape=(1, *shape))
    told = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1, **arguments}
    conv = Node("conv", "conv2d", {"input": Ref("image"), **told}, {"weight": "conv.weight"})
    return checked(Net((image, conv), {"conv.weight": weight}, ("conv",)))


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@given(
    kernel=pairs,
    stride=pairs,
    dilation=pairs,
    groups=st.sampled_from([1, 2, 4]),
    padding=st.sampled_from(["same", 0, 1, 2]),
)
def test_weights_on_columns_are_the_convolution(
    kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int], groups: int, padding: str | int
) -> None:
    """To 1e-12, in float64."""
    weight = torch.randn(8, 4 // groups, *kernel)
    down, across = (1, 1) if padding == "same" else stride
    pad: Value = padding if isinstance(padding, str) else (padding, padding)
    net = conv_net(weight, (4, 9, 8), stride=(down, across), dilation=dilation, groups=groups, padding=pad)
    node, x = net["conv"], torch.randn(3, 4, 9, 8).double()
    rows = columns(net, node, x)  # [P, G, D]
    wanted = net.module_of(node).double()(x).detach()
    assert rows.shape == (wanted[:, 0].numel(), groups, taps(net, node)) and groups_of(node) == groups
    made = torch.einsum("pgd,god->pgo", rows, weight.double().reshape(groups, 8 // groups, -1)).flatten(1)
    torch.testing.assert_close(made, wanted.movedim(1, -1).reshape(-1, 8), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 2, 16])
@pytest.mark.parametrize("mean", [0.0, 1.0, 100.0])
def test_the_covariance_is_exact_however_large_the_mean_is(groups: int, mean: float) -> None:
    """To 1e-5 of its largest entry: plain float32 products are 1e-3 wrong at a mean of 100 standard deviations."""
    net = conv_net(torch.randn(16, 16 // groups, 3, 3), (16, 12, 12), groups=groups)
    node, size = net["conv"], taps(net, net["conv"])
    x = torch.randn(40, 16, 12, 12) + mean * torch.linspace(0.5, 1, 16)[:, None, None]
    total, gram = torch.zeros(groups, size).double(), torch.zeros(groups, size, size).double()
    for some in x.split(8):
        add_moments(net, node, some, total=total, gram=gram)
    rows = columns(net, node, x).double().transpose(0, 1)  # [G, P, D]
    torch.testing.assert_close(total, rows.sum(1), rtol=1e-6, atol=1e-2)
    count = rows.shape[1]
    got = gram / count - total[:, :, None] * total[:, None] / count**2
    wanted = torch.stack([of.T.cov(correction=0) for of in rows])
    assert float((got - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())


def test_wide_gram_matrices_are_computed_by_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    """To 1e-6 of the largest entry, at an odd number of taps."""
    net = conv_net(torch.randn(2, 13, 3, 3), (13, 8, 8))
    x = torch.randn(4, 13, 8, 8)
    sums = []
    for limit in (1000, 10):
        monkeypatch.setattr("slimwright.evidence.windows.HALVED_AT", limit)
        total, gram = torch.zeros(1, 117).double(), torch.zeros(1, 117, 117).double()
        add_moments(net, net["conv"], x, total=total, gram=gram)
        sums.append(gram)
    assert float((sums[0] - sums[1]).abs().max()) <= 1e-6 * float(sums[0].abs().max())
