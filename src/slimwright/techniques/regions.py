"""Train regions one by one, without labels, each to give what it gave in the original (`train/fit_regions.py`)."""

from dataclasses import replace
from typing import Literal

from pydantic import Field

from slimwright.data import calibration_inputs
from slimwright.techniques.technique import Step, Technique, Work, plural
from slimwright.train import RegionSchedule, fit_regions, regions_in


class Regions(Step):
    """Train regions one by one, without labels, each to give what it gave in the original."""

    step: Literal["regions"] = "regions"
    epochs: int = Field(40, gt=0)
    rate: float = Field(1e-2, gt=0)
    images: int | None = Field(None, gt=0)  # calibration images: the first so many, or all
    seed: int = 0


def _apply(step: Regions, work: Work) -> Work:
    draft = work.draft
    matches = [match for match in draft.matches() if draft.net[match.value].dtype == "float32"]
    net = fit_regions(
        draft.reference,
        draft.net,
        regions_in(draft.net, matches),
        calibration_inputs(work.given, step.images),
        schedule=RegionSchedule(epochs=step.epochs, rate=step.rate, seed=step.seed),
        codes=work.codes(),
        device=work.device,
        checkpoint=work.checkpoint,
        tell=work.tell,
    )
    return replace(work, draft=replace(draft, net=net))


def _sentence(step: Regions) -> str:
    length = plural(step.epochs, "epoch")
    return f"Train region by region for {length} at rate {step.rate:g}, seed {step.seed}, without labels."


REGIONS = Technique(Regions, _apply, _sentence)
