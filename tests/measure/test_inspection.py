"""What an inspection says of hand-made nets, against arithmetic by hand, and what it measures on the real runtime."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from example_nets import SHAPE, hand_made, net_of
from slimwright.data import ArrayData
from slimwright.graph import plan_memory
from slimwright.importers import capture
from slimwright.jobs import Subject, inspect
from slimwright.measure.inspection import Inspection, as_data, grouped, inspection_of
from slimwright.measure.original import original_of
from slimwright.report.figures import columns, compared, figures_of, fixed, reasons, shown
from slimwright.runtimes import Workshop
from slimwright.runtimes.layers import is_tensor_kernel

IMAGE = 4 * 36


class Bessel(nn.Module):
    """A function that no ONNX operator computes."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(36, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.special.bessel_j0(x).flatten(1))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def residual_subject() -> Subject:
    return subject("residual", hand_made("Residual"))


def subject(name: str, module: nn.Module) -> Subject:
    return Subject(name, original_of(module, [SHAPE]))


@pytest.fixture(scope="module")
def seen(residual_subject: Subject) -> Inspection:
    (found,) = inspect([residual_subject])
    return found


def test_every_node_has_a_row_with_its_counts_and_its_memory(residual_subject: Subject, seen: Inspection) -> None:
    net = residual_subject.original.net
    assert [row.cost.name for row in seen.rows] == [node.name for node in net.nodes]
    assert [row.live_bytes for row in seen.rows] == list(plan_memory(net).live_bytes)
    conv2 = next(row for row in seen.rows if row.path == "conv2")
    assert (conv2.cost.macs, conv2.cost.params) == (36 * 6 * 6 * 9, 6 * 6 * 9 + 6)
    assert conv2.cost.moved_bytes == 4 * (2 * 6 * 36 + 6 * 6 * 9 + 6)
    assert conv2.live_bytes == 12 * IMAGE
    assert seen.total.peak_activation_bytes == 12 * IMAGE <= seen.arena_bytes


def test_layers_that_can_be_cut_are_told_apart(seen: Inspection) -> None:
    assert {row.path: row.cut for row in seen.rows if row.cut is not None} == {
        "conv1": True,
        "conv2": True,
        "fc": False,
    }
    assert fixed(seen) == [("fc", seen.fixed["fc"])]
    separable = inspection_of(capture(hand_made("Separable"), SHAPE), "separable")
    assert next(row for row in separable.rows if row.path == "depthwise").cut  # with the channels of its input


def test_layers_are_counted_by_kind(seen: Inspection) -> None:
    assert seen.kinds == {"tensor": 3, "non-tensor": 5}  # batch norm, two ReLUs, sum and mean
    said = {figure.name: figure for figure in figures_of(seen)}
    assert said["layers"].remark == "3 tensor, 5 non-tensor (62%)"
    assert said["MACs"].full == f"{36 * 6 * 9 + 36 * 6 * 6 * 9 + 18:,}"
    assert all(figure.source == "exact" for figure in said.values())


def test_rows_by_module_add_up_to_the_same() -> None:
    layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    found = inspection_of(net_of(layers, nn.Flatten(), nn.Linear(64, 3), shape=SHAPE), "nested")
    rows = grouped(found.rows, 1)
    assert [(row.path, row.layers) for row in rows] == [("input", 0), ("0", 3), ("2", 1)]
    assert [row.cost.macs for row in rows] == [0, 16 * 4 * 9, 64 * 3]
    assert rows[1].cost.params == 4 * 9 + 4 + 8
    assert rows[1].cost.shape == (1, 64)  # the view behind the module goes with it
    assert rows[1].live_bytes == max(row.live_bytes for row in found.rows if row.module.startswith("0"))
    assert sum(row.cost.moved_bytes for row in rows) == found.total.moved_bytes
    assert [row.path for row in grouped(found.rows, 2)][1:3] == ["0.0", "0.1"]


def test_views_and_sizes_are_not_shown() -> None:
    found = inspection_of(capture(hand_made("Flat"), SHAPE), "flat")
    assert {"reshape", "dropout"} <= {row.cost.op for row in found.rows}
    assert not {"reshape", "dropout", "size"} & {row.cost.op for row in shown(found, None)}
    assert sum(row.cost.moved_bytes for row in shown(found, None)) == found.total.moved_bytes


def test_as_data_holds_what_the_table_shows(seen: Inspection) -> None:
    said = as_data([seen])
    assert said["total"]["macs"] == sum(layer["macs"] for layer in said["layers"])  # type: ignore[index, attr-defined]
    assert said["kinds"] == {"tensor": 3, "non-tensor": 5}
    both = as_data([seen, seen], depth=1)["models"]
    assert [model["model"] for model in both] == ["residual", "residual"]  # type: ignore[attr-defined]


def test_networks_are_measured_in_turn_and_one_that_cannot_be_exported_is_told_of(
    residual_subject: Subject, workshop: Workshop
) -> None:
    found = inspect([residual_subject, subject("bessel", Bessel())], timed=True, workshop=workshop)
    one, other = (each.measured for each in found)
    assert one.latency is not None and one.size_bytes is not None and one.non_tensor_time is not None
    assert 0 < one.latency.p10_ms <= one.latency.median_ms <= one.latency.p90_ms
    assert one.size_bytes > 4 * (6 * 9 + 6 * 6 * 9 + 18)
    assert 0 <= one.non_tensor_time < 1
    assert any(is_tensor_kernel(kind) for kind in one.kernel_ms)
    assert other.latency is None and other.size_bytes is None
    assert compared(found[1])["latency"] == compared(found[1])["file"] == "—"
    ((name, why),) = reasons(found)
    assert name == "bessel" and "bessel_j0" in why
    assert "score" not in columns(found) and "latency" in columns(found)


def test_accuracy_is_that_of_the_test_part(residual_subject: Subject, workshop: Workshop) -> None:
    module = residual_subject.original.net.to_module()
    images = torch.randn(20, *SHAPE, generator=torch.Generator().manual_seed(0))
    right = module(images).argmax(1)
    wrong = torch.cat([right[:15], (right[15:] + 1) % 3])
    other = images, torch.zeros(20, dtype=torch.int64)
    data = ArrayData(
        "made up", ("a", "b", "c"), {"train": other, "calibration": other, "validation": other, "test": (images, wrong)}
    )
    untrained = replace(residual_subject, trained=False)
    for timed in (False, True):
        both = inspect([residual_subject, untrained], data=data, timed=timed, workshop=workshop)
        results = [one.measured for one in both]
        assert [result.score for result in results] == [75.0, None]
        assert "--weights" in results[1].missing["score"]
    assert inspect([residual_subject])[0].measured.score is None


@pytest.mark.parametrize(
    ("kind", "tensor"),
    [
        *(("FusedConv", True), ("QLinearMatMul", True), ("Gemm", True), ("ReorderInput", False), ("MaxPool", False)),
        *(
            ("ConvolutionDepthwise", True),
            ("InnerProduct", True),
            ("FullyConnected", True),
            ("MultiHeadAttention", True),
        ),
        *(("ConvertTensor", False), ("Convert", False), ("Raster", False)),  # changes of layout or of precision
    ],
)
def test_kernels_that_multiply_by_weights_are_those_of_tensor_layers(kind: str, tensor: bool) -> None:
    assert is_tensor_kernel(kind) is tensor
