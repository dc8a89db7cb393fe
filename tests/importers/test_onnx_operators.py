"""ONNX operators with all their attributes, against ONNX Runtime."""

import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph, RuntimeException
from torch import Tensor

from onnx_files import apart, in_onnxruntime, saved
from slimwright.errors import ModelError, UnsupportedOp
from slimwright.importers.onnx import read_onnx

CLOSE = 1e-5
REFUSED = (Fail, InvalidArgument, InvalidGraph, RuntimeException)


def agrees(
    nodes: list[NodeProto] | NodeProto,
    shape: tuple[int, ...],
    weights: Mapping[str, Tensor] | None = None,
    *,
    opset: int = 18,
    images: Tensor | None = None,
) -> list[str]:
    """Read the model and compare what it computes with ONNX Runtime; return the ops it became."""
    images = torch.randn(2, *shape[1:]) if images is None else images
    with tempfile.TemporaryDirectory() as folder:
        nodes = nodes if isinstance(nodes, list) else [nodes]
        path = saved(Path(folder) / "model.onnx", nodes, ["n", *shape[1:]], weights, opset=opset)
        expected = in_onnxruntime(path, images)
        net = read_onnx(path)
    assert apart(net.to_module()(images), expected) <= CLOSE
    return [node.op for node in net.nodes[1:]]


def agrees_if_allowed(
    nodes: list[NodeProto] | NodeProto, shape: tuple[int, ...], weights: Mapping[str, Tensor] | None = None
) -> None:
    """The same, unless ONNX Runtime refuses the model, or its result is empty: then nothing is asked."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        saved(path, nodes if isinstance(nodes, list) else [nodes], ["n", *shape[1:]], weights)
        try:
            result = in_onnxruntime(path, torch.randn(2, *shape[1:]))
        except REFUSED:
            with suppress(ModelError):
                read_onnx(path)
            assume(False)
    assume(result.numel())
    agrees(nodes, shape, weights)


@st.composite
def windows(draw: st.DrawFn, *, dilated: bool = True, overlapping: bool = False) -> dict[str, Any]:
    """Attributes of a window: explicit padding or automatic, the latter without gaps between windows if asked for."""
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": draw(st.tuples(*[st.integers(1, 3)] * 2))}
    if dilated:
        attributes["dilations"] = draw(st.tuples(*[st.integers(1, 2)] * 2))
    automatic = draw(st.sampled_from(["NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    if automatic == "NOTSET":
        attributes["pads"] = draw(st.tuples(*[st.integers(0, k - 1) for k in kernel * 2]))
    else:
        attributes["auto_pad"] = automatic
        if overlapping:
            attributes["strides"] = tuple(map(min, attributes["strides"], kernel))
        if dilated:
            attributes["dilations"] = (1, 1)  # ONNX Runtime takes no others with automatic padding
    return attributes


SIZES = st.tuples(st.integers(3, 9), st.integers(3, 9))


def fits(attributes: dict[str, Any], size: tuple[int, int]) -> bool:
    """True where the window is no larger than the padded image; ONNX Runtime rounds a negative room up to none."""
    pads, dilations = attributes.get("pads", (0,) * 4), attributes.get("dilations", (1, 1))
    return all(
        (k - 1) * d + 1 <= s + pads[axis] + pads[axis + 2]
        for axis, (k, d, s) in enumerate(zip(attributes["kernel_shape"], dilations, size, strict=True))
    )


@given(attributes=windows(), size=SIZES, groups=st.integers(1, 2), biased=st.booleans())
def test_convolution(attributes: dict[str, Any], size: tuple[int, int], groups: int, biased: bool) -> None:
    assume(fits(attributes, size))
    weights = {"w": torch.randn(6, 4 // groups, *attributes["kernel_shape"])} | (
        {"b": torch.randn(6)} if biased else {}
    )
    node = helper.make_node("Conv", ["x", *weights], ["y"], group=groups, **attributes)
    found = agrees(node, (1, 4, *size), weights)
    assert found[-1] == "conv2d"
    assert len(found) <= 2


@given(
    attributes=windows(), size=SIZES, groups=st.integers(1, 2), extra=st.tuples(st.integers(0, 1), st.integers(0, 1))
)
def test_transposed_convolution(
    attributes: dict[str, Any], size: tuple[int, int], groups: int, extra: tuple[int, int]
) -> None:
    weights = {"w": torch.randn(4, 3, *attributes["kernel_shape"])}
    assume(all(e < s for e, s in zip(extra, attributes["strides"], strict=True)))
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], group=groups, output_padding=extra, **attributes)
    agrees_if_allowed(node, (1, 4, *size), weights)


@given(attributes=windows(overlapping=True), size=SIZES, ceil=st.booleans())
def test_max_pooling(attributes: dict[str, Any], size: tuple[int, int], ceil: bool) -> None:
    assume(fits(attributes, size))
    agrees(helper.make_node("MaxPool", ["x"], ["y"], ceil_mode=int(ceil), **attributes), (1, 3, *size))


@given(
    attributes=windows(dilated=False, overlapping=True),
    size=SIZES,
    ceil=st.booleans(),
    counted=st.booleans(),
    opset=st.sampled_from([11, 18, 19]),
)
def test_average_pooling(
    attributes: dict[str, Any], size: tuple[int, int], ceil: bool, counted: bool, opset: int
) -> None:
    assume(fits(attributes, size))
    options: dict[str, Any] = {"ceil_mode": int(ceil), "count_include_pad": int(counted)}
    agrees(helper.make_node("AveragePool", ["x"], ["y"], **options, **attributes), (1, 3, *size), opset=opset)


def ints(*values: int) -> Tensor:
    return torch.tensor(values)


@given(
    scale=st.tuples(st.sampled_from([0.5, 1.0, 1.3, 2.0, 2.5]), st.sampled_from([0.6, 1.0, 2.0, 3.0])),
    by_size=st.booleans(),
    transform=st.sampled_from(["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]),
    rounding=st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]),
    size=SIZES,
)
def test_nearest_resizing(
    scale: tuple[float, float], by_size: bool, transform: str, rounding: str, size: tuple[int, int]
) -> None:
    assume((by_size, transform, rounding) != (True, "asymmetric", "round_prefer_ceil"))  # rounded by one more bit there
    out = [int(n * s) for n, s in zip(size, scale, strict=True)]
    node = helper.make_node(
        "Resize", ["x", "", *(["", "s"] if by_size else ["s"])], ["y"], mode="nearest",
        coordinate_transformation_mode=transform, nearest_mode=rounding,
    )  # fmt: skip
    if by_size:
        weights = {"hw": ints(*out), "zero": ints(0), "two": ints(2)}
        sizes = [
            helper.make_node("Shape", ["x"], ["all"]),
            helper.make_node("Slice", ["all", "zero", "two"], ["nc"]),
            helper.make_node("Concat", ["nc", "hw"], ["s"], axis=0),
        ]
        agrees([*sizes, node], (1, 3, *size), weights)
    else:
        agrees(node, (1, 3, *size), {"s": torch.tensor([1, 1, *scale])})


@given(
    scale=st.tuples(st.sampled_from([0.5, 1.0, 1.3, 2.0]), st.sampled_from([0.6, 1.0, 2.0])),
    mode=st.sampled_from(["linear", "cubic"]),
    transform=st.sampled_from(["half_pixel", "align_corners", "pytorch_half_pixel"]),
    size=SIZES,
)
def test_smooth_resizing(scale: tuple[float, float], mode: str, transform: str, size: tuple[int, int]) -> None:
    assume(transform != "pytorch_half_pixel" or all(n * s >= 2 for n, s in zip(size, scale, strict=True)))
    assume(all(int(n * s) != n or s == 1 for n, s in zip(size, scale, strict=True)))
    node = helper.make_node(
        "Resize", ["x", "", "s"], ["y"], mode=mode, coordinate_transformation_mode=transform
    )  # fmt: skip
    agrees(node, (1, 3, *size), {"s": torch.tensor([1, 1, *scale])})


@given(
    starts=st.tuples(st.integers(-9, 9), st.integers(-9, 9)),
    ends=st.tuples(st.integers(-9, 9), st.sampled_from([-(2**63), -2, 3, 2**63 - 1])),
    steps=st.tuples(st.sampled_from([1, 2, -1]), st.sampled_from([1, 3, -2])),
    axes=st.sampled_from([(1, 2), (3, -2), (2, 1)]),
)
def test_slicing(starts: tuple[int, int], ends: tuple[int, int], steps: tuple[int, int], axes: tuple[int, int]) -> None:
    ends = (ends[0], min(ends[1], 9) if steps[1] < 0 else ends[1])  # from the end backwards to beyond it: not defined
    weights = {"s": ints(*starts), "e": ints(*ends), "a": ints(*axes), "t": ints(*steps)}
    agrees(helper.make_node("Slice", ["x", *weights], ["y"]), (1, 5, 4, 6), weights)


@given(
    turned=st.booleans(),
    alpha=st.sampled_from([1.0, 0.5]),
    beta=st.sampled_from([1.0, -2.0]),
    added=st.sampled_from([None, (4,), (1,), (1, 4), ()]),
)
def test_matrix_products_with_a_sum(turned: bool, alpha: float, beta: float, added: tuple[int, ...] | None) -> None:
    weights = {"b": torch.randn(4, 6) if turned else torch.randn(6, 4)}
    if added is not None:
        weights["c"] = torch.randn(added)
    node = helper.make_node("Gemm", ["x", *weights], ["y"], transB=int(turned), alpha=alpha, beta=beta)
    assert agrees(node, (1, 6), weights) == ["linear"]


GENERATOR = torch.Generator().manual_seed(0)


def drawn(*shape: int) -> Tensor:
    return torch.rand(shape, generator=GENERATOR)


POSITIVE = drawn(2, 3, 4, 5) + 0.5
SIGNED = 4 * drawn(2, 3, 4, 5) - 2
OF_POSITIVE = ("Log", "Sqrt", "Reciprocal", "Pow", "Mod", "ReduceLogSum")
RANGES = {"Acos": SIGNED / 3, "Asin": SIGNED / 3, "Atanh": SIGNED / 3, "Acosh": POSITIVE + 1}  # where they are defined
ELEMENTWISE: list[tuple[str, dict[str, Any], list[Tensor], int]] = [
    *((op, {}, [], 18) for op in ("Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "HardSwish", "HardSigmoid", "Log",
                                  "Mish", "Neg", "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sin", "Softplus",
                                  "Sqrt", "Tanh", "LeakyRelu", "Elu", "Selu", "Celu", "Softsign", "ThresholdedRelu",
                                  "Identity", "Softmax", "LogSoftmax", "GlobalAveragePool", "GlobalMaxPool", "Clip",
                                  "Flatten", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cosh", "Sinh", "Tan")),
    ("Gelu", {}, [], 20),
    ("Gelu", {"approximate": "tanh"}, [], 20),
    ("HardSigmoid", {"alpha": 1 / 6}, [], 18),
    ("LRN", {"size": 3, "alpha": 0.7, "beta": 0.6, "bias": 2.0}, [], 18),
    ("Clip", {"min": 0.2, "max": 0.7}, [], 10),
    ("Clip", {}, [torch.tensor(0.6)], 18),
    ("Clip", {}, [torch.tensor(0.0), torch.tensor(6.0)], 18),
    ("Softmax", {}, [], 11),
    ("Softmax", {"axis": 2}, [], 9),
    ("LogSoftmax", {"axis": 3}, [], 11),
    ("Dropout", {"ratio": 0.3}, [], 10),
    ("Dropout", {}, [torch.tensor(0.3)], 18),
    ("PRelu", {}, [drawn(3, 1, 1)], 18),
    ("PRelu", {}, [drawn(5)], 18),
    ("Add", {}, [drawn(4, 1)], 18),
    ("Sub", {}, [torch.tensor([2.0])], 18),
    ("Mul", {}, [drawn(3, 1, 1)], 18),
    ("Div", {}, [torch.tensor(3.0)], 18),
    ("Pow", {}, [torch.tensor(2.0)], 18),
    ("Pow", {}, [torch.tensor(0.5)], 18),
    ("Pow", {}, [drawn(4, 5)], 18),
    ("Max", {}, [torch.tensor(0.9), drawn(5)], 18),
    ("Min", {}, [drawn(4, 5), torch.tensor([0.9])], 18),
    ("Mean", {}, [drawn(4, 5)], 18),
    ("Sum", {}, [drawn(4, 5), drawn(5)], 18),
    ("Mod", {"fmod": 1}, [drawn(5) + 0.1], 18),
    ("Transpose", {"perm": [0, 3, 1, 2]}, [], 18),
    ("Unsqueeze", {}, [ints(1, -1)], 18),
    ("Unsqueeze", {"axes": [2]}, [], 11),
    ("Tile", {}, [ints(1, 2, 1, 3)], 18),
    ("Expand", {}, [ints(1, 3, 4, 5)], 18),
    ("Pad", {}, [ints(0, 0, 1, 2, 0, 1, 0, -1), torch.tensor(0.5)], 18),
    ("Pad", {"mode": "reflect"}, [ints(0, 0, 1, 2, 0, 0, 0, 1)], 18),
    ("Pad", {"mode": "edge"}, [ints(0, 0, 1, 2, 0, 0, 0, 1)], 18),
    ("Pad", {"mode": "edge"}, [ints(0, 0, 0, 2, 0, 0, 0, 1)], 18),
    ("Pad", {"mode": "reflect"}, [ints(0, 0, 0, 0, 0, 0, 0, 3)], 18),
    ("Pad", {"pads": [0, 0, 1, 2, 0, 0, 0, 1], "value": 0.25}, [], 10),
    ("Gather", {"axis": 1}, [ints(2, 0)], 18),
    ("Gather", {"axis": 3}, [ints(1, 2, 3)], 18),
    ("Gather", {"axis": 2}, [torch.tensor(-1)], 18),
    ("Gather", {"axis": 2}, [torch.tensor([[0, 1], [3, -1]])], 18),
    ("CumSum", {}, [torch.tensor(2)], 18),
    ("Trilu", {"upper": 0}, [], 18),
    ("ReduceMean", {"axes": [2, 3]}, [], 13),
    ("ReduceMean", {"keepdims": 0}, [ints(-1, 2)], 18),
    *((op, {}, [ints(1, 3)], 18) for op in ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2",
                                          "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp", "ReduceProd")),
    ("ReduceSum", {"noop_with_empty_axes": 1}, [], 18),
    ("LpNormalization", {}, [], 18),
    ("LpNormalization", {"axis": 1, "p": 1}, [], 18),
    ("InstanceNormalization", {}, [drawn(3), drawn(3)], 18),
    ("GroupNormalization", {"num_groups": 1}, [drawn(1), drawn(1)], 18),
    ("GroupNormalization", {"num_groups": 3}, [drawn(3), drawn(3)], 21),
    ("LayerNormalization", {"axis": 2, "epsilon": 1e-3}, [drawn(4, 5), drawn(4, 5)], 18),
    ("LayerNormalization", {}, [drawn(5)], 18),
    ("BatchNormalization", {"epsilon": 1e-3}, [drawn(3) + 0.5 for _ in range(4)], 15),
    ("MatMul", {}, [drawn(5, 4)], 18),
    ("MatMul", {}, [drawn(3, 5, 4)], 18),
    ("Upsample", {}, [torch.tensor([1.0, 1, 2, 3])], 9),
]  # fmt: skip


@pytest.mark.parametrize(
    ("op", "attributes", "inputs", "opset"),
    ELEMENTWISE,
    ids=[f"{op}-{number}" for number, (op, *_) in enumerate(ELEMENTWISE)],
)
def test_one_operator(op: str, attributes: dict[str, Any], inputs: list[Tensor], opset: int) -> None:
    weights = {f"w{place}": tensor for place, tensor in enumerate(inputs)}
    node = helper.make_node(op, ["x", *weights], ["y"], **attributes)
    images = POSITIVE if op in OF_POSITIVE else RANGES.get(op, SIGNED)
    agrees(node, (1, 3, 4, 5), weights, opset=opset, images=images)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_and_back(mode: str) -> None:
    nodes = [
        helper.make_node("DepthToSpace", ["x"], ["d"], blocksize=2, mode=mode),
        helper.make_node("SpaceToDepth", ["d"], ["y"], blocksize=2),
    ]
    agrees(nodes, (1, 8, 3, 2))


@pytest.mark.parametrize("number", [2.0, -1.5])
@pytest.mark.parametrize("op", ["Sub", "Div", "Pow"])
def test_a_number_on_the_left(op: str, number: float) -> None:
    weights = {"n": torch.tensor(abs(number) if op == "Pow" else number)}
    agrees(helper.make_node(op, ["n", "x"], ["y"]), (1, 3, 4, 5), weights, images=POSITIVE)


@pytest.mark.parametrize(("sizes", "opset"), [([1, 4, 2], 11), ([1, 4, 2], 18), (None, 18), (None, 11)])
def test_splitting(sizes: list[int] | None, opset: int) -> None:
    attributes: dict[str, Any] = {"split": sizes} if sizes and opset == 11 else {}
    if sizes is None and opset == 18:
        attributes["num_outputs"] = 3
    weights = {"s": ints(*sizes)} if sizes and opset == 18 else {}
    channels = 7 if sizes or opset == 18 else 6
    nodes = [
        helper.make_node("Split", ["x", *weights], ["a", "b", "c"], axis=1, **attributes),
        helper.make_node("Concat", ["c", "a", "b"], ["y"], axis=1),
    ]
    assert agrees(nodes, (1, channels, 3, 3), weights, opset=opset) == ["slice", "slice", "slice", "concat"]


@pytest.mark.parametrize("op", ["Greater", "Less", "Equal", "GreaterOrEqual", "LessOrEqual"])
def test_choosing_by_comparison(op: str) -> None:
    weights = {"half": torch.tensor(0.5), "other": torch.rand(5)}
    nodes = [helper.make_node(op, ["x", "half"], ["c"]), helper.make_node("Where", ["c", "x", "other"], ["y"])]
    agrees(nodes, (1, 3, 4, 5), weights)


def test_picking_by_positions() -> None:
    weights = {"at": torch.tensor([[[0, 1], [2, -1]]])}
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 2, 0, 3]),
        helper.make_node("GatherND", ["t", "at"], ["g"]),
        helper.make_node("Transpose", ["g"], ["y"], perm=[2, 0, 1, 3]),
    ]
    agrees(nodes, (1, 3, 4, 5), weights)


@pytest.mark.parametrize("axis", [0, 2, -1, 4])
def test_flattening_elsewhere(axis: int) -> None:
    nodes = [helper.make_node("Flatten", ["x"], ["f"], axis=axis), helper.make_node("Reshape", ["f", "t"], ["y"])]
    agrees(nodes, (1, 3, 4, 5), {"t": ints(-1, 60)})


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
def test_the_place_of_the_largest_or_smallest_score(op: str, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["s"]),
        helper.make_node(op, ["s"], ["y"], axis=1, keepdims=0),
    ]
    path = saved(tmp_path / "model.onnx", nodes, ["n", 6], {"w": torch.randn(6, 5)}, returns=7)
    images = torch.randn(8, 6)
    assert torch.equal(read_onnx(path).to_module()(images), in_onnxruntime(path, images))


@pytest.mark.parametrize("dims", [1, 3])
def test_convolution_over_other_numbers_of_dimensions(dims: int) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1] * dims + [0] * dims, strides=[2] * dims),
        helper.make_node("MaxPool", ["c"], ["p"], kernel_shape=[2] * dims, ceil_mode=1),
        helper.make_node("GlobalAveragePool", ["p"], ["y"]),
    ]
    agrees(nodes, (1, 2, *[7] * dims), {"w": torch.randn(3, 2, *[3] * dims), "b": torch.randn(3)})


def test_a_result_that_no_torch_operator_gives_is_refused(tmp_path: Path) -> None:
    pool = helper.make_node("MaxPool", ["x"], ["p", "where"], kernel_shape=[2, 2])
    nodes = [pool, helper.make_node("Cast", ["where"], ["y"], to=1)]
    with pytest.raises(UnsupportedOp, match=r"output 1 of node 'p/where' \(MaxPool\)"):
        read_onnx(saved(tmp_path / "model.onnx", nodes, ["n", 1, 4, 4]))
    mask = [helper.make_node("Dropout", ["x"], ["y", "mask"])]
    assert [n.op for n in read_onnx(saved(tmp_path / "drop.onnx", mask, ["n", 3])).nodes] == ["input", "dropout"]


@given(
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    pads=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    ceil=st.booleans(),
    counted=st.booleans(),
)
def test_average_pooling_along_one_dimension(
    kernel: int, stride: int, pads: tuple[int, int], ceil: bool, counted: bool
) -> None:
    assume(max(pads) < kernel and stride <= kernel)
    options: dict[str, Any] = {"ceil_mode": int(ceil), "count_include_pad": int(counted)}
    node = helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[kernel], strides=[stride], pads=pads, **options)
    agrees(node, (1, 3, 9), opset=19)


def test_the_best_of_many_places_are_picked_as_detectors_without_suppression_do() -> None:
    nodes = [
        helper.make_node("ReduceMax", ["x", "last"], ["m"], keepdims=0),
        helper.make_node("TopK", ["m", "three"], ["v", "i"], axis=-1),
        helper.make_node("Unsqueeze", ["i", "last"], ["u"]),
        helper.make_node("Tile", ["u", "each"], ["t"]),
        helper.make_node("GatherElements", ["x", "t"], ["y"], axis=1),
    ]
    agrees(nodes, (1, 10, 4), {"last": ints(-1), "three": ints(3), "each": ints(1, 1, 4)})


@pytest.mark.parametrize(("attributes", "opset"), [({}, 18), ({"axis": 1, "largest": 0}, 11), ({"axis": 2, "k": 3}, 9)])
@pytest.mark.parametrize("place", [0, 1])
def test_the_largest_or_smallest_values_and_their_places(attributes: dict[str, Any], opset: int, place: int) -> None:
    outputs = ["v", "i"]
    weights = {} if "k" in attributes else {"k": ints(3)}
    nodes = [
        helper.make_node("TopK", ["x", *weights], outputs, **attributes),
        helper.make_node("Cast", [outputs[place]], ["y"], to=TensorProto.FLOAT),
    ]
    agrees(nodes, (1, 3, 4, 5), weights, opset=opset)


@pytest.mark.parametrize("op", ["GatherElements", "ScatterElements"])
def test_entries_by_stored_numbers_are_the_same_for_every_image(op: str, tmp_path: Path) -> None:
    weights = {"i": torch.tensor([[[0, -1], [2, 1]]])}
    if op == "ScatterElements":
        weights["u"] = torch.tensor([[[9.0, 8.0], [7.0, 6.0]]])
    node = helper.make_node(op, ["x", *weights], ["y"], axis=2)
    path = saved(tmp_path / "model.onnx", [node], [1, 2, 4], weights)
    net, images = read_onnx(path), torch.randn(3, 2, 4)
    assert torch.equal(net.to_module()(images), torch.cat([in_onnxruntime(path, one[None]) for one in images]))


def test_what_would_be_picked_from_the_batch_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("GatherElements", ["x", "i"], ["y"], axis=0)]
    with pytest.raises(UnsupportedOp, match="images must not mix"):
        read_onnx(saved(tmp_path / "model.onnx", nodes, [1, 4], {"i": ints(0, 0, 0, 0)[None]}))


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("aligned", [0, 1])
@pytest.mark.parametrize("beyond", ["zeros", "border", "reflection"])
def test_an_image_is_sampled_at_places_that_are_computed(mode: str, aligned: int, beyond: str) -> None:
    nodes = [
        helper.make_node("Slice", ["x", "zero", "two", "one"], ["s"]),
        helper.make_node("Transpose", ["s"], ["grid"], perm=[0, 2, 3, 1]),
        helper.make_node("GridSample", ["x", "grid"], ["y"], mode=mode, align_corners=aligned, padding_mode=beyond),
    ]
    agrees(nodes, (1, 3, 5, 6), {"zero": ints(0), "two": ints(2), "one": ints(1)}, opset=16)


def test_a_table_is_looked_up_by_numbers_that_are_fed(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["e"]), helper.make_node("ReduceMean", ["e"], ["y"], axes=[1])],
        "test",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", 7])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(torch.randn(11, 4).numpy(), "table")],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    ids = torch.randint(0, 11, (3, 7))
    net = read_onnx(path)
    assert apart(net.to_module()(ids), in_onnxruntime(path, ids)) <= CLOSE
    assert "table" in net.tensors


def test_a_norm_over_no_axis_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("ReduceL2", ["x"], ["y"], noop_with_empty_axes=1)
    with pytest.raises(UnsupportedOp, match="reduces no axis"):
        read_onnx(saved(tmp_path / "model.onnx", [node], ["n", 4]))


@pytest.mark.parametrize("sizes", [(12, 10), (9, 8)])
def test_a_transposed_convolution_of_a_size_that_is_asked_for(sizes: tuple[int, int]) -> None:
    node = helper.make_node("ConvTranspose", ["x", "w", "b"], ["y"], strides=[2, 2], output_shape=sizes)
    agrees(node, (1, 4, 5, 4), {"w": torch.randn(4, 3, 3, 3), "b": torch.randn(3)})
