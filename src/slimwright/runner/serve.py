"""The agent: a small HTTP server on a device, which does jobs for whoever knows its token (see `signing`).

    GET  /hello                 who this is, whether a job is under way, and a nonce; for everybody
    POST /about                 describe the machine; signed
    POST /job?seconds=SECONDS   do a packed job; signed. One at a time: 409 while another is under way

No path that is asked for touches the file system. Bodies and answers are not encrypted.
"""

import argparse
import json
import os
import secrets
import select
import signal
import socket
import socketserver
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from slimwright.runner import VERSION, machine, pipe
from slimwright.runner.job import MOST_SECONDS
from slimwright.runner.signing import (
    BODY,
    CHALLENGE,
    LEAST_TOKEN,
    NONCE,
    SIGNATURE,
    Nonces,
    answer_signature,
    request_signature,
    same,
    sha256,
)

HOST, PORT, TOKEN_FILE = "127.0.0.1", 8765, Path.home() / ".slimwright-token"
MOST_BYTES = 2 << 30  # of a job
MOST_UNSIGNED_BYTES = 1 << 20  # read and thrown away, so that who sent them gets to read why they were refused
MOST_CONNECTIONS = 32
WAIT_S, HEADERS_S = 20.0, 15.0  # for the next bytes, for all headers together
SLOWEST_BYTES_PER_S = 50_000
STOP_S = 10.0


class Agent(ThreadingHTTPServer):
    """Listens; does one job at a time."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, token: str) -> None:
        if ":" in host:
            self.address_family = socket.AF_INET6
        self.token, self.nonces = token, Nonces()
        self.at_work, self.stopping = threading.Lock(), threading.Event()
        self._places = threading.BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__((host, port), Handler)

    def server_bind(self) -> None:
        """Bind, without asking the network for this machine's name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection a thread, or close it where there are too many."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that broke."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def stop(self) -> None:
        """End the job that is under way, and wait until its folder is gone."""
        self.stopping.set()
        self.at_work.acquire(timeout=STOP_S)


class Refused(Exception):
    """A request is not done; `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    """One connection, with one request."""

    server: Agent
    timeout = WAIT_S
    server_version, sys_version = "slimwright-agent", ""

    def setup(self) -> None:
        """Close the connection unless the headers are there in time."""
        super().setup()
        self._signed = ""
        self._unread = 0
        notice_silence(self.connection)
        self._hurry = threading.Timer(HEADERS_S, _close, [self.connection])
        self._hurry.daemon = True
        self._hurry.start()

    def finish(self) -> None:
        """Leave no timer behind."""
        self._hurry.cancel()
        with suppress(OSError):
            super().finish()

    def do_GET(self) -> None:
        """Say who this is."""
        self._hurry.cancel()
        if self.path != "/hello":
            self._answer(404, _error("there is nothing here but /hello"))
            return
        hello = {"agent": "slimwright", "version": VERSION, "nonce": self.server.nonces.fresh()}
        self._answer(200, json.dumps(hello | {"busy": self.server.at_work.locked()}).encode())

    def do_POST(self) -> None:
        """Do what a signed request asks for."""
        self._hurry.cancel()
        try:
            length = self._admitted()
            match urlsplit(self.path).path:
                case "/about":
                    self._body(length)
                    found = json.dumps(machine.about()).encode()
                case "/job":
                    found = self._job(length)
                case _:
                    raise Refused(404, "there is nothing here but /about and /job")
        except Refused as refused:
            self._drain()
            self._answer(refused.status, _error(str(refused)))
        except pipe.Abandoned:
            return
        else:
            self._answer(200, found)

    def log_message(self, *_: Any) -> None:
        """Say nothing of single requests; jobs are noted."""

    def _note(self, text: str) -> None:
        """Print a line; only while at work, so that a process that ends has no thread that still prints."""
        print(f"{time.strftime('%H:%M:%S')} {self.client_address[0]}: {text}", file=sys.stderr, flush=True)

    def _admitted(self) -> int:
        """The length of the body, once the signature is known to be good. Raises Refused."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or len(length) > 15:
            raise Refused(411, "the request must tell its length")
        self._unread = int(length)
        nonce, challenge, body, signature = (self.headers.get(name, "") for name in (NONCE, CHALLENGE, BODY, SIGNATURE))
        expected = request_signature(self.server.token, (self.command, self.path), nonce, challenge, body)
        if not same(signature, expected):
            raise Refused(401, "the token is not this agent's")
        if not self.server.nonces.take(nonce):
            raise Refused(403, "the nonce is not good any more")
        self._signed = signature
        if self._unread > MOST_BYTES:
            raise Refused(413, f"the job has {length} bytes; this agent takes at most {MOST_BYTES}")
        return self._unread

    def _job(self, length: int) -> bytes:
        seconds = _seconds(urlsplit(self.path).query)
        if not self.server.at_work.acquire(blocking=False):
            raise Refused(409, "another job is under way on this device; wait for its end, and try again")
        try:
            if self.server.stopping.is_set():
                raise Refused(503, "the agent is ending")
            data = self._body(length)
            began = time.monotonic()
            found = pipe.answer(data, seconds, self._gone)
            self._note(f"a job of {length} bytes, done in {time.monotonic() - began:.1f} s")
            return found
        except pipe.Abandoned:
            self._note("nobody waits for it any more: the job was stopped")
            raise
        finally:
            self.server.at_work.release()

    def _body(self, length: int) -> bytes:
        parts, until = [], time.monotonic() + WAIT_S + length / SLOWEST_BYTES_PER_S
        while self._unread:
            part = self.rfile.read1(min(self._unread, 1 << 20))
            if not part or time.monotonic() > until:
                raise ConnectionError("the request ended early, or took too long")
            self._unread -= len(part)
            parts.append(part)
        data = b"".join(parts)
        if not same(sha256(data), self.headers.get(BODY, "")):
            raise Refused(400, "the body is not the one that was signed")
        return data

    def _drain(self) -> None:
        """Read what a refused client still sends, or it would never read the answer."""
        left = min(self._unread, MOST_BYTES if self._signed else MOST_UNSIGNED_BYTES)
        until = time.monotonic() + WAIT_S
        with suppress(OSError):
            while left > 0 and time.monotonic() < until:
                part = self.rfile.read1(min(left, 1 << 20))
                left = left - len(part) if part else 0

    def _gone(self) -> bool:
        """Whether nobody waits for the answer: the client hung up, or the agent is ending."""
        if self.server.stopping.is_set():
            return True
        try:
            readable, _, _ = select.select([self.connection], [], [], 0)
            return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def _answer(self, status: int, body: bytes) -> None:
        self.connection.settimeout(WAIT_S + len(body) / SLOWEST_BYTES_PER_S)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if self._signed:
            self.send_header(SIGNATURE, answer_signature(self.server.token, self._signed, status, body))
        self.end_headers()
        self.wfile.write(body)


def serve(host: str, port: int, token: str) -> None:
    """Do jobs until stopped by Ctrl-C or SIGTERM. Raises OSError where the address cannot be had."""
    for each in (signal.SIGINT, signal.SIGTERM):  # a shell's background jobs start with SIGINT ignored
        signal.signal(each, _interrupt)
    with Agent(host, port, token) as agent:
        name, number = agent.server_address[:2]
        print(f"listening on {name!s}:{number}; stop with Ctrl-C", flush=True)
        with suppress(KeyboardInterrupt):
            agent.serve_forever()
        with suppress(KeyboardInterrupt):  # pressed again
            agent.stop()
    print("stopped", flush=True)


def token_in(path: Path) -> str:
    """Return the token in a file; make both where there is none. Raises ValueError for a token that is none."""
    if not path.exists():
        made = secrets.token_urlsafe(32)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(made + "\n")
        print(f"a new token, kept in {path}: {made}", flush=True)
        return made
    if path.stat().st_mode & 0o077:
        raise ValueError(f"others can read the token in {path}: chmod 600 {path}")
    token = path.read_text().strip()
    if len(token) < LEAST_TOKEN or not (token.isascii() and token.isprintable()):
        raise ValueError(f"{path} holds no token; remove it, and a new one is made")
    print(f"the token is in {path}", flush=True)
    return token


def main(arguments: list[str]) -> None:
    """Serve as the arguments say."""
    parser = argparse.ArgumentParser(prog="runner --serve", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--host", default=HOST, help="the address to listen on; 0.0.0.0 for all")
    parser.add_argument("--port", default=PORT, type=int)
    parser.add_argument("--token-file", default=TOKEN_FILE, type=Path, help="made if it is not there")
    found = parser.parse_args(arguments)
    try:
        serve(found.host, found.port, token_in(found.token_file))
    except (ValueError, OSError, OverflowError) as error:
        sys.exit(f"error: {error}")


def _seconds(query: str) -> float:
    try:
        (text,) = parse_qs(query)["seconds"]
        seconds = float(text)
    except (KeyError, ValueError) as error:
        raise Refused(400, "a job must tell how many seconds it may take") from error
    if not 0 < seconds <= MOST_SECONDS:
        raise Refused(400, f"a job may take at most {MOST_SECONDS:g} seconds")
    return seconds


def _error(message: str) -> bytes:
    return json.dumps({"error": message}).encode()


def notice_silence(connection: socket.socket) -> None:
    """Have a peer that vanished noticed within half a minute."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _close(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
