"""The workshop against converters that fail, hang, crash, print and litter: real ones, on real nets."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from exact import small_net
from slimwright.errors import ConversionError, RequestError
from slimwright.importers import capture
from slimwright.runtimes import RUNTIMES, Workshop, convert, lent
from slimwright.runtimes.child import first_cause
from slimwright.runtimes.known import converter_python, converters_home, installed

pytestmark = pytest.mark.skipif(not installed("ncnn"), reason="ncnn or pnnx is not installed")
NET = small_net("Residual")
FILES = ["model.bin", "model.param"]


@pytest.fixture(scope="module")
def others() -> list[int]:
    """The processes of workshops that other tests in this process have opened."""
    return workshops()


@pytest.fixture(scope="module")
def workshop(others: list[int]) -> Iterator[Workshop]:
    with Workshop() as opened:
        yield opened


def children(of: int) -> list[int]:
    """The processes that `of` has started, and that still run."""
    found: list[int] = []
    for task in Path(f"/proc/{of}/task").glob("*/children"):
        with suppress(OSError):
            found.extend(map(int, task.read_text().split()))
    return [pid for pid in found if runs(pid)]


def runs(pid: int) -> bool:
    try:
        return (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]) not in "ZX"
    except OSError:
        return False


def workshops() -> list[int]:
    """The processes of this process's workshops."""
    return [pid for pid in children(os.getpid()) if b"slimwright.runtimes.child" in command(pid)]


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def forks() -> list[int]:
    """The processes in which conversions are under way."""
    return [fork for pid in workshops() for fork in children(pid)]


@contextmanager
def once_converting(act: Callable[[int], object]) -> Iterator[list[int]]:
    """Act on the first conversion that gets under way; gives its process, once there was one."""
    seen: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not seen and not over.is_set():
            for pid in forks()[:1]:
                seen.append(pid)
                act(pid)
            time.sleep(0.001)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def gone(pids: list[int], seconds: float = 5.0) -> bool:
    """Whether processes have ended, now or soon."""
    until = time.monotonic() + seconds
    while any(map(runs, pids)) and time.monotonic() < until:
        time.sleep(0.01)
    return not any(map(runs, pids))


def first_child(of: int) -> list[int]:
    """What a process starts first; nothing where it ended without."""
    while runs(of):
        if found := children(of):
            return found[:1]
        time.sleep(0.0005)
    return []


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def works(workshop: Workshop, folder: Path) -> None:
    """Convert once more, and see the files."""
    assert {path.name for path in workshop.convert(NET, "ncnn", "fp32", folder / "again").files} == set(FILES)
    assert names(folder / "again") == FILES


def test_what_a_converter_prints_and_leaves_about_stays_away(
    workshop: Workshop, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, before = tmp_path / "deep" / "inside", sorted(Path.cwd().iterdir())
    made = workshop.convert(NET, "ncnn", "fp32", folder)  # pnnx prints its passes, and writes seven files more
    assert capfd.readouterr() == ("", "")
    assert names(folder) == FILES and [path.parent for path in made.files] == [folder, folder]
    assert sorted(Path.cwd().iterdir()) == before
    assert all(path.stat().st_size for path in made.files)


class Named(nn.Module):
    """The number of the largest value."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1).argmax(1)


def test_a_converter_that_fails_is_told_of_in_its_own_words_and_leaves_nothing(
    workshop: Workshop, tmp_path: Path
) -> None:
    net = capture(Named(), (1, 4, 4))
    with pytest.raises(
        ConversionError, match=r"^ncnn .*, int8: RuntimeError: ncnn has no layers for torch\.argmax"
    ) as told:
        workshop.convert(net, "ncnn", "int8", tmp_path, calibration=[torch.randn(2, 1, 4, 4)])
    assert "\n" not in str(told.value)
    assert names(tmp_path) == []


def test_a_failure_leaves_the_files_of_before(workshop: Workshop, tmp_path: Path) -> None:
    made = workshop.convert(NET, "ncnn", "fp32", tmp_path)
    before = [path.read_bytes() for path in made.files]
    with once_converting(lambda pid: os.kill(pid, signal.SIGKILL)), pytest.raises(ConversionError):
        workshop.convert(NET, "ncnn", "fp16", tmp_path)
    assert [path.read_bytes() for path in made.files] == before
    assert names(tmp_path) == FILES


def test_a_converter_that_crashes_takes_nothing_along(workshop: Workshop, tmp_path: Path) -> None:
    works(workshop, tmp_path)
    before = workshops()
    told = r"^ncnn .*, fp32: the converter was killed by SIGSEGV: "
    with (
        once_converting(lambda pid: os.kill(pid, signal.SIGSEGV)) as killed,
        pytest.raises(ConversionError, match=told),
    ):
        workshop.convert(NET, "ncnn", "fp32", tmp_path / "crashed")
    assert names(tmp_path / "crashed") == [] and gone(killed)
    works(workshop, tmp_path)
    assert workshops() == before  # the same process: nothing was loaded again


def test_a_converter_that_hangs_is_stopped(workshop: Workshop, tmp_path: Path) -> None:
    works(workshop, tmp_path)  # loaded, so that the time goes to the conversion
    told = r"^ncnn .*, fp32: the converter was stopped after 1\.5 s$"
    with once_converting(lambda pid: os.kill(pid, signal.SIGSTOP)) as hung, pytest.raises(ConversionError, match=told):
        workshop.convert(NET, "ncnn", "fp32", tmp_path / "hung", timeout_s=1.5)
    assert hung and gone(hung)
    assert names(tmp_path / "hung") == []


def test_what_a_crashed_converter_started_ends_with_it(workshop: Workshop, tmp_path: Path) -> None:
    started: list[int] = []

    def kill_the_parent(pid: int) -> None:
        started.extend(first_child(pid))
        for each in started:
            os.kill(each, signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)

    with once_converting(kill_the_parent), pytest.raises(ConversionError, match="SIGKILL"):
        workshop.convert(NET, "ncnn", "fp32", tmp_path)
    assert started and gone(started)
    assert names(tmp_path) == []


def test_too_little_memory_is_told_of_and_ends_nothing_else(tmp_path: Path) -> None:
    told = r"^ncnn .*, fp32: it needed more memory than the 1e-05 GB that it may take \(.*\); allow it more with --mem"
    with Workshop(memory_bytes=10_000) as narrow, pytest.raises(ConversionError, match=told):
        narrow.convert(NET, "ncnn", "fp32", tmp_path)
    assert names(tmp_path) == []


def test_too_little_time_to_load_is_told_too(tmp_path: Path) -> None:
    with Workshop() as hurried, pytest.raises(ConversionError, match=r"the converter was stopped after 0\.01 s"):
        hurried.convert(NET, "ncnn", "fp32", tmp_path, timeout_s=0.01)
    assert names(tmp_path) == []


def test_a_workshop_that_is_killed_while_it_loads_is_told_of(tmp_path: Path) -> None:
    others = workshops()

    def kill() -> None:
        while not (found := [pid for pid in workshops() if pid not in others]):
            time.sleep(0.001)
        os.kill(found[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    with Workshop() as killed, pytest.raises(ConversionError, match="the converters' process was killed by SIGKILL"):
        killed.convert(NET, "ncnn", "fp32", tmp_path)
    thread.join()
    assert names(tmp_path) == []


def test_a_workshop_that_is_killed_at_work_is_replaced(workshop: Workshop, others: list[int], tmp_path: Path) -> None:
    works(workshop, tmp_path)
    before = workshops()
    for pid in set(before) - set(others):
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(ConversionError, match="killed by SIGKILL"):
        workshop.convert(NET, "ncnn", "fp32", tmp_path / "gone")
    works(workshop, tmp_path)
    assert len(workshops()) == len(before) and not set(workshops()) & set(before) - set(others)


def test_a_conversion_that_is_interrupted_ends_and_leaves_nothing(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(_: int, __: object) -> None:
        raise Stopped

    def interrupt(pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)  # would stay for ever
        os.kill(os.getpid(), signal.SIGUSR2)

    others, before = workshops(), signal.signal(signal.SIGUSR2, stop)
    try:
        with pytest.raises(Stopped), once_converting(interrupt) as under_way, Workshop() as interrupted:
            interrupted.convert(NET, "ncnn", "fp32", tmp_path)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert under_way and gone(under_way)
    assert workshops() == others
    assert names(tmp_path) == []


def test_a_workshop_that_is_lent_goes_on(workshop: Workshop, tmp_path: Path) -> None:
    works(workshop, tmp_path)
    before = workshops()
    with lent(workshop) as borrowed:
        assert borrowed is workshop
    assert workshops() == before
    works(workshop, tmp_path)
    with lent(None) as own:
        assert own is not workshop


@pytest.mark.parametrize(
    ("runtime", "precision", "told"),
    [
        ("abacus", "fp32", "there is no runtime 'abacus'; there is onnxruntime, ort, ncnn, mnn, executorch"),
        ("ncnn", "int4", r"ncnn \(.*\) has no int4 here; it has fp32, fp16, int8"),
        ("ort", "fp16", r"\(\.ort\) has no fp16 here; it has fp32, int8"),
        ("ncnn", "int8", "INT8 is calibrated on images: name them with --data"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_before_anything_starts(
    runtime: str, precision: str, told: str, tmp_path: Path
) -> None:
    with Workshop() as idle:
        before = workshops()
        with pytest.raises(RequestError, match=told):
            idle.convert(NET, runtime, precision, tmp_path / "made")  # type: ignore[arg-type]
        assert workshops() == before
    assert not (tmp_path / "made").exists()


def test_a_converter_that_is_not_installed_is_named_with_the_command_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known = replace(RUNTIMES["mnn"], needs=("onnx", "no_such_converter"))
    monkeypatch.setitem(RUNTIMES, "mnn", known)
    assert not installed("mnn")
    with pytest.raises(
        RequestError, match=r"MNN .*not installed \(no_such_converter\): pip install 'slimwright\[mnn\]'"
    ):
        convert(NET, "mnn", "fp32", tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_a_converter_apart_is_named_with_the_commands_for_its_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert not installed("litert")
    home = tmp_path / "converters" / "litert"
    with pytest.raises(RequestError, match=rf"-m venv {home} && {home}/bin/python -m pip install .*litert-converter"):
        converter_python("litert")
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "python").touch()
    assert converter_python("litert") == [str(converters_home() / "litert" / "bin" / "python")]


def test_an_environment_without_its_converter_is_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    python = tmp_path / "converters" / "litert" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho 'No module named slimwright' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(ConversionError, match="converters could not be loaded: No module named slimwright"):
        convert(NET, "litert", "fp32", tmp_path / "made")
    assert names(tmp_path / "made") == []


def test_the_first_cause_of_a_failure_is_one_line() -> None:
    try:
        try:
            raise KeyError("\n\n  the weight is missing\nand more")
        except KeyError as error:
            raise RuntimeError("please report this") from error
    except RuntimeError as error:
        assert first_cause(error) == r"KeyError: '\n\n  the weight is missing\nand more'"
    assert first_cause(ValueError("\n  wrong\nmore")) == "ValueError: wrong"
    assert first_cause(ValueError()) == "ValueError"
