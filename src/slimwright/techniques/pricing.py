"""What bits cost and errors cost: a net's layers priced by what calibration images show, and rounded at a price.

Which integer a weight gets follows from the error that it makes in the layer's outputs and from the price of its bits
(`solver/rounding.py`). What an error of an output costs, in nats, is its Fisher information. One price for all layers
makes them share the bits: a bit goes where it saves most.
"""

import math
from collections.abc import Mapping
from itertools import islice

import torch
from torch import Tensor

from slimwright.data import Dataset, Inputs
from slimwright.errors import BudgetError
from slimwright.evidence import Evidence, observe, together_within
from slimwright.graph import Net
from slimwright.progress import Tell, silent
from slimwright.tasks import Task
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.solver.refit import refit
from slimwright.techniques.solver.rounding import BALANCE, Price

OBSERVED, AT_ONCE = 512, 32  # images that show what an error of an output costs


def observed(
    net: Net, data: Dataset, task: Task, *, there: float = math.inf, device: str = "cpu", tell: Tell = silent
) -> Evidence:
    """Return what calibration images with the task's targets show of a net, of all classes together.

    Raises RequestError where that takes more than the bytes `there`.
    """
    few = islice(data.batches("calibration", AT_ONCE), OBSERVED // AT_ONCE)
    spent = together_within(net, batch=AT_ONCE, there=there)
    return observe(
        net,
        few,
        task=task,
        images=OBSERVED,
        taylor=False,
        memory_bytes=spent.sums,
        alive_bytes=spent.alive,
        device=device,
        tell=tell,
    )


def importances(seen: Evidence) -> dict[str, Tensor]:
    """Return what squared errors of each layer's outputs [O] cost, in nats for each."""
    return {name: seen.importance(name) for name in seen.layers}


def usual_price(net: Net, seen: Evidence) -> float:
    """Return the price of a bit, in nats, at which steps are about as large as weights, in the mean over all weights.

    Raises BudgetError where no weight changes the loss.
    """
    logs, counts = [], []
    for name, sums in seen.layers.items():
        weight = net.tensors[net[name].tensors["weight"]]
        read = float(sums.gram[0].diagonal(dim1=1, dim2=2).mean() / sums.count[0])
        value = float(torch.var(weight, correction=0)) * read * float(seen.importance(name).mean()) / BALANCE
        if value > 0:
            logs.append(math.log(value) * weight.numel())
            counts.append(weight.numel())
    if not counts:
        raise BudgetError(
            "nothing that the layers give changes the loss on the calibration images: no weight can be priced"
        )
    return math.exp(sum(logs) / sum(counts))


def rounded_net(
    net: Net,
    inputs: Inputs,
    importance: Mapping[str, Tensor],
    price: float,
    *,
    step_price: float | None = None,
    zeros: Mapping[str, Tensor] | None = None,
    device: str = "cpu",
    tell: Tell = silent,
) -> Net:
    """Return the net with the weights of layers rounded, where a bit costs `price` nats; `importance` names them.

    Steps are those for `step_price`, where it is given. `zeros` says of layers which weights [O, D] must be zero. Each
    layer gives what it gave in the net, fed with what it is fed now. Raises DataError as `refit` does.
    """
    zeros = zeros or {}
    prices = {name: Price(price, of, step_price, zeros.get(name)) for name, of in importance.items()}
    return refit(Draft.of(net), inputs, constraints=prices, device=device, tell=tell).net
