"""An SSH server on the loopback address, in a thread: it runs commands in a real shell, as OpenSSH's does."""

import asyncio
import os
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncssh


class LoopbackSsh:
    """Serves until closed; `config` is a client's settings, with a host named "board" that may log in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("host", "user", "stranger"):
            asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(folder / name))
            (folder / name).chmod(0o600)
        public = {name: asyncssh.read_private_key(str(folder / name)).export_public_key() for name in ("host", "user")}
        (folder / "allowed").write_bytes(public["user"])
        self._loop = asyncio.new_event_loop()
        self._connections: list[Any] = []
        self._server: Any = None
        self.port = 0
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,))
        self._thread.start()
        assert started.wait(10)
        self.config = self.client("user", public["host"])

    def client(self, key: str, host_key: bytes, *, port: int | None = None) -> Path:
        """Write a client's settings: the key that it shows, the host key that it expects, if any."""
        name = f"client-{key}-{len(list(self.folder.iterdir()))}"
        at = f"[127.0.0.1]:{port or self.port}"
        (self.folder / f"{name}.known").write_bytes(f"{at} ".encode() + host_key if host_key else b"")
        path = self.folder / name
        path.write_text(
            f"Host board\n HostName 127.0.0.1\n Port {port or self.port}\n User somebody\n"
            f" IdentityFile {self.folder / key}\n IdentitiesOnly yes\n IdentityAgent none\n"
            f" UserKnownHostsFile {self.folder / name}.known\n GlobalKnownHostsFile /dev/null\n"
            " StrictHostKeyChecking yes\n"
        )
        return path

    def drop(self) -> None:
        """Break every connection."""
        for connection in self._connections:
            self._loop.call_soon_threadsafe(connection.abort)

    def close(self) -> None:
        """End."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(
            asyncssh.listen(
                "127.0.0.1",
                0,
                server_host_keys=[str(self.folder / "host")],
                authorized_client_keys=str(self.folder / "allowed"),
                process_factory=self._command,
                encoding=None,
            )
        )
        self.port = self._server.get_port()
        started.set()
        self._loop.run_forever()
        self._server.close()

    async def _command(self, process: Any) -> None:
        self._connections.append(process.channel.get_connection())
        child = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            process.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C"},
        )
        assert child.stdin and child.stdout and child.stderr
        reading = asyncio.create_task(_copy_in(process.stdin, child.stdin))
        writing = [
            asyncio.create_task(_copy_out(child.stdout, process.stdout)),
            asyncio.create_task(_copy_out(child.stderr, process.stderr)),
        ]
        status = await child.wait()
        reading.cancel()
        await asyncio.gather(*writing, return_exceptions=True)
        with suppress(OSError, BrokenPipeError):
            process.exit(status if status >= 0 else 128 + signal.SIGKILL)


async def _copy_in(source: Any, pipe: asyncio.StreamWriter) -> None:
    """What the client sends; the end of the connection is the end of the input."""
    with suppress(OSError, asyncssh.Error):
        while part := await source.read(1 << 16):
            pipe.write(part)
            await pipe.drain()
    pipe.close()


async def _copy_out(pipe: asyncio.StreamReader, sink: Any) -> None:
    with suppress(OSError, asyncssh.Error):
        while part := await pipe.read(1 << 16):
            sink.write(part)
            await sink.drain()
