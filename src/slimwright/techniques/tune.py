"""Fine-tune with the original as teacher (`train/fit.py`).

Zeros that `sparsify` made and equal values that `share` made stay so (`train/ties.py`).
"""

from dataclasses import replace
from typing import Literal

from pydantic import Field

from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.technique import Step, Technique, Work, plural
from slimwright.train import Schedule, fit, schedule_within, tie, tied

LONGEST_GRADIENT = 1.0
"""Our measurement of November 2026, two epochs on digits at a quarter of a ResNet-20's MACs: without it its CP form by
weights alone falls to 10 %; at 0.1 a net pruned by Taylor scores comes to 68 %, where it could to 89."""


class Tune(Step):
    """Train for some epochs with the original as teacher."""

    step: Literal["tune"] = "tune"
    epochs: int = Field(gt=0)
    rate: float = Field(gt=0)
    seed: int = 0


def _apply(step: Tune, work: Work) -> Work:
    schedule = Schedule(epochs=step.epochs, rate=step.rate, seed=step.seed, longest_gradient=LONGEST_GRADIENT)
    teacher_net = work.teacher.net
    schedule = schedule_within(schedule, work.draft.net, teacher=teacher_net, there=work.there, tell=work.tell)
    module, teacher = (draft.net.to_module().to(work.device) for draft in (work.draft, work.teacher))
    codes, net = work.codes(), work.draft.net
    for node in net.weighted():
        if node.tensors["weight"] in codes:
            tie(module.get_parameter(net.key(node, "weight")), codes[node.tensors["weight"]])
    fit(module, work.data, schedule, task=work.task, teacher=teacher, checkpoint=work.checkpoint, tell=work.tell)
    trained = net.trained(module)
    exact = {name: tied(trained.tensors[name], codes[name]) for name in codes}  # equal to the last bit
    return replace(work, draft=Draft.of(trained.edited(tensors=exact) if exact else trained))


def _sentence(step: Tune) -> str:
    length = plural(step.epochs, "epoch")
    return f"Fine-tune for {length} at rate {step.rate:g}, seed {step.seed}, with the original as teacher."


TUNE = Technique(Tune, _apply, _sentence)
