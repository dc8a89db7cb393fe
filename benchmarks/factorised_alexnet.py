"""AlexNet with every layer replaced by thin ones of a given rank, untrained: only its size is of interest.

A convolution becomes 1x1 to `rank` channels, a depthwise one, and 1x1 to its own channels (Astrid and Lee 2017, arXiv
1701.07148); split, the depthwise one is two, one down and one across. A linear layer becomes two. A grouped
convolution is factorised group by group, at its share of the rank.
"""

from torch import nn

from slimwright.zoo import build

RANKS = (69, 154, 153, 178, 196, 365, 275, 260)  # what reproductions give as the paper's: 750 and 900 in all


def factorised_alexnet(name: str, *, split: bool) -> nn.Module:
    """Return the network of the zoo with its layers factorised; with `split`, depthwise kernels are too."""
    model = build(name)
    layers = [(path, m) for path, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for (path, layer), rank in zip(layers, RANKS, strict=True):
        thin = linears(layer, rank) if isinstance(layer, nn.Linear) else convs(layer, rank, split=split)
        model.set_submodule(path, thin)
    return model


def linears(layer: nn.Linear, rank: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(layer.in_features, rank, bias=False), nn.Linear(rank, layer.out_features))


def convs(layer: nn.Conv2d, rank: int, *, split: bool) -> nn.Sequential:
    size, stride, padding = layer.kernel_size[0], layer.stride[0], int(layer.padding[0])
    down = nn.Conv2d(rank, rank, (size, 1), (stride, 1), (padding, 0), groups=rank, bias=False)
    across = nn.Conv2d(rank, rank, (1, size), (1, stride), (0, padding), groups=rank, bias=False)
    whole = nn.Conv2d(rank, rank, size, stride, padding, groups=rank, bias=False)
    return nn.Sequential(
        nn.Conv2d(layer.in_channels, rank, 1, groups=layer.groups, bias=False),
        *((down, across) if split else (whole,)),
        nn.Conv2d(rank, layer.out_channels, 1, groups=layer.groups),
    )
