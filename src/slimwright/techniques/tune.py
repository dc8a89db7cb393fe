"""Fine-tune with the original as teacher (`train/fit.py`).

Zeros that `sparsify` made and equal values that `share` made stay so (`train/ties.py`). Weights that `quantize` put on
levels stay on as many, and their scales are trained with them (`train/levels.py`); gradients pass by the rounding of
activations, whose levels stay.
"""

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from slimwright.errors import RequestError
from slimwright.graph import Net
from slimwright.graph.encoding import INT8
from slimwright.swz.grid import multiples
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.solver.levels import WeightLevels
from slimwright.techniques.technique import Kept, Step, Technique, Work, plural
from slimwright.train import Schedule, fit, keep_on_levels, schedule_within, settle_on_levels, tie, tied

LONGEST_GRADIENT = 1.0
"""Our measurement of November 2026, two epochs on digits at a quarter of a ResNet-20's MACs: without it its CP form by
weights alone falls to 10 %; at 0.1 a net pruned by Taylor scores comes to 68 %, where it could to 89."""


class Tune(Step):
    """Train for some epochs with the original as teacher."""

    step: Literal["tune"] = "tune"
    epochs: int = Field(gt=0)
    rate: float = Field(gt=0)
    seed: int = 0
    batch_size: int = Field(32, gt=0)
    zeros: float = Field(0, ge=0, lt=1)
    teacher_share: float = Field(0.9, ge=0, le=1)  # of the loss; the rest is of the data's targets
    temperature: float = Field(4, gt=0)  # of classes' scores that the teacher's are compared with


def scales_of(net: Net) -> dict[str, Tensor]:
    """Return the scale [O] of each tensor of weights that stand on no more levels than their encoding has, by name.

    An output of zeros has the scale zero.
    """
    found = {}
    for name, encoding in net.encodings.items():
        rows = net.tensors[name].flatten(1).numpy()
        if encoding.bits <= INT8.bits:
            steps = [multiples(row, WeightLevels(encoding.bits).most) for row in rows]
            if all(steps):
                scale = torch.tensor([step for _, step in filter(None, steps)])
                found[name] = scale.masked_fill((net.tensors[name].flatten(1) == 0).all(1), 0.0)
    return found


def _hold(module: nn.Module, work: Work) -> dict[str, Tensor]:
    """Let a module, made of the draft's net, keep ties and levels of its weights; return the codes of the ties."""
    net, codes = work.draft.net, work.codes()
    scales = scales_of(net)
    held = set()
    for node in net.weighted():
        weight, path = node.tensors["weight"], net.paths[node.name]
        if weight in codes:
            tie(module.get_parameter(net.key(node, "weight")), codes[weight])
        if weight in scales and path not in held and "weight" not in node.fixed:
            held.add(path)
            rule = WeightLevels(net.encodings[weight].bits)
            keep_on_levels(module.get_submodule(path), scales[weight], rule.most, binary=rule.binary)
    return codes


def _apply(step: Tune, work: Work) -> Work:
    said = step.model_dump(exclude={"step"})
    schedule = Schedule(**said, longest_gradient=LONGEST_GRADIENT)
    if step.zeros and (scales_of(work.draft.net) or "values" in work.kept.values()):
        raise RequestError("weights on levels or of shared values take no more zeros: put this tuning before that step")
    net, teacher_net = work.draft.net, work.teacher.net
    schedule = schedule_within(schedule, net, teacher=teacher_net, there=work.there, tell=work.tell)
    module, teacher = (draft.net.to_module().to(work.device) for draft in (work.draft, work.teacher))
    codes = _hold(module, work)
    fit(module, work.data, schedule, task=work.task, teacher=teacher, checkpoint=work.checkpoint, tell=work.tell)
    settle_on_levels(module)
    trained = net.trained(module)
    exact = {name: tied(trained.tensors[name], codes[name]) for name in codes}  # equal to the last bit
    thin = [node.tensors["weight"] for node in trained.weighted() if step.zeros and "weight" not in node.fixed]
    kept: dict[str, Kept] = {**work.kept, **dict.fromkeys(thin, "zeros")}
    return replace(work, draft=Draft.of(trained.edited(tensors=exact) if exact else trained), kept=kept)


def _sentence(step: Tune) -> str:
    length = plural(step.epochs, "epoch")
    zeros = f", {100 * step.zeros:.4g} % of the weights becoming zero" if step.zeros else ""
    return f"Fine-tune for {length} at rate {step.rate:g}, seed {step.seed}, with the original as teacher{zeros}."


TUNE = Technique(Tune, _apply, _sentence)
