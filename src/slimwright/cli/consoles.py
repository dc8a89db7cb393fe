"""Where commands print: results to standard output, progress and errors to standard error."""

from collections.abc import Iterator
from contextlib import contextmanager

from slimwright.progress import Tell, shown, silent
from slimwright.terminal import Terminal

out_console, err_console = Terminal(), Terminal(stderr=True)


@contextmanager
def progress(quiet: bool) -> Iterator[Tell]:
    """Give what listens to a job and shows how far it is, on standard error; if `quiet`, what listens to nothing."""
    if quiet:
        yield silent
        return
    with shown(err_console) as tell:
        yield tell
