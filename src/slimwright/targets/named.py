"""Targets by name: what a command line's --target says."""

import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl

from slimwright.errors import RequestError
from slimwright.targets.adb import Adb
from slimwright.targets.local import Local
from slimwright.targets.measuring import Target
from slimwright.targets.ssh import Ssh

FORMS = "local, ssh:[user@]host[:port][?python=PATH&folder=PATH], adb or adb:SERIAL"
PLACE = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^:/?\[\]\s]+)(:(?P<port>\d{1,5}))?", re.ASCII)


def target(spec: str, *, ssh_config: Path | None = None, memory_bytes: int | None = None) -> Target:
    """Return the target that `spec` names, on which a job may take `memory_bytes`; phones limit their own.

    Raises RequestError, with the forms that there are, for anything else.
    """
    kind, _, rest = spec.partition(":")
    match kind:
        case "local" if spec == "local":
            return Local(memory_bytes)
        case "ssh":
            return replace(_ssh(spec, rest, ssh_config), memory_bytes=memory_bytes)
        case "adb":
            return Adb(rest or None)
        case _:
            raise _unknown(spec)


def _ssh(spec: str, rest: str, config: Path | None) -> Ssh:
    place, _, query = rest.partition("?")
    settings = dict(parse_qsl(query, keep_blank_values=True))
    if not settings.keys() <= {"python", "folder"}:
        raise _unknown(spec)
    host, port = _place(spec, place)
    return Ssh(host, port, settings.get("python", "python3"), settings.get("folder", ""), config)


def _place(spec: str, place: str) -> tuple[str, int | None]:
    """A host and a port, from host:port or [IPv6 address]:port."""
    found = PLACE.fullmatch(place)
    if not found:
        raise _unknown(spec)
    port = int(found["port"]) if found["port"] else None
    if port is not None and not 0 < port < 1 << 16:
        raise RequestError(f"'{spec}': {port} is no port")
    return found["host"].strip("[]"), port


def _unknown(spec: str) -> RequestError:
    return RequestError(f"'{spec}' is no target; there is {FORMS}")
