from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from exact import EVERY, small_net
from example_nets import HAND_MADE, SHAPE, hand_made, lively
from slimwright.cost import count
from slimwright.coupling import choose, couple, cut
from slimwright.errors import ModelError, UnsupportedOp
from slimwright.graph import Net, load_net, save_net
from slimwright.importers import capture
from slimwright.zoo import ZOO, build
from structures import structure


class Forward(nn.Module):
    """A network given by one function of its layers and the image."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)


class Function(nn.Module):
    """A function of a convolution's 4 channels; the functions of `layers` come first, as attributes."""

    def __init__(self, function: Callable[["Function", Tensor], Tensor], layer: nn.Module | None = None) -> None:
        super().__init__()
        self.conv, self.function, self.layer = nn.Conv2d(1, 4, 3, padding=1), function, layer or nn.Identity()
        self.weight = nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, self.conv(x))


def model_of(name: str) -> nn.Module:
    return hand_made(name) if name in HAND_MADE else structure(name)


def assert_same_bits(model: nn.Module, net: Net) -> None:
    module = net.to_module()
    for batch in (1, 2, 3):
        images = torch.randn(batch, *net.input.shape[1:])
        assert torch.equal(module(images), model(images))


@pytest.mark.parametrize("name", ["resnet8", "resnet20", "vgg6", "lenet5", "shufflenet-g3-0.25x", "squeezenet1.1"])
def test_a_captured_zoo_net_gives_the_same_bits(name: str) -> None:
    model = lively(build(name))
    assert_same_bits(model, capture(model, ZOO[name].image_shape))


@pytest.mark.parametrize("name", EVERY)
def test_a_captured_net_gives_the_same_bits_at_any_batch(name: str) -> None:
    assert_same_bits(model_of(name), small_net(name))


@pytest.mark.parametrize("name", EVERY)
def test_in_training_a_captured_net_does_what_its_model_does(name: str) -> None:
    """Given the same random numbers: dropout, stochastic depth, batch statistics."""
    model, module = model_of(name).train(), small_net(name).to_module().train()
    images = torch.randn(4, *SHAPE) + 1
    torch.manual_seed(1)
    wanted = model(images)
    torch.manual_seed(1)
    assert torch.equal(module(images), wanted)
    left = dict(module.named_buffers())
    for key, statistic in model.named_buffers():
        if "running" in key:
            assert torch.equal(left[key], statistic)


@pytest.mark.parametrize("name", HAND_MADE)
def test_state_dict_keys_and_values_are_the_models_own(name: str) -> None:
    state, captured = model_of(name).state_dict(), small_net(name).to_module().state_dict()
    assert captured.keys() == state.keys()
    assert all(torch.equal(captured[key], state[key]) for key in state if not key.endswith("num_batches_tracked"))


LOST = {  # weights that are computed from others, or that one layer holds under a name of its own
    "Transformer": {"attention.in_proj_weight", "attention.in_proj_bias"},
    "Windows": {"index"},
    "Standardised": {"conv.weight", "conv.bias", "gain"},
    "BlurPool": {"kernel"},
}


@pytest.mark.parametrize("name", EVERY)
def test_weights_that_stay_as_they_are_keep_their_names(name: str) -> None:
    state, captured = model_of(name).state_dict(), small_net(name).to_module().state_dict()
    assert state.keys() - captured.keys() == LOST.get(name, set())
    assert all(captured[key].numel() == state[key].numel() for key in captured if key in state)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_stays_in_the_mode_it_was_in(training: bool) -> None:
    model = hand_made("Flat").train(training)
    model.get_submodule("drop").train(not training)  # one layer that disagrees
    capture(model, SHAPE)
    assert model.training is training and model.get_submodule("conv").training is training
    assert model.get_submodule("drop").training is not training


def test_a_failed_capture_leaves_the_mode_alone_too() -> None:
    model = hand_made("Flat").train()
    with pytest.raises(ModelError):
        capture(model, (3, 6, 6))
    assert model.training and model.get_submodule("conv").training


def test_capture_leaves_the_forward_of_stochastic_depth_alone() -> None:
    model = structure("Paths")
    capture(model, SHAPE)
    assert "forward" not in model.get_submodule("drop").__dict__


def test_capture_changes_no_weight_and_shares_none() -> None:
    model = hand_made("Residual")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    module = capture(model, SHAPE).to_module()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def dropped(function: Callable[[Tensor], Tensor]) -> Tensor:
    """What a captured function does to 64 images of ones in training: [64, 4]."""
    model = Function(lambda _, x: function(torch.ones_like(x)).amax((2, 3)))
    return capture(model, SHAPE).to_module().train()(torch.randn(64, *SHAPE)) > 0  # type: ignore[no-any-return]


def test_dropout_of_maps_drops_channels_and_stochastic_depth_images() -> None:
    channels = dropped(lambda x: nn.Dropout2d(0.5).eval()(x))
    assert 0.3 < channels.float().mean() < 0.7
    assert bool((channels != channels[:, :1]).any())
    model = structure("Paths")
    module = capture(model, SHAPE).to_module().train()
    assert [n.op for n in capture(model, SHAPE).nodes].count("drop_path") == 2
    path = next(m for m in module.modules() if type(m).__name__ == "DropPath")
    images = path(torch.ones(64, 3, 2, 2)).flatten(1)
    assert bool((images == images[:, :1]).all()) and set(images[:, 0].tolist()) == {0.0, 2.0}


CARRIED: dict[str, Callable[[Function, Tensor], Tensor]] = {
    "sine": lambda _, x: torch.sin(x),
    "cumulative sum": lambda _, x: x.cumsum(1),
    "sorted values": lambda _, x: x.sort(dim=1)[0],
    "largest values": lambda _, x: x.topk(2, dim=1).values,
    "where": lambda _, x: torch.where(x > 0.2, x, torch.zeros_like(x)),
    "norm over channels": lambda _, x: F.normalize(x, dim=1),
    "einsum": lambda m, x: torch.einsum("nchw,c->nhw", x, m.weight),
    "fourier": lambda _, x: torch.fft.ifft2(torch.fft.fft2(x) * 2).real,
    "grid sample": lambda _, x: F.grid_sample(x, x[:, :2].permute(0, 2, 3, 1), align_corners=False),
    "unfold and fold": lambda _, x: F.fold(F.unfold(x, 3, padding=1), (6, 6), 3, padding=1),
    "weights of the image": lambda _, x: F.conv2d(
        x.reshape(1, -1, 6, 6), x[:, :, :3, :3].reshape(-1, 1, 3, 3), groups=x.shape[0] * 4
    ).view(x.shape[0], 4, 4, 4),
    "a bare parameter": lambda m, x: x * m.weight[:, None, None],
    "a computed weight": lambda m, x: F.linear(x.mean((2, 3)), m.weight.softmax(0)[None]),
    "the batch size": lambda _, x: x / x.shape[0],
    "a size": lambda _, x: x * x.shape[2],
    "another precision": lambda _, x: (x.double() * 2).float(),
    "integers": lambda _, x: x * (x * 8).long().clamp(0, 3),
    "a grid": lambda _, x: x + torch.linspace(-1, 1, x.shape[3]),
    "views of views": lambda _, x: x.unflatten(1, (2, 2)).movedim(1, -1).swapaxes(0, 1).flatten(2).mT.transpose(0, 1),
    "parts by one": lambda _, x: torch.stack(x.unbind(1)[::-1], 1),
    "stacks of stacks": lambda _, x: torch.stack([torch.stack([x, x * 2]), torch.stack([x * 3, x])]).sum((0, 1)),
    "the greatest class": lambda _, x: x.mean((2, 3)).argmax(1),
    "no gradient": lambda m, x: x * torch.no_grad()(torch.sigmoid)(x),
    "autocast off": lambda m, x: _in_float32(x),
    "clones and contiguous": lambda _, x: x.clone().contiguous().to(torch.float32).permute(0, 2, 3, 1).contiguous(),
    "batch statistics": lambda _, x: F.batch_norm(x, torch.zeros(4), torch.ones(4), training=True),
    "a channel of the batch": lambda _, x: torch.relu(x.reshape(-1, 2, 6, 6)).view(-1, 4, 6, 6),
}


def _unpooled(x: Tensor, places: Tensor) -> Tensor:
    return F.max_unpool2d(x, places, (2, 2))


def _in_float32(x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return x.float() * 2


@pytest.mark.parametrize("what", CARRIED)
def test_what_is_not_known_is_carried_along(what: str) -> None:
    model = Function(CARRIED[what])
    assert_same_bits(model, capture(model, SHAPE))


def test_an_unknown_operator_keeps_its_name() -> None:
    net = capture(Function(CARRIED["sine"]), SHAPE)
    assert [node.op for node in net.nodes] == ["input", "conv2d", "aten.sin.default"]


LAYERS: dict[str, tuple[nn.Module, Callable[[Function, Tensor], Tensor]]] = {
    "batch norm without statistics": (nn.BatchNorm2d(4, track_running_stats=False), lambda m, x: m.layer(x)),
    "batch norm without weights": (nn.BatchNorm2d(4, affine=False), lambda m, x: m.layer(x)),
    "group norm without weights": (nn.GroupNorm(2, 4, affine=False), lambda m, x: m.layer(x)),
    "layer norm over maps": (nn.LayerNorm([4, 6, 6]), lambda m, x: m.layer(x)),
    "instance norm": (nn.InstanceNorm2d(4, affine=True), lambda m, x: m.layer(x)),
    "batch norm of rows": (nn.BatchNorm1d(4), lambda m, x: m.layer(x.flatten(2))),
    "transposed convolution": (nn.ConvTranspose2d(4, 2, 3, stride=2), lambda m, x: m.layer(x)),
    "convolution of rows": (nn.Conv1d(4, 2, 3), lambda m, x: m.layer(x.flatten(2))),
    "convolution of volumes": (nn.Conv3d(4, 2, (1, 3, 3)), lambda m, x: m.layer(x.unsqueeze(2))),
    "an unbatched convolution": (nn.Conv2d(4, 2, 1), lambda m, x: m.layer(x[0]) + x.mean()),
    "bilinear": (nn.Bilinear(4, 4, 3), lambda m, x: m.layer(x.mean((2, 3)), x.amax((2, 3)))),
    "embedding": (nn.Embedding(8, 3), lambda m, x: m.layer((x.mean((2, 3)) * 9).long().clamp(0, 7))),
    "max pooling with its places": (nn.MaxPool2d(2, return_indices=True), lambda m, x: _unpooled(*m.layer(x))),
    "weight norm": (
        nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 3, 3)), lambda m, x: m.layer(x)
    ),
    "a layer twice": (nn.PReLU(4), lambda m, x: m.layer(m.layer(x - 1) - 1)),
    "scaled ELU": (nn.SELU(), lambda m, x: m.layer(x)),
    "swapped halves": (nn.ChannelShuffle(2), lambda m, x: m.layer(x)),
    "larger pixels": (nn.PixelShuffle(2), lambda m, x: m.layer(x)),
}  # fmt: skip


@pytest.mark.parametrize("what", LAYERS)
def test_layers_without_a_row_are_carried_with_their_weights(what: str) -> None:
    layer, function = LAYERS[what]
    model = Function(function, layer).eval()
    net = capture(model, SHAPE)
    assert_same_bits(model, net)
    assert net.to_module().train()(torch.randn(3, *SHAPE)).isfinite().all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(bad: float) -> None:
    model = hand_made("Residual")
    weight = model.get_parameter("conv2.weight")
    weight.data[0, 0, 0, 0] = bad
    with pytest.raises(ModelError, match=r"'conv2\.weight' holds 1 values"):
        capture(model, SHAPE)


@pytest.mark.parametrize("shape", [(3, 6, 6), (1, 2, 2), (1, 6), ()])
def test_a_wrong_image_shape_is_told(shape: tuple[int, ...]) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(32, 2))
    with pytest.raises(ModelError, match=r"cannot take images of shape \["):
        capture(model, shape)


def test_two_inputs_are_refused() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    with pytest.raises(ModelError, match="cannot take images"):
        capture(Two(), SHAPE)


def _twice_as_long(x: Tensor) -> Tensor:
    found: Tensor = torch.cond(x.mean() > 0, lambda y: y * 2, lambda y: y * 3, (x,))
    return found


def _autocast(m: Function, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return m.layer(x).float()  # type: ignore[no-any-return]


REFUSED: dict[str, tuple[Callable[..., object], str]] = {
    "random numbers": (lambda _, x: x + torch.rand_like(x), r"aten\.rand_like\.default may draw random numbers"),
    "a draw": (lambda _, x: torch.bernoulli(torch.sigmoid(x)), r"aten\.bernoulli\.default may draw random"),
    "dropout that never ends": (lambda _, x: F.dropout(x, 0.5, training=True), r"dropout\.default may draw random"),
    "a branch": (lambda _, x: _twice_as_long(x), r"operator cond \(node 'cond'\) runs a graph of its own"),
    "autocast": (_autocast, "switches autocast on"),
    "an output without a batch": (lambda _, x: (x, x.mean()), r"returns 'mean' of shape \[\] for one image"),
    "an output for all images": (lambda _, x: (x, x.mean(0)), r"\[4, 6, 6\] for one image and \[4, 6, 6\] for two"),
    "a number beside an output": (lambda _, x: (x, 3), "returns 3, which is not a tensor"),
    "a size beside an output": (lambda _, x: (x, x.shape[0]), "which is not a tensor"),
    "no output": (lambda _, x: None, "returns 0 values"),
    "a number of the image": (lambda _, x: x * x.mean().item(), r"item"),
    "a size by division": (lambda _, x: x * (x.numel() / x.shape[0]), "truediv"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_no_net_can_hold_is_refused_by_name(what: str) -> None:
    function, said = REFUSED[what]
    with pytest.raises(ModelError, match=said):
        capture(Function(function, nn.Conv2d(4, 4, 1)), SHAPE)  # type: ignore[arg-type]


def test_what_no_output_needs_is_dropped() -> None:
    class Idle(Forward):
        def forward(self, x: Tensor) -> Tensor:
            self.idle(x)  # type: ignore[operator]
            return self.conv(x).mean((2, 3))  # type: ignore[operator, no-any-return]

    net = capture(Idle(conv=nn.Conv2d(1, 2, 1), idle=nn.Conv2d(1, 2, 1)), SHAPE)
    assert [n.op for n in net.nodes] == ["input", "conv2d", "mean"]
    assert set(net.tensors) == {"conv.weight", "conv.bias"}


def _through_a_view(_: Function, x: Tensor) -> Tensor:
    x.flatten(1).relu_()
    return x


def _through_a_dropout(m: Function, x: Tensor) -> Tensor:
    z = F.dropout(x, training=m.training)
    z.relu_()
    return x + z


def _and_the_view_is_read(_: Function, x: Tensor) -> Tensor:
    view = x.flatten(1)
    x.relu_()
    return torch.sigmoid(view)


def _one_channel(_: Function, x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 1] = y[:, 0] * 2
    return y


def _by_halves(_: Function, x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, :2] = x[:, 2:]
    y[:, 2:] += x[:, :2]
    return y


def _shifted(_: Function, x: Tensor) -> Tensor:
    y = x.new_zeros(x.shape)
    y[:, :, 1:] = x[:, :, :-1]
    return y


def _the_view_itself(m: Function, x: Tensor) -> Tensor:
    return F.dropout(x, training=m.training).flatten(1).relu_().sigmoid_()


@pytest.mark.parametrize(
    "function",
    [_through_a_view, _and_the_view_is_read, _one_channel, _by_halves, _shifted, _the_view_itself],
)
def test_what_is_written_in_place_through_views_is_computed_the_same(
    function: Callable[[Function, Tensor], Tensor],
) -> None:
    model = Function(function).eval()
    assert_same_bits(model, capture(model, SHAPE))


def test_a_write_that_torch_itself_loses_sight_of_is_refused() -> None:
    model = Function(_through_a_dropout).eval()
    with pytest.raises(UnsupportedOp, match="in place through a view"):
        capture(model, SHAPE)


def test_a_layer_inside_another_layer_keeps_its_place() -> None:
    class Prepared(nn.Conv2d):
        def __init__(self) -> None:
            super().__init__(2, 3, 1)
            self.before = nn.Conv2d(1, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.before(x))

    model = nn.Sequential(Prepared(), nn.Flatten(), nn.Linear(108, 2)).eval()
    net = capture(model, SHAPE)
    assert_same_bits(model, net)
    assert net.to_module().state_dict().keys() == model.state_dict().keys()


def test_relu6_is_known_as_a_function_too() -> None:
    class Clipped(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu6(x * 9).mean((2, 3))

    net = capture(Clipped(), SHAPE)
    assert_same_bits(Clipped(), net)
    assert "relu6" in {node.op for node in net.nodes}


def test_a_net_of_one_layer_and_a_net_of_none() -> None:
    assert_same_bits(nn.Identity(), capture(nn.Identity(), SHAPE))
    model = nn.Sequential(nn.Conv2d(1, 2, 1))
    assert_same_bits(model, capture(model, SHAPE))


def test_an_operator_of_another_library_is_refused_by_name() -> None:
    library = torch.library.Library("slimwright_test", "DEF")
    library.define("twice(Tensor x) -> Tensor")
    for key in ("CompositeExplicitAutograd", "Meta"):
        library.impl("twice", lambda x: x * 2, key)
    with pytest.raises(UnsupportedOp, match=r"twice\.default \(node 'twice'\)"):
        capture(Function(lambda _, x: torch.ops.slimwright_test.twice(x)), SHAPE)


class Blurred(nn.Module):
    """A convolution by a buffer, as of a blur, behind one by a parameter; its bias is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bias = nn.Conv2d(1, 4, 3), nn.Parameter(torch.zeros(4))
        self.register_buffer("kernel", torch.full((4, 1, 2, 2), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        """Return x, convolved and blurred."""
        return F.conv2d(self.conv(x), self.get_buffer("kernel"), self.bias, groups=4).mean((2, 3))


def test_what_was_no_parameter_is_not_trained(tmp_path: Path) -> None:
    save_net(capture(Blurred(), SHAPE), tmp_path)
    net = load_net(tmp_path)
    module = net.to_module().train()
    blur = next(node for node in net.nodes if node.fixed)
    assert blur.fixed == ("weight",) and count(net).params == sum(p.numel() for p in Blurred().parameters())
    assert {tuple(p.shape) for p in module.parameters()} == {(4, 1, 3, 3), (4,)}
    assert net.key(blur, "weight") in dict(module.named_buffers())
    assert net.trained(module).digest == net.digest
    small = cut(net, choose(couple(net), 0.5))
    assert [n.fixed for n in small.nodes] == [n.fixed for n in net.nodes]
