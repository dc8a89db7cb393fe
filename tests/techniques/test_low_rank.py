import functools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from example_nets import SHAPE, classification, hand_made, net_of
from slimwright.cost import count, count_layers
from slimwright.errors import DataError, RequestError
from slimwright.evidence import Evidence, observe
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.techniques.fold import fold_batch_norm
from slimwright.techniques.low_rank import (
    Factors,
    Kind,
    decomposed,
    factorise,
    macs_at,
    most_ranks,
    outline,
    params_at,
)
from slimwright.zoo import ZOO, build

WIDE = (6, 9, 8)
CONVS: dict[str, Callable[[], nn.Conv2d]] = {
    "plain": lambda: nn.Conv2d(6, 8, 3),
    "strided": lambda: nn.Conv2d(6, 8, (3, 5), stride=(2, 1), padding=(1, 2), bias=False),
    "dilated": lambda: nn.Conv2d(6, 8, 3, padding=(2, 1), dilation=(2, 1)),
    "same": lambda: nn.Conv2d(6, 8, 3, padding="same", dilation=2),
    "grouped": lambda: nn.Conv2d(6, 8, 3, stride=2, padding=1, groups=2),
    "narrow": lambda: nn.Conv2d(6, 8, 1, stride=2, groups=2),
}
ALEXNET_RANKS = (69, 154, 153, 178, 196, 365, 275, 260)  # what reproductions give as the paper's


@functools.cache
def conv_net(name: str) -> Net:
    """A convolution between a ReLU and a linear layer."""
    torch.manual_seed(1)
    return net_of(nn.ReLU(), CONVS[name](), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(72, 3), shape=WIDE)


def images_for(net: Net, count: int = 4) -> Tensor:
    return torch.randn(count, *net.input.shape[1:], generator=torch.Generator().manual_seed(2))


@functools.cache
def evidence_for(name: str) -> Evidence:
    return observed(conv_net(name))


def observed(net: Net, count: int = 40) -> Evidence:
    return observe(
        net,
        [(images_for(net, count), torch.zeros(count, dtype=torch.int64))],
        task=classification(net[net.outputs[0]].shape[1]),
    )


def assert_same_function(one: Net, other: Net, tolerance: float = 1e-5) -> None:
    """To `tolerance` of the largest score."""
    images = images_for(one)
    wanted, got = one.to_module()(images).detach(), other.to_module()(images).detach()
    assert float((got - wanted).abs().max()) <= tolerance * float(wanted.abs().max())


def some_factors(net: Net, name: str, kind: Kind) -> Factors:
    """Half of the largest ranks, in steps of two."""
    return Factors(kind, tuple(max(most // 4 * 2, 2) for most in most_ranks(net, name, kind)))


LAYOUTS: list[tuple[str, Kind]] = [
    *((name, kind) for name in CONVS if name != "narrow" for kind in ("output", "input", "cp", "cp4", "tucker2")),
    ("narrow", "svd"),
    ("narrow", "output"),
]


@pytest.mark.parametrize("seen", [False, True], ids=["plain", "observed"])
@pytest.mark.parametrize(("name", "kind"), LAYOUTS)
def test_the_layers_compute_what_the_composed_weights_would(name: str, kind: Kind, seen: bool) -> None:
    net = conv_net(name)
    evidence = evidence_for(name) if seen else None
    factors = some_factors(net, "conv2d", kind)
    parts = decomposed(net, net["conv2d"], factors, evidence)
    composed = torch.cat([part.composed() for part in parts]).reshape(net.tensors["1.weight"].shape).float()
    thin = factorise(net, {"conv2d": factors}, evidence)
    whole = net.edited(tensors={"1.weight": composed})
    if "bias" in net["conv2d"].tensors:  # which may have taken up the mean of the error
        whole = whole.edited(tensors={"1.bias": thin.tensors[thin["conv2d"].tensors["bias"]]})
    assert_same_function(whole, thin)


@pytest.mark.parametrize(("name", "kind"), [(n, k) for n, k in LAYOUTS if k not in ("cp", "cp4")])
def test_the_largest_ranks_lose_nothing(name: str, kind: Kind) -> None:
    net = conv_net(name)
    for evidence in (None, evidence_for(name)):
        thin = factorise(net, {"conv2d": Factors(kind, most_ranks(net, "conv2d", kind))}, evidence)
        assert_same_function(net, thin)


def test_terms_of_rank_one_lose_nothing_if_there_is_one() -> None:
    net = conv_net("dilated")
    vectors = [torch.randn(n) for n in (8, 6, 3, 3)]
    net = net.edited(tensors={"1.weight": torch.einsum("o,s,h,w->oshw", *vectors)})
    for kind in ("cp", "cp4"):
        for evidence in (None, observed(net)):
            assert_same_function(net, factorise(net, {"conv2d": Factors(kind, (1,))}, evidence))


@pytest.mark.parametrize(("name", "kind"), LAYOUTS)
def test_costs_told_beforehand_are_those_counted_afterwards(name: str, kind: Kind) -> None:
    net = conv_net(name)
    factors = some_factors(net, "conv2d", kind)
    (before,) = (layer for layer in count_layers(net) if layer.name == "conv2d")
    whole, thin = count(net), count(factorise(net, {"conv2d": factors}))
    assert thin.macs == whole.macs - before.macs + macs_at(net, "conv2d", factors)
    assert thin.params == whole.params - before.params + params_at(net, "conv2d", factors)
    assert thin == count(outline(net, {"conv2d": factors}))


def test_costs_by_hand() -> None:
    """3x5 kernels over [6, 9, 8] with stride 2, 1: [8, 5, 8] comes out."""
    net = conv_net("strided")
    tall, wide = 9 * 8, 5 * 8
    for kind, ranks, macs, params in (
        ("cp", (4,), tall * 6 * 4 + wide * 15 * 4 + wide * 4 * 8, 4 * (6 + 15 + 8)),
        ("cp4", (4,), tall * 6 * 4 + wide * 3 * 4 + wide * 5 * 4 + wide * 4 * 8, 4 * (6 + 3 + 5 + 8)),
        ("output", (4,), wide * 6 * 15 * 4 + wide * 4 * 8, 4 * (6 * 15 + 8)),
        ("input", (4,), tall * 6 * 4 + wide * 4 * 15 * 8, 6 * 4 + 4 * 15 * 8),
        ("tucker2", (3, 4), tall * 6 * 3 + wide * 3 * 15 * 4 + wide * 4 * 8, 6 * 3 + 3 * 15 * 4 + 4 * 8),
    ):
        assert macs_at(net, "conv2d", Factors(kind, ranks)) == macs  # type: ignore[arg-type]
        assert params_at(net, "conv2d", Factors(kind, ranks)) == params  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "kind", "params", "millions"),
    [("alexnet", "cp4", 8_799_651, 125.33), ("alexnet-bvlc", "cp", 8_727_077, 126.5)],
)
def test_alexnet_at_the_paper_s_ranks(name: str, kind: Kind, params: int, millions: float) -> None:
    """What reproductions count without groups; with groups, each at its share of the rank, counted by hand."""
    net = capture(build(name), ZOO[name].image_shape)  # not kept: a quarter of a gigabyte
    layers = zip(net.weighted(), ALEXNET_RANKS, strict=True)
    cost = count(outline(net, {n.name: Factors("svd" if n.op == "linear" else kind, (rank,)) for n, rank in layers}))
    assert cost.params == params and cost.macs / 1e6 == pytest.approx(millions, abs=0.05)


def test_the_last_layer_keeps_the_name_and_the_bias() -> None:
    net = capture(hand_made("Flat"), SHAPE)
    first, second, hidden, last = (node.name for node in net.weighted())
    thin = factorise(
        net, {first: Factors("cp", (2,)), second: Factors("tucker2", (2, 3)), hidden: Factors("svd", (4,))}
    )
    assert [node.name for node in thin.weighted()] == [
        *(f"{first}_a", f"{first}_b", first, f"{second}_a", f"{second}_b", second, f"{hidden}_a", hidden, last)
    ]
    assert [n.name for n in thin.nodes if not n.name.endswith(("_a", "_b"))] == [n.name for n in net.nodes]
    assert {n.name for n in thin.weighted() if "bias" in n.tensors} == {first, second, hidden, last}
    assert torch.equal(thin.tensors["conv.c.bias"], net.tensors["conv.bias"])
    assert all(thin[node.name].shape == node.shape for node in net.nodes)
    weights = [key for key in thin.to_module().state_dict() if key.endswith("weight")]
    assert sorted(weights) == [
        *("conv.a.weight", "conv.b.weight", "conv.c.weight", "fc.weight", "hidden.a.weight", "hidden.b.weight"),
        *("wide.a.weight", "wide.b.weight", "wide.c.weight"),
    ]


def test_a_thin_layer_can_be_made_thinner_again() -> None:
    net = conv_net("plain")
    once = factorise(net, {"conv2d": Factors("output", (8,))})
    twice = factorise(once, {"conv2d": Factors("svd", (8,))})
    assert [n.name for n in twice.weighted()] == ["conv2d_a", "conv2d_a_", "conv2d", "linear"]
    assert twice["conv2d"].tensors == {"weight": "1.b.b.weight", "bias": "1.b.b.bias"}
    assert_same_function(net, twice)


def test_the_net_stays_as_it_was_and_nothing_named_is_nothing_done() -> None:
    net = conv_net("plain")
    digest = net.digest
    assert factorise(net, {}) is net and factorise(net, {}, evidence_for("plain")) is net
    thin = factorise(net, {"linear": Factors("svd", (2,))})
    assert thin.tensors["1.weight"] is net.tensors["1.weight"]
    assert net.edited().digest == digest


def test_a_seed_gives_the_same_weights_again() -> None:
    net, factors = conv_net("plain"), {"conv2d": Factors("cp", (3,))}
    one, same, other = (factorise(net, factors, seed=seed) for seed in (1, 1, 2))
    assert one.digest == same.digest != other.digest


# with evidence


@pytest.mark.parametrize(("name", "kind"), LAYOUTS)
def test_with_evidence_outputs_are_nearer_than_without(name: str, kind: Kind) -> None:
    """Seen on the images themselves, each output's error weighted by its Fisher information."""
    net = conv_net(name)
    evidence, images = evidence_for(name), images_for(net, 40)
    factors = {"conv2d": some_factors(net, "conv2d", kind)}
    plain, aware = (
        output_error(net, thin, evidence, images)
        for thin in (factorise(net, factors), factorise(net, factors, evidence))
    )
    assert 0 < aware < plain


def output_error(net: Net, thin: Net, evidence: Evidence, images: Tensor) -> float:
    wanted, got = (of_layer(n, "conv2d", images) for n in (net, thin))
    fisher = evidence.layers["conv2d"].fisher[0] / evidence.images[0]
    return float((0.5 * fisher * (wanted - got).double().square().mean((0, 2, 3))).sum())


def of_layer(net: Net, name: str, images: Tensor) -> Tensor:
    return Net(net.nodes, net.tensors, (name,)).to_module()(images).detach()  # type: ignore[no-any-return]


def test_a_bias_takes_up_the_mean_of_the_error() -> None:
    net = conv_net("plain")
    images = images_for(net, 40)
    thin = factorise(net, {"conv2d": Factors("output", (2,))}, evidence_for("plain"))
    off = of_layer(thin, "conv2d", images) - of_layer(net, "conv2d", images)
    assert float(off.mean((0, 2, 3)).abs().max()) < 1e-5 < 1e-2 < float(off.abs().mean())


def test_a_batch_norm_takes_up_the_mean_where_there_is_no_bias() -> None:
    net = net_of(
        nn.ReLU(), nn.Conv2d(6, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Flatten(), nn.LazyLinear(3), shape=WIDE
    )
    images = images_for(net, 40)
    thin = factorise(net, {"conv2d": Factors("output", (2,))}, observed(net))
    off = of_layer(thin, "batch_norm", images) - of_layer(net, "batch_norm", images)
    assert float(off.mean((0, 2, 3)).abs().max()) < 1e-5 < 1e-2 < float(off.abs().mean())
    assert "bias" not in thin["conv2d"].tensors
    assert_same_function(thin, fold_batch_norm(thin))


def test_layers_that_were_not_observed_are_decomposed_plainly() -> None:
    net, factors = conv_net("plain"), {"conv2d": Factors("cp", (3,))}
    blind = replace(evidence_for("plain"), layers={})
    assert factorise(net, factors, blind).digest == factorise(net, factors).digest


# what is refused


@pytest.mark.parametrize(
    ("model", "name", "factors", "message"),
    [
        ("Flat", "relu", Factors("cp", (1,)), "no convolution or linear layer 'relu'"),
        ("Flat", "nothing", Factors("cp", (1,)), "no convolution or linear layer 'nothing'"),
        ("Flat", "linear", Factors("cp", (1,)), "'linear' is a linear layer, which cp is not for; use svd"),
        (
            "Flat",
            "conv2d_1",
            Factors("svd", (1,)),
            "'conv2d_1' is a convolution, which svd is not for; use output or input or cp",
        ),
        ("Concat", "conv2d_1", Factors("tucker2", (1, 1)), "'conv2d_1' is a 1x1 convolution, .* use svd or output"),
        ("Flat", "conv2d_1", Factors("output", (6,)), r"'conv2d_1' cannot be factorised by output at 6; give 1 to 5"),
        ("Flat", "conv2d_1", Factors("output", (0,)), "at 0; give 1 to 5"),
        ("Flat", "conv2d_1", Factors("output", ()), "at no rank; give 1 to 5"),
        ("Flat", "conv2d_1", Factors("tucker2", (3,)), "at 3; give 1 to 4 and 1 to 5"),
        ("Flat", "conv2d_1", Factors("tucker2", (5, 3)), "at 5, 3; give 1 to 4 and 1 to 5"),
        ("Grouped", "conv2d_1", Factors("output", (3,)), "at 3; give 2 to 6 in steps of 2, its groups"),
        ("Separable", "conv2d_1", Factors("cp", (1,)), "'conv2d_1' is depthwise"),
        ("Twice", "conv2d_1", Factors("cp", (1,)), "'conv2d_1' shares its weights"),
    ],
)
def test_what_cannot_be_factorised_is_refused(model: str, name: str, factors: Factors, message: str) -> None:
    net = capture(hand_made(model), SHAPE)
    for rewrite in (factorise, outline):
        with pytest.raises(RequestError, match=message):
            rewrite(net, {name: factors})


def test_evidence_of_another_net_is_refused() -> None:
    with pytest.raises(DataError, match="another net"):
        factorise(conv_net("plain"), {"conv2d": Factors("output", (2,))}, evidence_for("same"))
