from dataclasses import replace

import pytest
import torch
from torch import nn

from example_nets import SHAPE, hand_made, net_of
from slimwright.errors import ModelError
from slimwright.graph import Net, capture


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
        losses.append(float(loss))
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


def test_readers_are_listed_once_and_in_order(residual: Net) -> None:
    relu = next(n.name for n in residual.nodes if n.op == "relu")
    assert [residual[name].op for name in residual.readers[relu]] == ["conv2d", "add"]
    assert residual.readers[residual.outputs[0]] == ()
