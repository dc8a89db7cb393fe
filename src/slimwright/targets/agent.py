"""A device on which the agent runs: `slimwright agent`, or the runner with --serve.

Requests and answers are signed with a token that never travels (see `runner.signing`); they are not encrypted.
"""

import http.client
import json
import secrets
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from slimwright.errors import DeviceError
from slimwright.runner import VERSION
from slimwright.runner.machine import Described
from slimwright.runner.serve import SLOWEST_BYTES_PER_S, notice_silence
from slimwright.runner.signing import (
    BODY,
    CHALLENGE,
    NONCE,
    SIGNATURE,
    answer_signature,
    request_signature,
    same,
    sha256,
)
from slimwright.targets.described import MOST_ANSWER, plain, read_description

CONNECT_S, GRACE_S = 10.0, 60.0


@dataclass(frozen=True)
class _Answer:
    status: int
    body: bytes
    signature: str


class Agent:
    """The agent at a host and port, which knows `token`."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self.name = f"the agent at {host}:{port}"
        self._host, self._port, self._token = host, port, token

    def about(self) -> Described:
        """Describe the device. Raises DeviceError."""
        return read_description(self._signed("/about", b"", GRACE_S), self.name)

    def answer(self, data: bytes, seconds: float) -> bytes:
        """Do a packed job there. Raises DeviceError."""
        return self._signed(f"/job?seconds={seconds:g}", data, seconds + GRACE_S)

    def _signed(self, path: str, body: bytes, wait_s: float) -> bytes:
        nonce, challenge, hashed = self._hello(), secrets.token_hex(16), sha256(body)
        signed = request_signature(self._token, ("POST", path), nonce, challenge, hashed)
        headers = {NONCE: nonce, CHALLENGE: challenge, BODY: hashed, SIGNATURE: signed}
        answer = self._asked("POST", path, body, headers, wait_s)
        if answer.status == 401:
            raise DeviceError(f"{self.name} has another token; give the one that it printed when it was started")
        if not same(answer.signature, answer_signature(self._token, signed, answer.status, answer.body)):
            raise DeviceError(f"{self.name} answered, but not with its token: something else answers at that address")
        if answer.status != 200:
            raise DeviceError(f"{self.name} refused ({answer.status}): {_reason(answer.body)}")
        return answer.body

    def _hello(self) -> str:
        """A fresh nonce. Raises DeviceError where there is no agent, one of another version, or one at work."""
        answer = self._asked("GET", "/hello", b"", {}, CONNECT_S)
        try:
            hello = json.loads(answer.body)
            agent, version, nonce, busy = (hello[key] for key in ("agent", "version", "nonce", "busy"))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DeviceError(f"{self.name} is no slimwright agent; is the port right?") from error
        if agent != "slimwright" or not isinstance(nonce, str) or not nonce.isascii() or not nonce.isprintable():
            raise DeviceError(f"{self.name} is no slimwright agent; is the port right?")
        if version != VERSION:
            raise DeviceError(
                f"{self.name} speaks version {plain(str(version))!r}, and this is {VERSION!r}: "
                "write its runner anew with 'slimwright agent --write', copy it there, and start it again"
            )
        if busy:
            raise DeviceError(f"{self.name} is doing another job; wait for its end, and try again")
        return nonce

    def _asked(self, method: str, path: str, body: bytes, headers: Mapping[str, str], wait_s: float) -> _Answer:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_S)
        try:
            connection.connect()
            notice_silence(connection.sock)
            connection.sock.settimeout(CONNECT_S + len(body) / SLOWEST_BYTES_PER_S)
            with suppress(BrokenPipeError, ConnectionResetError):  # refused before all was sent: the answer says why
                connection.request(method, path, body, dict(headers))
            connection.sock.settimeout(wait_s)
            return _read(connection.getresponse())
        except (OSError, http.client.HTTPException) as error:
            raise DeviceError(f"{self.name} {_what_broke(error)}") from error
        finally:
            connection.close()


def _read(response: http.client.HTTPResponse) -> _Answer:
    length = response.length or 0
    if length > MOST_ANSWER:
        raise http.client.HTTPException(f"an answer of {length} bytes")
    body = response.read(length)
    if len(body) < length:
        raise http.client.IncompleteRead(body, length - len(body))
    return _Answer(response.status, body, response.headers.get(SIGNATURE, ""))


def _what_broke(error: Exception) -> str:
    match error:
        case socket.gaierror():
            return "cannot be found: there is no host of that name; check it"
        case ConnectionRefusedError():
            return "does not run; start it on the device: slimwright agent, or python3 runner.pyz --serve"
        case TimeoutError():
            return "did not answer in time; is the device on, and can it be reached from here?"
        case ConnectionError() | http.client.IncompleteRead():
            return "dropped the connection before its answer was whole; see what it says on the device, and try again"
        case http.client.HTTPException():
            return "is no slimwright agent; is the port right?"
        case _:
            return f"cannot be reached: {error}"


def _reason(body: bytes) -> str:
    try:
        return plain(str(json.loads(body)["error"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return "it does not say why"
