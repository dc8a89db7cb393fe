"""Sizes that a file leaves free stay free where no number of the net follows from them; else they are fixed."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import helper
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

from example_nets import lively
from onnx_files import apart, saved
from slimwright.coupling import couple, cut
from slimwright.graph import Net, as_free_as
from slimwright.importers.onnx import read_onnx
from slimwright.runtimes.onnxruntime import write_onnx
from slimwright.runtimes.suited import suited

SIZES = ((32, 32), (48, 80), (16, 64))


class UNet(nn.Module):
    """Down twice; up once by a transposed convolution and once by two straight lines."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in ((3, 8), (8, 12), (12, 16))
        )
        self.up = nn.ConvTranspose2d(16, 12, 2, stride=2)
        self.merge, self.back, self.last = nn.Conv2d(24, 12, 3, padding=1), nn.Conv2d(20, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.one(x)
        middle = self.two(F.max_pool2d(wide, 2))
        deep = self.three(F.max_pool2d(middle, 2))
        up = torch.relu(self.merge(torch.cat([self.up(deep), middle], 1)))
        up = F.interpolate(up, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.last(torch.relu(self.back(torch.cat([up, wide], 1))))  # type: ignore[no-any-return]


def espcn() -> nn.Module:
    """Three times as many pixels, made of channels (Shi et al. 2016)."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, padding=2), nn.Tanh(), nn.Conv2d(16, 8, 3, padding=1), nn.Tanh(),
        nn.Conv2d(8, 27, 3, padding=1), nn.PixelShuffle(3),
    )  # fmt: skip


def fcn() -> nn.Module:
    """Convolutions, the mean of the image, and a classifier."""
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12), nn.Hardswish(), nn.Conv2d(12, 16, 3, padding=1),
        nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip


FREE: dict[str, tuple[Any, int]] = {"unet": (UNet, 4), "espcn": (espcn, 1), "fcn": (fcn, 1)}  # and their steps


def exported(model: nn.Module, path: Path, *, dynamo: bool = False) -> Path:
    """Write a model by one of torch's exporters, with its batch, height and width left open."""
    if not dynamo:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model, (torch.zeros(1, 3, 32, 32),), str(path), dynamo=False, opset_version=17, input_names=["x"],
                output_names=["y"], dynamic_axes={"x": {0: "n", 2: "h", 3: "w"}, "y": {0: "n"}},
            )  # fmt: skip
        return path
    shapes = ({0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO},)
    program = torch.onnx.export(
        model, (torch.zeros(2, 3, 32, 32),), dynamo=True, opset_version=18, verbose=False, dynamic_shapes=shapes
    )
    assert program is not None
    program.save(str(path), external_data=False)
    return path


def made(name: str) -> nn.Module:
    torch.manual_seed(3)
    return lively(FREE[name][0]()).eval()


def in_file(path: Path, *inputs: Tensor) -> Tensor:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = zip(session.get_inputs(), inputs, strict=True)
    found: np.ndarray[Any, Any] = session.run(None, {entry.name: each.numpy() for entry, each in given})[0]
    return torch.from_numpy(found)


def halved(net: Net) -> Net:
    """Every group of channels cut to its first half."""
    coupling = couple(net)
    keep = {group.name: np.arange(max(group.size // 2, 1)) for group in coupling.groups}
    return cut(net, keep, coupling)


def dims(path: Path) -> list[list[str | int]]:
    """What a file says of its inputs and outputs."""
    graph = onnx.load(path).graph
    shapes = (end.type.tensor_type.shape for end in (*graph.input, *graph.output))
    return [[dim.dim_param or dim.dim_value for dim in shape.dim] for shape in shapes]


def steps(net: Net) -> dict[str, int]:
    assert net.ends is not None
    return {size.name: size.step for size in net.ends.sizes}


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("name", FREE)
def test_a_cut_net_computes_in_its_file_what_its_module_does_at_any_size(
    tmp_path: Path, name: str, dynamo: bool
) -> None:
    path = exported(made(name), tmp_path / "m.onnx", dynamo=dynamo)
    net = read_onnx(path, sizes=[(3, 32, 32)])
    assert steps(net) == dict.fromkeys(("height", "width") if dynamo else ("h", "w"), FREE[name][1])
    small = halved(net)
    write_onnx(small, tmp_path / "small.onnx")
    write_onnx(net, tmp_path / "again.onnx")
    assert dims(tmp_path / "small.onnx")[0] == ["batch", 3, *steps(net)]
    for count, size in enumerate(SIZES, 1):
        images = torch.randn(count, 3, *size)
        with torch.no_grad():
            assert apart(in_file(tmp_path / "small.onnx", images), small.to_module()(images)) < 1e-5
        assert apart(in_file(tmp_path / "again.onnx", images), in_file(path, images)) < 1e-5
    nodes = {node.op_type for node in onnx.load(tmp_path / "again.onnx").graph.node}
    assert not nodes & {"Shape", "Gather"} and ("Resize" in nodes) == (name == "unet")


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 4, 3, stride=4, padding=1), nn.Linear(256, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.conv(x)).flatten(1))  # type: ignore[no-any-return]


class Placed(nn.Module):
    """Adds a map that is stored at one size, and shuffles channels by numbers."""

    def __init__(self, *, shuffled: bool) -> None:
        super().__init__()
        self.conv, self.shuffled = nn.Conv2d(3, 4, 3, stride=4, padding=1), shuffled
        self.map = nn.Parameter(torch.randn(1, 4, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.shuffled:
            return x.view(-1, 2, 2, 8, 8).transpose(1, 2).reshape(-1, 4, 8, 8)
        return x + self.map


class Followed(nn.Module):
    """Resizes to the size of another value, which is not twice as large where sizes are odd."""

    def __init__(self, *, added: bool) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.added = added

    def forward(self, x: Tensor) -> Tensor:
        wide = self.one(x)
        resized = F.interpolate(self.two(wide), size=wide.shape[-2:], mode="nearest")
        return wide + resized if self.added else resized


FIXED: dict[str, nn.Module] = {
    "flat": Flat(), "a stored map": Placed(shuffled=False), "a fixed reshape": Placed(shuffled=True),
    "the size of another, at the end": Followed(added=False),
}  # fmt: skip


@pytest.mark.parametrize("name", FIXED)
def test_a_net_with_numbers_that_follow_from_the_size_stays_fixed(tmp_path: Path, name: str) -> None:
    path = exported(lively(FIXED[name]).eval(), tmp_path / "m.onnx")
    net = read_onnx(path, sizes=[(3, 32, 32)])
    assert steps(net) == {"h": 0, "w": 0} and net.ends is not None and not net.ends.free
    write_onnx(net, tmp_path / "again.onnx")
    assert dims(tmp_path / "again.onnx")[0] == ["batch", 3, 32, 32]
    images = torch.randn(2, 3, 32, 32)
    assert apart(in_file(tmp_path / "again.onnx", images), in_file(path, images)) < 1e-5


def test_a_net_that_refuses_the_sizes_at_which_it_would_be_wrong_is_free_at_others(tmp_path: Path) -> None:
    path = exported(lively(Followed(added=True)).eval(), tmp_path / "m.onnx")
    net = read_onnx(path, sizes=[(3, 32, 32)])
    assert steps(net) == {"h": 2, "w": 2}
    write_onnx(net, tmp_path / "again.onnx")
    for size in ((32, 32), (34, 58), (20, 6)):
        images = torch.randn(2, 3, *size)
        assert apart(in_file(tmp_path / "again.onnx", images), in_file(path, images)) < 1e-5
    with pytest.raises(Exception, match="Add"):
        in_file(tmp_path / "again.onnx", torch.randn(2, 3, 33, 32))


def test_padding_that_follows_from_the_size_fixes_it(tmp_path: Path) -> None:
    """SAME pads an even height in strides otherwise than an odd one."""
    for stride, expected in (([1, 1], [1, 1]), ([2, 1], [0, 1])):
        node = helper.make_node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER", strides=stride)
        path = saved(tmp_path / "m.onnx", [node], ["n", 3, "h", "w"], {"w": torch.randn(4, 3, 3, 3)})
        assert list(steps(read_onnx(path, sizes=[(3, 32, 32)])).values()) == expected


class Lines(nn.Module):
    """Reads a line of text: its height is folded into features, its width into steps of time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Linear(128, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.conv(x)).permute(3, 0, 1, 2).flatten(2))  # type: ignore[no-any-return]


def test_one_size_may_be_free_and_the_other_not(tmp_path: Path) -> None:
    path = exported(lively(Lines()).eval(), tmp_path / "m.onnx")
    net = read_onnx(path, sizes=[(3, 32, 32)])
    assert steps(net)["h"] == 0 and steps(net)["w"] > 0
    write_onnx(net, tmp_path / "again.onnx")
    assert dims(tmp_path / "again.onnx")[0] == ["batch", 3, 32, "w"]
    for width in (20, 32, 50):
        images = torch.randn(2, 3, 32, width)
        assert apart(in_file(tmp_path / "again.onnx", images), in_file(path, images)) < 1e-5


def of_keras(path: Path) -> Path:
    """As tf2onnx writes it: channels last at the ends, an uneven transposed convolution, blocks of pixels first."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["a"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["a", "w"], ["b"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("ConvTranspose", ["b", "t"], ["c"], pads=[0, 0, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("DepthToSpace", ["d"], ["e"], blocksize=2, mode="DCR"),
        helper.make_node("Conv", ["e", "v"], ["g"], pads=[1, 1, 1, 1]),
        helper.make_node("Transpose", ["g"], ["y"], perm=[0, 2, 3, 1]),
    ]
    weights = {"w": torch.randn(8, 3, 3, 3), "t": torch.randn(8, 8, 3, 3), "v": torch.randn(2, 2, 3, 3)}
    return saved(path, nodes, ["unk__1", "unk__2", "unk__3", 3], weights, opset=13)


def of_paddle(path: Path) -> Path:
    """As Paddle2ONNX writes it: open sizes are -1, or DynamicDimension.N; scales without a region; a gate."""
    half = ("nearest", "asymmetric", "floor")
    resize = dict(zip(("mode", "coordinate_transformation_mode", "nearest_mode"), half, strict=True))
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("HardSwish", ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Conv", ["c", "v"], ["d"]),
        helper.make_node("HardSigmoid", ["d"], ["e"], alpha=0.2, beta=0.5),
        helper.make_node("Mul", ["b", "e"], ["f"]),
        helper.make_node("Resize", ["f", "", "s"], ["g"], **resize),
        helper.make_node("ConvTranspose", ["g", "t"], ["h"], strides=[2, 2]),
        helper.make_node("Sigmoid", ["h"], ["y"]),
    ]
    weights = {
        "w": torch.randn(8, 3, 3, 3), "v": torch.randn(8, 8, 1, 1), "t": torch.randn(8, 1, 2, 2),
        "s": torch.tensor([1.0, 1.0, 2.0, 2.0]),
    }  # fmt: skip
    names = [f"DynamicDimension.{k}" for k in range(3)]
    return saved(path, nodes, [names[0], 3, *names[1:]], weights, opset=14)


OTHERS: dict[str, tuple[Any, tuple[int, ...], list[Any], Sequence[tuple[int, int]]]] = {
    "keras": (of_keras, (32, 32, 3), ["batch", "height", "width", 3], ((32, 32), (30, 44), (18, 10))),
    "paddle": (of_paddle, (3, 32, 32), ["batch", 3, "height", "width"], SIZES),
}


@pytest.mark.parametrize("name", OTHERS)
def test_files_of_other_exporters_keep_their_sizes_free(tmp_path: Path, name: str) -> None:
    write, shape, expected, sizes = OTHERS[name]
    path = write(tmp_path / "m.onnx")
    net = read_onnx(path, sizes=[shape])
    assert min(steps(net).values()) > 0
    small = halved(net)
    for each, called in ((net, "again.onnx"), (small, "small.onnx")):
        write_onnx(suited(each, "onnxruntime"), tmp_path / called)
    assert dims(tmp_path / "again.onnx")[0] == dims(tmp_path / "small.onnx")[0] == expected
    for height, width in sizes:
        images = torch.randn(2, *(height, width, 3) if name == "keras" else (3, height, width))
        assert apart(in_file(tmp_path / "again.onnx", images), in_file(path, images)) < 1e-5
        with torch.no_grad():
            assert apart(in_file(tmp_path / "small.onnx", images), small.to_module()(images)) < 1e-5


def test_sizes_without_a_name_that_are_the_same_dimension_are_one(tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    path = saved(tmp_path / "m.onnx", [node], [-1, 3, -1, -1], {"w": torch.randn(4, 3, 3, 3)})
    net = read_onnx(path, sizes=[(3, 8, 9)])
    assert steps(net) == {"height": 1, "width": 1}
    assert net.ends is not None and [size.places for size in net.ends.sizes] == [((0, 2),), ((0, 3),)]


@pytest.mark.parametrize("case", ["half_pixel", "align_corners", "asymmetric", "cubic", "third", "nearest half"])
def test_a_resize_stays_a_scale_where_that_is_exact_at_any_size(tmp_path: Path, case: str) -> None:
    mode = "cubic" if case == "cubic" else "nearest" if case.startswith("nearest") else "linear"
    how = case if case in ("half_pixel", "align_corners", "asymmetric") else "half_pixel"
    scale = {"third": 4 / 3}.get(case, 2.0)
    node = helper.make_node("Resize", ["x", "", "s"], ["y"], mode=mode, coordinate_transformation_mode=how)
    path = saved(tmp_path / "m.onnx", [node], ["n", 3, "h", "w"], {"s": torch.tensor([1.0, 1.0, scale, scale])})
    net = read_onnx(path, sizes=[(3, 12, 15)])
    free = case not in ("asymmetric", "third")
    assert list(steps(net).values()) == [int(free)] * 2
    write_onnx(net, tmp_path / "again.onnx")
    for size in ((12, 15), (13, 21)) if free else ((12, 15),):
        images = torch.randn(2, 3, *size)
        assert apart(in_file(tmp_path / "again.onnx", images), in_file(path, images)) < 1e-5


@cache
def free_net(folder: Path) -> Net:
    return read_onnx(exported(made("unet"), folder / "unet.onnx"), sizes=[(3, 32, 32)])


def test_a_net_that_gives_other_shapes_at_other_sizes_is_fixed(tmp_path: Path) -> None:
    net = free_net(tmp_path)
    assert as_free_as(net, net) is net
    resized = next(node for node in net.nodes if "upsample" in node.op)
    scaled = {"output_size": resized.shape[-2:], "scale_factors": None}
    to_a_size = net.edited({resized.name: replace(resized, arguments={**resized.arguments, **scaled})})
    fixed = as_free_as(to_a_size, net)
    assert fixed.ends is not None and not fixed.ends.free and [size.step for size in fixed.ends.sizes] == [0, 0]
    assert to_a_size.ends is not None and to_a_size.ends.free  # an artefact of it is not believed either
    write_onnx(to_a_size, tmp_path / "m.onnx")
    assert dims(tmp_path / "m.onnx")[0] == ["batch", 3, 32, 32]
