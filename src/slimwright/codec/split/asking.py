"""The phone's half over HTTP: a message to the server, and its answer, within a time.

A message that the server cannot use, a server that is gone, slow, or answers something
else: each is an error that says which.
"""

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass

from slimwright.codec.split.bundle import Bundle
from slimwright.codec.split.sides import Array, answer_bytes, outputs_in
from slimwright.errors import CodecError, DeviceError, RequestError

SECONDS = 10.0
REFUSAL_BYTES = 2**14
SAID = 300  # characters of what a server says


@dataclass(frozen=True)
class Server:
    """Where a server is, what it asks for, and how long it may take."""

    url: str
    token: str
    seconds: float = SECONDS

    def __post_init__(self) -> None:
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RequestError(f"'{self.url}' is not a server; write --server http://127.0.0.1:8080")
        if not self.seconds > 0:
            raise RequestError(f"a server needs time to answer: --timeout is above 0, not {self.seconds:g}")


def asked(server: Server, data: bytes, bundle: Bundle) -> tuple[Array, ...]:
    """Return the outputs that a server gives for a message.

    Raises CodecError where it refuses the message, RequestError where it refuses the token, and DeviceError where it
    cannot be reached, takes too long, or answers something else.
    """
    headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/octet-stream"}
    request = urllib.request.Request(f"{server.url.rstrip('/')}/answer", data, headers)  # noqa: S310 - http or https
    most = answer_bytes(bundle)
    try:
        with _opened(request, server.seconds) as response:
            found = response.read(most + 1)
    except urllib.error.HTTPError as error:
        raise _refusal(error, server) from error
    except TimeoutError as error:
        raise _slow(server) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise _slow(server) from error
        raise DeviceError(f"the server at {server.url} cannot be reached: {reason or type(error).__name__}") from error
    if len(found) > most:
        raise DeviceError(f"the server at {server.url} answered more than the {most:,} bytes that this split gives")
    return outputs_in(found, bundle)


def _opened(request: urllib.request.Request, seconds: float) -> http.client.HTTPResponse:
    """The response to a request; redirections, which would take the token elsewhere, and proxies are not followed."""
    director = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.HTTPDefaultErrorHandler,
    ):
        director.add_handler(handler())
    found: http.client.HTTPResponse = director.open(request, timeout=seconds)
    return found


def _refusal(error: urllib.error.HTTPError, server: Server) -> Exception:
    """The error for a status that is not a success."""
    try:
        said = str(json.loads(error.read(REFUSAL_BYTES))["error"])[:SAID]
    except (ValueError, KeyError, TypeError, OSError):
        said = error.reason or "it did not say why"
    match error.code:
        case 400 | 413:
            return CodecError(f"the server refused the message: {said}")
        case 401:
            return RequestError(f"the server refused the token: {said}; give the one that it was started with")
        case _:
            return DeviceError(f"the server at {server.url} answered {error.code}: {said}")


def _slow(server: Server) -> DeviceError:
    return DeviceError(
        f"the server at {server.url} did not answer within {server.seconds:g} s; allow more with --timeout"
    )
