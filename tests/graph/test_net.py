from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from exact import EVERY, small_net
from example_nets import SHAPE, hand_made, net_of
from slimwright.errors import ModelError
from slimwright.graph import Net, Node, Ref
from slimwright.graph.net import checked
from slimwright.importers import capture


def test_a_module_trains_and_nothing_leaks_into_the_net(residual: Net) -> None:
    digest, module = residual.digest, residual.to_module()
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    images, labels = torch.randn(8, *SHAPE) + 2, torch.arange(8) % 3
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(module(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert not torch.equal(module.get_buffer("bn1.running_mean"), residual.tensors["bn1.running_mean"])
    assert all(not torch.equal(p, residual.tensors[name]) for name, p in module.named_parameters())
    assert replace(residual).digest == digest  # a copy, since a digest is computed once


def test_in_eval_mode_a_module_keeps_its_statistics(residual: Net) -> None:
    module = residual.to_module()
    module(torch.randn(8, *SHAPE) + 2)
    assert torch.equal(module.get_buffer("bn1.running_mean"), residual.tensors["bn1.running_mean"])


def test_dropout_drops_in_train_mode_only() -> None:
    module = capture(hand_made("Flat"), SHAPE).to_module()
    images = torch.randn(4, *SHAPE)
    assert torch.equal(module(images), module(images))
    module.train()
    assert not torch.equal(module(images), module(images))


def test_trained_weights_come_back_as_a_net(residual: Net) -> None:
    module = residual.to_module()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1)
    back = residual.trained(module)
    images = torch.randn(2, *SHAPE)
    assert torch.equal(back.to_module()(images), module(images))
    assert back.digest != residual.digest
    assert residual.trained(residual.to_module()).digest == residual.digest


def test_a_trained_net_shares_no_memory_with_the_module(residual: Net) -> None:
    module = residual.to_module()
    back = residual.trained(module)
    digest = back.digest
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert replace(back).digest == digest


def test_a_layer_called_twice_is_one_module() -> None:
    net = capture(hand_made("Twice"), SHAPE)
    module = net.to_module()
    assert [name for name, _ in module.named_parameters()].count("conv.weight") == 1
    assert sum(n.op == "conv2d" and n.tensors["weight"] == "conv.weight" for n in net.nodes) == 2
    with torch.no_grad():
        module.get_parameter("conv.weight").mul_(2)
    images = torch.randn(2, *SHAPE)
    assert torch.equal(net.trained(module).to_module()(images), module(images))


def test_the_digest_sees_every_weight_and_every_argument(residual: Net) -> None:
    weight = residual.tensors["conv2.weight"].clone()
    weight[0, 0, 0, 0] += 1e-3
    assert residual.edited(tensors={"conv2.weight": weight}).digest != residual.digest
    conv = next(n for n in residual.nodes if n.tensors.get("weight") == "conv2.weight")
    dilated = replace(conv, arguments={**conv.arguments, "dilation": (2, 2), "padding": (2, 2)})
    assert residual.edited({conv.name: dilated}).digest != residual.digest
    assert residual.edited().digest == residual.digest


def test_removing_a_node_joins_its_readers_to_what_it_read(residual: Net) -> None:
    norm = next(n for n in residual.nodes if n.op == "batch_norm")
    net = residual.edited(removed={norm.name: norm.source})
    assert norm.name not in [n.name for n in net.nodes]
    assert net.readers[norm.source] == residual.readers[norm.name]
    assert not any(name.startswith("bn1") for name in net.tensors)
    assert len(residual.nodes) == len(net.nodes) + 1


def test_weights_that_do_not_fit_are_refused_with_the_nodes_name(residual: Net) -> None:
    conv = next(n for n in residual.nodes if n.tensors.get("weight") == "conv2.weight")
    with pytest.raises(ModelError, match=f"node '{conv.name}' .conv2d. cannot take .*5, 3, 3"):
        residual.edited(tensors={"conv2.weight": torch.zeros(6, 5, 3, 3)})


def test_a_node_that_reads_a_later_one_is_refused(residual: Net) -> None:
    nodes = (residual.nodes[0], *reversed(residual.nodes[1:]))
    with pytest.raises(ModelError, match="which no earlier node produces"):
        Net(nodes, residual.tensors, residual.outputs).edited()


def test_shapes_are_those_of_one_image() -> None:
    net = net_of(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3), shape=(1, 6, 6))
    assert [n.shape for n in net.nodes] == [(1, 1, 6, 6), (1, 4, 2, 2), (1, 4, 2, 2), (1, 16), (1, 3)]


@pytest.mark.parametrize(("other", "dtype"), [(1, "int64"), (1.0, "float32"), (True, "int64"), (1, "int64")])
def test_equal_numbers_of_other_types_are_inferred_apart(other: float, dtype: str) -> None:
    nodes = (
        Node("x", "input", shape=(1, 3), dtype="int64"),
        Node("y", "add", {"self": Ref("x"), "other": other, "alpha": 1}),
    )
    assert checked(Net(nodes, {}, ("y",)))["y"].dtype == dtype


def test_a_call_that_fails_does_so_every_time_and_names_its_node(residual: Net) -> None:
    wide = {"fc.weight": torch.zeros(3, 99)}
    for _ in range(2):
        with pytest.raises(ModelError, match="node 'linear'"):
            residual.edited(tensors=wide)


def test_readers_are_listed_once_and_in_order(residual: Net) -> None:
    relu = next(n.name for n in residual.nodes if n.op == "relu")
    assert [residual[name].op for name in residual.readers[relu]] == ["conv2d", "add"]
    assert residual.readers[residual.outputs[0]] == ()


@pytest.mark.parametrize("name", EVERY)
def test_every_tensor_of_a_net_is_in_the_state_of_its_module_under_its_key(name: str) -> None:
    net = small_net(name)
    state = net.to_module().state_dict()
    for node in net.nodes:
        for role, tensor in node.tensors.items():
            assert torch.equal(state[net.key(node, role)], net.tensors[tensor])


# editing

CHAIN = (nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 3), nn.Flatten(), nn.Linear(8, 3))


@pytest.fixture
def chain() -> Net:
    """Two convolutions, one of them pointwise, and what is around them: the names of the nodes are torch's."""
    return net_of(*CHAIN, shape=SHAPE)


KNOBS = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}


def conv(name: str, source: str, weight: str, **knobs: object) -> Node:
    return Node(name, "conv2d", {"input": Ref(source), **KNOBS, **knobs}, {"weight": weight})  # type: ignore[dict-item]


def weight_of(net: Net, name: str) -> Tensor:
    return net.tensors[net[name].tensors["weight"]]


def test_three_layers_stand_in_for_one(chain: Net) -> None:
    """A factored layer: with the identity between them, the factors compute what the layer did."""
    kernel = weight_of(chain, "conv2d_2")  # [2, 4, 3, 3]
    by = [
        conv("rows", "conv2d_1", "rows.weight"),
        Node("same", "relu", {"self": Ref("rows")}),
        conv("columns", "same", "columns.weight"),
    ]
    rows = torch.randn(5, 4, 3, 1)
    net = chain.replaced(["conv2d_2"], by, tensors={"rows.weight": rows, "columns.weight": torch.randn(2, 5, 1, 3)})
    assert [n.name for n in net.nodes][3:7] == ["conv2d_1", "rows", "same", "columns"]
    assert net["columns"].shape == chain["conv2d_2"].shape and net.readers["columns"] == ("flatten",)
    assert chain["conv2d_2"].tensors["weight"] not in net.tensors and kernel.shape == (2, 4, 3, 3)
    assert net.to_module()(torch.randn(3, *SHAPE)).shape == (3, 3)


def test_one_layer_stands_in_for_two_and_computes_what_they_did(chain: Net) -> None:
    one, two = weight_of(chain, "conv2d_1"), weight_of(chain, "conv2d_2")
    bias = chain.tensors[chain["conv2d_1"].tensors["bias"]]
    joint = torch.einsum("omhw,mi->oihw", two, one[:, :, 0, 0])
    shift = chain.tensors[chain["conv2d_2"].tensors["bias"]] + torch.einsum("omhw,m->o", two, bias)
    node = replace(conv("joint", "relu", "joint.weight"), tensors={"weight": "joint.weight", "bias": "joint.bias"})
    net = chain.replaced(["conv2d_1", "conv2d_2"], [node], tensors={"joint.weight": joint, "joint.bias": shift})
    assert len(net.nodes) == len(chain.nodes) - 1
    images = torch.randn(3, *SHAPE)
    torch.testing.assert_close(net.to_module()(images), chain.to_module()(images), rtol=1e-4, atol=1e-5)


def test_a_branch_can_go(residual: Net) -> None:
    branch = next(n.name for n in residual.nodes if n.tensors.get("weight") == "conv2.weight")
    add = next(n for n in residual.nodes if n.op == "add")
    net = residual.replaced([branch, add.name], [])
    assert "conv2.weight" not in net.tensors and "add" not in [n.op for n in net.nodes]
    images = torch.randn(2, *SHAPE)
    module = residual.to_module()
    with torch.no_grad():
        module.get_parameter("conv2.weight").zero_()
        module.get_parameter("conv2.bias").zero_()
    assert torch.equal(net.to_module()(images), module(images))


def test_a_region_may_be_the_last_of_the_net(chain: Net) -> None:
    net = chain.replaced(["linear"], [replace(chain["linear"], name="scores")])
    assert net.outputs == ("scores",)
    images = torch.randn(2, *SHAPE)
    assert torch.equal(net.to_module()(images), chain.to_module()(images))


def test_a_region_whose_name_is_used_again(chain: Net) -> None:
    again = conv("conv2d_1", "relu", "0.weight", padding=(1, 1))
    other = {"other.weight": torch.ones(4, 4, 1, 1)}
    net = chain.replaced(["conv2d_1"], [conv("conv2d_1", "relu", "other.weight")], tensors=other)
    assert net["conv2d_1"].tensors == {"weight": "other.weight"} and net.readers["conv2d_1"] == ("conv2d_2",)
    with pytest.raises(
        ModelError, match=r"'conv2d_1' .conv2d. cannot take relu \[1, 4, 4, 4\]; it owns weight \[4, 1, 3, 3\]"
    ):
        chain.replaced(["conv2d_1"], [again])


def test_what_replaces_a_region_must_have_its_shape(chain: Net) -> None:
    said = r"node 'linear' gave \[1, 3\]; what replaces it, 'last', gives \[1, 8\]"
    with pytest.raises(ModelError, match=said):
        chain.replaced(["linear"], [Node("last", "relu", {"self": Ref("flatten")})])


def test_a_misfit_is_told_where_it_is_although_a_reader_far_behind_sees_it_first(chain: Net) -> None:
    wider = replace(chain["conv2d_1"], name="wider", arguments={**chain["conv2d_1"].arguments, "padding": (1, 1)})
    height = chain["conv2d_1"].shape[2] + 2
    with pytest.raises(
        ModelError, match=rf"'conv2d_1' gave .*; what replaces it, 'wider', gives .*{height}, {height}]"
    ):
        chain.replaced(["conv2d_1"], [wider])


def test_a_layer_cannot_read_another_type_than_its_weight(chain: Net) -> None:
    weight = {"0.weight": chain.tensors["0.weight"].double()}
    with pytest.raises(ModelError, match=r"its weight is torch.float64, not torch.float32"):
        chain.edited(tensors=weight)


def test_what_readers_cannot_take_is_named_with_its_shape(chain: Net) -> None:
    narrow = conv("narrow", "relu", "narrow.weight")
    with pytest.raises(ModelError, match=r"narrow.*\[1, 3, 4, 4\]"):
        chain.replaced(["conv2d_1"], [narrow], tensors={"narrow.weight": torch.ones(3, 4, 1, 1)})


def test_a_region_that_gives_two_values_or_none_is_refused(residual: Net) -> None:
    conv1 = next(n for n in residual.nodes if n.tensors.get("weight") == "conv1.weight")
    relu = next(n for n in residual.nodes if n.op == "relu")
    add = next(n for n in residual.nodes if n.op == "add")
    two = [relu.name, *(n.name for n in residual.nodes if n.tensors.get("weight") == "conv2.weight")]
    with pytest.raises(ModelError, match="gives 2 values to the rest of the net"):
        residual.replaced(two, [])
    with pytest.raises(ModelError, match=r"\(empty\) gives 0 values"):
        residual.replaced([], [conv1])
    assert residual.replaced([add.name], [replace(add, name="sum")])["sum"].reads == add.reads


def test_added_nodes_may_stand_in_any_order(chain: Net) -> None:
    by = [Node("second", "sigmoid", {"self": Ref("first")}), Node("first", "tanh", {"self": Ref("relu")})]
    reader = chain["conv2d_1"]
    changed = replace(reader, arguments={**reader.arguments, "input": Ref("second")})
    one = chain.edited({"conv2d_1": changed}, added=by)
    names = [n.name for n in one.nodes]
    assert names.index("relu") < names.index("first") < names.index("second") < names.index("conv2d_1")
    images = torch.randn(2, *SHAPE)
    module = nn.Sequential(*CHAIN[:2], nn.Tanh(), nn.Sigmoid(), *CHAIN[2:])
    module.load_state_dict({f"{int(k[0]) + 2 * (k[0] > '1')}{k[1:]}": t for k, t in chain.tensors.items()})
    assert torch.equal(one.to_module()(images), module(images))


def test_a_circle_is_refused_with_a_node_of_it(chain: Net) -> None:
    by = [Node("first", "tanh", {"self": Ref("second")}), Node("second", "tanh", {"self": Ref("first")})]
    with pytest.raises(ModelError, match=r"node '(first|second)' reads its own result, in a circle with"):
        chain.edited(added=by)
    with pytest.raises(ModelError, match="circle"):
        chain.replaced(["relu"], [Node("loop", "tanh", {"self": Ref("conv2d_1")})])


def test_a_name_that_is_taken_is_refused(chain: Net) -> None:
    with pytest.raises(ModelError, match="same name"):
        chain.edited(added=[Node("relu", "tanh", {"self": Ref("conv2d")})])
    with pytest.raises(ModelError, match="same name"):
        chain.replaced(["conv2d_1"], [Node("relu", "tanh", {"self": Ref("relu")})])


@pytest.mark.parametrize("name", ["a b", "class", "self", "1st", ""])
def test_a_name_that_is_none_is_refused(chain: Net, name: str) -> None:
    with pytest.raises(ModelError, match="is no name for a node"):
        chain.edited(added=[Node(name, "tanh", {"self": Ref("relu")})])


def test_a_value_that_is_missing_is_named(chain: Net) -> None:
    with pytest.raises(ModelError, match="node 'lost' reads 'nothing', which no earlier node produces"):
        chain.edited(added=[Node("lost", "tanh", {"self": Ref("nothing")})])
    with pytest.raises(ModelError, match=r"'conv2d_1'.*reads 'relu'|reads 'gone'"):
        chain.edited(removed={"relu": "gone"})


def test_tensors_that_nobody_owns_any_more_are_dropped_and_new_ones_kept(chain: Net) -> None:
    tensors = {"new.weight": torch.ones(4, 4, 1, 1), "idle": torch.ones(3)}
    net = chain.replaced(["conv2d_1"], [conv("new", "relu", "new.weight")], tensors=tensors)
    assert set(net.tensors) == set(chain.tensors) - {"2.weight", "2.bias"} | {"new.weight"}


def test_a_net_with_a_replaced_region_can_be_replaced_again(chain: Net) -> None:
    net = chain.replaced(["relu"], [Node("a", "tanh", {"self": Ref("conv2d")}), Node("b", "relu", {"self": Ref("a")})])
    back = net.replaced(["a", "b"], [Node("relu", "relu", {"self": Ref("conv2d")})])
    assert back.digest == chain.digest
