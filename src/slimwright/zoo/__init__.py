"""Networks by name, untrained. Nothing is built before it is asked for."""

from functools import partial

import torch
from torch import nn

from slimwright.zoo import customnet, dropnet
from slimwright.zoo.alexnet import alexnet, bvlc_alexnet
from slimwright.zoo.customnet import CustomNet, IntendedGamma
from slimwright.zoo.densenet import densenet121
from slimwright.zoo.glyph_nets import GlyphDetector, GlyphUnet
from slimwright.zoo.googlenet import googlenet, googlenet_bn
from slimwright.zoo.lenet import lenet5, lenet_300_100
from slimwright.zoo.mobilenet import MobileNetV1, MobileNetV2
from slimwright.zoo.nasnet import nasnet_mobile
from slimwright.zoo.network import CIFAR, CLASSIFICATION, MNIST, PHOTOGRAPH, SCENE, Network, unknown
from slimwright.zoo.resnet import ResNet, resnet18, resnet50, small_resnet18
from slimwright.zoo.shufflenet import STEM, WIDTHS, ShuffleNet
from slimwright.zoo.squeezenet import squeezenet1_0, squeezenet1_1
from slimwright.zoo.vgg import SmallVgg, small_vgg11, vgg

BVLC = "Caffe's BVLC model"
HAN = "Han et al. 2016 (arXiv 1510.00149)"
HE = "He et al. 2016 (arXiv 1512.03385)"
HOWARD = "Howard et al. 2017 (arXiv 1704.04861), TF-slim's form"
IANDOLA = "Iandola et al. 2016 (arXiv 1602.07360)"
SANDLER = "Sandler et al. 2018 (arXiv 1801.04381), torchvision's form"
SIMONYAN = "Simonyan and Zisserman 2015 (arXiv 1409.1556)"
SZEGEDY = "Szegedy et al. 2015 (arXiv 1409.4842)"
TAN = "Tan and Motani 2020 (arXiv 2207.06646)"
TORCHVISION = "torchvision's form"
WINOTO = "Winoto et al. 2020 (IEEE Access 8:125210)"
ZHANG = "Zhang et al. 2018 (arXiv 1707.01083)"


def _shufflenets() -> dict[str, Network]:
    """Every number of groups at every scale: "shufflenet-g3", "shufflenet-g3-0.5x", "shufflenet-g3-noshuffle"."""
    found = {}
    for groups in WIDTHS:
        for scale in STEM:
            name = f"shufflenet-g{groups}" + ("" if scale == 1 else f"-{scale:g}x")
            make = partial(ShuffleNet, groups, scale)
            found[name] = Network(make, PHOTOGRAPH, 1000, f"{ZHANG}, table 1")
            if groups > 1:
                unshuffled = partial(make, shuffled=False)
                found[f"{name}-noshuffle"] = Network(unshuffled, PHOTOGRAPH, 1000, f"{ZHANG}, table 3")
    return found


ZOO: dict[str, Network] = {
    "resnet8": Network(partial(ResNet, 1), CIFAR, 10, f"{HE}, sec. 4.2, n = 1"),
    "resnet8-wide": Network(partial(ResNet, 1, width=32), CIFAR, 10, f"{HE}, sec. 4.2, n = 1, twice as wide"),
    "resnet20": Network(partial(ResNet, 3), CIFAR, 10, f"{HE}, sec. 4.2, n = 3"),
    "resnet56": Network(partial(ResNet, 9), CIFAR, 10, f"{HE}, sec. 4.2, n = 9"),
    "resnet18": Network(resnet18, PHOTOGRAPH, 1000, f"{HE}, table 1"),
    "resnet18-cifar": Network(small_resnet18, CIFAR, 10, f"{HE}, table 1, with a 3x3 stem and no pooling"),
    "resnet50": Network(resnet50, PHOTOGRAPH, 1000, f"{HE}, table 1, the stride in the 3x3 convolutions"),
    "mobilenet-v1": Network(MobileNetV1, PHOTOGRAPH, 1000, HOWARD),
    "mobilenet-v1-0.75": Network(partial(MobileNetV1, width=0.75), PHOTOGRAPH, 1000, HOWARD),
    "mobilenet-v1-0.5": Network(partial(MobileNetV1, width=0.5), PHOTOGRAPH, 1000, HOWARD),
    "mobilenet-v1-0.25": Network(partial(MobileNetV1, width=0.25), PHOTOGRAPH, 1000, HOWARD),
    "mobilenet-v2": Network(MobileNetV2, PHOTOGRAPH, 1000, SANDLER),
    "mobilenet-v2-0.5": Network(partial(MobileNetV2, width=0.5), PHOTOGRAPH, 1000, SANDLER),
    "nasnet-mobile": Network(nasnet_mobile, PHOTOGRAPH, 1000, "Zoph et al. 2018 (arXiv 1707.07012), 4 @ 1056"),
    "densenet121": Network(densenet121, PHOTOGRAPH, 1000, "Huang et al. 2017 (arXiv 1608.06993), table 1"),
    "vgg6": Network(SmallVgg, CIFAR, 10, f"after {SIMONYAN}"),
    "vgg11": Network(partial(vgg, 11), PHOTOGRAPH, 1000, f"{SIMONYAN}, table 1, column A"),
    "vgg11-cifar": Network(small_vgg11, CIFAR, 10, "Pahwa et al. 2019 (arXiv 1911.12740)"),
    "vgg16": Network(partial(vgg, 16), PHOTOGRAPH, 1000, f"{SIMONYAN}, table 1, column D"),
    "vgg19": Network(partial(vgg, 19), PHOTOGRAPH, 1000, f"{SIMONYAN}, table 1, column E"),
    "lenet-300-100": Network(lenet_300_100, MNIST, 10, f"{HAN}, table 2"),
    "lenet5": Network(lenet5, MNIST, 10, f"{HAN}, table 3"),
    "alexnet": Network(alexnet, PHOTOGRAPH, 1000, f"Krizhevsky 2014 (arXiv 1404.5997), {TORCHVISION}"),
    "alexnet-bvlc": Network(bvlc_alexnet, (3, 227, 227), 1000, f"Krizhevsky et al. 2012, {BVLC}"),
    "googlenet": Network(googlenet, PHOTOGRAPH, 1000, f"{SZEGEDY}, table 1"),
    "googlenet-bn": Network(googlenet_bn, PHOTOGRAPH, 1000, f"{SZEGEDY}, {TORCHVISION}"),
    "squeezenet1.0": Network(squeezenet1_0, PHOTOGRAPH, 1000, f"{IANDOLA}, {TORCHVISION}"),
    "squeezenet1.1": Network(squeezenet1_1, PHOTOGRAPH, 1000, f"{IANDOLA}, {TORCHVISION}"),
    "customnet": Network(partial(CustomNet, customnet.ONE, 0.5), CIFAR, 10, f"{WINOTO}, the authors' code"),
    "customnet2": Network(partial(CustomNet, customnet.TWO), CIFAR, 10, f"{WINOTO}, the authors' code"),
    "customnet-intended": Network(
        partial(CustomNet, customnet.ONE, 0.5, gamma=IntendedGamma), CIFAR, 10, f"{WINOTO}, as intended"
    ),
    "customnet2-intended": Network(
        partial(CustomNet, customnet.TWO, gamma=IntendedGamma), CIFAR, 10, f"{WINOTO}, as intended"
    ),
    "dropnet-a": Network(dropnet.model_a, MNIST, 10, f"{TAN}, model A"),
    "dropnet-b": Network(dropnet.model_b, MNIST, 10, f"{TAN}, model B"),
    "dropnet-c": Network(dropnet.model_c, CIFAR, 10, f"{TAN}, model C"),
    "dropnet-resnet18": Network(dropnet.resnet18, CIFAR, 10, f"{TAN}, the authors' code"),
    "dropnet-vgg19": Network(dropnet.vgg19, CIFAR, 10, f"{TAN}, the authors' code"),
    "glyph-detector": Network(GlyphDetector, SCENE, 10, "ours, for trials: CenterNet's head", "detection"),
    "glyph-unet": Network(GlyphUnet, SCENE, 11, "ours, for trials: after Ronneberger et al. 2015", "segmentation"),
    **_shufflenets(),
}


def network(name: str) -> Network:
    """Return the entry of this name. Raises ModelError for an unknown name, with the nearest ones."""
    if name not in ZOO:
        raise unknown(name, ZOO)
    return ZOO[name]


def build(name: str, *, classes: int | None = None, in_channels: int | None = None, seed: int = 0) -> nn.Module:
    """Return the network of this name with fresh weights drawn from `seed`; classes and channels as in its paper.

    Raises ModelError for an unknown name.
    """
    entry = network(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return entry.make(
            classes=entry.classes if classes is None else classes,
            in_channels=entry.image_shape[0] if in_channels is None else in_channels,
        )


__all__ = ["CLASSIFICATION", "ZOO", "Network", "build", "network", "unknown"]
