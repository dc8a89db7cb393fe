"""The networks that structured techniques are compared on, trained here and kept.

For 32x32 images: ResNet-20 and -56 (He et al. 2016, arXiv 1512.03385, sec. 4.2), VGG with 16 layers' convolutions at
half width and one linear layer, and MobileNetV2 at half width with its first two strides taken out (Sandler et al.
2018, arXiv 1801.04381, made for 224x224).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from torch import Tensor, nn

from lib.kept_nets import in_memory, trained_once
from slimwright.data import Dataset, digits, glyphs
from slimwright.graph import Net
from slimwright.progress import Event
from slimwright.train import Schedule
from slimwright.zoo import build
from slimwright.zoo.mobilenet import MobileNetV2
from slimwright.zoo.weights import he_normal

OUT = Path(__file__).resolve().parents[2] / "out" / "structured"
SEED = 0
DATA: dict[str, Callable[[], Dataset]] = {
    "glyphs": lambda: in_memory(glyphs(seed=SEED)),
    "digits": lambda: digits(SEED),
}
TRAINING = {
    "digits": Schedule(epochs=12, batch_size=32, seed=SEED),
    "glyphs": Schedule(epochs=8, batch_size=64, seed=SEED),
}
CALMER = {("vgg16-half", "digits"): 0.03}  # rates, where the usual one can end with half of the images wrong
VGG16 = (32, 32, 0, 64, 64, 0, 128, 128, 128, 0, 256, 256, 256, 0, 256, 256, 256, 0)  # 0: a 2x2 pooling


class HalfVgg16(nn.Module):
    """13 convolutions of half the usual width, each with a batch norm, and one linear layer."""

    def __init__(self, *, classes: int, in_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for width in VGG16:
            if width:
                layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(channels, classes)
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> class scores [N, classes]."""
        scores: Tensor = self.fc(self.features(x).mean((2, 3)))
        return scores


def small_mobilenet_v2(*, classes: int, in_channels: int) -> nn.Module:
    """MobileNetV2 at half width for 32x32 images: an eighth of their size is left at the end."""
    model = MobileNetV2(classes=classes, in_channels=in_channels, width=0.5)
    strided = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    for conv in strided[:2]:
        conv.stride = (1, 1)
    return model


NETWORKS: Mapping[str, Callable[..., nn.Module]] = {
    "resnet20": lambda **sizes: build("resnet20", **sizes),
    "resnet56": lambda **sizes: build("resnet56", **sizes),
    "vgg16-half": HalfVgg16,
    "mobilenet-v2-half": small_mobilenet_v2,
}


def trained(name: str, kind: str, data: Dataset, *, schedule: Schedule | None = None, device: str = "cpu") -> Net:
    """Return a network trained on a kind of data; it is kept, and a training that was killed goes on."""
    say = Console(stderr=True, soft_wrap=True, highlight=False).print
    schedule = schedule or replace(TRAINING[kind], rate=CALMER.get((name, kind), TRAINING[kind].rate))
    sizes = {"classes": len(data.labels), "in_channels": data.image_shape[0]}

    def tell(event: Event) -> None:
        say(f"training {name}: {event.done}/{event.total}")

    return trained_once(name, lambda: NETWORKS[name](**sizes), data, schedule, OUT, device=device, tell=tell)
