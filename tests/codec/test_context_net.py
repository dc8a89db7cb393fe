import numpy as np
import torch

from slimwright.codec.context_net import (
    FEATURE_BITS,
    FEATURES,
    HIDDEN,
    OUTPUT_BITS,
    WEIGHT_BITS,
    ContextNet,
    in_whole_numbers,
)
from slimwright.codec.counting import decode_kmac_per_pixel, encode_kmac_per_pixel
from slimwright.codec.symbols import LEAST_SCALE, MOST_ODDS, MOST_SCALE, ODDS_UNIT, SCALE_UNIT


def features(role: str, count: int) -> torch.Tensor:
    return torch.randint(0, 200, (count, FEATURES[role]), generator=torch.Generator().manual_seed(3)).float()


def by_hand(net: ContextNet, rows: torch.Tensor, role: str, phase: int, band: int) -> list[tuple[int, int]]:
    """The same net in Python's whole numbers, which have no size."""
    found, tensors = [], dict(net.named_parameters())
    for row in rows.tolist():
        values, bits = [int(value) for value in row], FEATURE_BITS
        for place in range(3):
            weight = np.rint(tensors[f"{role}_weight{place}"][phase].detach().double().numpy() * 2**WEIGHT_BITS)
            bias = tensors[f"{role}_bias{place}"][band if place == 0 else 0].detach().double().numpy()
            sums = [
                sum(value * int(w) for value, w in zip(values, column, strict=True))
                + (round(float(b) * 2**WEIGHT_BITS) << bits)
                for column, b in zip(weight.T, bias, strict=True)
            ]
            if place < 2:
                shift = bits + WEIGHT_BITS - OUTPUT_BITS
                values, bits = [max(one, 0) >> shift for one in sums], OUTPUT_BITS
        half = 1 << OUTPUT_BITS + WEIGHT_BITS - 1
        odds, scale = (
            (one * unit + half) >> OUTPUT_BITS + WEIGHT_BITS
            for one, unit in zip(sums, (ODDS_UNIT, SCALE_UNIT), strict=True)
        )
        odds, scale = min(max(odds, -MOST_ODDS), MOST_ODDS), min(max(scale, LEAST_SCALE), MOST_SCALE)
        found.append((odds + MOST_ODDS, scale - LEAST_SCALE))
    return found


def test_floats_hold_the_whole_numbers_exactly() -> None:
    net = ContextNet(seed=1)
    for role in HIDDEN:
        torch.nn.init.normal_(getattr(net, f"{role}_bias0"))
        rows = features(role, 50)
        odds, scale = in_whole_numbers(dict(net.named_parameters())).indices(rows, role, 2, 5)
        assert list(zip(odds.tolist(), scale.tolist(), strict=True)) == by_hand(net, rows, role, 2, 5)


def test_whole_numbers_are_near_the_floats_that_were_trained() -> None:
    net = ContextNet(seed=2)
    rows = features("luma", 500)
    exact = net(rows, "luma", 1, torch.full((500,), 3))
    found = in_whole_numbers(dict(net.named_parameters())).indices(rows, "luma", 1, 3)
    for one, index, unit, first, most in zip(
        exact, found, (ODDS_UNIT, SCALE_UNIT), (-MOST_ODDS, LEAST_SCALE), (MOST_ODDS, MOST_SCALE), strict=True
    ):
        assert float(((index + first) / unit - one.detach().clamp(first / unit, most / unit)).abs().max()) < 0.2


def test_macs_are_those_of_the_layers() -> None:
    contexts = (18 * 20 + 20 * 12 + 12 * 2) + 2 * (26 * 10 + 10 * 8 + 8 * 2)
    wavelet, filter_ = 3 * (1 - 4**-6) / (1 - 1 / 4) * 10, 2 * 9 * 3 * 8
    expected = contexts * (1 - 4**-6) + wavelet + 9 + filter_
    assert abs(decode_kmac_per_pixel() * 1000 - expected) < 1e-6
    assert decode_kmac_per_pixel() <= 2.0
    assert encode_kmac_per_pixel() <= 45
