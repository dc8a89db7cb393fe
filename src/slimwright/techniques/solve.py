"""Find the weights again: each layer gives what it gave in the original, fed with what it is fed now (`solver/`)."""

from dataclasses import replace
from typing import Literal

from pydantic import Field

from slimwright.data import calibration_inputs
from slimwright.techniques.constrained import held_layers
from slimwright.techniques.memory_plan import images_for
from slimwright.techniques.solver.drift import drifted
from slimwright.techniques.solver.refit import refit, with_biases
from slimwright.techniques.technique import Step, Technique, Work, plural


class Solve(Step):
    """Find the weights again, by least squares on the calibration images: the first so many of them, or all."""

    step: Literal["solve"] = "solve"
    images: int | None = Field(None, gt=0)


def _apply(step: Solve, work: Work) -> Work:
    if work.cost_only:
        return replace(work, draft=with_biases(work.draft))
    inputs = calibration_inputs(work.given, images_for(work, step.images))
    held = held_layers(work, work.draft.net) if drifted(work.draft) else {}
    return replace(work, draft=refit(work.draft, inputs, constraints=held, device=work.device, tell=work.tell))


def _sentence(step: Solve) -> str:
    on = plural(step.images, "calibration image") if step.images else "the calibration images"
    return f"Solve the weights again on {on}: each layer gives what it gave in the original."


SOLVE = Technique(Solve, _apply, _sentence)
