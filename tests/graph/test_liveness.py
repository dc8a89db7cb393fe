import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from example_nets import HAND_MADE, SHAPE, hand_made, net_of
from random_nets import Command, commands, random_net
from slimwright.graph import MemoryPlan, Net, plan_memory
from slimwright.importers import capture
from zoo_nets import FAMILIES, zoo_net

IMAGE = 4 * 36  # bytes of one 6x6 channel


def assert_sound(net: Net, plan: MemoryPlan) -> None:
    """No two buffers that are live at once overlap; the peak is the most that is live; the arena holds it."""
    for one, other in itertools.combinations(plan.buffers, 2):
        if one.first <= other.last and other.first <= one.last:
            apart = (
                plan.offsets[one.name] + one.bytes <= plan.offsets[other.name]
                or plan.offsets[other.name] + other.bytes <= plan.offsets[one.name]
            )
            assert apart, (one, other)
    assert len(plan.live_bytes) == len(net.nodes)
    assert max(plan.live_bytes) == plan.peak_bytes <= plan.arena_bytes
    assert all(offset >= 0 for offset in plan.offsets.values())


def test_a_chain_needs_the_input_and_output_of_its_widest_layer() -> None:
    net = net_of(
        nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1), nn.Conv2d(2, 1, 6), nn.Flatten(), shape=SHAPE
    )
    plan = plan_memory(net)
    assert plan.live_bytes == (IMAGE, 5 * IMAGE, 6 * IMAGE, 2 * IMAGE + 4, 4)
    assert plan.peak_bytes == 6 * IMAGE == plan.arena_bytes


def test_a_residual_value_lives_until_its_sum() -> None:
    net = capture(hand_made("Residual"), SHAPE)
    plan = plan_memory(net)
    relu = next(
        b for b in plan.buffers if net[b.name].op == "batch_norm"
    )  # relu writes over it, conv2 and the sum read it
    steps = [n.name for n in net.nodes]
    add = next(n.name for n in net.nodes if n.op == "add")
    assert relu.last >= steps.index(add)
    by_op = dict(zip((n.op for n in net.nodes), plan.live_bytes, strict=True))
    assert by_op["add"] == 12 * IMAGE  # both sides; the sum is written over one of them
    assert plan.peak_bytes == 12 * IMAGE


def test_a_concatenation_holds_its_parts_and_itself() -> None:
    class Concat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.a(x), self.b(x)], 1).mean((2, 3))

    net = capture(Concat(), SHAPE)
    plan = plan_memory(net)
    #                         x      a          b          a, b, both  the whole and its mean
    assert plan.live_bytes == (IMAGE, 3 * IMAGE, 6 * IMAGE, 10 * IMAGE, 5 * IMAGE + 20)


def test_elementwise_ops_write_over_what_nothing_else_reads() -> None:
    net = net_of(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.SiLU(), nn.Sigmoid(), nn.Flatten(), nn.Linear(108, 2), shape=SHAPE)
    plan = plan_memory(net)
    conv = next(n.name for n in net.nodes if n.op == "conv2d")
    assert [b.name for b in plan.buffers] == [net.input.name, conv, net.outputs[0]]
    assert plan.peak_bytes == 4 * IMAGE


def test_a_value_that_is_read_again_is_not_written_over() -> None:
    class Again(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return torch.cat([torch.relu(y), y], 1).mean((2, 3))

    net = capture(Again(), SHAPE)
    assert "relu" in {net[b.name].op for b in plan_memory(net).buffers}


def test_the_image_is_never_written_over() -> None:
    net = net_of(nn.ReLU(), nn.Conv2d(1, 1, 1), nn.Flatten(), shape=SHAPE)
    assert plan_memory(net).live_bytes[1] == 2 * IMAGE


def test_views_take_no_memory_and_keep_what_they_view_alive() -> None:
    class View(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.a, self.b = nn.Conv2d(1, 1, 1), nn.Linear(36, 36), nn.Linear(36, 36)

        def forward(self, x: Tensor) -> Tensor:
            flat = self.conv(x).flatten(1)
            return self.b(self.a(flat)) + flat  # type: ignore[no-any-return]

    net = capture(View(), SHAPE)
    plan = plan_memory(net)
    assert {net[b.name].op for b in plan.buffers} == {"input", "conv2d", "linear"}
    assert plan.live_bytes == (IMAGE, 2 * IMAGE, IMAGE, 2 * IMAGE, 3 * IMAGE, 2 * IMAGE)


class Function(nn.Module):
    """A function of a convolution's 4 channels."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv2d(1, 4, 1), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x))


@pytest.mark.parametrize(
    "function", [lambda x: x.permute(0, 2, 3, 1), lambda x: x.transpose(1, 2), lambda x: x[:, :4:1]]
)
def test_what_puts_elements_elsewhere_is_a_copy(function: Callable[[Tensor], Tensor]) -> None:
    plan = plan_memory(capture(Function(lambda x: torch.cat([function(x).flatten(1), x.flatten(1)], 1)), SHAPE))
    moved = [b for b in plan.buffers if b.bytes == 4 * IMAGE]
    assert len(moved) == (1 if function(torch.zeros(1, 4, 2, 2)).stride() == (16, 4, 2, 1) else 2)


def test_slices_are_copies_of_what_they_pick() -> None:
    net = capture(Function(lambda x: torch.cat([x[:, 2:], x[:, :2]], 1).mean((2, 3))), SHAPE)
    plan = plan_memory(net)
    assert [b.bytes // IMAGE for b in plan.buffers] == [1, 4, 2, 2, 4, 0]
    assert (
        plan.peak_bytes == 8 * IMAGE == plan.arena_bytes
    )  # the values and a half of each, then both halves and the whole


def test_parts_of_a_result_live_from_the_operator_that_makes_them() -> None:
    net = capture(Function(lambda x: (lambda t: t.values + torch.relu(t.indices))(x.topk(2, 1)).mean((2, 3))), SHAPE)
    plan = plan_memory(net)
    steps = [node.op for node in net.nodes]
    parts = [b for b in plan.buffers if net[b.name].op == "item"]
    assert [b.bytes for b in parts] == [2 * IMAGE, 4 * IMAGE]  # the indices are 64-bit integers
    assert {b.first for b in parts} == {steps.index("aten.topk.default")}
    assert "aten.topk.default" not in {net[b.name].op for b in plan.buffers}


def test_stored_tensors_take_no_activation_memory_and_are_not_written_over() -> None:
    class Stored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.rand(1, 4, 6, 6))

        def forward(self, x: Tensor) -> Tensor:
            return x * torch.sigmoid(self.scale * x)

    net = capture(Stored(), SHAPE)
    assert {net[b.name].op for b in plan_memory(net).buffers} == {"input", "mul"}
    assert plan_memory(net).live_bytes[-1] == 5 * IMAGE


def test_sizes_that_are_given_replace_the_nets_own() -> None:
    net = net_of(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 1, 6), nn.Flatten(), shape=SHAPE)
    sizes = {net.nodes[0].name: 10, net.nodes[1].name: 30, net.nodes[2].name: 5, net.nodes[3].name: 5}
    assert plan_memory(net, sizes).live_bytes == (10, 40, 35, 5)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_arena_of_a_zoo_net_is_its_peak(name: str) -> None:
    plan = plan_memory(zoo_net(name))
    assert_sound(zoo_net(name), plan)
    assert plan.arena_bytes == plan.peak_bytes


@pytest.mark.parametrize("name", HAND_MADE)
def test_the_plan_of_a_hand_made_net_is_sound(name: str) -> None:
    net = capture(hand_made(name), SHAPE)
    assert_sound(net, plan_memory(net))


@given(program=commands(), flat=st.booleans())
def test_the_plan_of_a_random_net_is_sound_and_near_its_peak(program: list[Command], flat: bool) -> None:
    net = random_net(program, flat=flat)
    plan = plan_memory(net)
    assert_sound(net, plan)
    assert plan.arena_bytes <= 1.1 * plan.peak_bytes
