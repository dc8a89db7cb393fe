"""Targets by name."""

import pytest

from slimwright.errors import RequestError
from slimwright.targets.adb import Adb
from slimwright.targets.local import Local
from slimwright.targets.named import target
from slimwright.targets.ssh import Ssh


def test_this_machine() -> None:
    assert isinstance(target("local"), Local)


@pytest.mark.parametrize(
    ("spec", "board"),
    [
        ("ssh:pi", Ssh("pi")),
        ("ssh:pi@raspberry.local:2222", Ssh("pi@raspberry.local", 2222)),
        ("ssh:pi?python=/opt/py/bin/python3&folder=/mnt/usb", Ssh("pi", None, "/opt/py/bin/python3", "/mnt/usb")),
        ("ssh:[fe80::1%eth0]:22", Ssh("fe80::1%eth0", 22)),
    ],
)
def test_boards(spec: str, board: Ssh) -> None:
    assert target(spec) == board


def test_phones() -> None:
    assert isinstance(target("adb"), Adb)
    assert target("adb:R58M").name == "the phone R58M"


@pytest.mark.parametrize(
    "spec",
    ["", "locally", "local:1", "ssh:", "ssh:-oProxyCommand=x", "ssh:a b", "ssh:pi:22:33", "ssh:pi?shell=x", "ssh:pi/x",
     "agent:pi:8765", "ssh:pi:0", "ssh:pi:99999", "https://pi:1", "ftp:pi", "http://pi:1/about", "ssh:pi:-1"],
)  # fmt: skip
def test_anything_else_is_refused(spec: str) -> None:
    with pytest.raises(RequestError, match=r"is no target; there is local, ssh:|is no host|is no port"):
        target(spec)
