import pytest
from counted import counts_of, macs_by_torch, without_memory
from torch import nn

from slimwright.cost import count_layers
from slimwright.importers import capture
from slimwright.zoo import build


@pytest.mark.parametrize(
    ("name", "params", "millions"), [("alexnet", 61_100_840, 714.19), ("alexnet-bvlc", 60_965_224, 724.4)]
)
def test_counts_of_both_forms(name: str, params: int, millions: float) -> None:
    counted, macs = counts_of(name)
    assert counted == params
    assert round(macs / 1e6, 2) == pytest.approx(millions, abs=0.05)


def test_macs_of_the_grouped_layers_by_hand() -> None:
    net = capture(build("alexnet-bvlc"), (3, 227, 227))
    assert [layer.macs for layer in count_layers(net) if layer.macs] == [
        55 * 55 * 96 * 3 * 11 * 11,
        27 * 27 * 256 * 48 * 5 * 5,  # two groups
        13 * 13 * 384 * 256 * 3 * 3,
        13 * 13 * 384 * 192 * 3 * 3,  # two groups
        13 * 13 * 256 * 192 * 3 * 3,  # two groups
        256 * 6 * 6 * 4096,
        4096 * 4096,
        4096 * 1000,
    ]


def test_only_the_bvlc_form_normalises_responses_and_before_pooling() -> None:
    bvlc = [type(module).__name__ for module in without_memory("alexnet-bvlc").features]  # type: ignore[union-attr]
    assert bvlc[:8] == ["Conv2d", "ReLU", "LocalResponseNorm", "MaxPool2d"] * 2
    assert bvlc.count("LocalResponseNorm") == 2
    assert not any(isinstance(module, nn.LocalResponseNorm) for module in without_memory("alexnet").modules())


def test_torchvisions_form_takes_images_from_63_pixels_on() -> None:
    model = without_memory("alexnet")
    assert macs_by_torch(model, (3, 63, 63)) > 0
    with pytest.raises(RuntimeError, match="too small"):
        macs_by_torch(model, (3, 62, 62))
