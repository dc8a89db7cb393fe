"""How long work tells of itself: one function that takes events, so that a terminal, a log or a test can listen.

For people there are bars on a terminal; elsewhere a line every few seconds, and one a stage. Both say what remains of a
stage at the rate since it was first heard of: a stage that goes on where it was stopped is not taken to be fast.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID
    from rich.text import Text

LINE_S = 5.0  # between two lines of a stage, where there is no terminal


@dataclass(frozen=True)
class Event:
    """`done` of `total` units of a stage are finished; `note` is for people.

    A `picture` is several lines that stand below the bars until the next one comes. Where there is no terminal, the
    note of an event that has one is printed at once.
    """

    stage: str
    done: int
    total: int
    note: str = ""
    picture: str = ""


Tell: TypeAlias = Callable[[Event], None]


def silent(_: Event) -> None:
    """Listen to nothing."""


@contextmanager
def told(tell: Tell | None) -> Iterator[Tell]:
    """Give `tell`; where there is none, what shows progress, if standard error is a terminal or this is a notebook."""
    from slimwright.terminal import Terminal

    if tell is not None:
        yield tell
        return
    console = Terminal(stderr=True)
    if not (console.is_terminal or console.is_jupyter):
        yield silent
        return
    with shown(Terminal(stderr=True, force_jupyter=False)) as shows:
        yield shows


@contextmanager
def shown(console: "Console") -> Iterator[Tell]:
    """Give what listens to events and shows them on a console."""
    from rich.console import Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.text import Text

    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (
        TextColumn("{task.description:>10}", markup=False),
        BarColumn(24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.fields[note]}", markup=False),
    )
    bars, picture = Progress(*columns, console=console), Text()
    with Live(Group(bars, picture), console=console, refresh_per_second=10):
        yield _Bars(bars, picture)


@dataclass
class _Pace:
    """When each stage was first heard of, and how much of it was done then."""

    began: dict[str, tuple[float, int]] = field(default_factory=dict)

    def left(self, event: Event, now: float) -> str:
        """Say what remains of a stage at its rate so far; "" where that is not known yet, or it has ended."""
        since, first = self.began.setdefault(event.stage, (now, event.done))
        if event.done < first:  # the same stage of something else
            since, first = self.began[event.stage] = now, event.done
        if event.done >= event.total:
            self.began.pop(event.stage)
            return ""
        if event.done == first:
            return ""
        return f"about {_duration((now - since) * (event.total - event.done) / (event.done - first))} left"


class _Bars:
    """Shows each stage as a bar, and a picture below them."""

    def __init__(self, bars: "Progress", picture: "Text") -> None:
        self.bars, self.picture = bars, picture
        self.tasks: dict[str, TaskID] = {}
        self.ended = set[str]()
        self.pace = _Pace()

    def __call__(self, event: Event) -> None:
        if event.stage in self.ended:  # the same stage of something else: its bar stands in the old one's place
            self.bars.remove_task(self.tasks.pop(event.stage))
        if event.stage not in self.tasks:
            self.tasks[event.stage] = self.bars.add_task(event.stage, total=event.total, note="", left="")
        (self.ended.add if event.done >= event.total else self.ended.discard)(event.stage)
        if event.picture:
            self.picture.plain = event.picture
        left, note = self.pace.left(event, monotonic()), event.note
        self.bars.update(self.tasks[event.stage], completed=event.done, total=event.total, note=note, left=left)


class _Lines:
    """Prints a line when a stage ends, and while it lasts every few seconds, with what remains at this rate."""

    def __init__(self, console: "Console") -> None:
        self.console = console
        self.pace = _Pace()
        self.printed = monotonic()

    def __call__(self, event: Event) -> None:
        now = monotonic()
        left = self.pace.left(event, now)
        if event.done < event.total and now - self.printed < LINE_S and not event.picture:
            return
        line = f"{event.stage}: {event.done}/{event.total} {event.note}".rstrip() + (f" ({left})" if left else "")
        self.console.print(line, soft_wrap=True, highlight=False)
        self.printed = now


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
