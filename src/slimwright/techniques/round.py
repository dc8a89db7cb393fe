"""Round weights to whole multiples of a step, each layer's own, so that they take few bits in a coded file.

Which integer a weight gets follows from the error that it makes in the layer's outputs and from the price of its bits
(`solver/rounding.py`). What an error of an output costs, in nats, is its Fisher information. One price for all layers
makes them share the bits: a bit goes where it saves most.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from pydantic import Field

from slimwright.data import Inputs, like, whole
from slimwright.evidence import Evidence, observe
from slimwright.graph import Net
from slimwright.progress import Tell, silent
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.solver.refit import Price, refit
from slimwright.techniques.technique import Step, Technique, Work, plural

OBSERVED = 512  # images that show what an error of an output costs
AT_ONCE = 32


class Round(Step):
    """Round the weights of all layers, where a bit costs `price` nats, on the first so many images, or all."""

    step: Literal["round"] = "round"
    price: float = Field(gt=0, lt=1e6, allow_inf_nan=False)
    step_price: float | None = Field(None, gt=0, lt=1e6, allow_inf_nan=False)  # the one that the steps are laid for
    images: int | None = Field(None, gt=0)


def importances(evidence: Evidence) -> dict[str, Price]:
    """Return what squared errors of each layer's outputs cost, in nats, at a price of one nat a bit."""
    seen = evidence.all()
    return {name: Price(1.0, 0.5 * sums.fisher[0] / seen.images[0]) for name, sums in seen.layers.items()}


def rounded_net(
    net: Net,
    inputs: Inputs,
    prices: Mapping[str, Price],
    price: float,
    *,
    step_price: float | None = None,
    device: str = "cpu",
    tell: Tell = silent,
) -> Net:
    """Return the net with the weights of the layers in `prices` rounded, where a bit costs `price` nats.

    Steps are those for `step_price`, where it is given. Each layer gives what it gave in the net, fed with what it is
    fed now. Raises DataError as `refit` does.
    """
    rounding = {name: replace(one, bit=price, step=step_price) for name, one in prices.items()}
    return refit(Draft.of(net), inputs, rounding=rounding, device=device, tell=tell).net


def _apply(step: Round, work: Work) -> Work:
    net = work.draft.net
    batches = work.data.batches("calibration", AT_ONCE)
    few = (batch for _, batch in zip(range(OBSERVED // AT_ONCE), batches, strict=False))
    evidence = observe(net, few, task=work.task, taylor=False, device=work.device, tell=work.tell)
    inputs = like(whole(work.given, "calibration")[0], lambda tensor: tensor[: step.images])
    laid, where = step.step_price, work.device
    small = rounded_net(net, inputs, importances(evidence), step.price, step_price=laid, device=where, tell=work.tell)
    return replace(work, draft=replace(work.draft, net=small))


def _sentence(step: Round) -> str:
    on = plural(step.images, "calibration image") if step.images else "the calibration images"
    return f"Round the weights to few levels on {on}: a bit may cost {step.price:.2g} nats of loss."


ROUND = Technique(Round, _apply, _sentence, ends=True)
