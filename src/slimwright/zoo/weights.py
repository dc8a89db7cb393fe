"""First weights: zero-mean normal, so large that a signal keeps its size through the layers.

With PyTorch's own first weights a deep network in eval mode, where fresh batch norms change nothing, shrinks its images
by a factor in each layer until the scores no longer depend on them: no measurement of it could then tell anything.
Source: He et al. 2015 (arXiv 1502.01852), sec. 2.2: variance 2 / (inputs that each output reads).
"""

from torch import nn


def he_normal(model: nn.Module) -> None:
    """Draw the weights of every convolution of `model` anew; all else stays as it is."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
