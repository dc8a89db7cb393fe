"""Weights become zero while a run goes on, ever more of them: gradual pruning (Zhu and Gupta 2017, arXiv 1710.01878).

The share of zeros grows as 1 - (1 - t)^3 over the first part of the run; the rest of it trains what is left. Of all
weights those go that matter least to the loss: the square of a weight times the mean square of its gradient, which is
the diagonal of the Fisher information where the loss is a likelihood (LeCun, Denker and Solla 1989, Optimal Brain
Damage, with that in place of the Hessian). What is zero stays zero.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

GROWS_FOR = 0.6  # of the run
ROUNDS = 100  # in which the share grows
MEMORY = 0.999  # of the mean square of gradients, from step to step


def zeros_at(done: float, zeros: float) -> float:
    """Return the share of zeros when the share `done`, 0..1, of a run that ends with `zeros` is over."""
    return zeros * (1 - (1 - min(done / GROWS_FOR, 1)) ** 3)


class Thinning:
    """Which weights of convolutions and linear layers are gone, and what decides over the next: by their paths."""

    def __init__(self, model: nn.Module, zeros: float) -> None:
        self.zeros = zeros
        self.weights = {
            f"{path}.weight".removeprefix("."): layer.weight
            for path, layer in model.named_modules()
            if isinstance(layer, _ConvNd | nn.Linear) and isinstance(layer.weight, nn.Parameter)
        }
        self.squares = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        self.gone = {name: torch.zeros_like(weight, dtype=torch.bool) for name, weight in self.weights.items()}
        self.round = 0

    def look(self) -> None:
        """Take the gradients of a step into account, and let none reach a weight that is gone."""
        for name, weight in self.weights.items():
            if weight.grad is not None:
                self.squares[name].mul_(MEMORY).addcmul_(weight.grad, weight.grad, value=1 - MEMORY)
                weight.grad.masked_fill_(self.gone[name], 0.0)

    @torch.no_grad()
    def thin(self, done: float) -> None:
        """Make weights zero behind a step, with the share `done` of the run over; what is gone stays zero."""
        number = math.floor(ROUNDS * min(done / GROWS_FOR, 1))
        if number > self.round:
            self.round = number
            self._choose(zeros_at(done, self.zeros))
        for name, weight in self.weights.items():
            weight.masked_fill_(self.gone[name], 0.0)

    def _choose(self, share: float) -> None:
        """The weights that matter least, up to a share of all, are gone."""
        scores = {name: (weight.square() * self.squares[name]).flatten() for name, weight in self.weights.items()}
        every = torch.cat(list(scores.values()))
        last = torch.zeros(len(every), dtype=torch.bool, device=every.device)
        last[every.argsort(stable=True)[: round(share * len(every))]] = True
        sizes = [len(score) for score in scores.values()]
        for gone, part in zip(self.gone.values(), last.split(sizes), strict=True):
            gone |= part.reshape(gone.shape)

    def state(self) -> Mapping[str, Tensor]:
        """Return what a run that goes on needs."""
        found = {f"squares.{name}": tensor for name, tensor in self.squares.items()}
        found |= {f"gone.{name}": tensor for name, tensor in self.gone.items()}
        return found | {"round": torch.tensor(self.round)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        for name in self.weights:
            self.squares[name].copy_(state[f"squares.{name}"])
            self.gone[name].copy_(state[f"gone.{name}"])
        self.round = int(state["round"])

    def start_over(self) -> None:
        """Follow a model that took up earlier weights: what is zero there is gone, and the next step looks for more."""
        self.round = 0
        for name, weight in self.weights.items():
            self.gone[name].copy_(weight == 0)
            self.squares[name].nan_to_num_(0.0, 0.0, 0.0)
