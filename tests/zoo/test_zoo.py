import pytest
import torch
from counted import without_memory

from slimwright.cli.sources import load_original
from slimwright.data import ArrayData
from slimwright.errors import ModelError
from slimwright.importers import capture
from slimwright.zoo import ZOO, build, network

CLASSIFIERS = [name for name, entry in ZOO.items() if entry.task == "classification"]
ADAPTING = ("shufflenet-g8-0.25x", "googlenet", "googlenet-bn", "squeezenet1.1", "customnet2", "vgg11-cifar")
FIXED = ("lenet5", "lenet-300-100", "alexnet-bvlc", "dropnet-a", "dropnet-b", "dropnet-c", "dropnet-vgg19")
LIGHT = ("shufflenet-g3-0.25x", "squeezenet1.0", "customnet", "lenet5", "dropnet-c", "dropnet-resnet18", "resnet8")


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_network_scores_its_own_classes_on_its_own_images(name: str) -> None:
    entry = network(name)
    scores = without_memory(name)(torch.empty(2, *entry.image_shape, device="meta"))
    assert scores.shape == (2, entry.classes)
    assert entry.source


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_network_takes_other_classes_and_channels(name: str) -> None:
    with torch.device("meta"):
        model = build(name, classes=7, in_channels=1).eval()
    _, height, width = network(name).image_shape
    assert model(torch.empty(1, 1, height, width, device="meta")).shape == (1, 7)


@pytest.mark.parametrize("name", ADAPTING)
@pytest.mark.parametrize("size", [33, 64, 97])
def test_networks_that_end_in_an_average_take_other_sizes(name: str, size: int) -> None:
    channels = network(name).image_shape[0]
    assert without_memory(name, classes=7)(torch.empty(1, channels, size, size, device="meta")).shape == (1, 7)


@pytest.mark.parametrize("name", FIXED)
def test_networks_that_cannot_take_another_size_say_so(name: str) -> None:
    channels = network(name).image_shape[0]
    with pytest.raises(ModelError, match=rf"cannot take images of shape \[{channels}, 65, 65\]"):
        capture(build(name), (channels, 65, 65))


def test_training_on_images_of_the_wrong_size_is_refused_before_it_begins(digit_data: ArrayData) -> None:
    with pytest.raises(ModelError, match=r"lenet5 is made for images of shape \[1, 28, 28\] and cannot take"):
        load_original("lenet5", digit_data)


@pytest.mark.parametrize("name", LIGHT)
def test_scores_repeat_in_eval_mode_and_depend_on_the_image(name: str) -> None:
    entry, model = network(name), build(name).eval()
    images = torch.randn(2, *entry.image_shape)
    with torch.no_grad():
        scores = model(images)
        assert torch.equal(scores, model(images))
    assert torch.isfinite(scores).all()
    assert (scores[0] - scores[1]).abs().max() > 1e-3


def test_weights_come_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = build("customnet", seed=3).state_dict()
    before = torch.get_rng_state()
    again = build("customnet", seed=3).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    other = build("customnet", seed=4).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["head.stem.0.weight"], other["head.stem.0.weight"])


def test_an_unknown_name_is_answered_with_the_nearest_ones() -> None:
    with pytest.raises(ModelError, match=r"'shufflenet-g5'.*nearest names are .*shufflenet-g\d"):
        build("shufflenet-g5")
    with pytest.raises(ModelError, match=r"'transformer' in the zoo; .*alexnet.*squeezenet1\.0.*vgg6"):
        network("transformer")
