"""What was done, in order, with every knob: a recipe and the original weights give the result again.

Read from a file, a recipe is data: it is validated, and applying it runs nothing but slimwright's own rewrites.
"""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from slimwright.data import Dataset, whole
from slimwright.errors import RequestError
from slimwright.graph import Net, couple, cut
from slimwright.progress import Tell, silent
from slimwright.rewrites.fold import fold_batch_norm
from slimwright.rewrites.refit import kept_channels, refit
from slimwright.train import Schedule, fit


class Prune(BaseModel):
    """Keep these channels of these groups, and solve the weights again against the original."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    step: Literal["prune"] = "prune"
    keep: dict[str, list[int]]  # group -> channels that stay, ascending


class Tune(BaseModel):
    """Train for some epochs with the original as teacher."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    step: Literal["tune"] = "tune"
    epochs: int = Field(gt=0)
    rate: float = Field(gt=0)
    seed: int = 0


class Fold(BaseModel):
    """Fold batch norms into their convolutions."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    step: Literal["fold_batch_norm"] = "fold_batch_norm"


class Quantize(BaseModel):
    """Export with 8-bit weights and activations, calibrated on this many calibration images."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    step: Literal["quantize"] = "quantize"
    precision: Literal["int8"] = "int8"
    images: int = Field(gt=0)


Step = Annotated[Prune | Tune | Fold | Quantize, Field(discriminator="step")]


class Recipe(BaseModel):
    """Steps, and the digest of the net that they start from."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    original: str
    steps: tuple[Step, ...]

    @classmethod
    def of(cls, net: Net, *steps: Step, int8_images: int = 0) -> "Recipe":
        """The recipe that takes these steps, folds, and quantizes if there are images to calibrate on."""
        quantize = (Quantize(images=int8_images),) if int8_images else ()
        return cls(original=net.digest, steps=(*steps, Fold(), *quantize))

    def precision(self) -> str:
        """Return "int8" if a step quantizes, else "fp32"."""
        return next((step.precision for step in self.steps if isinstance(step, Quantize)), "fp32")


def apply(recipe: Recipe, original: Net, data: Dataset, *, checkpoint: Path | None = None, tell: Tell = silent) -> Net:
    """Return the net after every step but quantization, which the runtime's exporter does.

    Training goes on from `checkpoint` and writes to it. Raises RequestError where the recipe belongs to another net,
    and where a step does not fit, naming the step.
    """
    if recipe.original != original.digest:
        raise RequestError("this recipe starts from another net: its digest is not that of the original given")
    net = original
    for number, step in enumerate(recipe.steps, 1):
        try:
            net = _applied(step, original, net, data, checkpoint, tell)
        except RequestError as error:
            raise RequestError(f"step {number} of the recipe ({step.step}): {error}") from error
    return net


def _applied(step: Step, original: Net, net: Net, data: Dataset, checkpoint: Path | None, tell: Tell) -> Net:
    match step:
        case Prune(keep=keep):
            if net is not original:
                raise RequestError("pruning must be the first step")
            coupling = couple(net)
            small = cut(net, {name: np.array(kept) for name, kept in keep.items()}, coupling)
            kept = kept_channels(coupling, {name: torch.tensor(k) for name, k in keep.items()}, net)
            return refit(original, small, kept, whole(data, "calibration")[0], tell=tell)
        case Tune(epochs=epochs, rate=rate, seed=seed):
            schedule = Schedule(epochs=epochs, rate=rate, seed=seed)
            teacher = original.to_module()
            return net.trained(fit(net.to_module(), data, schedule, teacher=teacher, checkpoint=checkpoint, tell=tell))
        case Fold():
            return fold_batch_norm(net)
        case Quantize():
            return net
