import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from example_nets import HAND_MADE, SHAPE, hand_made, lively
from slimwright.errors import ModelError, UnsupportedOp
from slimwright.graph import capture
from slimwright.zoo import ZOO, build


class Forward(nn.Module):
    """A network given by one function of its layers and the image."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)


@pytest.mark.parametrize("name", ZOO)
def test_a_captured_zoo_net_gives_the_same_bits(name: str) -> None:
    model = lively(build(name, classes=10, in_channels=1))
    module = capture(model, (1, 32, 32)).to_module()
    for batch in (1, 3):
        images = torch.randn(batch, 1, 32, 32)
        assert torch.equal(module(images), model(images))


@pytest.mark.parametrize("name", HAND_MADE)
def test_a_captured_hand_made_net_gives_the_same_bits(name: str) -> None:
    model = hand_made(name)
    module = capture(model, SHAPE).to_module()
    for batch in (1, 2, 5):
        images = torch.randn(batch, *SHAPE)
        assert torch.equal(module(images), model(images))


@pytest.mark.parametrize("name", HAND_MADE)
def test_state_dict_keys_and_values_are_the_models_own(name: str) -> None:
    model = hand_made(name)
    state, captured = model.state_dict(), capture(model, SHAPE).to_module().state_dict()
    assert captured.keys() == state.keys()
    assert all(torch.equal(captured[key], state[key]) for key in state if not key.endswith("num_batches_tracked"))


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


def test_capture_changes_no_weight_and_shares_none() -> None:
    model = hand_made("Residual")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    module = capture(model, SHAPE).to_module()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_an_unknown_operator_is_refused_by_name() -> None:
    class Sine(Forward):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sin(self.conv(x)).mean((2, 3))  # type: ignore[operator]

    with pytest.raises(UnsupportedOp, match=r"aten\.sin\.default \(node 'sin'\)"):
        capture(Sine(conv=nn.Conv2d(1, 2, 1)), SHAPE)


def test_a_bare_parameter_is_refused_by_name() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            return (x * self.scale).mean((2, 3))

    with pytest.raises(UnsupportedOp, match="bare parameter 'scale'"):
        capture(Scaled(), SHAPE)


def test_a_computed_weight_is_refused() -> None:
    class Doubled(Forward):
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x.flatten(1), self.get_parameter("fc.weight") * 2.0)

    with pytest.raises(UnsupportedOp):
        capture(Doubled(fc=nn.Linear(36, 2)), SHAPE)


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


def test_two_outputs_are_refused() -> None:
    class Two(Forward):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.conv(x).mean((2, 3))  # type: ignore[operator]
            return y, torch.relu(y)

    with pytest.raises(ModelError, match="returns 2 values"):
        capture(Two(conv=nn.Conv2d(1, 2, 1)), SHAPE)


def test_two_inputs_are_refused() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    with pytest.raises(ModelError, match="cannot take images"):
        capture(Two(), SHAPE)


def test_what_no_output_needs_is_dropped() -> None:
    class Idle(Forward):
        def forward(self, x: Tensor) -> Tensor:
            self.idle(x)  # type: ignore[operator]
            return self.conv(x).mean((2, 3))  # type: ignore[operator, no-any-return]

    net = capture(Idle(conv=nn.Conv2d(1, 2, 1), idle=nn.Conv2d(1, 2, 1)), SHAPE)
    assert [n.op for n in net.nodes] == ["input", "conv2d", "mean"]
    assert set(net.tensors) == {"conv.weight", "conv.bias"}


def test_batch_norm_without_statistics_is_refused() -> None:
    with pytest.raises(UnsupportedOp, match="without running statistics"):
        capture(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2, track_running_stats=False)), SHAPE)


class WrittenThroughAView(Forward):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)  # type: ignore[operator]
        y.flatten(1).relu_()
        return y.flatten(1)  # type: ignore[no-any-return]


class WrittenThroughADropout(Forward):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)  # type: ignore[operator]
        z = F.dropout(y, training=self.training)
        z.relu_()
        return (y + z).flatten(1)  # type: ignore[no-any-return]


class ViewOfWhatIsWritten(Forward):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)  # type: ignore[operator]
        view = y.flatten(1)
        y.relu_()
        return torch.sigmoid(view)


@pytest.mark.parametrize("kind", [WrittenThroughAView, WrittenThroughADropout, ViewOfWhatIsWritten])
def test_a_write_that_shows_through_a_view_is_refused_rather_than_computed_wrongly(kind: type[Forward]) -> None:
    with pytest.raises(UnsupportedOp, match="in place"):
        capture(kind(conv=nn.Conv2d(1, 2, 1)), SHAPE)


def test_a_view_that_is_written_and_then_read_itself_is_fine() -> None:
    class Fine(Forward):
        def forward(self, x: Tensor) -> Tensor:
            y = F.dropout(self.conv(x), training=self.training)  # type: ignore[operator]
            return self.fc(y.flatten(1).relu_().sigmoid_())  # type: ignore[operator, no-any-return]

    model = Fine(conv=nn.Conv2d(1, 2, 1), fc=nn.Linear(72, 2)).eval()
    images = torch.randn(3, *SHAPE)
    assert torch.equal(capture(model, SHAPE).to_module()(images), model(images))


def test_a_layer_inside_another_layer_keeps_its_place() -> None:
    class Prepared(nn.Conv2d):
        def __init__(self) -> None:
            super().__init__(2, 3, 1)
            self.before = nn.Conv2d(1, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.before(x))

    model = nn.Sequential(Prepared(), nn.Flatten(), nn.Linear(108, 2)).eval()
    module = capture(model, SHAPE).to_module()
    images = torch.randn(2, *SHAPE)
    assert torch.equal(module(images), model(images))
    assert module.state_dict().keys() == model.state_dict().keys()


def test_relu6_is_known_as_a_function_too() -> None:
    class Clipped(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu6(x * 9).mean((2, 3))

    net = capture(Clipped(), SHAPE)
    images = torch.randn(2, *SHAPE)
    assert torch.equal(net.to_module()(images), Clipped()(images))
    assert "relu6" in {node.op for node in net.nodes}
