"""The main job: a trained network and a budget in, a proven smaller model out.

Read from the top: what `shrink` does is the column of calls in it. Every result is kept under a key of all that shapes
it, so a job that was killed goes on from there, and one that has ended runs its proof alone. The test part of the data
is read once, at the very end, by the proof.
"""

import shutil
from dataclasses import replace
from pathlib import Path

from torch import nn

from slimwright.atomic import replacing
from slimwright.cost import Budget
from slimwright.data import Dataset
from slimwright.errors import RequestError
from slimwright.graph import Net
from slimwright.jobs.given import doubts
from slimwright.jobs.handed_over import handed_over
from slimwright.jobs.opened import STAGE, Asked, Out, Settings, opened
from slimwright.jobs.searched import searched
from slimwright.measure import BUNDLED, MANIFEST, Bundle, Original
from slimwright.progress import Event, Tell
from slimwright.report import missing_page, write_report
from slimwright.search import LEARNED, LEARNED_FILE, PACKED, Journal, said_of_policy
from slimwright.tasks import Making, Task


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
    asked = Asked(
        model,
        data,
        task,
        (repr(budget), repr(settings.tuning), said_of_policy(settings.policy)),
        packs=budget.concerns(PACKED),
    )
    with opened(asked, settings, Out(out, MANIFEST, BUNDLED), tell) as job:
        bench, stages = job.bench, job.stages
        for doubt in doubts(bench.given, budget.max_drop):
            job.tell(Event("doubt", 1, 1, doubt))
        with stages(STAGE):
            bench.original()
        with stages("search"):
            found = searched(bench, settings.policy, budget, settings.tuning, stages=stages, cache=job.cache)
        with stages("prove"):
            bundle = handed_over(bench, found, budget, job.original, job.folder, settings.name, stages)
        if why := missing_page():
            job.tell(Event("report", 1, 1, why))
        else:
            write_report(job.folder, bundle.manifest, bundle.recipe, settings.techniques)
        bench.journal.keep_files_of([bench.original().key, found.key, LEARNED])
        if settings.save_policy is not None:
            _save_policy(bench.journal, settings.save_policy)
    return replace(bundle, path=out)


def _save_policy(journal: Journal, path: Path) -> None:
    """Write what the policy has learned. Raises RequestError where it learns nothing."""
    if journal.get(LEARNED) is None:
        raise RequestError(
            f"nothing was learned that {path} could hold: the policy has no parameters, or none was asked"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        shutil.copyfile(journal.files(LEARNED) / LEARNED_FILE, temporary)
