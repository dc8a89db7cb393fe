"""The system's ssh against a server on the loopback address: real connections, a real runner, a real runtime."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from loopback_ssh import LoopbackSsh

from slimwright.errors import DeviceError, ProofError, RequestError
from slimwright.runtimes.artefact import Artefact
from slimwright.targets import Local, bootstrap, measure, ssh
from slimwright.targets.measuring import Effort
from slimwright.targets.ssh import Ssh
from small_artefacts import SHAPE, emptied, job_processes, packed_job, small_artefact, wait_for_job

pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="there is no ssh on this machine")
LONG = Effort(runs=1, warm_up=0, least_s=60.0)
SHORT = Effort(runs=3, warm_up=0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackSsh]:
    found = LoopbackSsh(tmp_path_factory.mktemp("ssh"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    return small_artefact(tmp_path_factory.mktemp("model"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where the board works."""
    (tmp_path / "board").mkdir()
    return tmp_path / "board"


@pytest.fixture
def board(server: LoopbackSsh, home: Path) -> Ssh:
    return Ssh("board", python=sys.executable, folder=str(home), config=server.config)


def test_a_board_measures_and_scores_as_this_machine_does(board: Ssh, artefact: Artefact, home: Path) -> None:
    images = torch.randn(6, *SHAPE[1:], generator=torch.Generator().manual_seed(1))
    there = measure(board, {"small": artefact}, Effort(runs=20), inputs=[images])["small"]
    here = measure(Local(), {"small": artefact}, SHORT, inputs=[images])["small"]
    assert there.latency is not None and there.latency.runs == 20
    assert 0 < there.latency.p10_ms <= there.latency.median_ms <= there.latency.p90_ms
    assert there.outputs is not None and here.outputs is not None and there.outputs[0].shape == (6, 5)
    assert (there.outputs[0] - here.outputs[0]).abs().max() <= 1e-6
    assert emptied(home)


def test_a_board_describes_itself(board: Ssh, home: Path) -> None:
    assert board.about() == Local().about()
    assert emptied(home)


def test_what_a_shell_prints_first_is_no_answer(server: LoopbackSsh, home: Path, tmp_path: Path) -> None:
    chatty = tmp_path / "chatty python"
    chatty.write_text(f'#!/bin/sh\necho welcome; echo news >&2\nexec "{sys.executable}" "$@"\n')
    chatty.chmod(0o755)
    assert Ssh("board", python=str(chatty), folder=str(home), config=server.config).about()["python"]


def test_a_model_that_cannot_be_loaded_is_told_of(board: Ssh, tmp_path: Path, home: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(ProofError, match=r"on board: onnxruntime cannot load 0-bad\.onnx"):
        measure(board, {"bad": Artefact("onnxruntime", "fp32", (tmp_path / "bad.onnx",), (SHAPE,))}, SHORT)
    assert emptied(home)


def test_a_runtime_that_is_killed_is_told_of(board: Ssh, artefact: Artefact, home: Path) -> None:
    threading.Thread(target=lambda: os.kill(wait_for_job(home), signal.SIGKILL)).start()
    with pytest.raises(ProofError, match=r"on board: the process was killed by SIGKILL \(.*\) with no result"):
        measure(board, {"small": artefact}, LONG)
    assert emptied(home)


def test_a_job_that_takes_too_long_is_stopped(board: Ssh, artefact: Artefact, home: Path) -> None:
    with pytest.raises(DeviceError, match="on board: the job was stopped after 2 s"):
        measure(board, {"small": artefact}, LONG, timeout_s=2.0)
    assert emptied(home)
    assert not job_processes(home)


def test_a_dropped_connection_ends_the_job_there(
    server: LoopbackSsh, board: Ssh, artefact: Artefact, home: Path
) -> None:
    def drop() -> None:
        wait_for_job(home)
        server.drop()

    threading.Thread(target=drop).start()
    with pytest.raises(DeviceError, match="board: the connection was dropped"):
        measure(board, {"small": artefact}, LONG)
    assert emptied(home)
    assert not job_processes(home)


def test_a_client_that_is_killed_ends_the_job_there(server: LoopbackSsh, artefact: Artefact, home: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from slimwright.targets.ssh import Ssh\n"
        "board = Ssh('board', python=sys.executable, folder=sys.argv[2], config=Path(sys.argv[1]))\n"
        "board.answer(sys.stdin.buffer.read(), 60)"
    )
    job = packed_job(artefact, 60.0)
    client = subprocess.Popen([sys.executable, "-c", program, server.config, home], stdin=subprocess.PIPE)
    assert client.stdin
    client.stdin.write(job)
    client.stdin.close()
    wait_for_job(home)
    client.kill()
    client.wait()
    assert emptied(home)
    assert not job_processes(home)


def test_a_full_disk_is_told_of(server: LoopbackSsh, artefact: Artefact, tiny_disk: Path) -> None:
    board = Ssh("board", python=sys.executable, folder=str(tiny_disk), config=server.config)
    with pytest.raises(DeviceError, match=r"board: it cannot write to its disk .*No space left.*; make room"):
        board.about()
    assert emptied(tiny_disk)


def test_a_board_without_numpy_says_how_to_install_it(
    server: LoopbackSsh, artefact: Artefact, home: Path, tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    bare = Ssh("board", python=str(tmp_path / "bare/bin/python"), folder=str(home), config=server.config)
    with pytest.raises(
        RequestError, match=r"on board: numpy is not installed here .*bare/bin/python -m pip install numpy"
    ):
        measure(bare, {"small": artefact}, SHORT)
    assert emptied(home)


@pytest.mark.parametrize(
    ("python", "says"),
    [
        ("/nowhere/python3", "board has no /nowhere/python3 that runs"),
        ("/etc/hosts", "board has no /etc/hosts that runs"),
    ],
)
def test_a_board_without_python_is_told_of(server: LoopbackSsh, python: str, says: str) -> None:
    with pytest.raises(DeviceError, match=says):
        Ssh("board", python=python, config=server.config).about()


def test_a_python_that_is_too_old_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 8, 18))
    with pytest.raises(SystemExit) as ended:
        bootstrap.main()
    assert ended.value.code == bootstrap.TOLD
    assert capsys.readouterr().err.strip() == "its Python is 3.8; the runner needs 3.10 or newer"


def test_connections_that_fail_say_why(server: LoopbackSsh) -> None:
    host_key = server.config.with_name(server.config.name + ".known").read_bytes().partition(b" ")[2]
    other = (server.folder / "allowed").read_bytes()
    refusing = Ssh("board", config=server.client("user", host_key, port=1))
    cases = {
        "its host key is not known yet: connect once by hand with 'ssh board'": server.client("user", b""),
        "its host key has changed": server.client("user", other),
        "it refuses your key": server.client("stranger", host_key),
    }
    for says, config in cases.items():
        with pytest.raises(DeviceError, match=f"board: {says}"):
            Ssh("board", config=config).about()
    with pytest.raises(DeviceError, match="board: no SSH server listens there"):
        refusing.about()
    with pytest.raises(DeviceError, match="there is no host of that name"):
        Ssh("nobody.invalid", config=server.config).about()


@pytest.mark.parametrize("host", ["-oProxyCommand=touch /tmp/x", "", "a b", "user@-x", "a;b", "$(x)"])
def test_a_host_that_would_be_an_option_is_refused(host: str) -> None:
    with pytest.raises(RequestError, match="is no host"):
        Ssh(host)


def lying(server: LoopbackSsh, folder: Path, says: str) -> Ssh:
    """A board whose Python is a shell script."""
    (folder / "liar").write_text(f"#!/bin/sh\n{says}\n")
    (folder / "liar").chmod(0o755)
    return Ssh("board", python=str(folder / "liar"), config=server.config)


BEGINS = "printf '\\n--slimwright--\\n'"


def test_an_answer_that_is_none_is_refused(server: LoopbackSsh, artefact: Artefact, tmp_path: Path) -> None:
    board = lying(server, tmp_path, BEGINS + "; printf '{\"cpu\": 1}'")
    with pytest.raises(DeviceError, match="describes no device"):
        board.about()
    with pytest.raises(DeviceError, match="no result"):
        measure(board, {"small": artefact}, SHORT)


@pytest.mark.parametrize("begins", [BEGINS, "true"])
def test_an_answer_without_an_end_is_not_read_to_its_end(
    begins: str, server: LoopbackSsh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "MOST_ANSWER", 100_000)
    board = lying(server, tmp_path, f"{begins}; head -c 3000000 /dev/zero")
    with pytest.raises(DeviceError, match="board sent more than any job gives"):
        board.answer(b"", 60.0)


def test_an_answer_that_comes_byte_by_byte_has_a_deadline(
    server: LoopbackSsh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("CONNECT_S", 0.5), ("GRACE_S", 0.3), ("SLOWEST_BYTES_PER_S", 1e9)):
        monkeypatch.setattr(ssh, name, seconds)
    board = lying(server, tmp_path, f"{BEGINS}; for i in $(seq 200); do printf x; sleep 0.1; done")
    with pytest.raises(DeviceError, match="board did not answer within 2 s"):
        board.answer(b"", 0.5)
