"""Round weights to whole multiples of a step, each layer's own, so that they take few bits in a coded file.

Which integer a weight gets follows from the error that it makes in the layer's outputs and from the price of its bits
(`solver/rounding.py`). What an error of an output costs, in nats, is its Fisher information. One price for all layers
makes them share the bits: a bit goes where it saves most.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from slimwright.data import Dataset, Inputs, calibration_inputs
from slimwright.errors import BudgetError
from slimwright.evidence import Evidence, observe, together_within
from slimwright.graph import Net
from slimwright.progress import Tell, silent
from slimwright.tasks import Task
from slimwright.techniques.memory_plan import images_for
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.solver.refit import refit
from slimwright.techniques.solver.rounding import BALANCE, Price
from slimwright.techniques.technique import Step, Technique, Work, plural

OBSERVED, AT_ONCE = 512, 32  # images that show what an error of an output costs


class Round(Step):
    """Round the weights of all layers, where a bit costs `price` nats, on the first so many images, or all."""

    step: Literal["round"] = "round"
    price: float = Field(gt=0, lt=1e6, allow_inf_nan=False)
    step_price: float | None = Field(None, gt=0, lt=1e6, allow_inf_nan=False)  # the one that the steps are laid for
    images: int | None = Field(None, gt=0)


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
    device: str = "cpu",
    tell: Tell = silent,
) -> Net:
    """Return the net with the weights of layers rounded, where a bit costs `price` nats; `importance` names them.

    Steps are those for `step_price`, where it is given. Each layer gives what it gave in the net, fed with what it is
    fed now. Raises DataError as `refit` does.
    """
    prices = {name: Price(price, of, step_price) for name, of in importance.items()}
    return refit(Draft.of(net), inputs, constraints=prices, device=device, tell=tell).net


def _apply(step: Round, work: Work) -> Work:
    net, device, tell = work.draft.net, work.device, work.tell
    shown = importances(observed(net, work.data, work.task, there=work.there, device=device, tell=tell))
    inputs = calibration_inputs(work.given, images_for(work, step.images, rounded=True))
    small = rounded_net(net, inputs, shown, step.price, step_price=step.step_price, device=device, tell=tell)
    return replace(work, draft=replace(work.draft, net=small))


def _sentence(step: Round) -> str:
    on = plural(step.images, "calibration image") if step.images else "the calibration images"
    return f"Round the weights to few levels on {on}: a bit may cost {step.price:.2g} nats of loss."


ROUND = Technique(Round, _apply, _sentence, ends=True)
