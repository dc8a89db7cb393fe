import pytest
from counted import counts_of, macs_by_torch, without_memory

from slimwright.cost import count
from slimwright.importers import capture
from slimwright.zoo import build


@pytest.mark.parametrize(("name", "params"), [("vgg11", 132_863_336), ("vgg16", 138_357_544), ("vgg19", 143_667_240)])
def test_parameters_by_hand(name: str, params: int) -> None:
    depths = {"vgg11": (1, 1, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}[name]
    widths = [w for w, depth in zip((64, 128, 256, 512, 512), depths, strict=True) for _ in range(depth)]
    convs = sum(a * b * 9 + b for a, b in zip([3, *widths], widths, strict=False))
    linears = 25_088 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 1000 + 1000
    assert counts_of(name)[0] == convs + linears == params


def test_macs_of_vgg_16_by_hand() -> None:
    places = [224**2 * (3 * 64 + 64 * 64), 112**2 * (64 * 128 + 128 * 128), 56**2 * (128 * 256 + 2 * 256 * 256)]
    places += [28**2 * (256 * 512 + 2 * 512 * 512), 14**2 * 3 * 512 * 512]
    linears = 25_088 * 4096 + 4096 * 4096 + 4096 * 1000
    assert counts_of("vgg16")[1] == 9 * sum(places) + linears == 15_470_264_320


def test_the_teacher_for_small_images() -> None:
    cost = count(capture(build("vgg11-cifar"), (3, 32, 32)))
    assert cost.params == 9_231_114
    assert cost.macs == counts_of("vgg11-cifar")[1]


def test_photographs_of_another_size_are_averaged_before_the_linear_layers() -> None:
    model, linears = without_memory("vgg11"), 25_088 * 4096 + 4096 * 4096 + 4096 * 1000
    large, small = (macs_by_torch(model, (3, size, size)) - linears for size in (448, 224))
    assert large == 4 * small
