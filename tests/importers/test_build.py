from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from exact import small_net
from example_nets import SHAPE
from slimwright.errors import ModelError
from slimwright.graph import Net, Node
from slimwright.importers import capture


class Function(nn.Module):
    """A function of a convolution's 4 channels, and parameters and buffers for it."""

    def __init__(self, function: Callable[["Function", Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv2d(1, 4, 1), function
        self.weight = nn.Parameter(torch.rand(4, 4, 1, 1) + 0.1)
        self.scale = nn.Parameter(torch.rand(4, 1, 1))
        self.register_buffer("fixed", torch.rand(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, self.conv(x))


def net_of(function: Callable[[Function, Tensor], Tensor]) -> Net:
    """The net of a function, found to give the same bits at a batch of 1 and of 3."""
    torch.manual_seed(0)
    model = Function(function)
    net = capture(model, SHAPE)
    for batch in (1, 3):
        images = torch.randn(batch, *SHAPE)
        assert torch.equal(net.to_module()(images), model(images))
    return net


def made(net: Net) -> list[Node]:
    """The nodes behind the input and the convolution."""
    return [node for node in net.nodes if node.op != "input" and node.name != "conv2d"]


def ops(net: Net) -> list[str]:
    return [node.op for node in made(net)]


# constants


def test_a_weight_that_is_computed_from_one_parameter_is_kept_under_its_name() -> None:
    net = net_of(lambda m, x: F.conv2d(x, m.weight / m.weight.sum((1, 2, 3), keepdim=True)))
    assert ops(net) == ["conv2d"] and made(net)[0].tensors == {"weight": "weight"}
    torch.testing.assert_close(net.tensors["weight"].sum((1, 2, 3)), torch.ones(4))
    assert net.key(made(net)[0], "weight") in dict(net.to_module().named_parameters())


def test_a_weight_that_is_also_used_as_it_is_gets_another_name_for_what_is_computed() -> None:
    net = net_of(lambda m, x: F.conv2d(F.conv2d(x, m.weight), m.weight * 2))
    plain, doubled = (node.tensors["weight"] for node in made(net))
    assert plain == "weight" != doubled
    assert torch.equal(net.tensors[doubled], 2 * net.tensors["weight"])


def test_a_weight_of_two_parameters_is_a_parameter_still() -> None:
    net = net_of(lambda m, x: F.conv2d(x, m.weight * m.scale[..., None]))
    (node,) = made(net)
    module = net.to_module()
    assert net.key(node, "weight") in dict(module.named_parameters())


def test_bare_parameters_are_trained_and_buffers_and_numbers_are_not() -> None:
    net = net_of(lambda m, x: (x * m.scale + m.get_buffer("fixed")) * torch.arange(4.0)[:, None, None])
    assert [node.op for node in made(net) if not node.reads] == ["parameter", "constant", "constant"]
    module = net.to_module()
    assert set(dict(module.named_parameters())) >= {"scale"} and "fixed" in dict(module.named_buffers())
    module(torch.randn(2, *SHAPE)).sum().backward()
    assert module.get_parameter("scale").grad is not None


def test_what_would_make_the_model_larger_stays_in_the_graph() -> None:
    net = net_of(lambda m, x: x * m.scale.expand(4, 6, 6).cos().repeat(1, 1, 1))
    assert sum(t.numel() for t in net.tensors.values()) <= 4 + 4 + 4
    assert "aten.cos.default" in ops(net)


def test_what_is_computed_twice_from_numbers_alone_is_two_constants() -> None:
    net = net_of(lambda m, x: x + torch.linspace(-1, 1, 6) + torch.linspace(-1, 1, 6)[:, None])
    assert ops(net) == ["constant", "add", "constant", "add"]


# views


SPLIT: dict[str, Callable[[Tensor], tuple[Tensor, ...]]] = {
    "chunk": lambda x: x.chunk(2, 1),
    "split": lambda x: x.split(2, 1),
    "split with sizes": lambda x: x.split([2, 2], 1),
    "tensor_split": lambda x: x.tensor_split(2, 1),
    "from behind": lambda x: x.chunk(2, -3),
    "slices": lambda x: (x[:, :2], x[:, 2:]),
    "narrow": lambda x: (x.narrow(1, 0, 2), x.narrow(1, 2, 2)),
    "from the end": lambda x: (x[:, :-2], x[:, -2:]),
}


@pytest.mark.parametrize("what", SPLIT)
def test_parts_of_all_kinds_are_slices_with_the_same_borders(what: str) -> None:
    net = net_of(lambda _, x: torch.sub(*SPLIT[what](x)))
    assert ops(net) == ["slice", "slice", "sub"]
    first, second, _ = (node.arguments for node in made(net))
    assert (first["dim"], first["start"], first["end"]) == (1, 0, 2)
    assert (second["dim"], second["start"], second["end"]) == (1, 2, 4)


def test_a_part_that_nothing_reads_is_not_there() -> None:
    assert ops(net_of(lambda _, x: x.chunk(4, 1)[2])) == ["slice"]


def test_a_part_that_is_the_whole_is_nothing() -> None:
    assert ops(net_of(lambda _, x: x[:, 0:4, ...].chunk(1, 1)[0].relu())) == ["relu"]


def test_unbound_parts_are_selected_and_stacks_are_concatenated() -> None:
    net = net_of(lambda _, x: torch.stack(x.unbind(1)[::3], 2))
    assert ops(net) == ["select", "select", "unsqueeze", "unsqueeze", "concat"]
    assert [n.arguments["index"] for n in made(net) if n.op == "select"] == [0, 3]


def test_a_batch_that_cannot_be_split_is_told() -> None:
    with pytest.raises(ModelError, match=r"node 'getitem_1' .* cannot be computed"):
        capture(Function(lambda _, x: torch.cat(x.chunk(2, 0))), SHAPE)


RESHAPED: dict[str, tuple[Callable[[Tensor], Tensor], list[tuple[int, ...]]]] = {
    "its own batch size": (lambda x: x.view(x.shape[0], 2, 2, 36), [(-1, 2, 2, 36)]),
    "no batch size": (lambda x: x.view(-1, 4, 36), [(-1, 4, 36)]),
    "a size to be found": (lambda x: x.view(x.size(0), -1), [(-1, 144)]),
    "channels in the batch": (lambda x: x.reshape(x.shape[0] * 2, 2, 36), [(-1, 2, 36)]),
    "unflatten": (lambda x: x.unflatten(1, (2, -1)), [(-1, 2, 2, 6, 6)]),
    "like another": (lambda x: x.flatten(2).view_as(x), [(-1, 4, 6, 6)]),
    "another layout": (lambda x: x.permute(0, 2, 3, 1).reshape(x.shape[0], 36, 4), [(-1, 36, 4)]),
}


@pytest.mark.parametrize("what", RESHAPED)
def test_a_view_says_every_size_but_that_of_the_batch(what: str) -> None:
    function, shapes = RESHAPED[what]
    net = net_of(lambda _, x: function(x))
    assert [node.arguments["shape"] for node in made(net) if node.op == "reshape"] == shapes
    assert not {"size", "int_mul"} & set(ops(net))


TURNED: dict[str, Callable[[Tensor], Tensor]] = {
    "permute": lambda x: x.permute(0, -1, 2, 1),
    "transpose": lambda x: x.transpose(-1, -3),
    "swapaxes": lambda x: x.swapaxes(1, 3),
    "movedim": lambda x: x.movedim((1, 3), (3, 1)),
    "twice": lambda x: x.mT.mT.transpose(1, 3),
}


@pytest.mark.parametrize("what", TURNED)
def test_turned_dimensions_are_counted_from_the_front(what: str) -> None:
    net = net_of(lambda _, x: TURNED[what](x))
    for node in made(net):
        assert node.op in ("permute", "transpose")
        numbers = [node.arguments[k] for k in ("dim0", "dim1")] if node.op == "transpose" else node.arguments["dims"]
        assert all(n >= 0 for n in numbers)  # type: ignore[operator, union-attr]


def test_squeezes_name_only_the_dimensions_that_go() -> None:
    net = net_of(lambda _, x: x.unsqueeze(-1).squeeze(-1).squeeze(1))
    assert [n.arguments["dim"] for n in made(net)] == [4, (4,), ()]


def test_a_squeeze_of_everything_leaves_a_batch_of_one() -> None:
    net = capture(Function(lambda _, x: x.mean((2, 3), keepdim=True).squeeze()), SHAPE)
    assert made(net)[-1].arguments["dim"] == (2, 3)
    assert net.to_module()(torch.zeros(1, *SHAPE)).shape == (1, 4)


def test_an_expansion_follows_the_batch() -> None:
    net = net_of(lambda m, x: m.scale.expand(x.shape[0], -1, 6, 6) + m.scale[None].expand_as(x))
    assert all(node.arguments["size"][1] == -1 for node in made(net) if node.op == "expand")  # type: ignore[index]


def test_what_does_nothing_is_not_there() -> None:
    net = net_of(lambda _, x: F.pad(x.to(torch.float32).float()[:, :, :].type_as(x), (0, 0)).relu())
    assert ops(net) == ["relu"]


def test_a_cast_that_does_something_is_there() -> None:
    net = net_of(lambda _, x: x.double().to(torch.float32))
    assert [(n.op, n.dtype) for n in made(net)] == [("aten.to.dtype", "float64"), ("aten.to.dtype", "float32")]


def test_a_layer_in_a_form_without_a_row_is_carried() -> None:
    net = net_of(lambda m, x: F.conv2d(x, x[:1].mean((2, 3), keepdim=True).expand(3, 4, 1, 1)))
    assert "aten.conv2d.default" in ops(net)
    net = net_of(lambda m, x: F.elu(x, 1.5) + F.selu(x))
    assert "elu" in ops(net) and "aten.selu.default" in ops(net)


def test_two_stacks_do_not_get_in_each_others_way() -> None:
    net = net_of(lambda _, x: torch.stack([torch.stack([x, x + 1], 2), torch.stack([x, x - 1], 2)], 1))
    assert len({node.name for node in net.nodes}) == len(net.nodes)


def test_a_value_called_self_gets_another_name() -> None:
    class Selfish(nn.Module):
        def forward(self, self_: Tensor) -> Tensor:
            return self_ * 2

    assert capture(Selfish(), SHAPE).input.name.isidentifier()


def test_stochastic_depth_is_there_although_eval_mode_hides_it() -> None:
    assert [n.arguments["p"] for n in small_net("Paths").nodes if n.op == "drop_path"] == [0.5, 0.5]
