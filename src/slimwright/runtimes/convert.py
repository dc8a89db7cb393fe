"""Turn nets into artefacts, in child processes that may print, litter, hang or crash without harm.

Converters take seconds to import, so a workshop keeps a process in which they are imported already, and every
conversion runs in a fork of it, with limits on memory and on processor time. A converter whose dependencies clash with
ours has a process of its own Python.
"""

import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from torch import Tensor

from slimwright.errors import ConversionError, RequestError
from slimwright.graph import Net, save_net, unlisted
from slimwright.runner.memory import available_bytes, is_short, killed_by, most_cpu_s, shortage
from slimwright.runner.pipe import QUIET
from slimwright.runtimes.artefact import Artefact, Precision
from slimwright.runtimes.fallbacks import noted
from slimwright.runtimes.known import converter_python, of

TIMEOUT_S = 900.0
REQUEST, ANSWER, LOG = "request.json", "answer.json", "log"


class Workshop:
    """Converts nets, one at a time; a context that ends its processes. Several jobs may share one, in turn.

    A conversion may take `memory_bytes`, beside what its converter takes once it is loaded; by default, what the
    machine has available.
    """

    def __init__(self, memory_bytes: int | None = None) -> None:
        self._memory_bytes = memory_bytes
        self._processes: dict[tuple[str, ...], _Process] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in self._processes.values():
            process.close()
        self._processes.clear()

    def convert(
        self,
        net: Net,
        runtime: str,
        precision: Precision,
        folder: Path,
        *,
        calibration: Sequence[Tensor] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Artefact:
        """Write a net's artefact for one runtime into `folder`, each file replaced at once.

        A net whose weights have encodings is written in these; `precision` must name them. One that has none gets the
        encoding that `precision` names, in all of its layers. Where no layer of the net can have one, as transposed
        convolutions cannot, the runtime's own converter decides.
        `calibration`, a tensor [N, ...] for each input, is what INT8 is calibrated on. Raises RequestError for what the
        runtime cannot do or where it is not installed, and ConversionError, with the converter's own words, where it
        fails, crashes, takes too long or needs too much memory.
        """
        known = of(runtime, precision)
        net = net if net.encodings else net.in_precision(precision)
        if net.encodings and net.precision != precision:
            raise RequestError(
                f"the weights of the net are encoded as {net.precision}, not as {precision}: it is converted as it was "
                f"proven, with --precision {net.precision}; for {precision} give the network that it was made from"
            )
        if precision == "int8" and calibration is None:
            raise RequestError("INT8 is calibrated on images: name them with --data")
        _check_ends(net, calibration)
        python = tuple(converter_python(runtime))
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".converting-", dir=folder) as name:
            scratch = Path(name).resolve()
            save_net(net, scratch / "net")
            for k, given in enumerate(calibration or ()):
                np.save(scratch / calibration_file(k), given.numpy())
            memory_bytes = available_bytes() if self._memory_bytes is None else self._memory_bytes
            request = {
                "runtime": runtime,
                "precision": precision,
                "carried": unlisted(net),
                "memory_bytes": memory_bytes,
                "cpu_s": most_cpu_s(timeout_s),
            }
            (scratch / REQUEST).write_text(json.dumps(request))
            answer = self._answer(python, scratch, timeout_s)
            if "error" in answer:
                why = shortage(memory_bytes, answer["error"]) if is_short(answer["error"]) else answer["error"]
                raise ConversionError(f"{known.title}, {precision}: {why}")
            files = [folder / Path(made).name for made in answer["files"]]
            for path in files:
                (scratch / path.name).replace(path)
            outputs = [net[name] for name in net.outputs]
            return Artefact(
                runtime,
                precision,
                tuple(files),
                shapes=tuple(node.shape for node in net.inputs),
                output_shapes=tuple(node.shape for node in outputs),
                fallbacks=noted(scratch),
                dtypes=tuple(node.dtype for node in net.inputs),
                output_dtypes=tuple(node.dtype for node in outputs),
                input_names=tuple(answer["inputs"]),
                output_names=tuple(answer["outputs"]),
                free_sizes=tuple((name, size) for name, size in answer["free_sizes"]),
            )

    def _answer(self, python: tuple[str, ...], scratch: Path, timeout_s: float) -> dict[str, Any]:
        process = self._processes.get(python) or self._processes.setdefault(python, _Process(python))
        ended = process.run(scratch, timeout_s)
        if ended is not None:
            process.close()
            del self._processes[python]
            if not (scratch / ANSWER).exists():
                return {"error": ended}
        if (scratch / ANSWER).exists():
            found: dict[str, Any] = json.loads((scratch / ANSWER).read_text())
            return found
        return {"error": f"the converter {process.fate}: {_telling_line(scratch / LOG)}"}


@contextmanager
def lent(workshop: Workshop | None, memory_bytes: int | None = None) -> Iterator[Workshop]:
    """Give a workshop that is somebody else's, and goes on; without one, one that ends with the block."""
    if workshop is not None:
        yield workshop
        return
    with Workshop(memory_bytes) as own:
        yield own


def convert(
    net: Net, runtime: str, precision: Precision, folder: Path, *, calibration: Sequence[Tensor] | None = None
) -> Artefact:
    """Write one artefact of a net, as `Workshop.convert` does."""
    with Workshop() as workshop:
        return workshop.convert(net, runtime, precision, folder, calibration=calibration)


def calibration_file(place: int) -> str:
    """Return the name of the file with what input `place` is calibrated on."""
    return f"calibration-{place}.npy"


def _check_ends(net: Net, calibration: Sequence[Tensor] | None) -> None:
    """Raise RequestError where no runtime could run a net image by image, or be calibrated on what is given."""
    for node in (net[name] for name in net.outputs):
        if node.shape[:1] != (1,):
            raise RequestError(
                f"output '{node.name}' of the net has the shape {list(node.shape)} for one image; its first dimension "
                "must be the batch"
            )
    wanted = [node.shape[1:] for node in net.inputs]
    if calibration is not None and [tuple(given.shape[1:]) for given in calibration] != wanted:
        shapes = " and ".join(str(list(given.shape)) for given in calibration)
        raise RequestError(f"INT8 is calibrated on a tensor for each input, of {list(map(list, wanted))}, not {shapes}")


class _Process:
    """A process in which converters are imported: it is told folders, and forks for each."""

    def __init__(self, python: Sequence[str]) -> None:
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._child = subprocess.Popen(
            [*python, "-m", "slimwright.runtimes.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            bufsize=0,
            start_new_session=True,
            env=os.environ | QUIET,
        )
        self._fork: int | None = None  # the conversion under way
        self._heard = b""  # of a line that is not whole yet
        self.fate = ""

    def run(self, folder: Path, timeout_s: float) -> str | None:
        """Convert what is in `folder`; return what went wrong where this process cannot go on."""
        assert self._child.stdin is not None
        until = time.monotonic() + timeout_s
        with suppress(BrokenPipeError):
            self._child.stdin.write(f"{folder}\n".encode())
        self._fork = self._number(until)
        status = None if self._fork is None else self._number(until)
        if status is None:
            return self._gone(until, timeout_s)
        self._end_fork()
        self.fate = killed_by(status) if status < 0 else "ended early"
        return None

    def close(self) -> None:
        """End the process and all of its children."""
        with suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        assert self._child.stdout is not None
        os.set_blocking(self._child.stdout.fileno(), False)  # a conversion holds the other end, too
        told = (self._heard + (self._child.stdout.read() or b"")).split()
        if self._fork is None and len(told) == 1:  # one that began just when whoever waits was interrupted
            self._fork = int(told[0])
        self._end_fork()
        for pipe in (self._child.stdin, self._child.stdout, self._said):
            assert pipe is not None
            pipe.close()

    def _end_fork(self) -> None:
        """End a conversion and whatever it started; it is in a group of its own."""
        if self._fork is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._fork, signal.SIGKILL)
        self._fork = None

    def _gone(self, until: float, timeout_s: float) -> str:
        """Say why this process answers no more: time is up, or it has ended."""
        if time.monotonic() >= until:
            return f"the converter was stopped after {timeout_s:g} s"
        status = self._child.wait()
        if status < 0:
            return f"the converters' process {killed_by(status)}"
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return f"the converters could not be loaded: {lines[-1] if lines else 'no message'}"

    def _number(self, until: float) -> int | None:
        """The next line that the process says, a number; None where it ends, or says nothing in time."""
        assert self._child.stdout is not None
        while not self._heard.endswith(b"\n"):
            ready, _, _ = select.select([self._child.stdout], [], [], max(until - time.monotonic(), 0))
            if not ready or not (more := self._child.stdout.read(1)):
                return None
            self._heard += more
        line, self._heard = self._heard, b""
        return int(line)


def _telling_line(log: Path) -> str:
    """The line of a log that says that memory was short, or the last one."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return next(filter(is_short, lines), lines[-1] if lines else "it said nothing")
