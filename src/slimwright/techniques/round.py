"""Round weights to whole multiples of a step, each layer's own, so that they take few bits in a coded file.

Given a price of a bit, weights and bits are traded at that price (`pricing.py`). Given a size, the price is found at
which the packed file takes as many bytes (`fitting.py`). Zeros that earlier steps made stay zero.
"""

from dataclasses import replace
from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from slimwright.data import unlabelled_inputs
from slimwright.techniques.fitting import fitted_net
from slimwright.techniques.memory_plan import images_to_round, images_within
from slimwright.techniques.pricing import importances, observed, rounded_net
from slimwright.techniques.technique import Step, Technique, Work, plural
from slimwright.units import megabytes


class Round(Step):
    """Round the weights of all layers, where a bit costs `price` nats, or so that the packed file takes `size_bytes`.

    They are solved on the first so many `images`, or on as many as show enough (`images_to_round`).
    """

    step: Literal["round"] = "round"
    price: float | None = Field(None, gt=0, lt=1e6, allow_inf_nan=False)
    step_price: float | None = Field(None, gt=0, lt=1e6, allow_inf_nan=False)  # the one that the steps are laid for
    size_bytes: int | None = Field(None, gt=0)
    within: float = Field(0.01, gt=0, le=0.5)  # of the size: how much smaller the file may be
    images: int | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _check_aim(self) -> Self:
        if (self.price is None) == (self.size_bytes is None):
            raise ValueError("give either the price of a bit, or size_bytes, which the packed file may take")
        if self.size_bytes is not None and self.step_price is not None:
            raise ValueError("step_price goes with a price; for a size the steps are found with it")
        return self


def _apply(step: Round, work: Work) -> Work:
    if work.cost_only:
        return work
    net, device, tell = work.draft.net, work.device, work.tell
    seen = observed(net, work.data, work.task, there=work.there, device=device, tell=tell)
    images = step.images or images_to_round(net, work.given)
    inputs = unlabelled_inputs(work.given, images_within(work.draft, images, there=work.there, rounded=True, tell=tell))
    zeros = _zeros(work)
    if step.size_bytes is not None:
        small = fitted_net(
            net, seen, inputs, step.size_bytes, within=step.within, zeros=zeros, device=device, tell=tell
        ).net
    else:
        assert step.price is not None
        prices = {"step_price": step.step_price}
        small = rounded_net(net, inputs, importances(seen), step.price, **prices, zeros=zeros, device=device, tell=tell)
    return replace(work, draft=replace(work.draft, net=small))


def _zeros(work: Work) -> dict[str, Tensor]:
    """Which weights [O, D] of each layer are zero, and stay so, by the layer's name."""
    tensors, layers = work.draft.net.tensors, work.draft.net.layers
    weights = {name: work.draft.net[name].tensors["weight"] for name in layers}
    return {name: tensors[weight].flatten(1) == 0 for name, weight in weights.items() if weight in work.kept}


def _sentence(step: Round) -> str:
    on = plural(step.images, "calibration image") if step.images else "the calibration images"
    if step.size_bytes is not None:
        return f"Round the weights on {on} so that the packed file takes {megabytes(step.size_bytes)}."
    return f"Round the weights to few levels on {on}: a bit may cost {step.price:.2g} nats of loss."


ROUND = Technique(Round, _apply, _sentence, ends=True)
