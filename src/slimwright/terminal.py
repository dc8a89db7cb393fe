"""Where people read: a console that shows what names and messages say, and does nothing that they ask for.

Names come from models, folders and devices. In a terminal an escape sequence moves the cursor or rewrites a line, a
bidirectional mark shows another name than the file has, and brackets are taken for rich's markup.
"""

from collections.abc import Iterable
from typing import Any
from unicodedata import category

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

UNSEEN = "\ufffd"  # in place of what cannot be seen
SPACE = "Zs"  # of any width, and one that keeps words together


def printable(text: str) -> str:
    """Return a text with a mark for every letter that cannot be seen, but for spaces and ends of lines."""
    return "".join(letter if _is_seen(letter) else UNSEEN for letter in text)


def _is_seen(letter: str) -> bool:
    return letter.isprintable() or letter == "\n" or category(letter) == SPACE


class Terminal(Console):
    """A console that reads no markup in texts, and prints nothing but what can be seen."""

    def __init__(self, **how: Any) -> None:
        super().__init__(markup=False, **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield segments; those that rich makes to steer the terminal stay."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)
