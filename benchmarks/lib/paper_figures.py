"""What is known of the size of the papers' networks: data, and how exactly each figure can be compared.

A figure is printed in its source, or was counted by hand from the architecture that its source describes, apart from
this code. A figure with few digits may differ by half a unit of its last digit, but for ShuffleNet's
multiply-accumulates: the paper's own figures for one network differ by up to 3 M, and 1.5 M are allowed. Figures within
0 are exact. A note says why we think a figure is missed, and is no excuse: the row counts as a mismatch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

MACS, PARAMS, PARAMS_M = "MACs, M", "parameters", "parameters, M"
PARAMS_3, PARAMS_0 = "parameters, M, 3 per norm channel", "parameters, M, without norms"
NUMBERS, FILTERS = "parameters and statistics", "filters"
KB, MB, MIB = "weights, KB", "weights, MB", "weights, MB of 2^20"


@dataclass(frozen=True)
class Figure:
    """One figure: of which network of the zoo, of what quantity, and how far ours may be from it."""

    source: str
    network: str
    quantity: str
    value: float
    within: float = 0.0
    classes: int | None = None  # the network's own
    size: int | None = None  # pixels; the network's own
    note: str = ""

    @property
    def origin(self) -> str:
        """How the figure came about."""
        return "by hand" if self.source in (ASTRID, RANKS, PAHWA, WINOTO) else "printed"


ASTRID, RANKS = "Astrid 2017", "Astrid 2017, CP-SVD"  # ranks: what reproductions give as the paper's
HAN, LI, PAHWA, TAN = "Han 2016, table 1", "Li 2018", "Pahwa 2019", "Tan 2020"
MEGVII, SLIM, TORCHVISION = "ShuffleNet code", "TF-slim", "torchvision 0.29"
WINOTO, ZHANG = "Winoto 2020, code", "Zhang 2018"


def shufflenets() -> Iterator[Figure]:
    """The complexities of arXiv 1707.01083, tables 1 and 2."""
    for groups, value in {1: 143, 2: 140, 3: 137, 4: 133, 8: 137}.items():
        yield Figure(f"{ZHANG}, table 1", f"shufflenet-g{groups}", MACS, value, 1.5)
    for scale, value in {"0.5x": 38, "0.25x": 13}.items():
        for groups in (1, 2, 3, 4, 8):
            stem = scale == "0.5x" and groups == 8
            note = "with the 16 channels of the stem in the authors' code, whose README says 40" if stem else ""
            yield Figure(f"{ZHANG}, table 2", f"shufflenet-g{groups}-{scale}", MACS, value, 1.5, note=note)


FIGURES: tuple[Figure, ...] = (
    *shufflenets(),
    Figure(f"{ZHANG}, table 5", "shufflenet-g3-2x", MACS, 524, 1.5),
    Figure(f"{ZHANG}, table 5", "shufflenet-g3-1.5x", MACS, 292, 1.5),
    Figure(f"{ZHANG}, table 5", "shufflenet-g8", MACS, 140, 1.5, note="table 1 of the same paper has 137"),
    Figure(f"{ZHANG}, table 5", "shufflenet-g4-0.5x", MACS, 38, 1.5),
    Figure(f"{ZHANG}, table 5", "mobilenet-v1", MACS, 569, 0.5),
    Figure(f"{ZHANG}, table 5", "mobilenet-v1-0.75", MACS, 325, 0.5),
    Figure(f"{ZHANG}, table 5", "mobilenet-v1-0.5", MACS, 149, 0.5),
    Figure(f"{ZHANG}, table 5", "mobilenet-v1-0.25", MACS, 41, 0.5),
    Figure(f"{ZHANG}, table 6", "vgg16", MACS, 15300, 50, note="15,347 without the three linear layers"),
    Figure(f"{ZHANG}, table 6", "googlenet", MACS, 1500, 50, note="1498 with 3x3 in the place of 5x5 convolutions"),
    Figure(f"{ZHANG}, table 6", "alexnet-bvlc", MACS, 720, 5),
    Figure(f"{ZHANG}, table 6", "squeezenet1.0", MACS, 833, 0.5, size=227),
    Figure(MEGVII, "shufflenet-g3-2x", PARAMS_M, 5.4, 0.05, note="cut, not rounded"),
    Figure(MEGVII, "shufflenet-g3-1.5x", PARAMS_M, 3.4, 0.05),
    Figure(MEGVII, "shufflenet-g3", PARAMS_M, 1.9, 0.05),
    Figure(MEGVII, "shufflenet-g3", MACS, 138, 1.5),
    Figure(MEGVII, "shufflenet-g8", PARAMS_M, 2.4, 0.05),
    Figure(MEGVII, "shufflenet-g8", MACS, 138, 1.5),
    Figure(MEGVII, "shufflenet-g3-0.5x", PARAMS_M, 0.7, 0.05),
    Figure(MEGVII, "shufflenet-g3-0.5x", MACS, 38, 1.5),
    Figure(MEGVII, "shufflenet-g8-0.5x", PARAMS_M, 1.0, 0.05),
    Figure(MEGVII, "shufflenet-g8-0.5x", MACS, 40, 1.5),
    Figure(TORCHVISION, "alexnet", PARAMS, 61_100_840),
    Figure(TORCHVISION, "alexnet", MACS, 714, 0.5),
    Figure(TORCHVISION, "squeezenet1.0", PARAMS, 1_248_424),
    Figure(TORCHVISION, "squeezenet1.0", MACS, 819, 0.5),
    Figure(TORCHVISION, "squeezenet1.1", PARAMS, 1_235_496),
    Figure(TORCHVISION, "squeezenet1.1", MACS, 349, 0.5),
    Figure(TORCHVISION, "googlenet-bn", PARAMS, 6_624_904),
    Figure(TORCHVISION, "googlenet-bn", MACS, 1498, 0.5),
    Figure(TORCHVISION, "mobilenet-v2", PARAMS, 3_504_872),
    Figure(TORCHVISION, "mobilenet-v2", MACS, 301, 0.5),
    Figure(TORCHVISION, "densenet121", PARAMS, 7_978_856),
    Figure(TORCHVISION, "densenet121", MACS, 2834, 0.5),
    Figure(SLIM, "mobilenet-v1", MACS, 569, 0.5),
    Figure(SLIM, "mobilenet-v1-0.75", MACS, 317, 0.5, note="317 without the first convolution; Zhang et al. have 325"),
    Figure(SLIM, "mobilenet-v1-0.5", MACS, 150, 0.5, note="Zhang et al. have 149"),
    Figure(SLIM, "mobilenet-v1-0.25", MACS, 41, 0.5),
    Figure(SLIM, "mobilenet-v1", PARAMS_3, 4.24, 0.005, classes=1001),
    Figure(SLIM, "mobilenet-v1-0.75", PARAMS_3, 2.59, 0.005, classes=1001),
    Figure(SLIM, "mobilenet-v1-0.5", PARAMS_3, 1.34, 0.005, classes=1001),
    Figure(SLIM, "mobilenet-v1-0.25", PARAMS_3, 0.47, 0.005, classes=1001),
    Figure(SLIM, "mobilenet-v2", MACS, 300, 0.5, note="cut, not rounded; torchvision has 301"),
    Figure(SLIM, "mobilenet-v2", PARAMS_0, 3.47, 0.005),
    Figure(SLIM, "nasnet-mobile", MACS, 564, 0.5),
    Figure(SLIM, "nasnet-mobile", PARAMS_M, 5.3, 0.05),
    *(
        Figure(WINOTO, network, NUMBERS, value, classes=classes)
        for network, by_classes in {
            "customnet": {10: 528_086, 43: 553_529, 100: 597_476},
            "customnet2": {10: 897_878, 43: 923_321, 100: 967_268},
        }.items()
        for classes, value in by_classes.items()
    ),
    Figure(WINOTO, "customnet", PARAMS, 518_358, classes=10),
    Figure(WINOTO, "customnet", MACS, 26.49, 0.005, classes=10),
    Figure(WINOTO, "customnet2", PARAMS, 882_006, classes=10),
    Figure(WINOTO, "customnet2", MACS, 51.58, 0.005, classes=10),
    Figure(HAN, "lenet-300-100", KB, 1070, 5),
    Figure(HAN, "lenet5", KB, 1720, 5),
    Figure(HAN, "alexnet-bvlc", MB, 240, 5),
    Figure(HAN, "vgg16", MB, 552, 0.5, note="4 bytes for each of 138 M weights, a rounded number"),
    Figure(LI, "googlenet", MIB, 26.72, 0.03),
    Figure(LI, "squeezenet1.1", MIB, 4.72, 0.03),
    Figure(PAHWA, "resnet18-cifar", PARAMS, 11_173_962, classes=10),
    Figure(PAHWA, "resnet18-cifar", PARAMS, 11_220_132, classes=100),
    Figure(PAHWA, "vgg11-cifar", PARAMS, 9_231_114, classes=10),
    Figure(ASTRID, "alexnet-bvlc", PARAMS, 60_965_224),
    Figure(ASTRID, "alexnet-bvlc", MACS, 724.4, 0.05),
    Figure(RANKS, "alexnet-bvlc factorised", PARAMS, 8_727_077),
    Figure(RANKS, "alexnet-bvlc factorised", MACS, 126.5, 0.05),
    Figure(RANKS, "alexnet factorised", PARAMS, 8_799_651),
    Figure(RANKS, "alexnet factorised", MACS, 125.33, 0.005),
    Figure(TAN, "dropnet-c", FILTERS, 384),
)
