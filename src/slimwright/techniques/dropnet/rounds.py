"""One round: the first weights, less the units dropped so far, trained; kept in a folder if there is one.

A round is kept under what it is made of (first weights, task, training, images, units left), whatever rule chose the
units: a loop that was killed goes on from its last whole round, and loops from the same weights share their first one.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from slimwright.coupling.channels import Coupling
from slimwright.coupling.cut import cut
from slimwright.coupling.views import Ids
from slimwright.data import Dataset, part_fingerprint
from slimwright.graph.net import Net
from slimwright.kept import kept_tensors, write_tensors
from slimwright.progress import Event
from slimwright.tasks import Task
from slimwright.techniques.dropnet.training import module_of
from slimwright.train import Schedule, fit, mean_loss, score

Keep: TypeAlias = Mapping[str, Ids]
SAID = ("epochs", "validation_loss", "validation_score")


@dataclass(frozen=True)
class Round:
    """A net trained without the units dropped so far: what it keeps of each group, and what came of it."""

    keep: Keep
    net: Net
    epochs: int
    validation_loss: float
    validation_score: float  # of the task's metric, in its unit

    @property
    def units(self) -> int:
        """How many units are left."""
        return sum(map(len, self.keep.values()))


@dataclass(frozen=True)
class Training:
    """What every round is trained with; the data has the task's targets."""

    data: Dataset
    task: Task
    schedule: Schedule


@dataclass(frozen=True)
class Rounds:
    """Trains one net without some of its units, or takes from a folder what came of that before."""

    net: Net
    coupling: Coupling
    training: Training
    folder: Path | None

    @cached_property
    def _identity(self) -> list[object]:
        """All that a round depends on, but for its units."""
        data, task = self.training.data, self.training.task
        parts = [part_fingerprint(data, "train"), part_fingerprint(data, "validation")]
        return [self.net.digest, task.name, task.metric.name, asdict(self.training.schedule), parts]

    def trained(self, keep: Keep) -> Round:
        """Return the round that keeps these units of each group."""
        small = cut(self.net, keep, self.coupling)
        key = self._key(keep)
        path = self.folder / f"{sum(map(len, keep.values()))}-{key[:24]}.safetensors" if self.folder else None
        known = _restored(small, keep, path, key) if path else None
        if known is not None:
            return known
        module = module_of(small)
        epochs: list[Event] = []
        data, task = self.training.data, self.training.task
        fit(module, data, self.training.schedule, task=task, tell=epochs.append)
        trained = small.trained(module)
        net = trained.edited(tensors={name: t.contiguous() for name, t in trained.tensors.items()})
        loss, scored = (judge(module, data, "validation", task) for judge in (mean_loss, score))
        done = Round(keep, net, len(epochs), loss, scored)
        if path:
            _save(done, path, key)
        return done

    def _key(self, keep: Keep) -> str:
        """All that the round of these units depends on."""
        kept = {name: channels.tolist() for name, channels in keep.items()}
        return hashlib.sha256(json.dumps([self._identity, kept], sort_keys=True).encode()).hexdigest()


def _save(done: Round, path: Path, key: str) -> None:
    said = {name: getattr(done, name) for name in SAID}
    kept = {name: channels.tolist() for name, channels in done.keep.items()}
    write_tensors(path, done.net.tensors, {"key": key, "round": json.dumps(said), "keep": json.dumps(kept)})


def _restored(small: Net, keep: Keep, path: Path, key: str) -> Round | None:
    """The round at `path` with the weights of `small` as they were trained; None where it is missing or damaged."""
    found = kept_tensors(path, key)
    if found is None:
        return None
    tensors, notes = found
    return Round(keep, small.edited(tensors=tensors), **json.loads(notes["round"]))
