"""What was done, in order, with every knob: a recipe and the original weights give the result again.

Read from a file, a recipe is data: it is validated, and applying it runs nothing but slimwright's own rewrites. Steps
that change the structure may stand in any order; `solve` finds the weights of all that were taken since the net was
last trained, against what it was then.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from slimwright.compute import usable
from slimwright.data import Dataset, of_classes, whole
from slimwright.errors import RequestError, SlimwrightError
from slimwright.evidence import observe
from slimwright.graph import Net
from slimwright.progress import Tell, silent
from slimwright.techniques.fold import folded
from slimwright.techniques.low_rank import Factors, Kind, factorise
from slimwright.techniques.merge import merge_branches, streamline
from slimwright.techniques.remove import collapsed, removed
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.solver.refit import refit
from slimwright.techniques.subset import subset
from slimwright.train import RegionSchedule, Schedule, fit, fit_regions, regions_in

FILE = "recipe.json"  # in a bundle
LONGEST_GRADIENT = 1.0
"""In fine-tuning. Our measurement of November 2026, two epochs on digits at a quarter of a ResNet-20's MACs: without it
its CP form by weights alone falls to 10 %; at 0.1 a net pruned by Taylor scores comes to 68 %, where it could to 89."""


class _Step(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Prune(_Step):
    """Keep these channels of these groups."""

    step: Literal["prune"] = "prune"
    keep: dict[str, list[int]]  # group -> channels that stay, ascending


class Ranks(_Step):
    """How one layer is factorised."""

    kind: Kind
    ranks: tuple[Annotated[int, Field(gt=0)], ...]


class Factorise(_Step):
    """Replace layers by thinner ones, from their weights."""

    step: Literal["factorise"] = "factorise"
    layers: dict[str, Ranks]
    images: int = Field(
        0, ge=0
    )  # calibration images to observe first; then errors of the outputs count, not of weights


class Merge(_Step):
    """Let convolutions take in the poolings and norms behind them, and branches their neighbours."""

    step: Literal["merge"] = "merge"
    streamlines: tuple[str, ...] = ()
    branches: tuple[str, ...] = ()


class Remove(_Step):
    """Take layers, or the branches of sums, out; put one convolution in the place of residual blocks."""

    step: Literal["remove"] = "remove"
    layers: tuple[str, ...] = ()
    collapse: tuple[str, ...] = ()
    kernel: int = Field(3, gt=0)


class Subset(_Step):
    """Score these classes only."""

    step: Literal["subset"] = "subset"
    classes: tuple[int, ...]


class Solve(_Step):
    """Find the weights again, by least squares on the calibration images: the first so many of them, or all."""

    step: Literal["solve"] = "solve"
    images: int | None = Field(None, gt=0)


class Regions(_Step):
    """Train regions one by one, without labels, each to give what it gave in the original."""

    step: Literal["regions"] = "regions"
    epochs: int = Field(40, gt=0)
    rate: float = Field(1e-2, gt=0)
    images: int | None = Field(None, gt=0)  # calibration images: the first so many, or all
    seed: int = 0


class Tune(_Step):
    """Train for some epochs with the original as teacher."""

    step: Literal["tune"] = "tune"
    epochs: int = Field(gt=0)
    rate: float = Field(gt=0)
    seed: int = 0


class Fold(_Step):
    """Fold batch norms into their convolutions."""

    step: Literal["fold_batch_norm"] = "fold_batch_norm"


class Quantize(_Step):
    """Export with 8-bit weights and activations, calibrated on this many calibration images."""

    step: Literal["quantize"] = "quantize"
    precision: Literal["int8"] = "int8"
    images: int = Field(gt=0)


Step = Annotated[
    Prune | Factorise | Merge | Remove | Subset | Solve | Regions | Tune | Fold | Quantize, Field(discriminator="step")
]


class Recipe(BaseModel):
    """Steps, and the digest of the net that they start from; None: any net that they fit."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    original: str | None
    steps: tuple[Step, ...]

    @classmethod
    def of(cls, net: Net, *steps: Step, int8_images: int = 0) -> "Recipe":
        """The recipe that takes these steps, folds, and quantizes if there are images to calibrate on."""
        quantize = (Quantize(images=int8_images),) if int8_images else ()
        return cls(original=net.digest, steps=(*steps, Fold(), *quantize))

    def precision(self) -> Literal["fp32", "int8"]:
        """Return "int8" if a step quantizes, else "fp32"."""
        return next((step.precision for step in self.steps if isinstance(step, Quantize)), "fp32")


def in_turns(
    layers: Mapping[str, Ranks], groups: Iterable[Iterable[str]], tune: Tune, *, images: int = 0
) -> tuple[Step, ...]:
    """Return steps that factorise one group of layers after the other, and train behind each.

    Training takes the epochs of `tune` for each layer of a group, so every grouping trains as long in all. All layers
    in one group is one-shot; each in a group of its own is iterative (Astrid and Lee 2017, arXiv 1701.07148); anything
    between is what Astrid, Lee and Seo 2018 (ETRI J. 40(4)) call the hybrid, of which only the name was found.
    `images` is as in `Factorise`. Raises RequestError where a layer is in no group, or in two.
    """
    turns = [tuple(group) for group in groups]
    grouped = [name for turn in turns for name in turn]
    if sorted(grouped) != sorted(layers):
        wrong = {*layers} ^ {*grouped} or {name for name in grouped if grouped.count(name) > 1}
        raise RequestError(f"each layer must be in one group, and '{min(wrong)}' is not; there are {', '.join(layers)}")
    return tuple(
        step
        for turn in turns
        for step in (
            Factorise(layers={name: layers[name] for name in turn}, images=images),
            tune.model_copy(update={"epochs": tune.epochs * len(turn)}),
        )
    )


def load_recipe(path: Path) -> Recipe:
    """Read a recipe, or that of a bundle. Raises RequestError, naming the file and the field that is wrong."""
    path = path / FILE if path.is_dir() else path
    try:
        return Recipe.model_validate_json(path.read_bytes())
    except OSError as error:
        raise RequestError(f"cannot read the recipe {path}: {error.strerror}") from error
    except ValidationError as error:
        raise RequestError(f"{path} is no recipe: {fault(error)}") from error


def fault(error: ValidationError) -> str:
    """Say which field of a file is wrong, and how: the first one."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where or 'content'}: {first['msg']}"


def apply(
    recipe: Recipe,
    original: Net,
    data: Dataset,
    *,
    device: str = "cpu",
    checkpoint: Path | None = None,
    tell: Tell = silent,
) -> Net:
    """Return the net after every step but quantization, which the runtime's exporter does.

    `device` solves and trains; another one gives the same net up to rounding. Training goes on from `checkpoint` and
    writes to it. Raises RequestError where the recipe belongs to another net, where there is no such device, and where
    a step does not fit, naming the step.
    """
    usable(device)
    if recipe.original not in (None, original.digest):
        raise RequestError("this recipe starts from another net: its digest is not that of the original given")
    work = _Work(Draft.of(original), Draft.of(original), data, device, checkpoint, tell)
    for number, step in enumerate(recipe.steps, 1):
        try:
            work = work.after(step)
        except SlimwrightError as error:
            raise RequestError(f"step {number} of the recipe ({step.step}): {error}") from error
    return work.draft.net


def scored(recipe: Recipe, data: Dataset) -> Dataset:
    """Return the data of the classes that the net scores after a recipe."""
    for step in recipe.steps:
        data = of_classes(data, step.classes) if isinstance(step, Subset) else data
    return data


@dataclass(frozen=True)
class _Work:
    """What steps work on: the draft, the original that teaches it, and the data of the classes that both score."""

    draft: Draft
    teacher: Draft
    data: Dataset
    device: str
    checkpoint: Path | None
    tell: Tell

    def after(self, step: Step) -> "_Work":
        match step:
            case Subset(classes=classes):
                draft, teacher = (subset(each, classes) for each in (self.draft, self.teacher))
                return replace(self, draft=draft, teacher=teacher, data=of_classes(self.data, classes))
            case Solve(images=images):
                some = whole(self.data, "calibration")[0][:images]
                return replace(self, draft=refit(self.draft, some, device=self.device, tell=self.tell))
            case Regions():
                return replace(self, draft=self._fitted(step))
            case Tune():
                return replace(self, draft=Draft.of(self._tuned(step)))
            case Factorise():
                return replace(self, draft=self._factorised(step))
            case _:
                return replace(self, draft=_restructured(step, self.draft))

    def _fitted(self, step: Regions) -> Draft:
        draft = self.draft
        matches = [match for match in draft.matches() if draft.net[match.value].dtype == "float32"]
        net = fit_regions(
            draft.reference,
            draft.net,
            regions_in(draft.net, matches),
            whole(self.data, "calibration")[0][: step.images],
            schedule=RegionSchedule(epochs=step.epochs, rate=step.rate, seed=step.seed),
            device=self.device,
            checkpoint=self.checkpoint,
            tell=self.tell,
        )
        return replace(draft, net=net)

    def _tuned(self, step: Tune) -> Net:
        schedule = Schedule(epochs=step.epochs, rate=step.rate, seed=step.seed, longest_gradient=LONGEST_GRADIENT)
        module, teacher = (draft.net.to_module().to(self.device) for draft in (self.draft, self.teacher))
        fit(module, self.data, schedule, teacher=teacher, checkpoint=self.checkpoint, tell=self.tell)
        return self.draft.net.trained(module)

    def _factorised(self, step: Factorise) -> Draft:
        evidence = None
        if step.images:
            images, labels = (t[: step.images] for t in whole(self.data, "calibration"))
            batches = zip(images.split(64), labels.split(64), strict=True)
            classes = len(self.data.labels)
            evidence = observe(
                self.draft.net, batches, classes=classes, images=len(labels), device=self.device, tell=self.tell
            )
        factors = {name: Factors(wanted.kind, wanted.ranks) for name, wanted in step.layers.items()}
        return self.draft.changed(factorise(self.draft.net, factors, evidence, device=self.device, tell=self.tell), {})


def _restructured(step: Prune | Merge | Remove | Fold | Quantize, draft: Draft) -> Draft:
    """The draft after a step that needs no data."""
    match step:
        case Prune(keep=keep):
            return draft.cut({name: np.array(kept, np.int64) for name, kept in keep.items()})
        case Merge(streamlines=streamlines, branches=branches):
            draft = folded(draft)
            for conv in streamlines:
                draft = streamline(draft, conv)
            for concat in branches:
                draft = merge_branches(draft, concat)
            return draft
        case Remove(layers=layers, collapse=collapse, kernel=kernel):
            for name in collapse:
                draft = collapsed(draft, name, kernel)
            for name in layers:
                draft = removed(draft, name)
            return draft
        case Fold():
            return folded(draft)
        case Quantize():
            return draft
