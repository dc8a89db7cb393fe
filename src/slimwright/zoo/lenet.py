"""The two LeNets of the pruning papers, for 28x28 images of digits.

Sources: LeCun et al. 1998 in Caffe's form, which Han et al. 2016 (arXiv 1510.00149), tables 2 and 3, compress:
LeNet-300-100 with 266,610 parameters and LeNet-5 with 431,080, each for one channel and 10 classes.
"""

from torch import nn


def lenet_300_100(*, classes: int, in_channels: int) -> nn.Sequential:
    """Return three linear layers."""
    return nn.Sequential(
        nn.Flatten(),
        *(nn.Linear(in_channels * 28 * 28, 300), nn.ReLU()),
        *(nn.Linear(300, 100), nn.ReLU()),
        nn.Linear(100, classes),
    )


def lenet5(*, classes: int, in_channels: int) -> nn.Sequential:
    """Return two 5x5 convolutions, each with pooling and without an activation, and two linear layers."""
    return nn.Sequential(
        *(nn.Conv2d(in_channels, 20, 5), nn.MaxPool2d(2)),
        *(nn.Conv2d(20, 50, 5), nn.MaxPool2d(2)),
        nn.Flatten(),
        *(nn.Linear(50 * 4 * 4, 500), nn.ReLU()),
        nn.Linear(500, classes),
    )
