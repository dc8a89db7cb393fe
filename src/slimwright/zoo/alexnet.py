"""AlexNet for photographs: five convolutions and three linear layers, which hold nearly all the weights.

Sources: Krizhevsky et al. 2012 in the form of Caffe's BVLC model, for 227x227 pixels, with two groups in three of the
convolutions and local response normalisation: 60,965,224 parameters, 724.4 M multiply-accumulates. And Krizhevsky 2014
(arXiv 1404.5997) in torchvision's form, for 224x224 pixels, with neither: 61,100,840 parameters, 714.2 M.
"""

from torch import Tensor, nn

from slimwright.zoo.weights import he_normal


class AlexNet(nn.Module):
    """Convolutions, then linear layers over all places of the image at once."""

    def __init__(self, features: list[nn.Module], classifier: list[nn.Module]) -> None:
        super().__init__()
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(*classifier)
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> class scores [N, classes]."""
        scores: Tensor = self.classifier(self.features(x).flatten(1))
        return scores


def alexnet(*, classes: int, in_channels: int) -> AlexNet:
    """Return torchvision's form. An average over 6x6 parts of the image takes other sizes, from 63x63 on."""
    features = [
        *(nn.Conv2d(in_channels, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
        nn.AdaptiveAvgPool2d(6),
    ]
    classifier = [
        *(nn.Dropout(), nn.Linear(256 * 6 * 6, 4096), nn.ReLU()),
        *(nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU()),
        nn.Linear(4096, classes),
    ]
    return AlexNet(features, classifier)


def bvlc_alexnet(*, classes: int, in_channels: int) -> AlexNet:
    """Return the BVLC form, for images of 227x227."""
    features = [
        *(nn.Conv2d(in_channels, 96, 11, 4), nn.ReLU(), _response_norm(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(), _response_norm(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(256, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
    ]
    classifier = [
        *(nn.Linear(256 * 6 * 6, 4096), nn.ReLU(), nn.Dropout()),
        *(nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout()),
        nn.Linear(4096, classes),
    ]
    return AlexNet(features, classifier)


def _response_norm() -> nn.LocalResponseNorm:
    return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)  # BVLC's constants; sec. 3.3 of the paper has k = 2
