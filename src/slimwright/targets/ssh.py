"""A board that is reached with the system's `ssh`, so the user's keys, settings and jump hosts apply.

One connection, one command: Python there reads a short program from its command line (`bootstrap`), which takes the
runner and the job from standard input and writes the results to standard output. The connection stays open until the
answer is there; once it is gone, the board ends the job and removes its files.
"""

import base64
import os
import re
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from slimwright.errors import DeviceError, RequestError
from slimwright.runner.machine import Described
from slimwright.runner.pack import runner
from slimwright.targets import bootstrap
from slimwright.targets.described import MOST_ANSWER, plain, read_description

SLOWEST_BYTES_PER_S = 50_000
MOST_GREETING = 1 << 16  # bytes that a shell prints before the answer, or that are read of what is said beside it
CONNECT_S, GRACE_S, ABOUT_S, ALIVE_S = 10, 30.0, 60.0, 5
OPTIONS = {
    "BatchMode": "yes",  # nobody is there to type a password
    "ConnectTimeout": str(CONNECT_S),
    "ServerAliveInterval": str(ALIVE_S),  # a connection that is dead is noticed
    "ServerAliveCountMax": "3",
    "ControlMaster": "no",  # a shared connection is used, but none is left behind
    "ClearAllForwardings": "yes",
    "RemoteCommand": "none",
    "LogLevel": "INFO",  # its messages are read below
}
HOST = re.compile(r"([A-Za-z0-9_][\w.+-]*@)?[A-Za-z0-9_\[][\w.:%\[\]-]*", re.ASCII)  # never an option

# What ssh says (OpenSSH 9.2, sshconnect.c, sshconnect2.c, clientloop.c, packet.c) -> what to do about it.
SAYS = (
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", "its host key has changed: if you set it up anew, forget the old key "
     "with 'ssh-keygen -R {known}'; if not, something else answers in its place"),
    ("Host key verification failed", "its host key is not known yet: connect once by hand with '{ssh}', and accept it"),
    ("Could not resolve hostname", "there is no host of that name: check it, or name it in ~/.ssh/config"),
    ("Permission denied", "it refuses your key: put it there with 'ssh-copy-id', or load it with 'ssh-add'"),
    ("Too many authentication failures", "it refuses your keys: name the right one (IdentityFile) in ~/.ssh/config"),
    ("Connection refused", "no SSH server listens there: start it, or check the port"),
    ("timed out", "it cannot be reached: is it on, and in this network?"),
    ("No route to host", "it cannot be reached: is it on, and in this network?"),
    ("Network is unreachable", "it cannot be reached: is this machine in a network?"),
    ("Bad configuration option", "ssh does not understand its settings: {said}"),
    ("not responding", "the connection was dropped: nothing came for a while"),
)  # fmt: skip


@dataclass(frozen=True)
class Ssh:
    """A board, by a host that `ssh` knows; `folder` is where the board works, its temporary folder by default.

    A job may take `memory_bytes` there; by default, what the board has available.
    """

    host: str
    port: int | None = None
    python: str = "python3"
    folder: str = ""
    config: Path | None = None  # instead of ~/.ssh/config
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        if not HOST.fullmatch(self.host):
            raise RequestError(f"'{self.host}' is no host; write it as for ssh: board, or user@board")

    @property
    def name(self) -> str:
        """The host, as it is called in messages."""
        return self.host

    def about(self) -> Described:
        """Describe the board. Raises DeviceError."""
        return read_description(self._told(["--about"], b"", ABOUT_S), self.name)

    def answer(self, data: bytes, seconds: float) -> bytes:
        """Do a packed job there. Raises DeviceError."""
        memory = [] if self.memory_bytes is None else [str(self.memory_bytes)]
        return self._told(["--pipe", f"{seconds:g}", str(len(data)), *memory], data, seconds)

    def _told(self, arguments: list[str], data: bytes, seconds: float) -> bytes:
        """Have the runner do what `arguments` say, and return what it writes. Raises DeviceError."""
        first = runner()
        most_s = seconds + GRACE_S + (len(first) + len(data)) / SLOWEST_BYTES_PER_S
        command = [*self._ssh(), self._there([str(len(first)), f"{most_s:.0f}", self.folder, *arguments])]
        with tempfile.TemporaryFile() as said:
            try:
                child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said)
            except FileNotFoundError as error:
                raise DeviceError("there is no ssh on this machine; install OpenSSH's client") from error
            assert child.stdin and child.stdout
            over, late = threading.Event(), threading.Event()
            limit_s = CONNECT_S + most_s + GRACE_S  # the board's own limit comes first
            timer = threading.Timer(limit_s, _stop, [child, late])
            try:
                timer.start()
                threading.Thread(target=_feed, args=(child.stdin, (first, data), over), daemon=True).start()
                began, payload = _heard(child.stdout, self.name)
                status = child.wait()
            finally:
                timer.cancel()
                over.set()
                child.kill()
                child.wait()
                child.stdout.close()
            said.seek(max(said.seek(0, os.SEEK_END) - MOST_GREETING, 0))
            text = said.read().decode(errors="replace")
        if late.is_set():
            raise DeviceError(f"{self.name} did not answer within {limit_s:.0f} s; is it overloaded, or the link slow?")
        if status == 0 and began:
            return payload
        raise self._failed(began, status, text)

    def _failed(self, began: bool, status: int, text: str) -> DeviceError:
        """The error for a runner that did not finish, from what ssh and the board said."""
        lines = [plain(line.strip()) for line in text.splitlines() if line.strip()]
        last = lines[-1] if lines else "it said nothing"
        if status == bootstrap.TOLD:
            return DeviceError(f"{self.name}: {last}")
        if status == bootstrap.FAILED:
            return DeviceError(f"{self.name}: the runner failed there: {last}")
        if status == 127 or (status in (1, 126) and not began):
            return DeviceError(
                f"{self.name} has no {self.python} that runs ({last}); install Python 3.10 or newer there, or name its "
                f"Python: ssh:{self.host}?python=/path/to/python3"
            )
        if not began:
            for sign, fix in SAYS:
                if sign in text:
                    return DeviceError(
                        f"{self.name}: " + fix.format(ssh=self._by_hand, known=self._known_as, said=last)
                    )
        return DeviceError(
            f"{self.name}: the connection was dropped ({last}); the board ends the job by itself; try again"
        )

    @property
    def _by_hand(self) -> str:
        return f"ssh -p {self.port} {self.host}" if self.port else f"ssh {self.host}"

    @property
    def _known_as(self) -> str:
        host = self.host.rpartition("@")[2]
        return f"[{host}]:{self.port}" if self.port not in (None, 22) else host

    def _ssh(self) -> list[str]:
        options = [word for name, value in OPTIONS.items() for word in ("-o", f"{name}={value}")]
        port = ["-p", str(self.port)] if self.port else []
        config = ["-F", str(self.config)] if self.config else []
        return ["ssh", "-T", *config, *options, *port, "--", self.host]

    def _there(self, arguments: list[str]) -> str:
        """The command for the board's shell: one line, which any shell reads alike."""
        source = base64.b64encode(Path(bootstrap.__file__).read_bytes()).decode()
        return shlex.join([self.python, "-c", f'import base64;exec(base64.b64decode("{source}"))', *arguments])


def _heard(pipe: IO[bytes], where: str) -> tuple[bool, bytes]:
    """Whether an answer began, and what there is of it. Raises DeviceError where that is more than any job gives."""
    greeting, mark, begun = pipe.read(MOST_GREETING).partition(bootstrap.MARK)
    answer = begun + pipe.read(MOST_ANSWER + 1) if mark else b""
    if len(greeting) == MOST_GREETING or len(answer) > MOST_ANSWER:
        raise DeviceError(f"{where} sent more than any job gives; is it your board that answers?")
    return bool(mark), answer


def _stop(child: "subprocess.Popen[bytes]", late: threading.Event) -> None:
    late.set()
    child.kill()


def _feed(pipe: IO[bytes], parts: Sequence[bytes], over: threading.Event) -> None:
    """Send the parts, and then a byte now and then, so that the board knows that somebody still waits."""
    with suppress(OSError, ValueError):  # the other end has gone, and what it said is read elsewhere
        for part in parts:
            pipe.write(part)
        pipe.flush()
        while not over.wait(ALIVE_S):
            pipe.write(b"\n")
            pipe.flush()
    with suppress(OSError, ValueError):
        pipe.close()
