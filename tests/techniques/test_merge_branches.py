"""Which branches merge and which do not: one deviation from the pattern at a time."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from example_nets import lively
from layers_by_hand import values_of
from slimwright.errors import RequestError
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.techniques.merge import branches, merge_branches
from slimwright.techniques.solver.draft import Draft

SHAPE = (2, 8, 8)
RELU = nn.ReLU()
Kernel = int | tuple[int, int]


def flat() -> list[nn.Module]:
    """A pointwise layer of six channels to three."""
    return [nn.Conv2d(6, 3, 1), RELU]


def deep(kernel: Kernel = 3, padding: str | Kernel = "same") -> list[nn.Module]:
    """A pointwise layer of six channels to three, and a larger kernel of three to three."""
    return [nn.Conv2d(6, 3, 1), RELU, nn.Conv2d(3, 3, kernel, padding=padding), RELU]


def pictures(*shape: int) -> Tensor:
    return torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))


class Branches(nn.Module):
    """Branches that read one value and are joined, then averaged."""

    def __init__(self, *parts: Sequence[nn.Module], dim: int = 1) -> None:
        super().__init__()
        self.stem, self.dim = nn.Conv2d(2, 6, 3, padding=1), dim
        self.parts = nn.ModuleList(nn.Sequential(*part) for part in parts)
        self.fc = nn.Linear(3 * len(parts) if dim == 1 else 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        return self.fc(torch.cat([part(x) for part in self.parts], self.dim).mean((2, 3)))  # type: ignore[no-any-return]


def joined(*parts: Sequence[nn.Module], dim: int = 1) -> Net:
    torch.manual_seed(0)
    return capture(lively(Branches(*parts, dim=dim)), SHAPE)


def unbiased(layers: list[nn.Module]) -> list[nn.Module]:
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            layer.bias = None
    return layers


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    "parts",
    [
        (flat(), deep()),
        (unbiased(flat()), deep()),
        (flat(), unbiased(deep())),
        (flat(), deep((5, 3), (2, 1))),
        (flat(), deep((3, 5), (1, 2))),
        (deep(), flat(), [nn.Sigmoid(), nn.Conv2d(6, 3, 1)]),
    ],
)
def test_a_pointwise_branch_gives_what_it_gave_from_the_centre_of_its_neighbour(
    parts: Sequence[Sequence[nn.Module]], reverse: bool
) -> None:
    """To 1e-5; what each value is said to stand for is what it is, behind its ReLU."""
    net = joined(*(parts[::-1] if reverse else parts))
    assert branches(net) == ["cat"]
    draft = merge_branches(Draft.of(net), "cat")
    assert len(draft.net["cat"].reads) == len(parts) - 1
    was, now = (values_of(n, pictures(*SHAPE)) for n in (net, draft.net))
    torch.testing.assert_close(now("linear"), was("linear"), rtol=1e-5, atol=1e-5)
    wide = 0
    for name, origin in draft.origins.items():
        wanted, got = origin.of([was(value) for value in origin.values]), now(name)
        if draft.net[name].op == "conv2d" and name not in origin.values[:1] + origin.values[1:2]:
            continue
        if len(origin.values) > 1 and draft.net[name].op == "conv2d":  # a ReLU changes nothing twice
            wanted, got = torch.relu(wanted), torch.relu(got)
        wide += len(origin.values) > 1
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    assert wide == 4  # the reducer, the kernel, and the ReLUs behind them


@pytest.mark.parametrize(
    ("pool", "kernel"),
    [
        (nn.MaxPool2d(3, 1, 1), 3),
        (nn.AvgPool2d(3, 1, 1), 5),
        (nn.MaxPool2d((3, 5), 1, (1, 2)), (3, 5)),
        (nn.MaxPool2d((1, 3), 1, (0, 1)), (3, 3)),
    ],
)
def test_a_pooling_branch_starts_as_one_without_its_pooling(pool: nn.Module, kernel: Kernel) -> None:
    """To 1e-5. A solution then finds the weights of the window."""
    net = joined([pool, *flat()], deep(kernel))
    assert branches(net) == ["cat"]
    draft = merge_branches(Draft.of(net), "cat")
    (name,) = (node.name for node in net.nodes if "pool" in node.op)
    bare = net.edited(removed={name: net[name].source})
    one, other = (values_of(n, pictures(*SHAPE))("linear") for n in (draft.net, bare))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert name not in draft.net.readers


def test_a_pooling_that_all_branches_read_stays_in_front() -> None:
    class Pooled(Branches):
        def forward(self, x: Tensor) -> Tensor:
            x = F.max_pool2d(torch.relu(self.stem(x)), 3, 1, 1)
            return self.fc(torch.cat([part(x) for part in self.parts], 1).mean((2, 3)))  # type: ignore[no-any-return]

    net = capture(Pooled(flat(), deep()).eval(), SHAPE)
    draft = merge_branches(Draft.of(net), "cat")
    one, other = (values_of(n, pictures(*SHAPE))("linear") for n in (draft.net, net))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert [node.op for node in draft.net.nodes].count("max_pool2d") == 1


def test_of_two_neighbours_one_takes_a_branch_in_and_later_ones_follow() -> None:
    net = joined(flat(), deep(), flat(), deep(5))
    draft = merge_branches(Draft.of(net), "cat")
    one, other = (values_of(n, pictures(*SHAPE))("linear") for n in (draft.net, net))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert len(draft.net["cat"].reads) == 2 and branches(draft.net) == []


FLAT, REDUCER, KERNEL = "conv2d_1", "conv2d_2", "conv2d_3"


@functools.cache
def whole(*, pooled: bool = False) -> Net:
    """What merges: with a pooling of 3 x 3 in front of the pointwise layer, or none."""
    return joined([*([nn.MaxPool2d(3, 1, 1)] if pooled else []), *flat()], deep())


def altered(net: Net, changes: Mapping[str, Mapping[str, Any]]) -> Net:
    """The net with other arguments for some layers; `kernel` is that of a convolution."""
    changed, tensors = {}, {}
    for name, given in changes.items():
        node, arguments = net[name], {key: value for key, value in given.items() if key != "kernel"}
        changed[name] = replace(node, arguments={**node.arguments, **arguments})
        if node.op == "conv2d":
            weight = net.tensors[node.tensors["weight"]]
            size = len(weight), weight.shape[1] // given.get("groups", 1), *given.get("kernel", weight.shape[2:])
            tensors[node.tensors["weight"]] = torch.randn(size)
    return net.edited(changed, tensors=tensors)


def test_what_the_other_cases_deviate_from_merges() -> None:
    assert branches(whole()) == branches(whole(pooled=True)) == ["cat"]
    assert branches(altered(whole(), {KERNEL: {"kernel": (5, 3)}})) == ["cat"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        (KERNEL, {"dilation": (2, 2)}),
        (KERNEL, {"dilation": (2, 1)}),
        (KERNEL, {"dilation": (1, 2)}),
        (KERNEL, {"groups": 3}),
        (REDUCER, {"groups": 3}),
        (FLAT, {"groups": 3}),
        (KERNEL, {"kernel": (2, 2)}),
        (KERNEL, {"kernel": (2, 3)}),
        (KERNEL, {"kernel": (3, 2)}),
        (KERNEL, {"kernel": (3, 1)}),
        (KERNEL, {"kernel": (1, 3)}),
        (KERNEL, {"kernel": (1, 1)}),
        (REDUCER, {"kernel": (3, 3), "padding": (1, 1)}),
        (REDUCER, {"kernel": (1, 3), "padding": (0, 1)}),
        (FLAT, {"kernel": (3, 3), "padding": (1, 1)}),
        (FLAT, {"kernel": (3, 1), "padding": (1, 0)}),
    ],
)
def test_layers_of_another_geometry_are_left_alone(name: str, options: dict[str, Any]) -> None:
    net = altered(whole(), {name: options})
    assert branches(net) == []
    with pytest.raises(RequestError, match="no concatenation 'cat' joins branches"):
        merge_branches(Draft.of(net), "cat")


@pytest.mark.parametrize(
    ("window", "padding", "merges"),
    [((3, 3), (1, 1), True), ((5, 5), (2, 2), False), ((5, 3), (2, 1), False), ((3, 5), (1, 2), False)],
)
def test_a_window_must_lie_in_the_kernel(window: tuple[int, int], padding: tuple[int, int], merges: bool) -> None:
    net = altered(whole(pooled=True), {"max_pool2d": {"kernel_size": window, "padding": padding}})
    assert branches(net) == (["cat"] if merges else [])


@pytest.mark.parametrize(("name", "padding"), [(REDUCER, (0, 0)), (KERNEL, (1, 1))])
def test_branches_with_a_stride_are_left_alone(name: str, padding: tuple[int, int]) -> None:
    net = altered(whole(), {FLAT: {"stride": (2, 2)}, name: {"stride": (2, 2), "padding": padding}})
    assert net["cat"].shape == (1, 6, 4, 4) and branches(net) == []


APART: dict[str, tuple[Sequence[nn.Module], ...]] = {
    "pooling in front of the kernel": (flat(), [nn.MaxPool2d(3, 1, 1), *deep()]),
    "one layer beside another": (flat(), flat()),
    "two layers in the flat branch": ([*flat(), nn.Conv2d(3, 3, 1), RELU], deep()),
    "three layers in the deep branch": (flat(), [*deep(), nn.Conv2d(3, 3, 3, padding=1), RELU]),
    "no ReLU behind the flat layer": (flat()[:1], deep()),
    "no ReLU behind the kernel": (flat(), deep()[:3]),
    "no ReLU behind the reducer": (flat(), [deep()[0], *deep()[2:]]),
    "another activation": ([flat()[0], nn.Sigmoid()], deep()),
    "another source": ([nn.Sigmoid(), *flat()], deep()),
    "not beside each other": (flat(), [nn.Sigmoid(), nn.Conv2d(6, 3, 1)], deep()),
}


@pytest.mark.parametrize("name", APART)
def test_branches_of_another_kind_are_left_alone(name: str) -> None:
    assert branches(joined(*APART[name])) == []


def test_layers_that_are_called_twice_are_left_alone() -> None:
    """Their weights are another branch's too; one whose weights are but copied may be called twice."""
    both = deep()
    assert branches(joined(flat(), both, both)) == []
    net = joined(both, both, flat(), deep())
    draft = merge_branches(Draft.of(net), "cat")
    assert len(draft.net["cat"].reads) == 3
    one, other = (values_of(n, pictures(*SHAPE))("linear") for n in (draft.net, net))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_a_value_that_is_joined_twice_is_left_alone() -> None:
    class Again(Branches):
        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.stem(x))
            one, other = (part(x) for part in self.parts)
            return self.fc(torch.cat([one, other, one], 1).mean((2, 3))[:, :6])  # type: ignore[no-any-return]

    assert branches(capture(Again(flat(), deep()).eval(), SHAPE)) == []


def test_only_branches_of_channels_that_nothing_else_sees_merge() -> None:
    assert branches(joined(flat(), deep(), dim=2)) == []
    net = whole()
    reads = net["cat"].reads
    seen = [n.name for n in net.nodes if n.op in ("conv2d", "relu") and n.name not in ("conv2d", "relu")]
    assert len(seen) == 6 and set(reads) <= set(seen)
    for name in seen:
        assert branches(replace(net, outputs=(*net.outputs, name))) == []
    for name in (n.name for n in net.nodes if n.op == "conv2d" and n.name != "conv2d"):
        fixed = net.edited({name: replace(net[name], fixed=("weight",))})
        assert branches(fixed) == []
