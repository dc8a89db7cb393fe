import pytest
import torch
from torch import nn

from example_nets import SHAPE, classification, net_of
from slimwright.cost import AIM
from slimwright.errors import RequestError
from slimwright.evidence import Portions, observe, observing_bytes, portions_within, sums_bytes, together_within
from slimwright.evidence.memory_plan import AROUND, empty_sums
from slimwright.graph import Net, image_bytes, weight_bytes

FC_BYTES = 8 * (1 + 6 + 6 * 6 + 6 + 1 + 3 + 6 + 6)
CONV1_BYTES = 8 * (1 + 9 + 9 * 9 + 1 + 1 + 6 + 1 + 1)
CONV2_BYTES = 8 * (1 + 54 + 54 * 54 + 6 + 1 + 6 + 6 + 6)
BYTES = FC_BYTES + CONV1_BYTES + CONV2_BYTES


def names(net: Net) -> dict[str, str]:
    return {net.paths[node.name]: node.name for node in net.weighted()}


def test_memory_is_counted_to_the_byte(residual: Net) -> None:
    """conv1 reads 1 channel of 3x3, conv2 6 of 3x3, fc 6; 6, 6 and 3 outputs."""
    for classes, memory in ((1, BYTES), (7, 7 * BYTES), (1000, 250 * BYTES)):
        sums = empty_sums(residual, classes=classes, memory_bytes=memory)
        found = sum(t.numel() * t.element_size() for name, t in sums.tensors().items() if "/" in name)
        assert found == memory and not sums.skipped


@pytest.mark.parametrize(
    ("classes", "fit", "sizes"),
    [(5, 5.0, [1] * 5), (5, 4.99, [2, 2, 1]), (5, 2.5, [3, 2]), (5, 1.0, [5]), (1000, 300.7, [4] * 250)],
)
def test_classes_share_sums_where_memory_is_short(residual: Net, classes: int, fit: float, sizes: list[int]) -> None:
    sums = empty_sums(residual, classes=classes, memory_bytes=fit * BYTES)
    assert [len(group) for group in sums.groups] == sizes and len(sums.images) == len(sizes)
    assert [label for group in sums.groups for label in group] == list(range(classes))


def test_the_widest_layer_is_skipped_where_not_even_one_group_fits(residual: Net) -> None:
    sums = empty_sums(residual, classes=4, memory_bytes=BYTES - 1)
    assert set(sums.skipped) == {names(residual)["conv2"]} and len(sums.groups) == 4
    assert f"{CONV2_BYTES} bytes" in sums.skipped[names(residual)["conv2"]]
    both = empty_sums(residual, classes=4, memory_bytes=FC_BYTES)
    assert set(both.layers) == {names(residual)["fc"]} and len(both.skipped) == 2 and len(both.groups) == 1
    with pytest.raises(RequestError, match=f"take {FC_BYTES} bytes"):
        empty_sums(residual, classes=4, memory_bytes=FC_BYTES - 1)


def test_layers_too_wide_are_skipped_and_the_others_observed() -> None:
    net = net_of(nn.Flatten(), nn.Linear(4609, 4), nn.ReLU(), nn.Linear(4, 3), shape=(4609, 1, 1))
    seen = observe(net, [(torch.randn(2, 4609, 1, 1), torch.tensor([0, 1]))], task=classification(3))
    assert seen.skipped == {names(net)["1"]: "each output reads 4609 values, more than the 4608 that are observed"}
    assert list(seen.layers) == [names(net)["3"]]
    assert seen.layers[names(net)["3"]].count.tolist() == [1, 1, 0]


def test_a_net_without_layers_is_observed_too() -> None:
    seen = observe(
        net_of(nn.Flatten(), shape=SHAPE),
        [(torch.randn(2, *SHAPE), torch.tensor([0, 1]))],
        task=classification(3),
        taylor=False,
    )
    assert not seen.layers and seen.images.tolist() == [1, 1, 0]


def test_no_classes_are_refused(residual: Net) -> None:
    with pytest.raises(RequestError, match="0 classes"):
        empty_sums(residual, classes=0, memory_bytes=1e9)


def test_where_memory_suffices_all_of_it_may_be_spent(residual: Net) -> None:
    assert portions_within(residual, classes=3, batch=64, there=1e9) == Portions()


def test_where_memory_is_short_sums_go_first_and_values_of_some_images_then(residual: Net) -> None:
    """200 classes: sums of 200 groups, and values of 64 images; where there is memory for 100 groups."""
    image = image_bytes(residual)
    there = (weight_bytes(residual) + 100 * BYTES + AROUND * 64 * image) / AIM
    some = portions_within(residual, classes=200, batch=64, there=there)
    assert 50 * BYTES < some.sums <= 100 * BYTES and some.alive == Portions().alive
    few = portions_within(residual, classes=200, batch=64, there=4 * BYTES + 20 * image)
    assert BYTES <= few.sums < 2 * BYTES and image <= few.alive < 20 * image


def test_observing_takes_weights_sums_and_values_that_wait(residual: Net) -> None:
    assert sums_bytes(residual) == dict(
        zip(names(residual).values(), (CONV1_BYTES, CONV2_BYTES, FC_BYTES), strict=True)
    )
    assert observing_bytes(residual, 1000, 500) == weight_bytes(residual) + 1000 + 1.4 * 500


def test_where_only_the_sum_over_classes_is_wanted_one_group_is_observed(residual: Net) -> None:
    """To 1e-6 of the largest entry: the moments of a batch are taken in float32."""
    torch.manual_seed(0)
    batch, task = (torch.randn(19, *SHAPE), torch.arange(19) % 3), classification(3)
    spent = together_within(residual, batch=19, there=1e9)
    assert spent == Portions(sums=BYTES)
    one = observe(residual, [batch], task=task, taylor=False, memory_bytes=spent.sums)
    assert one.groups == ((0, 1, 2),) and not one.skipped
    for name, tensor in observe(residual, [batch], task=task, taylor=False).all().tensors().items():
        assert float((one.tensors()[name] - tensor).abs().max()) <= 1e-6 * float(tensor.abs().max()), name


def test_with_little_memory_the_sums_of_all_classes_are_the_same(residual: Net) -> None:
    """To 1e-6 of the largest: other groups of classes, other images at once."""
    torch.manual_seed(0)
    batch, task = (torch.randn(19, *SHAPE), torch.arange(19) % 3), classification(3)
    plenty = observe(residual, [batch], task=task)
    spent = portions_within(residual, classes=3, batch=19, there=4 * BYTES + 8 * image_bytes(residual))
    little = observe(residual, [batch], task=task, memory_bytes=spent.sums, alive_bytes=spent.alive)
    assert len(plenty.groups) == 3 and len(little.groups) == 1
    for name, tensor in plenty.all().tensors().items():
        got = little.all().tensors()[name]
        assert float((got - tensor).abs().max()) <= 1e-6 * float(tensor.abs().max()), name


def test_what_cannot_fit_is_refused_in_advance(residual: Net) -> None:
    with pytest.raises(RequestError, match=r"^observing the network needs about .* of memory, and 5.00.kB are there"):
        portions_within(residual, classes=3, batch=64, there=5000)
