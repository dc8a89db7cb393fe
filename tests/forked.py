"""The command line in a process of its own that has torch already, which takes seconds to import."""

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess

from slimwright import cli

PRELOADED = [
    "slimwright.cli",
    "slimwright.jobs.shrink",
    "slimwright.cli.sources",
    "slimwright.cli.tables",
    "torch.export",
]


def forked(home: Path, *arguments: str, environment: Mapping[str, str]) -> CompletedProcess[str]:
    """Run `slimwright` with these arguments in the folder `home`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory() as name:
        streams = {1: Path(name) / "stdout", 2: Path(name) / "stderr"}
        for stream in streams.values():
            stream.touch()
        process = context.Process(target=_run, args=(home, arguments, streams, {**os.environ, **environment}))
        process.start()
        process.join(300)
        said = [stream.read_text() for stream in streams.values()]
    assert process.exitcode is not None, "it did not end within 300 seconds"
    return CompletedProcess(arguments, process.exitcode, *said)


def _run(home: Path, arguments: tuple[str, ...], streams: dict[int, Path], environment: dict[str, str]) -> None:
    for number, path in streams.items():
        os.dup2(os.open(path, os.O_WRONLY), number)
    os.chdir(home)
    sys.path.insert(0, str(home))
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["slimwright", *arguments]
    cli.main()
