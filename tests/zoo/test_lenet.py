import pytest

from slimwright.cost import count, count_layers
from slimwright.importers import capture
from slimwright.zoo import build

MNIST = (1, 28, 28)


@pytest.mark.parametrize(
    ("name", "printed_kb"), [("lenet-300-100", 1070), ("lenet5", 1720)]
)  # arXiv 1510.00149, table 1: three digits
def test_the_weights_fill_the_printed_kilobytes(name: str, printed_kb: int) -> None:
    assert round(count(capture(build(name), MNIST)).weight_bytes / 1e4) * 10 == printed_kb


def test_counts_of_lenet_300_100_by_hand() -> None:
    cost = count(capture(build("lenet-300-100"), MNIST))
    assert cost.macs == 784 * 300 + 300 * 100 + 100 * 10
    assert cost.params == cost.macs + 300 + 100 + 10 == 266_610


def test_counts_of_lenet_5_by_hand() -> None:
    net = capture(build("lenet5"), MNIST)
    assert [layer.macs for layer in count_layers(net) if layer.macs] == [
        24 * 24 * 20 * 25,
        8 * 8 * 50 * 20 * 25,
        800 * 500,
        500 * 10,
    ]
    weights = 20 * 25 + 50 * 20 * 25 + 800 * 500 + 500 * 10
    assert count(net).params == weights + 20 + 50 + 500 + 10 == 431_080
