"""A job in a child process: whatever happens to it, there is a result, and nothing is left behind."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimwright.runner import pipe
from slimwright.runner.pack import packed_files, runner, unpack
from small_artefacts import packed_job, small_artefact


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where jobs are done."""
    (tmp_path / "home").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in the runner's place."""
    path = tmp_path / "program.py"
    monkeypatch.setattr(pipe, "_entry", lambda: [str(path)])
    return path


def saved(array: np.ndarray[Any, Any]) -> bytes:
    with tempfile.TemporaryFile() as file:
        np.save(file, array)
        file.seek(0)
        return file.read()


def told(answered: bytes, tmp_path: Path) -> Any:
    (tmp_path / "told").mkdir()
    unpack(answered, tmp_path / "told")
    return json.loads((tmp_path / "told/result.json").read_text())


JOB = packed_files({"job.json": b"{}"})


def test_an_archive_that_is_none_is_told_of(home: Path, tmp_path: Path) -> None:
    assert told(pipe.answer(b"nonsense", 5.0), tmp_path)["error"]["kind"] == "job"
    assert not any(home.iterdir())


def test_a_job_that_is_none_is_told_of(home: Path, tmp_path: Path) -> None:
    error = told(pipe.answer(JOB, 20.0), tmp_path)["error"]
    assert error["kind"] == "job"
    assert "sides" in error["message"]
    assert not any(home.iterdir())


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (b"junk", "inputs-0.npy holds no array"),
        (b"", "inputs-0.npy holds no array"),
        (saved(np.zeros((2, 3, 8, 8), np.int64)), "inputs-0.npy is int64 (2, 3, 8, 8); it must be float32"),
        (saved(np.zeros((0, 3, 8, 8), np.float32)), "inputs-0.npy"),
    ],
    ids=["junk", "nothing", "integers", "empty"],
)
def test_images_that_are_none_are_told_of(images: bytes, says: str, tmp_path: Path, home: Path) -> None:
    job = packed_job(small_artefact(tmp_path), 0.0, images=images)
    error = told(pipe.answer(job, 20.0), tmp_path)["error"]
    assert error["kind"] == "job"
    assert says in error["message"]


@pytest.mark.parametrize(
    ("program", "kind", "says"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crash", "was killed by SIGSEGV with no result"),
        ("raise SystemExit('out of luck')", "crash", "ended with no result: out of luck"),
        ("pass", "crash", "it said nothing"),
        (
            "import sys; sys.exit(\"terminate called after throwing 'std::bad_alloc'\")",
            "memory",
            "more memory than the",
        ),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            "crash",
            "the system may be short of memory",
        ),
        ("import sys; print('No space left', file=sys.stderr); sys.exit(74)", "disk", "No space left; make room"),
    ],
)
def test_a_child_that_fails_is_told_of(
    program: str, kind: str, says: str, stand_in: Path, home: Path, tmp_path: Path
) -> None:
    stand_in.write_text(program)
    error = told(pipe.answer(JOB, 10.0), tmp_path)["error"]
    assert error["kind"] == kind
    assert says in error["message"]
    assert not any(home.iterdir())


def test_a_job_may_take_no_more_memory_than_it_is_given(home: Path, tmp_path: Path) -> None:
    job = packed_job(small_artefact(tmp_path, doublings=9), 0.0)  # 4 * 8 * 8 * 4^9 floats: 268 MB
    error = told(pipe.answer(job, 60.0, memory_bytes=10**8), tmp_path)["error"]
    assert error["kind"] == "memory"
    assert "it needed more memory than the 0.1 GB that it may take" in error["message"]
    assert "--memory-limit" in error["message"]
    assert not any(home.iterdir())


def test_what_a_child_left_of_a_result_before_it_crashed_is_no_result(
    stand_in: Path, home: Path, tmp_path: Path
) -> None:
    stand_in.write_text(
        "import os, pathlib, sys; pathlib.Path(sys.argv[1], 'result.json').write_text('{}'); os.abort()"
    )
    assert told(pipe.answer(JOB, 10.0), tmp_path)["error"]["kind"] == "crash"


def test_only_results_are_sent_back(stand_in: Path, home: Path, tmp_path: Path) -> None:
    stand_in.write_text(
        "import pathlib, sys; f = pathlib.Path(sys.argv[1])\n"
        "for name in ('result.json', 'outputs-0-0.npy', 'litter'): (f / name).write_text('{}')\n"
    )
    assert told(pipe.answer(JOB, 10.0), tmp_path) == {}
    assert {path.name for path in (tmp_path / "told").iterdir()} == {"result.json", "outputs-0-0.npy"}
    assert not any(home.iterdir())


GRANDCHILD = (
    "import subprocess, sys, pathlib, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    "pathlib.Path(sys.argv[0]).with_name('pid').write_text(str(child.pid))\n"
)


def ended(number: int) -> bool:
    """Whether a process has ended, or will within a few seconds."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("rest", ["time.sleep(60)", "pass"])
def test_what_a_child_started_is_ended_with_it(rest: str, stand_in: Path, home: Path, tmp_path: Path) -> None:
    stand_in.write_text(GRANDCHILD + rest)
    kind = told(pipe.answer(JOB, 2.0), tmp_path)["error"]["kind"]
    assert kind == ("time" if rest != "pass" else "crash")
    assert ended(int((tmp_path / "pid").read_text()))
    assert not any(home.iterdir())


def test_a_job_that_nobody_waits_for_is_ended(stand_in: Path, home: Path, tmp_path: Path) -> None:
    stand_in.write_text(GRANDCHILD + "time.sleep(60)")
    with pytest.raises(pipe.Abandoned):
        pipe.answer(JOB, 60.0, gone=(tmp_path / "pid").exists)
    assert ended(int((tmp_path / "pid").read_text()))
    assert not any(home.iterdir())


def test_a_disk_without_room_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    assert told(pipe.answer(JOB, 10.0), tmp_path)["error"]["kind"] == "disk"


def test_a_job_is_ended_with_the_process_that_waits_for_it(tmp_path: Path) -> None:
    """Even where that is killed outright: the child sees that its parent has gone."""
    (tmp_path / "runner.pyz").write_bytes(runner())
    fifo = tmp_path / "job" / "job.json"
    fifo.parent.mkdir()
    os.mkfifo(fifo)  # reading the job waits for ever
    program = (
        "import os, subprocess, sys\n"
        "p = subprocess.Popen([*sys.argv[1:], str(os.getpid())]); print(p.pid, flush=True); p.wait()"
    )
    command = [sys.executable, "-c", program, sys.executable, str(tmp_path / "runner.pyz"), str(fifo.parent)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    number = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    assert ended(number)


def test_silence_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "SILENCE_S", 0.5)
    reading, writing = os.pipe()
    silent = pipe._silence_on(reading)
    for _ in range(8):
        os.write(writing, b"\n")
        time.sleep(0.1)
        assert not silent()  # 0.8 s on the whole, but never 0.5 s without a byte
    time.sleep(0.6)
    assert silent()
    os.close(writing)


def test_the_end_of_a_pipe_is_noticed() -> None:
    reading, writing = os.pipe()
    silent = pipe._silence_on(reading)
    assert not silent()
    os.close(writing)
    while not silent():
        time.sleep(0.01)


def test_a_pipe_that_ends_early_ends_the_runner(home: Path, tmp_path: Path) -> None:
    (tmp_path / "runner.pyz").write_bytes(runner())
    done = subprocess.run(
        [sys.executable, "-I", str(tmp_path / "runner.pyz"), "--pipe", "30", str(len(JOB) + 1)],
        input=JOB, capture_output=True, check=False, env={**os.environ, "TMPDIR": str(home)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"nobody waits" in done.stderr
    assert not any(home.iterdir())
