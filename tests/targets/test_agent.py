"""The real agent in a process of its own, on the loopback address, and what answers in its place."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch

from slimwright.errors import DeviceError, ProofError
from slimwright.runner import VERSION, pack
from slimwright.runtimes.artefact import Artefact
from slimwright.targets import Local, measure
from slimwright.targets.agent import Agent
from slimwright.targets.measuring import Effort
from small_artefacts import SHAPE, emptied, job_processes, packed_job, small_artefact, wait_for_job

LONG = Effort(runs=1, warm_up=0, least_s=60.0)
SHORT = Effort(runs=3, warm_up=0)


class Started:
    """An agent's process, where it works, and the client to it."""

    def __init__(self, command: list[str], folder: Path, home: Path | None = None) -> None:
        self.home = home or folder / "device"
        self.home.mkdir(exist_ok=True)
        options = ["--port", "0", "--token-file", str(folder / "token")]
        self.process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(self.home)}
        )
        assert self.process.stdout
        self.printed = [self.process.stdout.readline() for _ in range(2)]
        found = re.fullmatch(r"listening on 127\.0\.0\.1:(\d+); stop with Ctrl-C\n", self.printed[1])
        assert found, self.printed
        self.port = int(found[1])
        self.token = (folder / "token").read_text().strip()
        self.client = Agent("127.0.0.1", self.port, self.token)

    def stop(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """Its exit status, and what it printed last."""
        self.process.send_signal(number)
        last = self.process.communicate(timeout=20)[0]
        return self.process.returncode, last


CLI = [sys.executable, "-m", "slimwright", "agent"]


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    started = Started(CLI, tmp_path_factory.mktemp("agent"))
    yield started
    assert started.stop() == (0, "stopped\n")


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    return small_artefact(tmp_path_factory.mktemp("model"))


def test_an_agent_measures_and_scores_as_this_machine_does(agent: Started, artefact: Artefact) -> None:
    images = torch.randn(6, *SHAPE[1:], generator=torch.Generator().manual_seed(1))
    there = measure(agent.client, {"small": artefact}, Effort(runs=20), inputs=[images])["small"]
    here = measure(Local(), {"small": artefact}, SHORT, inputs=[images])["small"]
    assert there.latency is not None and there.latency.runs == 20
    assert there.outputs is not None and here.outputs is not None and there.outputs[0].shape == (6, 5)
    assert (there.outputs[0] - here.outputs[0]).abs().max() <= 1e-6
    assert agent.client.about() == Local().about()
    assert emptied(agent.home)


def test_a_new_token_is_printed_and_kept_to_oneself(agent: Started) -> None:
    (path,) = agent.home.parent.glob("token")
    assert agent.printed[0] == f"a new token, kept in {path}: {agent.token}\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(agent.token) >= 32


def test_another_token_is_refused(agent: Started, artefact: Artefact) -> None:
    stranger = Agent("127.0.0.1", agent.port, "x" * 40)
    for ask in (stranger.about, lambda: measure(stranger, {"small": artefact}, SHORT)):
        with pytest.raises(DeviceError, match="has another token"):
            ask()


def test_a_model_that_cannot_be_loaded_is_told_of(agent: Started, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(ProofError, match=r"onnxruntime cannot load 0-bad\.onnx"):
        measure(agent.client, {"bad": Artefact("onnxruntime", "fp32", (tmp_path / "bad.onnx",), (SHAPE,))}, SHORT)
    assert emptied(agent.home)


def test_one_job_at_a_time_and_a_killed_runtime_is_told_of(agent: Started, artefact: Artefact) -> None:
    told: list[Exception] = []

    def long_job() -> None:
        try:
            measure(agent.client, {"small": artefact}, LONG)
        except ProofError as error:
            told.append(error)

    thread = threading.Thread(target=long_job)
    thread.start()
    number = wait_for_job(agent.home)
    with pytest.raises(DeviceError, match="is doing another job"):
        measure(agent.client, {"small": artefact}, SHORT)
    os.kill(number, signal.SIGKILL)
    thread.join(20)
    assert "the process was killed by SIGKILL with no result" in str(told[0])
    assert emptied(agent.home)


def test_a_job_that_takes_too_long_is_stopped(agent: Started, artefact: Artefact) -> None:
    with pytest.raises(DeviceError, match="the job was stopped after 2 s"):
        measure(agent.client, {"small": artefact}, LONG, timeout_s=2.0)
    assert emptied(agent.home)
    assert not job_processes(agent.home)


def test_a_client_that_goes_away_ends_its_job(agent: Started, artefact: Artefact) -> None:
    program = (
        "import sys; from slimwright.targets.agent import Agent\n"
        "Agent('127.0.0.1', int(sys.argv[1]), sys.argv[2]).answer(sys.stdin.buffer.read(), 60)"
    )
    client = subprocess.Popen([sys.executable, "-c", program, str(agent.port), agent.token], stdin=subprocess.PIPE)
    assert client.stdin
    client.stdin.write(packed_job(artefact, 60.0))
    client.stdin.close()
    wait_for_job(agent.home)
    client.kill()
    client.wait()
    assert emptied(agent.home)
    assert not job_processes(agent.home)


def test_the_runner_alone_is_an_agent_and_ends_in_the_middle_of_a_job(artefact: Artefact, tmp_path: Path) -> None:
    pack.write_runner(tmp_path / "runner.pyz")
    started = Started([sys.executable, "-I", str(tmp_path / "runner.pyz"), "--serve"], tmp_path)
    told: list[Exception] = []

    def long_job() -> None:
        try:
            measure(started.client, {"small": artefact}, LONG)
        except DeviceError as error:
            told.append(error)

    thread = threading.Thread(target=long_job)
    thread.start()
    wait_for_job(started.home)
    assert started.stop(signal.SIGTERM) == (0, "stopped\n")
    thread.join(20)
    assert "dropped the connection before its answer was whole" in str(told[0])
    assert not any(started.home.iterdir())
    assert not job_processes(started.home)
    with pytest.raises(DeviceError, match="does not run; start it on the device"):
        started.client.about()


def test_a_full_disk_is_told_of(artefact: Artefact, tmp_path: Path, tiny_disk: Path) -> None:
    pack.write_runner(tmp_path / "runner.pyz")
    (tmp_path / "big.onnx").write_bytes(b"0" * 100_000)
    started = Started([sys.executable, "-I", str(tmp_path / "runner.pyz"), "--serve"], tmp_path, tiny_disk)
    with pytest.raises(DeviceError, match=r"No space left on device.*; make room on the disk, or set TMPDIR"):
        measure(started.client, {"big": Artefact("onnxruntime", "fp32", (tmp_path / "big.onnx",), (SHAPE,))}, SHORT)
    assert not any(tiny_disk.iterdir())
    assert started.stop() == (0, "stopped\n")


def test_a_token_that_others_can_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x" * 40)
    (tmp_path / "token").chmod(0o644)
    done = subprocess.run([*CLI, "--token-file", tmp_path / "token"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"chmod 600 {tmp_path / 'token'}" in done.stderr.replace("\n", "")


def test_the_runner_is_written_with_instructions(tmp_path: Path) -> None:
    done = subprocess.run([*CLI, "--write", tmp_path / "runner.pyz"], capture_output=True, text=True, check=True)
    assert "runtime/bin/python runner.pyz --serve --host 0.0.0.0" in done.stdout
    about = subprocess.run([tmp_path / "runner.pyz", "--about"], capture_output=True, check=True)
    assert json.loads(about.stdout)["machine"] == Local().about()["machine"]


class Imposter:
    """Something else that listens where an agent should: it sends `answer` to whatever it is asked."""

    def __init__(self, answer: Callable[[str], tuple[int, bytes]]) -> None:
        class Answering(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._say()

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self._say()

            def _say(self) -> None:
                status, body = answer(self.path)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Answering)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.client = Agent("127.0.0.1", self.server.server_port, "t" * 40)

    def __enter__(self) -> Agent:
        return self.client

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def hello(**changed: object) -> bytes:
    return json.dumps({"agent": "slimwright", "version": VERSION, "nonce": "1.2.3", "busy": False} | changed).encode()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"<html>a router</html>", "is no slimwright agent; is the port right"),
        (b"[" * 5000, "is no slimwright agent"),
        (hello(nonce="a\r\nb"), "is no slimwright agent"),
        (hello(nonce=7), "is no slimwright agent"),
        (hello(version="0"), "speaks version '0', and this is '2': write its runner anew"),
        (hello(busy=True), "is doing another job"),
        (hello(), "not with its token: something else answers"),
    ],
)
def test_what_is_no_agent_or_another_is_told_of(said: bytes, told: str) -> None:
    with Imposter(lambda path: (200, said)) as client, pytest.raises(DeviceError, match=told):
        client.about()


@pytest.mark.parametrize(
    "said", [b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.0 200 OK\r\nContent-Length: 99999999999\r\n\r\n", b"\0" * 70_000]
)
def test_what_speaks_no_http_is_told_of(said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def once() -> None:
            connection, _ = listening.accept()
            connection.recv(1 << 16)
            connection.sendall(said)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)
            connection.close()

        threading.Thread(target=once, daemon=True).start()
        with pytest.raises(DeviceError, match="is no slimwright agent; is the port right"):
            Agent("127.0.0.1", listening.getsockname()[1], "t" * 40).about()


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.0 200 OK\r\nContent-Length: 500\r\n\r\n{"])
def test_a_connection_dropped_in_the_middle_is_told_of(sent: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def once() -> None:
            connection, _ = listening.accept()
            connection.recv(1 << 16)
            connection.sendall(sent)
            connection.close()

        threading.Thread(target=once, daemon=True).start()
        with pytest.raises(DeviceError, match="dropped the connection before its answer was whole"):
            Agent("127.0.0.1", listening.getsockname()[1], "t" * 40).about()


def test_a_device_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slimwright.targets.agent.CONNECT_S", 0.3)
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        pytest.raises(DeviceError, match="did not answer in time; is the device on"),
    ):
        Agent("127.0.0.1", listening.getsockname()[1], "t" * 40).about()


def test_a_host_that_is_not_there_is_told_of() -> None:
    with pytest.raises(DeviceError, match="there is no host of that name"):
        Agent("nobody.invalid", 8765, "t" * 40).about()
