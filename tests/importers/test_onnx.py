"""What a net read from an `.onnx` file computes is what ONNX Runtime computes of the file."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor, nn
from torch.nn import functional as F

from example_nets import HAND_MADE, SHAPE, hand_made, lively
from onnx_files import (
    LIGHT,
    apart,
    exported,
    exported_by_torchscript,
    in_onnxruntime,
    saved,
    without_softmax,
)
from slimwright.coupling import couple, cut
from slimwright.errors import ModelError
from slimwright.graph import Net
from slimwright.importers.onnx import read_onnx
from slimwright.importers.onnx.file import read_file
from slimwright.importers.onnx.fill import fillings
from slimwright.importers.onnx.reshape import place_of_batch
from slimwright.zoo import build
from slow import slow

LARGE = {"light_vgg19", "light_densenet121", "light_zfnet512", "light_resnet50"}
EXACT = 1e-5  # relative, in float32: other kernels, small nets


def computed(net: Net, images: Tensor) -> Tensor:
    with torch.no_grad():
        return net.to_module()(images)  # type: ignore[no-any-return]


def ops(net: Net) -> list[str]:
    return [node.op for node in net.nodes]


@pytest.mark.parametrize(
    "path",
    [slow(path) if path.stem in LARGE else path for path in LIGHT],
    ids=lambda path: path.stem.removeprefix("light_"),
)
def test_the_real_networks_of_the_onnx_package(path: Path, tmp_path: Path) -> None:
    cut_off = path if path.stem == "light_densenet121" else without_softmax(path, tmp_path / path.name)
    net = read_onnx(cut_off, seed=0)
    images = torch.randn(1, 3, 224, 224)
    weights = fillings(read_file(cut_off), seed=0)
    assert apart(computed(net, images), in_onnxruntime(cut_off, images, weights)) <= 1e-4
    assert net.input.shape == (1, 3, 224, 224)
    assert ops(net).count("conv2d") == sum(n.op == "Conv" for n in read_file(cut_off).nodes)


def test_there_are_nine_of_them() -> None:
    assert len(LIGHT) == 9


@pytest.mark.parametrize(
    ("name", "dynamic"),
    [*((name, True) for name in HAND_MADE), *((name, False) for name in ("Concat", "Flat", "Twice"))],
)
def test_hand_made_nets_by_torch_onnx(name: str, dynamic: bool, tmp_path: Path) -> None:
    model = hand_made(name)
    path = exported(model, tmp_path / "model.onnx", SHAPE, dynamic=dynamic)
    net, images = read_onnx(path), torch.randn(3, *SHAPE)
    assert apart(computed(net, images), model(images)) <= EXACT
    sample = images[: 3 if dynamic else 1]
    assert apart(computed(net, sample), in_onnxruntime(path, sample)) <= EXACT


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("name", HAND_MADE)
def test_hand_made_nets_by_the_older_exporter(name: str, dynamic: bool, tmp_path: Path) -> None:
    model = hand_made(name)
    path = exported_by_torchscript(model, tmp_path / "model.onnx", SHAPE, dynamic=dynamic)
    images = torch.randn(3, *SHAPE)
    assert apart(computed(read_onnx(path), images), model(images)) <= EXACT


@pytest.mark.parametrize("dynamic", [True, False])
def test_a_zoo_net_keeps_the_paths_of_its_layers(dynamic: bool, tmp_path: Path) -> None:
    model = lively(build("resnet8", classes=10, in_channels=3))
    path = exported(model, tmp_path / "model.onnx", (3, 32, 32), dynamic=dynamic)
    net, images = read_onnx(path), torch.randn(2, 3, 32, 32)
    assert apart(computed(net, images), model(images)) <= EXACT
    kept = {name for name, _ in model.named_parameters()} & set(net.to_module().state_dict())
    assert {name for name in kept if name.endswith("conv1.weight")}
    assert set(ops(net)) <= {
        "input",
        "conv2d",
        "relu",
        "add",
        "mean",
        "adaptive_avg_pool2d",
        "flatten",
        "reshape",
        "linear",
    }


def test_a_file_of_the_older_exporter_gets_its_paths_from_its_nodes(tmp_path: Path) -> None:
    model = lively(build("resnet8", classes=10, in_channels=3))  # its batch norms are folded: the weights have no names
    path = exported_by_torchscript(model, tmp_path / "model.onnx", (3, 32, 32), dynamic=True)
    found = {name for name in read_onnx(path).to_module().state_dict() if name.endswith("weight")}
    assert found == {n for n, p in model.named_parameters() if n.endswith("weight") and p.ndim > 1}


def test_what_was_read_can_be_cut(tmp_path: Path) -> None:
    net = read_onnx(exported(hand_made("Residual"), tmp_path / "model.onnx", SHAPE, dynamic=True))
    coupling = couple(net)
    (group,) = [g for g in coupling.groups if g.size == 6]
    smaller = cut(net, {group.name: torch.arange(4).numpy()}, coupling)
    assert [n.shape[1] for n in smaller.weighted()] == [4, 4, 3]


class Parts(nn.Module):
    """A convolution, what is tested, and a linear layer over all there is."""

    def __init__(self, middle: Callable[[Tensor], Tensor], *, channels: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, channels, 3, padding=1)
        self.middle = middle if isinstance(middle, nn.Module) else _Call(middle)
        size = self.middle(self.first(torch.zeros(1, *SHAPE))).numel()
        self.last = nn.Linear(size, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.first(x)).flatten(1))  # type: ignore[no-any-return]


class _Call(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Attention(nn.Module):
    """Attention over positions, batch second: the batch goes inside other dimensions on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 8, 1))
        self.attention = nn.MultiheadAttention(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([self.token.expand(x.size(0), -1, -1), x.flatten(2)], 2).permute(2, 0, 1)
        return self.attention(y, y, y)[0][0]  # type: ignore[no-any-return]


def shuffled(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def split(x: Tensor) -> Tensor:
    one, two, three = x.split([1, 5, 2], 1)
    return torch.cat([three, one.sigmoid() * two], 1)


MIDDLES: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {  # what it is, a row it must become
    "group norm": (nn.GroupNorm(2, 8), "group_norm"),
    "instance norm": (nn.InstanceNorm2d(8, affine=True), "aten.instance_norm.default"),
    "layer norm": (nn.LayerNorm((8, 6, 6)), "layer_norm"),
    "local response norm": (nn.LocalResponseNorm(4, alpha=0.5), "lrn"),
    "batch norm": (nn.Sequential(nn.ReLU(), nn.BatchNorm2d(8)), "batch_norm"),
    "prelu": (nn.PReLU(8), "prelu"),
    "elu": (nn.ELU(0.5), "elu"),
    "mish": (nn.Mish(), "mish"),
    "gelu": (nn.GELU(), "gelu"),
    "silu": (nn.SiLU(), "silu"),
    "hardswish": (nn.Hardswish(), "hardswish"),
    "relu6": (nn.ReLU6(), "hardtanh"),
    "transposed": (nn.ConvTranspose2d(8, 4, 3, 2, 1, 1, groups=2), "aten.conv_transpose2d.input"),
    "same padding": (nn.Conv2d(8, 8, 4, padding="same"), "conv2d"),
    "reflection": (nn.ReflectionPad2d(1), "aten.pad.default"),
    "pixel shuffle": (nn.PixelShuffle(2), "aten.pixel_shuffle.default"),
    "pixel unshuffle": (nn.PixelUnshuffle(2), "permute"),
    "nearest": (nn.Upsample(scale_factor=2), "aten.upsample_nearest2d.vec"),
    "bilinear": (nn.Upsample(scale_factor=2, mode="bilinear"), "aten.upsample_bilinear2d.vec"),
    "aligned": (nn.Upsample(size=(13, 9), mode="bilinear", align_corners=True), "aten.upsample_bilinear2d.vec"),
    "bicubic": (nn.Upsample(scale_factor=1.5, mode="bicubic"), "aten.upsample_bicubic2d.vec"),
    "shuffle": (shuffled, "permute"),
    "split": (split, "slice"),
    "list index": (lambda x: x[:, [3, 1, 0, 2]], "permute"),
    "flip": (lambda x: x.flip(3), "aten.index_select.default"),
    "stack": (lambda x: torch.stack([x, x.relu()], 1).sum(1), "sum"),
    "normalize": (lambda x: F.normalize(x.flatten(1)), "aten.linalg_vector_norm.default"),
    "attention": (Attention(), "matmul"),
}


OLDER_CANNOT = ("attention", "local response norm")  # torch.onnx says so, or writes branches


TAKEN_APART = (  # by torch.onnx, and each in its own way
    "group norm", "instance norm", "local response norm", "same padding", "reflection", "bilinear", "shuffle", "split",
    "list index", "flip", "stack", "normalize", "attention",
)  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using padding")  # torch says that it is slow
@pytest.mark.parametrize("name", TAKEN_APART)
def test_one_operator_between_two_layers(name: str, tmp_path: Path) -> None:
    middle, row = MIDDLES[name]
    model = lively(Parts(middle))
    path = exported(model, tmp_path / "model.onnx", SHAPE, dynamic=True)
    net, images = read_onnx(path), torch.randn(2, *SHAPE)
    assert apart(computed(net, images), in_onnxruntime(path, images)) <= EXACT
    assert apart(computed(net, images), model(images)) <= EXACT
    assert row in ops(net)


@pytest.mark.parametrize("name", [name for name in MIDDLES if name not in OLDER_CANNOT])
def test_one_operator_by_the_older_exporter_for_one_image(name: str, tmp_path: Path) -> None:
    model = lively(Parts(MIDDLES[name][0]))
    path = exported_by_torchscript(model, tmp_path / "model.onnx", SHAPE, dynamic=False)
    net, images = read_onnx(path), torch.randn(2, *SHAPE)
    assert apart(computed(net, images), model(images)) <= EXACT
    assert apart(computed(net, images[:1]), in_onnxruntime(path, images[:1])) <= EXACT


def test_attention_for_one_image_opens_up_for_any_batch(tmp_path: Path) -> None:
    model = lively(Parts(Attention()))
    path = exported(model, tmp_path / "model.onnx", SHAPE, dynamic=False)
    images = torch.randn(3, *SHAPE)
    assert apart(computed(read_onnx(path), images), model(images)) <= EXACT


def test_layers_that_an_old_opset_takes_apart_are_whole_again(tmp_path: Path) -> None:
    class Old(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.fc = nn.Conv2d(1, 8, 3), nn.LayerNorm(8), nn.Linear(8, 3)
            self.group = nn.GroupNorm(4, 8)

        def forward(self, x: Tensor) -> Tensor:
            y = F.gelu(self.norm(self.group(self.conv(x)).permute(0, 2, 3, 1)))
            return self.fc((F.hardswish(y) + F.silu(y) * F.mish(y)).mean((1, 2)))  # type: ignore[no-any-return]

    model = lively(Old())
    path = exported_by_torchscript(model, tmp_path / "model.onnx", SHAPE, dynamic=True, opset=11)
    net, images = read_onnx(path), torch.randn(2, *SHAPE)
    assert apart(computed(net, images), model(images)) <= EXACT
    assert ops(net) == [
        "input", "conv2d", "group_norm", "permute", "layer_norm", "gelu", "hardswish", "silu", "mish", "mul", "add",
        "mean", "linear",
    ]  # fmt: skip


def test_a_bias_that_is_added_belongs_to_the_layer_and_one_that_others_read_without_does_not(tmp_path: Path) -> None:
    weights = {"w": torch.randn(6, 4), "b": torch.randn(4)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["b", "p"], ["y"])]
    net = read_onnx(saved(tmp_path / "one.onnx", nodes, ["n", 6], weights))
    assert ops(net) == ["input", "linear"]
    twice = [*nodes[:1], helper.make_node("Add", ["b", "p"], ["q"]), helper.make_node("Mul", ["p", "q"], ["y"])]
    path = saved(tmp_path / "two.onnx", twice, ["n", 6], weights)
    assert ops(read_onnx(path)) == ["input", "linear", "parameter", "add", "mul"]
    images = torch.randn(2, 6)
    assert apart(computed(read_onnx(path), images), in_onnxruntime(path, images)) <= EXACT


def test_a_scale_layer_merges_into_the_batch_norm_before_it(tmp_path: Path) -> None:
    weights = {name: torch.rand(4) + 0.5 for name in "gbmv"} | {n: torch.randn(4, 1, 1) for n in ("s", "t")}
    nodes = [
        helper.make_node("BatchNormalization", ["x", *"gbmv"], ["norm"]),
        helper.make_node("Mul", ["norm", "s"], ["scaled"]),
        helper.make_node("Add", ["scaled", "t"], ["y"]),
    ]
    path = saved(tmp_path / "model.onnx", nodes, [1, 4, 3, 3], weights)
    assert ops(read_onnx(path)) == ["input", "batch_norm"]
    images = torch.randn(1, 4, 3, 3)
    assert apart(computed(read_onnx(path), images), in_onnxruntime(path, images)) <= EXACT


@pytest.mark.parametrize("batch", ["n", 1, 4])
@pytest.mark.parametrize("target", [[-1, 36], [0, -1], [0, 36]])
def test_a_reshape_holds_at_any_batch(target: list[int], batch: int | str, tmp_path: Path) -> None:
    self_made = [helper.make_node("Reshape", ["x", "t"], ["r"]), helper.make_node("Gemm", ["r", "w"], ["y"])]
    weights = {"t": torch.tensor(target), "w": torch.randn(36, 3)}
    net = read_onnx(saved(tmp_path / "model.onnx", self_made, [batch, 4, 3, 3], weights))
    images = torch.randn(5, 4, 3, 3)
    assert apart(computed(net, images), images.flatten(1) @ weights["w"]) <= EXACT
    assert net.input.shape == (1, 4, 3, 3)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_batch_that_is_baked_into_a_reshape_opens_up(batch: int, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "grouped"], ["g"]),
        helper.make_node("Transpose", ["g"], ["t"], perm=[0, 2, 1, 3, 4]),
        helper.make_node("Reshape", ["t", "back"], ["b"]),
        helper.make_node("Reshape", ["b", "flat"], ["y"]),
    ]
    weights = {
        "grouped": torch.tensor([batch, 2, 2, 3, 3]),
        "back": torch.tensor([batch, 4, 3, 3]),
        "flat": torch.tensor([batch, -1]),
    }
    net = read_onnx(saved(tmp_path / "model.onnx", nodes, [batch, 4, 3, 3], weights))
    images = torch.randn(5, 4, 3, 3)
    assert torch.equal(computed(net, images), images[:, [0, 2, 1, 3]].flatten(1))


def test_sizes_worked_out_in_the_file_are_followed(tmp_path: Path) -> None:
    weights = {"zero": torch.tensor([0]), "one": torch.tensor(1), "axis": torch.tensor([0]), "two": torch.tensor([2])}
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Gather", ["s", "one"], ["c"]),
        helper.make_node("Unsqueeze", ["c", "axis"], ["c1"]),
        helper.make_node("Div", ["c1", "two"], ["half"]),
        helper.make_node("Mul", ["n", "two"], ["n2"]),
        helper.make_node("Cast", ["half"], ["f"], to=1),
        helper.make_node("Cast", ["f"], ["i"], to=7),
        helper.make_node("Constant", [], ["rest"], value_ints=[-1]),
        helper.make_node("Concat", ["n2", "i", "rest"], ["t"], axis=0),
        helper.make_node("Reshape", ["x", "t"], ["r"]),  # [2n, c/2, h*w]
        helper.make_node("ReduceMax", ["r", "two"], ["m"], keepdims=0),
        helper.make_node("Constant", [], ["back"], value_ints=[-1, 4]),
        helper.make_node("Reshape", ["m", "back"], ["y"]),
    ]  # fmt: skip
    path = saved(tmp_path / "model.onnx", nodes, ["n", 4, 3, 3], weights)
    images = torch.randn(3, 4, 3, 3)
    net = read_onnx(path)
    assert torch.equal(computed(net, images), in_onnxruntime(path, images))
    assert ops(net) == ["input", "reshape", "aten.amax.default", "reshape"]


@pytest.mark.parametrize(
    ("outside", "batch", "sizes", "wish", "expected"),
    [
        (1, 1, [1, 9216], None, (0, 1)),
        (1, 1, [64, 49, 96], None, (0, 1)),  # windows of an image: the batch is outermost
        (50, 1, [50, 12, 64], None, (1, 1)),  # heads of a token: the batch comes before them
        (50, 1, [50, 768], None, (0, 50)),  # features stay whole
        (50, 1, [50, 1, 768], None, (1, 1)),
        (50, 4, [50, 4, 768], None, (1, 1)),
        (50, 4, [200, 768], None, (0, 50)),
        (50, 1, [50, 12, 64], 0, (0, 50)),  # the file says so
    ],
)
def test_where_the_batch_goes_in_a_reshape(
    outside: int, batch: int, sizes: list[int], wish: int | None, expected: tuple[int, int]
) -> None:
    assert place_of_batch(outside, batch, sizes, wish) == expected


def test_drawn_weights_depend_on_name_and_seed_alone(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["w"]),
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", *"gbmv"], ["y"]),
    ]
    weights = {"s": torch.tensor([4, 3, 3, 3])} | {name: torch.ones(4) for name in "gbmv"}
    path = saved(tmp_path / "model.onnx", nodes, [1, 3, 8, 8], weights)
    one, again, other = (read_onnx(path, seed=seed) for seed in (0, 0, 1))
    assert one.digest == again.digest != other.digest
    assert float(one.tensors[one["y"].tensors["running_var"]].min()) > 0.4
    left_alone = read_onnx(path)
    assert set(left_alone.tensors[left_alone["c"].tensors["weight"]].unique().tolist()) == {0.0}


def test_equal_biases_that_the_exporter_stored_once_tie_no_layers(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "a", "zeros"], ["one"]),
        helper.make_node("Conv", ["one", "b", "zeros"], ["two"]),
        helper.make_node("Conv", ["two", "b", "zeros"], ["y"]),  # the second layer, called again
    ]
    weights = {"a": torch.randn(4, 3, 1, 1), "b": torch.randn(4, 4, 1, 1), "zeros": torch.zeros(4)}
    net = read_onnx(saved(tmp_path / "model.onnx", nodes, ["n", 3, 5, 5], weights))
    assert net["two"].tensors == net["y"].tensors
    assert net["one"].tensors["bias"] != net["two"].tensors["bias"]
    assert len(net.tensors) == 4


def test_weights_that_are_left_to_be_fed_can_be_drawn(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Add", ["c", "shift"], ["y"])]
    path = saved(tmp_path / "model.onnx", nodes, ["n", 3, 8, 8], {"shift": torch.zeros(4, 1, 1)})
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("w", 1, [4, 3, 3, 3]))
    onnx.save(model, path)
    with pytest.raises(ModelError, match=r"2 inputs .*'w' \[4, 3, 3, 3\]"):
        read_onnx(path)
    net, images, drawn = read_onnx(path, seed=3), torch.randn(2, 3, 8, 8), fillings(read_file(path), seed=3)
    assert set(drawn) == {"w", "shift"}
    assert ops(net) == ["input", "conv2d"]
    assert apart(computed(net, images), in_onnxruntime(path, images, drawn)) <= EXACT


def test_a_weight_that_two_layers_share_stays_one(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("MatMul", ["p", "w"], ["y"])]
    net = read_onnx(saved(tmp_path / "model.onnx", nodes, ["n", 6], {"w": torch.randn(6, 6)}))
    assert list(net.tensors) == ["w"]
