import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from example_nets import HAND_MADE, SHAPE, Command, commands, hand_made, net_of, random_net
from slimwright.graph import MemoryPlan, Net, capture, plan_memory
from slimwright.zoo import ZOO, build

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


def test_sizes_that_are_given_replace_the_nets_own() -> None:
    net = net_of(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 1, 6), nn.Flatten(), shape=SHAPE)
    sizes = {net.nodes[0].name: 10, net.nodes[1].name: 30, net.nodes[2].name: 5, net.nodes[3].name: 5}
    assert plan_memory(net, sizes).live_bytes == (10, 40, 35, 5)


@pytest.mark.parametrize("name", ZOO)
def test_the_arena_of_a_zoo_net_is_near_its_peak(name: str) -> None:
    net = capture(build(name, classes=10, in_channels=1), (1, 32, 32))
    plan = plan_memory(net)
    assert_sound(net, plan)
    assert plan.arena_bytes <= 1.1 * plan.peak_bytes


@pytest.mark.parametrize("name", HAND_MADE)
def test_the_plan_of_a_hand_made_net_is_sound(name: str) -> None:
    net = capture(hand_made(name), SHAPE)
    assert_sound(net, plan_memory(net))


@given(program=commands(), flat=st.booleans())
def test_the_plan_of_a_random_net_is_sound(program: list[Command], flat: bool) -> None:
    net = random_net(program, flat=flat)
    assert_sound(net, plan_memory(net))
