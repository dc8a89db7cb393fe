"""Plain networks of 3x3 convolutions, with pooling between the stages.

Source: Simonyan and Zisserman 2015 (arXiv 1409.1556), table 1, columns A, D and E: 11, 16 and 19 layers, of which the
last three are linear and hold most of the weights. For 32x32 images there is the form of Pahwa et al. (arXiv
1911.12740), with batch norm and one linear layer: 9,231,114 parameters for 10 classes; and a smaller one, `SmallVgg`.
"""

from torch import Tensor, nn

from slimwright.zoo.weights import he_normal

STAGES = (64, 128, 256, 512, 512)
DEPTHS = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # layers -> convolutions in each stage


class Vgg(nn.Module):
    """Five stages of 3x3 convolutions, each followed by 2x2 pooling, and a classifier."""

    def __init__(self, features: list[nn.Module], pool: nn.Module, classifier: list[nn.Module]) -> None:
        super().__init__()
        self.features = nn.Sequential(*features)
        self.pool = pool
        self.classifier = nn.Sequential(*classifier)
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> class scores [N, classes]."""
        scores: Tensor = self.classifier(self.pool(self.features(x)).flatten(1))
        return scores


def vgg(layers: int, *, classes: int, in_channels: int) -> Vgg:
    """Return VGG with 11, 16 or 19 layers, for photographs; an average over 7x7 parts takes other sizes."""
    classifier = [
        *(nn.Linear(512 * 7 * 7, 4096), nn.ReLU(), nn.Dropout()),
        *(nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout()),
        nn.Linear(4096, classes),
    ]
    return Vgg(_features(layers, in_channels, norms=False), nn.AdaptiveAvgPool2d(7), classifier)


def small_vgg11(*, classes: int, in_channels: int) -> Vgg:
    """Return VGG with 11 layers' convolutions, batch norm behind each, and one linear layer: for 32x32 images."""
    features = _features(11, in_channels, norms=True)
    return Vgg(features, nn.AdaptiveAvgPool2d(1), [nn.Linear(STAGES[-1], classes)])


def _features(layers: int, in_channels: int, *, norms: bool) -> list[nn.Module]:
    features: list[nn.Module] = []
    channels = in_channels
    for width, convs in zip(STAGES, DEPTHS[layers], strict=True):
        for _ in range(convs):
            features.append(nn.Conv2d(channels, width, 3, padding=1))
            features += [nn.BatchNorm2d(width)] if norms else []
            features.append(nn.ReLU())
            channels = width
        features.append(nn.MaxPool2d(2))
    return features


class SmallVgg(nn.Module):
    """Six 3x3 convolutions with batch norm, three poolings, one linear layer."""

    def __init__(self, widths: tuple[int, ...] = (32, 32, 64, 64, 128, 128), *, classes: int, in_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for index, width in enumerate(widths):
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            if index % 2:
                layers.append(nn.MaxPool2d(2))
            channels = width
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> class scores [N, classes]."""
        scores: Tensor = self.fc(self.pool(self.features(x)).flatten(1))
        return scores
