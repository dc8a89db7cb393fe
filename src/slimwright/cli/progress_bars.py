"""Progress for people: bars with an estimate on a terminal; elsewhere a line every few seconds, and one a stage."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from slimwright.progress import Event, Tell

LINE_S = 5.0  # between two lines of a stage, where there is no terminal


@contextmanager
def progress(console: Console) -> Iterator[Tell]:
    """Give what listens to events and shows them on a console."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (
        TextColumn("{task.description:>10}"),
        BarColumn(24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bars:
        yield _Bars(bars)


class _Bars:
    """Shows each stage as a bar."""

    def __init__(self, bars: Progress) -> None:
        self.bars = bars
        self.tasks: dict[str, TaskID] = {}

    def __call__(self, event: Event) -> None:
        if event.stage not in self.tasks or self.bars.tasks[self.tasks[event.stage]].finished:
            self.tasks[event.stage] = self.bars.add_task(event.stage, total=event.total, note="")
        self.bars.update(self.tasks[event.stage], completed=event.done, total=event.total, note=escape(event.note))


class _Lines:
    """Prints a line when a stage ends, and while it lasts every few seconds, with what remains at this rate."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.began: dict[str, float] = {}
        self.printed = monotonic()

    def __call__(self, event: Event) -> None:
        now, ended = monotonic(), event.done == event.total
        began = self.began.setdefault(event.stage, now)
        if ended:
            self.began.pop(event.stage)
        elif now - self.printed < LINE_S:
            return
        left = "" if ended or not event.done else _left((now - began) * (event.total - event.done) / event.done)
        line = f"{event.stage}: {event.done}/{event.total} {event.note}".rstrip() + left
        self.console.print(line, soft_wrap=True, markup=False, highlight=False)
        self.printed = now


def _left(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f" (about {minutes} min {rest} s left)" if minutes else f" (about {rest} s left)"
