import torch
from counted import counts_of, without_memory
from torch import nn

from slimwright.cost import count
from slimwright.importers import capture
from slimwright.zoo import build
from slimwright.zoo.googlenet import BLOCKS, Inception, norm_unit, plain_unit

FIRST = (64, 96, 128, 16, 32, 32)  # block 3a on 192 channels


def weights_3a(largest: int) -> int:
    return 192 * 64 + (192 * 96 + 96 * 128 * 9) + (192 * 16 + 16 * 32 * largest**2) + 192 * 32


def test_counts_of_the_form_with_batch_norm() -> None:
    params, macs = counts_of("googlenet-bn")
    assert params == 6_624_904
    assert round(macs / 1e6) == 1498


def test_parameters_of_the_published_form_by_hand() -> None:
    widths = [block for block in BLOCKS if block]
    read = [192, *(w[0] + w[2] + w[4] + w[5] for w in widths)]
    kernels = sum(
        c * (w[0] + w[1] + w[3] + w[5]) + w[1] * w[2] * 9 + w[3] * w[4] * 25 for c, w in zip(read, widths, strict=False)
    )
    stem = 3 * 64 * 49 + 64 * 64 + 64 * 192 * 9
    biases = 64 + 64 + 192 + sum(sum(w) for w in widths)
    assert read[-1] == 1024
    assert counts_of("googlenet")[0] == stem + kernels + biases + 1024 * 1000 + 1000 == 6_998_552


def test_a_captured_network_with_response_norm_counts_the_same() -> None:
    cost = count(capture(build("googlenet"), (3, 224, 224)))
    assert (cost.params, cost.macs) == counts_of("googlenet")


def test_the_published_inception_block_by_hand() -> None:
    cost = count(capture(Inception(192, FIRST, plain_unit, largest=5), (192, 28, 28)))
    assert cost.macs == 28 * 28 * weights_3a(5)
    assert cost.params == weights_3a(5) + sum(FIRST)


def test_the_inception_block_with_batch_norm_has_no_5x5() -> None:
    cost = count(capture(Inception(192, FIRST, norm_unit, largest=3), (192, 28, 28)))
    assert cost.macs == 28 * 28 * weights_3a(3)
    assert cost.params == weights_3a(3) + 2 * sum(FIRST)


def test_the_four_ways_stand_in_the_papers_order() -> None:
    block = Inception(4, (1, 2, 3, 2, 5, 7), plain_unit, largest=5).eval()
    x = torch.rand(1, 4, 6, 6)
    with torch.no_grad():
        parts = block(x).split([1, 3, 5, 7], 1)
        for part, way in zip(parts, (block.one, block.three, block.five, block.pooled), strict=True):
            assert torch.equal(part, way(x))


def test_only_the_published_form_normalises_responses() -> None:
    kinds = {
        name: {type(module) for module in without_memory(name).modules()} for name in ("googlenet", "googlenet-bn")
    }
    assert nn.LocalResponseNorm in kinds["googlenet"] and nn.BatchNorm2d not in kinds["googlenet"]
    assert nn.BatchNorm2d in kinds["googlenet-bn"] and nn.LocalResponseNorm not in kinds["googlenet-bn"]
