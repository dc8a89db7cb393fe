"""The command line: parse, call once, print, exit status.

Exit status: 0 done and within budget, 1 done but a budget or a proof was missed, 2 the request was wrong, 130 stopped
by hand, 143 by SIGTERM. Results go to standard output, progress and errors to standard error.
"""

import os

# Threads that wait shall sleep, not spin: on a busy machine spinning makes small operations ten times slower. The
# setting must stand before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime from 1.29 on reports its use to its maker

import logging
import platform
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.text import Text

from slimwright.atomic import stamped, swept
from slimwright.cli import coding, deploying, examining, making, packing, searching, shrinking, splitting
from slimwright.cli.consoles import err_console
from slimwright.errors import RequestError, SlimwrightError
from slimwright.runner.machine import runtimes

HELP = "A trained CNN and a device budget in, a smaller, faster model out, proven on the runtime that will run it."
app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help=HELP,
)
COMMANDS: tuple[tuple[Callable[..., None], str], ...] = (
    (shrinking.shrink, shrinking.SHRINK),
    (searching.search, searching.SEARCH),
    (deploying.fleet, deploying.FLEET),
    (examining.inspect, examining.INSPECT),
    (examining.compare, examining.COMPARE),
    (making.apply, making.APPLY),
    (examining.devices, examining.DEVICES),
    (making.export, making.EXPORT),
    (examining.doctor, examining.DOCTOR),
    (shrinking.verify, shrinking.VERIFY),
    (shrinking.sign, shrinking.SIGN),
    (shrinking.report, shrinking.REPORT),
    (making.kit, making.KIT),
    (packing.pack, packing.PACK),
    (packing.unpack, packing.UNPACK),
    (making.train, making.TRAIN),
)


def _version(asked: bool) -> None:
    """Say which slimwright this is, and on what it runs; torch is not loaded for that."""
    if asked:
        found = {"slimwright": version("slimwright"), "Python": platform.python_version(), "torch": version("torch")}
        for name, number in (found | runtimes()).items():
            print(f"{name} {number}")
        raise typer.Exit


@app.callback(help=HELP)
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="of slimwright, and of what it runs on"),
    ] = False,
) -> None:
    """Take what goes before a command's name."""


for _command, _examples in COMMANDS:
    app.command(epilog=_examples)(_command)
app.add_typer(coding.app, name="codec")
app.add_typer(splitting.app, name="split")


def main() -> None:
    """Run the command line."""
    logging.getLogger("torch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        with _scratch():
            app()
    except SlimwrightError as error:
        _say(str(error))
        sys.exit(2 if isinstance(error, RequestError) else 1)
    except Stopped as stopped:
        err_console.print("stopped; the same command goes on from what is in the cache")
        sys.exit(128 + stopped.number)
    except BrokenPipeError:  # who read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:  # a full disk, a file that may not be read
        _say(f"{error.filename or 'a file'}: {error.strerror or error}")
        sys.exit(1)


class Stopped(BaseException):
    """The process was asked to end: what is under way ends as it does where an error is raised."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def _stop(number: int, _: FrameType | None) -> None:
    raise Stopped(number)


def _say(why: str) -> None:
    err_console.print(Text.assemble(("error:", "bold red"), " ", why), soft_wrap=True)


@contextmanager
def _scratch() -> Iterator[None]:
    """Keep every temporary file, those of child processes too, in one folder of this process.

    It goes with the process; that of a process which was killed goes with the next one, at its start or at its end:
    what the killed one had started may still be writing at first.
    """
    parent = Path(tempfile.gettempdir())
    try:
        swept(parent, "slimwright")
        folder = stamped(parent, "slimwright")
    except OSError:  # where nothing can be written, whoever writes says so
        yield
        return
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = str(parent)
        if before is None:
            os.environ.pop("TMPDIR", None)
        else:
            os.environ["TMPDIR"] = before
        shutil.rmtree(folder, ignore_errors=True)
        swept(parent, "slimwright")


if __name__ == "__main__":
    main()
