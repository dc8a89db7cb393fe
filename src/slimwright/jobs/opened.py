"""A job is opened: what it is given is checked, and what an earlier run of the same job left is found.

The same job is the same model, data, task, place and settings, and is asked the same. Its journal keeps every result,
that the set-up was judged to be right among them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from slimwright.atomic import appearing
from slimwright.compute import usable
from slimwright.data import Dataset
from slimwright.graph import Net
from slimwright.jobs.bench import Bench, Method, Place
from slimwright.jobs.embedded import embedded
from slimwright.jobs.forecast import check_job
from slimwright.jobs.given import check_inputs, check_place, context_of, given_of, shapes_of
from slimwright.jobs.setups import check_setup
from slimwright.jobs.stages import Stages
from slimwright.kept import keeping
from slimwright.measure import Original, original_of
from slimwright.progress import Tell, told
from slimwright.runtimes import Workshop, lent
from slimwright.search import Policy, Tuning, key_of, measured_plan, open_journal
from slimwright.targets import Local, Target
from slimwright.tasks import Making, Task, task_for
from slimwright.techniques import TECHNIQUES, Technique, recipe_type

STAGE = "measure the original"


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
    save_policy: Path | None = None  # where what the policy has learned is written
    techniques: tuple[Technique, ...] = TECHNIQUES
    expect: str | None = None  # of the original's metric, such as "0.76" or "76%"; None judges what is plain
    embed: bool = False  # put the normalization into the model
    fresh: bool = False  # start over, whatever the cache holds of this job
    force: bool = False  # replace what is at `out`, even if it holds what no job wrote
    workshop: Workshop | None = None  # one that several jobs share; without it, the job opens its own
    memory_bytes: int | None = None  # that work here, and a conversion, may take; None: what the machine has available

    @property
    def tuning(self) -> Tuning:
        """How fine-tuning goes about it."""
        return Tuning(self.tune_epochs, self.tune_rate, self.seed, self.tune_minutes)


@dataclass(frozen=True)
class Asked:
    """What a job is given, and `what` else tells it from other jobs."""

    model: nn.Module | Net | Original
    data: Dataset
    task: Task | Making | str | None
    what: Sequence[str]
    packs: bool = False  # a packed file is asked for


@dataclass(frozen=True)
class Out:
    """Where a job's files go: a folder, the file that marks it as the job's, and patterns of all that it may hold."""

    path: Path
    mark: str
    ours: Sequence[str]


@dataclass(frozen=True)
class Job:
    """A job under way; what it writes into `folder` appears when it ends well."""

    original: Original
    bench: Bench
    stages: Stages
    tell: Tell
    folder: Path
    cache: Path


@contextmanager
def opened(asked: Asked, settings: Settings, out: Out, tell: Tell | None) -> Iterator[Job]:
    """Give a job whose original is measured.

    Raises RequestError for what cannot be done, or is sure to need more memory than there is, and DataError where
    model, data and task do not fit one another or the set-up is plainly wrong.
    """
    original, task = checked(asked, settings)
    with (
        told(tell) as tell,
        appearing(out.path, out.mark, ours=out.ours, force=settings.force) as folder,
        lent(settings.workshop, settings.memory_bytes) as workshop,
        keeping(settings.cache) as cache,
    ):
        stages = Stages(tell)
        with stages(STAGE):
            ready, bench = begun(original, task, asked, settings, At(workshop, cache, tell))
        yield Job(ready, bench, stages, tell, folder, cache)


@dataclass(frozen=True)
class At:
    """Where a job that begins works: its converters, what is kept, and who listens."""

    workshop: Workshop
    cache: Path
    tell: Tell


def checked(asked: Asked, settings: Settings) -> tuple[Original, Task]:
    """Return the original and its task; raise RequestError where model, data, task and place do not go together."""
    usable(settings.device)
    check_place(settings.runtime, settings.target)
    original = asked.model if isinstance(asked.model, Original) else original_of(asked.model, shapes_of(asked.data))
    check_inputs(original.net, asked.data)
    task = task_for(asked.data, original.output_shapes, original.forward, asked.task)
    check_job(original.net, task, asked.data, device=settings.device, memory_bytes=settings.memory_bytes)
    return original, task


def begun(original: Original, task: Task, asked: Asked, settings: Settings, at: At) -> tuple[Original, Bench]:
    """Return the original as the job takes it, and the bench with its journal; the set-up is judged to be right."""
    method = Method(settings.techniques, recipe_type(settings.techniques), settings.device, settings.memory_bytes)
    place = Place(settings.runtime, settings.target, at.workshop)
    ready, data = embedded(original, asked.data) if settings.embed else (original, asked.data)
    given = given_of(ready, task, data, settings.licence)
    context = context_of(given, place, method, settings.seed)
    journal = open_journal(at.cache / "jobs" / key_of(context, *asked.what), fresh=settings.fresh)

    def judged() -> dict[str, bool]:
        check_setup(original, task, asked.data, expect=settings.expect, tell=at.tell)
        return {"right": True}

    journal.once(key_of("set-up", settings.expect), judged)
    return ready, Bench(given, place, method, journal, context, at.tell, asked.packs)
