"""What was done, in order, with every knob: a recipe and the original weights give the result again.

Read from a file, a recipe is data: it is validated, and applying it runs nothing but techniques. Steps that change the
structure may stand in any order; `solve` finds the weights of all that were taken since the net was last trained,
against what it was then.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, create_model

from slimwright.compute import usable
from slimwright.data import Dataset
from slimwright.errors import RequestError, SlimwrightError
from slimwright.graph import Net, as_free_as
from slimwright.progress import Tell, silent
from slimwright.reading import data_of, reading
from slimwright.tasks import Task
from slimwright.techniques.factorise import FACTORISE
from slimwright.techniques.fold import FOLD, Fold
from slimwright.techniques.hash import HASH
from slimwright.techniques.merge import MERGE
from slimwright.techniques.prune import PRUNE
from slimwright.techniques.quantize import QUANTIZE
from slimwright.techniques.regions import REGIONS
from slimwright.techniques.remove import REMOVE
from slimwright.techniques.round import ROUND
from slimwright.techniques.share import SHARE
from slimwright.techniques.solve import SOLVE
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.sparsify import SPARSIFY
from slimwright.techniques.subset import SUBSET
from slimwright.techniques.technique import Step, Technique, Work, by_step
from slimwright.techniques.trim import TRIM
from slimwright.techniques.tune import TUNE

FILE = "recipe.json"  # in a bundle

TECHNIQUES: tuple[Technique, ...] = (
    PRUNE,
    FACTORISE,
    MERGE,
    REMOVE,
    SUBSET,
    SOLVE,
    SPARSIFY,
    SHARE,
    HASH,
    REGIONS,
    TUNE,
    TRIM,
    FOLD,
    ROUND,
    QUANTIZE,
)


def _any_of(techniques: Sequence[Technique]) -> Any:
    """The type of a tuple of these techniques' steps, told apart by their field `step`."""
    union: Any = reduce(or_, (technique.step for technique in techniques))
    return tuple[Annotated[union, Field(discriminator="step")], ...]


if TYPE_CHECKING:
    Steps: TypeAlias = tuple[Step, ...]
else:
    Steps = _any_of(TECHNIQUES)


class Recipe(BaseModel):
    """Steps, and the digest of the net that they start from; None: any net that they fit."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    original: str | None
    steps: Steps

    @classmethod
    def of(cls, net: Net, *steps: Step) -> Self:
        """Return the recipe that takes these steps and folds; a step that ends a recipe stands behind the folding."""
        ends = [step for step in steps if _ends(step)]
        return cls(original=net.digest, steps=(*(step for step in steps if not _ends(step)), Fold(), *ends))

    def with_steps(self, *steps: Step) -> Self:
        """Return the recipe with steps behind all others but those that end it, such as folding and quantizing."""
        first = next((k for k, step in enumerate(self.steps) if _ends(step)), len(self.steps))
        return self.model_copy(update={"steps": (*self.steps[:first], *steps, *self.steps[first:])})


def _ends(step: Step) -> bool:
    return any(technique.ends and isinstance(step, technique.step) for technique in TECHNIQUES)


def recipe_type(techniques: Sequence[Technique]) -> type[Recipe]:
    """Return the recipe whose steps are those of `techniques`; `Recipe` itself for `TECHNIQUES`.

    Raises RequestError where two of them call their steps by one name.
    """
    if tuple(techniques) == TECHNIQUES:
        return Recipe
    names = Counter(technique.step.model_fields["step"].default for technique in techniques)
    twice = [name for name, times in names.items() if times > 1]
    if twice:
        raise RequestError(f"two techniques call their steps {twice[0]!r}: give the field `step` of one another value")
    made: type[Recipe] = create_model("Recipe", __base__=Recipe, steps=(_any_of(techniques), ...))
    return made


def load_recipe(path: Path, techniques: Sequence[Technique] = TECHNIQUES) -> Recipe:
    """Read a recipe, or that of a bundle. Raises RequestError, naming the file and the field that is wrong."""
    path = path / FILE if path.is_dir() else path
    with reading(path, "a recipe", RequestError):
        return recipe_type(techniques).model_validate_json(data_of(path, "a recipe"))


def apply(
    recipe: Recipe,
    original: Net,
    data: Dataset,
    *,
    task: Task | None = None,
    techniques: Sequence[Technique] = TECHNIQUES,
    device: str = "cpu",
    checkpoint: Path | None = None,
    tell: Tell = silent,
) -> Net:
    """Return the net after every step.

    `task` says what the outputs mean; without, it follows from the data. `device` solves and trains; another one gives
    the same net up to rounding. Training goes on from `checkpoint` and writes to it. Raises RequestError where the
    recipe belongs to another net, where there is no such device, and where a step does not fit, naming the step.
    """
    return applied(recipe, original, data, task=task, techniques=techniques, device=device, checkpoint=checkpoint,
                   tell=tell).draft.net  # fmt: skip


def applied(
    recipe: Recipe,
    original: Net,
    data: Dataset,
    *,
    task: Task | None = None,
    techniques: Sequence[Technique] = TECHNIQUES,
    device: str = "cpu",
    checkpoint: Path | None = None,
    cost_only: bool = False,
    begun: dict[str, Work] | None = None,
    memory_bytes: int | None = None,
    tell: Tell = silent,
) -> Work:
    """Return the work after every step, as `apply` does: the net, and the data and task that it is judged by.

    With `cost_only` weights need not mean anything. `begun` keeps the work after each step, for recipes that begin in
    the same way; net, data, task, techniques and device must be the same. Training takes smaller batches where it may
    take less memory (`memory_bytes`, by default what the machine has available) than it would. Sizes that were free in
    the original stay so where the result gives outputs of the same shapes at others.
    """
    usable(device)
    if recipe.original not in (None, original.digest):
        raise RequestError("this recipe starts from another net: its digest is not that of the original given")
    known, begun = by_step(techniques), {} if begun is None else begun
    start, so_far = Draft.of(original), ""
    work = Work(start, start, data, task, device, checkpoint, tell, cost_only, memory_bytes)
    for number, step in enumerate(recipe.steps, 1):
        so_far += step.model_dump_json()
        try:
            work = begun.get(so_far) or known[type(step)].apply(step, work)
        except SlimwrightError as error:
            raise RequestError(f"step {number} of the recipe ({step.step}): {error}") from error
        work = begun[so_far] = replace(work, checkpoint=checkpoint, tell=tell)
    net = as_free_as(work.draft.net, original)
    return work if net is work.draft.net else replace(work, draft=replace(work.draft, net=net))


def sentences(recipe: Recipe, techniques: Sequence[Technique] = TECHNIQUES) -> list[str]:
    """Return each step of a recipe as a sentence."""
    known = by_step(techniques)
    return [known[type(step)].sentence(step) for step in recipe.steps]
