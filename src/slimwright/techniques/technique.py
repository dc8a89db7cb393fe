"""What a technique is: a step as data, what the step does to a draft, and what a report says of it.

A technique is one file, and one line in `TECHNIQUES`. The recipe's steps, the planner's knobs and the report's
sentences derive from that tuple. A technique that takes part in planning offers knobs (`knobs.py`).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator
from torch import Tensor

from slimwright.cost import memory_there
from slimwright.data import Dataset
from slimwright.graph import Net
from slimwright.progress import Tell
from slimwright.tasks import Task, task_for
from slimwright.techniques.knobs import Choice, Knob, Observed, no_knobs, no_steps
from slimwright.techniques.solver.draft import Draft
from slimwright.train import equals_of, zeros_of

MOST = 2**31 - 1
Kept = Literal["zeros", "values"]


class Step(BaseModel):
    """One step of a recipe: the knobs of one technique. Each technique's own has its name in the field `step`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    step: str

    @field_validator("*")
    @classmethod
    def _check_numbers(cls, value: object) -> object:
        """Numbers of channels, images and epochs are far smaller; larger ones overflow where they are used."""
        if any(abs(number) > MOST for number in _integers(value)):
            raise ValueError(f"a number of a step must lie between -{MOST} and {MOST}")
        return value


def _integers(value: object) -> Iterator[int]:
    if isinstance(value, int):
        yield value
    elif isinstance(value, BaseModel | Mapping):
        for _, item in value.items() if isinstance(value, Mapping) else value:
            yield from _integers(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _integers(item)


@dataclass(frozen=True)
class Work:
    """What steps work on: the draft, the original that teaches it, and the data and task that both are judged by.

    Without a task that was `asked` for, it follows from the data, which is not read before a step needs it.
    """

    draft: Draft
    teacher: Draft
    given: Dataset
    asked: Task | None
    device: str
    checkpoint: Path | None
    tell: Tell
    cost_only: bool = False  # the weights mean nothing: only structure and costs are asked for
    memory_bytes: int | None = None  # that a step may take; None: what the machine has available
    kept: Mapping[str, Kept] = field(default_factory=dict)  # tensors of which later steps keep zeros, or equal values

    @property
    def there(self) -> float:
        """How many bytes a step may take; infinite where another device computes."""
        return memory_there(self.memory_bytes) if self.device == "cpu" else math.inf

    @cached_property
    def task(self) -> Task:
        """What the outputs mean."""
        net = self.teacher.net
        return self.asked or task_for(self.given, [net[name].shape for name in net.outputs], net.run)

    @cached_property
    def data(self) -> Dataset:
        """The data with the task's targets."""
        return self.task.data(self.given, self.teacher.net.run)

    def codes(self, net: Net | None = None) -> dict[str, Tensor]:
        """Return how the weights of each tensor that is kept are tied, by its name in a net: by default the draft's."""
        tensors = (net or self.draft.net).tensors
        ties = {"zeros": zeros_of, "values": equals_of}
        return {name: ties[kept](tensors[name]) for name, kept in self.kept.items() if name in tensors}


@dataclass(frozen=True)
class Technique:
    """One technique. `apply` takes a step and the work so far; `sentence` says what a step does.

    `knobs` offers settings with the damage that each is predicted to do, and `steps` makes a recipe's steps of the
    settings that a plan chose of these knobs; `done` is what a network is called after them. `ends` says that the step
    stands behind all training and solving.
    """

    step: type[Step]
    apply: Callable[[Any, Work], Work]
    sentence: Callable[[Any], str]
    knobs: Callable[[Observed], Sequence[Knob]] = no_knobs
    steps: Callable[[Observed, Sequence[Any], Choice], Sequence[Step]] = no_steps
    done: str = ""
    ends: bool = False

    @property
    def name(self) -> str:
        """The name of its step."""
        name: str = self.step.model_fields["step"].default
        return name


def by_step(techniques: Sequence[Technique]) -> Mapping[type[Step], Technique]:
    """Return each technique by its step."""
    return {technique.step: technique for technique in techniques}


def plural(number: int, noun: str) -> str:
    """Return a count with its noun: 1 -> "1 epoch", 2 -> "2 epochs"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
