"""Progress for people: where it is shown by itself, and what it says of the time that is left."""

import builtins
import io
from collections.abc import Iterator

import pytest
from rich.console import Console

from slimwright import progress
from slimwright.progress import Event, Tell, shown, silent, told


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class ZMQInteractiveShell:
    """The shell of a notebook, by its name."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "monotonic", clock)
    return clock


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def lines(clock: Clock, said: io.StringIO) -> Iterator[Tell]:
    with shown(Console(file=said, width=200)) as tell:
        yield tell


def test_a_long_stage_says_every_few_seconds_what_is_left_of_it(lines: Tell, clock: Clock, said: io.StringIO) -> None:
    for done, now in ((0, 100), (1, 102), (2, 110), (4, 4000)):
        clock.now = now
        lines(Event("train", done, 8, "loss 1"))
    assert said.getvalue().splitlines() == [
        "train: 2/8 loss 1 (about 30 s left)",  # 1 of 8 is not worth a line yet
        "train: 4/8 loss 1 (about 1 h 5 min left)",
    ]


def test_what_was_done_before_does_not_count_as_fast(lines: Tell, clock: Clock, said: io.StringIO) -> None:
    """A run that goes on at its 11th epoch of 16 tells of itself first when that is over."""
    for done, now in ((11, 200), (12, 260)):
        clock.now = now
        lines(Event("train", done, 16))
    assert said.getvalue().splitlines() == ["train: 11/16", "train: 12/16 (about 4 min 0 s left)"]


def test_a_stage_that_begins_again_is_timed_anew(lines: Tell, clock: Clock, said: io.StringIO) -> None:
    for done, now in ((0, 100), (2, 200), (0, 300), (1, 310), (2, 320)):
        clock.now = now
        lines(Event("prove", done, 2))
    assert said.getvalue().splitlines() == [
        "prove: 2/2", "prove: 0/2", "prove: 1/2 (about 10 s left)", "prove: 2/2"
    ]  # fmt: skip


def test_bars_say_what_is_left_though_events_are_minutes_apart(clock: Clock, said: io.StringIO) -> None:
    with shown(Console(file=said, force_terminal=True, width=120)) as tell:
        for done, now in ((1, 100), (2, 400)):
            clock.now = now
            tell(Event("train", done, 4, "[not markup]"))
    assert "about 10 min 0 s left" in said.getvalue() and "[not markup]" in said.getvalue()


def test_a_stage_that_comes_again_has_one_bar_and_a_picture_stands_below(clock: Clock, said: io.StringIO) -> None:
    with shown(Console(file=said, force_terminal=True, width=120)) as tell:
        for note in ("first", "second", "third"):
            for done in (0, 2):
                tell(Event("solve", done, 2, note, picture=f"drawn {note}"))
    last = said.getvalue().rpartition("\x1b[2K")[2]
    assert last.count("solve") <= 1 and "first" not in last and "drawn third" in said.getvalue()


def test_what_has_a_picture_is_a_line_at_once_and_no_picture(lines: Tell, clock: Clock, said: io.StringIO) -> None:
    for done in (1, 2, 3):
        clock.now = 100.0 + done
        lines(Event("search", done, 9, f"try {done}", picture="o..."))
    assert said.getvalue().splitlines() == [
        "search: 1/9 try 1", "search: 2/9 try 2 (about 7 s left)", "search: 3/9 try 3 (about 6 s left)"
    ]  # fmt: skip


def test_whoever_listens_is_told() -> None:
    heard: list[Event] = []
    with told(heard.append) as tell:
        tell(Event("train", 1, 1))
    assert heard == [Event("train", 1, 1)]


def test_nothing_is_shown_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with told(None) as tell:
        assert tell is silent
    assert capsys.readouterr() == ("", "")


def test_a_terminal_shows_bars(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # rich then takes any stream for a terminal
    with told(None) as tell:
        tell(Event("train", 1, 2))
    captured = capsys.readouterr()
    assert captured.out == "" and "1/2" in captured.err


def test_a_notebook_shows_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)
    with told(None) as tell:
        tell(Event("train", 2, 2))
    assert capsys.readouterr() == ("", "train: 2/2\n")
