import io

from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from slimwright.progress import Event, shown
from slimwright.terminal import UNSEEN, Terminal, printable

HOSTILE = "\x1b]0;owned\x07\x1b[2J[/foo] \\[bold]\u202egnp.exe \x9b1m"


def printed(*renderables: object) -> str:
    """What a terminal without colours is sent."""
    out = io.StringIO()
    console = Terminal(file=out, force_terminal=True, color_system=None, width=200)
    for renderable in renderables:
        console.print(renderable, soft_wrap=True)
    return out.getvalue()


def test_names_steer_no_terminal_and_are_no_markup() -> None:
    table = Table(HOSTILE, title=Text(HOSTILE))
    table.add_row(HOSTILE)
    for text in (printed(HOSTILE), printed(Text.assemble(("error:", "bold"), " ", HOSTILE)), printed(table)):
        assert not set("\x1b\x07\x9b\u202e") & set(text)
        assert "[/foo] \\[bold]" in text and UNSEEN in text


def test_colours_stay() -> None:
    out = io.StringIO()
    Terminal(file=out, force_terminal=True, color_system="standard", width=80).print(Text("a\x1bb", "red"))
    assert out.getvalue() == f"\x1b[31ma{UNSEEN}b\x1b[0m\n"


def test_notes_of_stages_are_shown_as_they_are() -> None:
    for terminal in (True, False):
        out = io.StringIO()
        with shown(Terminal(file=out, force_terminal=terminal, color_system=None, width=200)) as tell:
            tell(Event("load", 1, 1, HOSTILE))
        assert "[/foo] \\[bold]" in out.getvalue() and "owned\x07" not in out.getvalue()
        assert "\u202e" not in out.getvalue()


@given(st.text())
def test_ordinary_text_is_left_alone(text: str) -> None:
    seen = printable(text)
    assert len(seen) == len(text)
    assert all(new == old or not old.isprintable() for new, old in zip(seen, text, strict=True))
    assert printable("140\u00a0kB\n") == "140\u00a0kB\n"
