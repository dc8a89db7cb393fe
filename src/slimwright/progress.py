"""How long work tells of itself: one function that takes events, so that a terminal, a log or a test can listen."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Event:
    """`done` of `total` units of a stage are finished; `note` is for people."""

    stage: str
    done: int
    total: int
    note: str = ""


Tell: TypeAlias = Callable[[Event], None]


def silent(_: Event) -> None:
    """Listen to nothing."""
