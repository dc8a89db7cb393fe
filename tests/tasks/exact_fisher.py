"""What `drawn_loss` must estimate: the exact curvature of a task's loss, by differentiation in float64."""

from collections.abc import Callable

import torch
from torch import Tensor

from slimwright.tasks import Outputs, Task

Net = Callable[[Tensor, Tensor], Outputs]  # weights [P] and images [N, ...] -> outputs


def mean_outer(task: Task, net: Net, weights: Tensor, images: Tensor, draws: int) -> Tensor:
    """The outer product [P, P] of the drawn loss's gradient of one image, its mean over draws and images."""
    total = torch.zeros(len(weights), len(weights), dtype=torch.float64)
    numbers = torch.rand(draws, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    for image in images:
        seen = image.expand(draws, *image.shape)  # each draw is an image of its own
        each = weights.detach().expand(draws, -1).clone().requires_grad_()
        outputs = torch.vmap(net)(each, seen[:, None])
        task.drawn_loss(tuple(output[:, 0] for output in outputs), numbers).backward()
        assert each.grad is not None
        total += each.grad.T @ each.grad / draws
    return total / len(images)


def expected_hessian(net: Net, weights: Tensor, images: Tensor, curvature: Callable[[Outputs], Tensor]) -> Tensor:
    """J^T H J [P, P], the mean over images; `curvature` gives H for the outputs of one image, laid out as a vector."""
    total = torch.zeros(len(weights), len(weights), dtype=torch.float64)
    for image in images:

        def flat(w: Tensor, image: Tensor = image) -> Tensor:
            return torch.cat([output.flatten() for output in net(w, image[None])])

        jacobian = torch.func.jacrev(flat)(weights)  # [E, P]
        total += jacobian.T @ curvature(net(weights, image[None])) @ jacobian
    return total / len(images)


def assert_near(found: Tensor, wanted: Tensor, within: float) -> None:
    """Equal up to a share of the norm."""
    assert float((found - wanted).norm()) <= within * float(wanted.norm())
