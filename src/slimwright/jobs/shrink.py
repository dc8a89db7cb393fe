"""The main job: a trained network and a budget in, a proven smaller model out.

Read from the top: what `shrink` does is the column of calls in it. Every result is kept under a key of all that shapes
it, so a job that was killed goes on from there, and one that has ended runs its proof alone. The test part of the data
is read once, at the very end, by the proof.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from slimwright.atomic import appearing, keeping
from slimwright.compute import usable
from slimwright.cost import Budget
from slimwright.data import Dataset
from slimwright.graph import Net
from slimwright.jobs.bench import Bench, Method, Place
from slimwright.jobs.given import check_place, context_of, doubts, given_of, shapes_of
from slimwright.jobs.handed_over import Named, handed_over
from slimwright.jobs.searched import searched
from slimwright.jobs.setups import set_up
from slimwright.jobs.stages import Stages
from slimwright.measure import BUNDLED, MANIFEST, Bundle, Original, original_of
from slimwright.progress import Event, Tell, told
from slimwright.report import missing_page, write_report
from slimwright.runtimes import Workshop, lent
from slimwright.search import Policy, Tuning, key_of, measured_plan, open_journal
from slimwright.targets import Local, Target
from slimwright.tasks import Making, Task, task_for
from slimwright.techniques import TECHNIQUES, Technique, recipe_type


@dataclass(frozen=True)
class Settings:
    """How to go about it; the defaults suit most."""

    runtime: str = "onnxruntime"
    target: Target = field(default_factory=Local)  # where candidates run, and are measured
    seed: int = 0
    tune_epochs: int = 3  # fine-tuning with distillation, only if the metric drops too far without
    tune_rate: float = 0.02
    tune_minutes: float | None = None  # then as many epochs again and again, while they help and time is left
    device: str = "cpu"  # of torch, that observes, solves and trains here
    cache: Path | None = None  # for everything that is not to be computed again; None keeps nothing
    name: str = "model"  # how reports call the model
    licence: str = ""  # of the model, written into what is handed back
    policy: Policy = measured_plan
    techniques: tuple[Technique, ...] = TECHNIQUES
    expect: str | None = None  # of the original's metric, such as "0.76" or "76%"; None judges what is plain
    embed: bool = False  # put the normalization into the model
    fresh: bool = False  # start over, whatever the cache holds of this job
    force: bool = False  # replace what is at `out`, even if it holds what no job wrote
    workshop: Workshop | None = None  # one that several jobs share; without it, the job opens its own

    @property
    def tuning(self) -> Tuning:
        """How fine-tuning goes about it."""
        return Tuning(self.tune_epochs, self.tune_rate, self.seed, self.tune_minutes)


def shrink(
    model: nn.Module | Net | Original,
    *,
    data: Dataset,
    budget: Budget,
    out: Path | str,
    task: Task | Making | None = None,
    settings: Settings | None = None,
    tell: Tell | None = None,
) -> Bundle:
    """Return a bundle in `out` with the best model found within `budget`, proven on the runtime.

    Without a `task`, it follows from the data: classification where there are labels, else imitation of the original.
    Progress goes to `tell`; without, it is shown where standard error is a terminal, and in notebooks.

    If no model fits, the bundle holds the nearest one, and its summary says what was missed. `out` appears whole or
    not at all; its page is left out where what draws charts is not installed. Raises RequestError for what cannot be
    done and ProofError where the runtime disagrees with the net.
    """
    settings, out = settings or Settings(), Path(out)
    usable(settings.device)
    check_place(settings.runtime, settings.target)
    original = model if isinstance(model, Original) else original_of(model, shapes_of(data))
    task = task_for(data, original.output_shapes, original.forward, task)
    with (
        told(tell) as tell,
        appearing(out, MANIFEST, ours=BUNDLED, force=settings.force) as folder,
        lent(settings.workshop) as workshop,
        keeping(settings.cache) as cache,
    ):
        stages = Stages(tell)
        with stages("measure the original"):
            asked = [repr(budget), repr(settings.tuning), settings.policy.__qualname__]
            checked = set_up(original, task, data, expect=settings.expect, embed=settings.embed, tell=tell)
            original, data = checked
            bench = opened(original, task, data, settings, asked=asked, workshop=workshop, cache=cache, tell=tell)
            for doubt in doubts(bench.given, budget.max_drop):
                tell(Event("doubt", 1, 1, doubt))
            bench.original()
        with stages("search"):
            found = searched(bench, settings.policy, budget, settings.tuning, stages=stages, cache=cache)
        with stages("prove"):
            bundle = handed_over(bench, found, budget, original, folder, Named(settings.name, settings.licence), stages)
        if why := missing_page():
            tell(Event("report", 1, 1, why))
        else:
            write_report(folder, bundle.manifest, bundle.recipe, settings.techniques)
        bench.journal.keep_files_of([bench.original().key, found.key])
    return replace(bundle, path=out)


def opened(
    original: Original,
    task: Task,
    data: Dataset,
    settings: Settings,
    *,
    asked: Sequence[str],
    workshop: Workshop,
    cache: Path,
    tell: Tell,
) -> Bench:
    """Return the bench of a job, with what an earlier run of the same job left in its journal.

    The same job is the same model, data, task, place and settings, and the same `asked` of them.
    """
    method = Method(settings.techniques, recipe_type(settings.techniques), settings.device)
    place = Place(settings.runtime, settings.target, workshop)
    given = given_of(original, task, data)
    context = context_of(given, place, method, settings.seed)
    journal = open_journal(cache / "jobs" / key_of(context, *asked), fresh=settings.fresh)
    return Bench(given, place, method, journal, context, tell)
