"""Android phones over `adb`, with the runtimes' own benchmark programs.

There is no Python on a phone, so it cannot do jobs: no outputs, and only the latency that such a program prints. (For
jobs, start an SSH server on the phone, in Termux.) The system's `adb` is used; files go into a fresh folder under
/data/local/tmp, which is removed afterwards, by the phone itself where the cable is pulled while a program runs.
"""

import os
import re
import secrets
import shlex
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from slimwright.errors import DeviceError, RequestError
from slimwright.runner.machine import Described
from slimwright.runtimes.artefact import Artefact
from slimwright.targets.binaries import Reading, Run, binary_for
from slimwright.targets.described import plain

HOME = "/data/local/tmp"
END = "--slimwright-end "  # before the exit status: older phones do not pass it on
ASK_S, PUSH_S, RUN_S = 30.0, 300.0, 600.0
POLL_S = 0.1
MOST_SAID = 1 << 24  # bytes: a benchmark program that tells of every operator prints some 100 kB
SIGNALS = {4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL", 11: "SIGSEGV"}
STATES = {  # what `adb devices` says of a phone that cannot be used
    "unauthorized": "does not trust this computer yet: unlock it, and accept the computer's key there",
    "authorizing": "does not trust this computer yet: unlock it, and accept the computer's key there",
    "offline": "is offline: unplug it and plug it in again, or run 'adb reconnect offline'",
    "no permissions": "cannot be opened: add the udev rules for Android devices, or join the group 'plugdev'",
    "recovery": "is in recovery mode: start it as usual",
    "bootloader": "is in its bootloader: start it as usual",
    "sideload": "is in sideload mode: start it as usual",
}
SAYS = (  # what adb and the phone's shell say (adb 1.0.41) -> what to do about it
    ("No space left", f"has no room in {HOME}: remove something"),
    ("Read-only file system", f"does not let adb write to {HOME}"),
    ("unauthorized", STATES["unauthorized"]),
    ("offline", STATES["offline"]),
    ("not found", "has gone: is the cable in, and USB debugging on?"),
    ("no devices", "has gone: is the cable in, and USB debugging on?"),
    ("closed", "has gone: is the cable in, and USB debugging on?"),
)


@dataclass(frozen=True)
class AdbLatency:
    """What a benchmark program printed on a phone, and the phone's battery afterwards; None for what is not told."""

    phone: str
    program: str
    runs: int
    threads: int
    reading: Reading
    battery_percent: int | None
    battery_temperature_c: float | None


class Adb:
    """A phone, by its serial number; the only one that is attached by default."""

    def __init__(self, serial: str | None = None) -> None:
        self._serial = serial
        self.name = f"the phone {serial}" if serial else "the phone"

    def about(self) -> Described:
        """Describe the phone. Raises DeviceError."""
        serial = attached(self._serial)
        text = _asked(serial, "getprop; echo cores $(nproc)")
        told = dict(re.findall(r"^\[(.+?)\]: \[(.*)\]\s*$", text, re.MULTILINE))
        cores = re.search(r"^cores (\d+)", text, re.MULTILINE)
        chip = told.get("ro.soc.model") or told.get("ro.board.platform") or told.get("ro.hardware", "")
        maker = told.get("ro.product.manufacturer", "")
        return {
            "cpu": " ".join(part for part in (told.get("ro.soc.manufacturer", ""), chip) if part),
            "machine": told.get("ro.product.cpu.abi", ""),
            "cores": int(cores[1]) if cores else 1,
            "cache_bytes": 0,
            "system": f"Android {told.get('ro.build.version.release', '')}, {maker} {told.get('ro.product.model', '')}",
            "python": "",
            "byteorder": "little",  # of every processor that Android runs on
            "runtimes": {},
        }

    def answer(self, data: bytes, seconds: float) -> bytes:
        """Refuse: there is no Python over adb. Raises RequestError."""
        raise RequestError(
            f"{self.name} has no Python over adb, so it cannot do jobs: start an SSH server there, in Termux, and name "
            "it as ssh:HOST:8022; or measure latency alone with a benchmark program of the runtime"
        )


def benchmark(
    artefact: Artefact,
    binary: str | Path,
    *,
    serial: str | None = None,
    threads: int = 1,
    runs: int = 50,
    beside: Sequence[Path] = (),
) -> AdbLatency:
    """Time an artefact on a phone with a benchmark program of its runtime.

    `binary` is a file of this machine, which is pushed, or a path under /data/local/tmp; `beside` are libraries that it
    needs. Raises RequestError for a program that cannot measure this artefact, and DeviceError.
    """
    there = str(binary).startswith(f"{HOME}/")
    if not there and not Path(binary).is_file():
        raise RequestError(f"there is no file {binary}; name one of this machine, or one under {HOME}")
    program = binary_for(artefact, Path(binary).name)
    found = attached(serial)
    folder = f"{HOME}/slimwright-{secrets.token_hex(8)}"
    run = Run(
        f"{folder}/{Path(binary).name}",
        f"{folder}/model",
        f"{folder}/model/{artefact.files[0].name}",
        artefact.shapes,
        artefact.precision,
        threads,
        runs,
        artefact.free_sizes,
    )
    try:
        link = f" && ln -s {shlex.quote(str(binary))} {shlex.quote(run.program)}" if there else ""
        _asked(found, f"mkdir {folder} && mkdir {folder}/model{link}")
        _push(found, artefact.files, run.folder)
        _push(found, [*beside, *([] if there else [Path(binary)])], folder)
        libraries = f"{folder}:{Path(binary).parent}" if there else folder
        text = _ran(found, program.commands(run), folder, libraries)
        reading = program.read(text, run)
        if reading is None:
            raise DeviceError(
                f"{Path(binary).name} on the phone {found} printed no time: is it {program.title}, and recent? "
                f"It said: {_last(text)}"
            )
        return AdbLatency(found, Path(binary).name, runs, threads, reading, *_battery(found))
    finally:
        _remove(found, folder)


def attached(serial: str | None) -> str:
    """Return the serial number of the phone to use. Raises DeviceError where there is none, or more than one."""
    listed = _adb(["devices"], ASK_S).stdout.partition("List of devices attached")[2]
    phones = dict(re.findall(r"^(\S+)[ \t]+(\S.*?)\s*$", listed, re.MULTILINE))
    if not phones:
        raise DeviceError("adb finds no phone: plug it in, and turn on USB debugging in its developer options")
    if serial is None and len(phones) > 1:
        raise DeviceError(f"adb finds several phones ({', '.join(phones)}): name one of them, as adb:SERIAL")
    chosen = serial or next(iter(phones))
    if chosen not in phones:
        raise DeviceError(f"adb does not find the phone {chosen}; it finds {', '.join(phones)}")
    if phones[chosen] != "device":
        fix = next((fix for state, fix in STATES.items() if phones[chosen].startswith(state)), f"is '{phones[chosen]}'")
        raise DeviceError(f"the phone {chosen} {fix}")
    return chosen


def _push(serial: str, files: Sequence[Path], folder: str) -> None:
    for path in files:
        pushed = _adb(["-s", serial, "push", str(path), f"{folder}/{path.name}"], PUSH_S)
        if pushed.returncode:
            raise _failed(serial, pushed.stderr + pushed.stdout)


def _ran(serial: str, commands: Sequence[Sequence[str]], folder: str, libraries: str) -> str:
    """What a program printed. Raises DeviceError where it crashed or could not be started."""
    program = shlex.quote(commands[0][0])
    text, status = _shell(
        serial,
        f"trap 'rm -rf {folder}' EXIT; trap 'exit 1' HUP INT PIPE TERM; cd {folder}; chmod 755 {program} 2>/dev/null; "
        f"export LD_LIBRARY_PATH={shlex.quote(libraries)}; "
        + " && ".join(f"{shlex.join(each)} 2>&1" for each in commands),
        RUN_S,
    )
    if status == 0:
        return text
    name = Path(commands[0][0]).name
    if "CANNOT LINK EXECUTABLE" in text:
        raise DeviceError(f"{name} lacks a library on the phone {serial}; push it along. It said: {_last(text)}")
    if status in (126, 127):
        raise DeviceError(
            f"the phone {serial} cannot start {name}: is it built for its processor? It said: {_last(text)}"
        )
    if status > 128:
        how = SIGNALS.get(status - 128, f"signal {status - 128}")
        raise DeviceError(f"{name} was killed by {how} on the phone {serial}. It said: {_last(text)}")
    raise DeviceError(f"{name} ended with status {status} on the phone {serial}. It said: {_last(text)}")


def _remove(serial: str, folder: str) -> None:
    """Remove a run's folder, and end what still runs in it; the command names the folder, so it ends itself last."""
    with suppress(DeviceError):  # the phone has gone, and what that led to is being told
        _adb(["-s", serial, "shell", f"rm -rf {folder}; pkill -9 -f {folder}"], ASK_S)


def _battery(serial: str) -> tuple[int | None, float | None]:
    """Percent and degrees Celsius; `dumpsys battery` gives tenths of a degree."""
    text = _asked(serial, "dumpsys battery")
    level, tenths = (re.search(rf"^\s*{name}: (-?\d+)", text, re.MULTILINE) for name in ("level", "temperature"))
    return int(level[1]) if level else None, int(tenths[1]) / 10 if tenths else None


def _asked(serial: str, script: str) -> str:
    """What a command of the phone's shell printed. Raises DeviceError where it failed."""
    text, status = _shell(serial, script, ASK_S)
    if status:
        raise _failed(serial, text)
    return text


def _shell(serial: str, script: str, seconds: float) -> tuple[str, int]:
    """What a script printed on the phone, and its exit status."""
    done = _adb(["-s", serial, "shell", f"{script}\necho '{END}'$?"], seconds)
    text, mark, status = done.stdout.rpartition(END)
    if not mark or not status.strip().isdigit():
        raise _failed(serial, done.stderr or "closed")
    return text, int(status)


def _adb(arguments: Sequence[str], seconds: float) -> "subprocess.CompletedProcess[str]":
    """Run adb, and return what it said. Raises DeviceError where it takes too long, or says too much."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            child = subprocess.Popen(["adb", *arguments], stdout=out, stderr=err)
        except FileNotFoundError as error:
            raise DeviceError("there is no adb on this machine; install Android's platform tools") from error
        until = time.monotonic() + seconds
        try:
            while _runs(child):
                _check_length(out, err)
                if time.monotonic() >= until:
                    raise DeviceError(f"adb gave no answer within {seconds:g} s; unplug the phone and plug it in again")
            _check_length(out, err)
        finally:
            child.kill()
            child.wait()
        return subprocess.CompletedProcess(child.args, child.returncode, _text(out), _text(err))


def _runs(child: "subprocess.Popen[bytes]") -> bool:
    """Whether a process still runs, a moment later."""
    with suppress(subprocess.TimeoutExpired):
        child.wait(timeout=POLL_S)
    return child.returncode is None


def _check_length(*files: IO[bytes]) -> None:
    if any(os.fstat(file.fileno()).st_size > MOST_SAID for file in files):
        raise DeviceError(f"adb sent more than the {MOST_SAID:,} bytes that any program prints; is it your phone?")


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace").replace("\r\n", "\n")


def _failed(serial: str, said: str) -> DeviceError:
    for sign, fix in SAYS:
        if sign in said:
            return DeviceError(f"the phone {serial} {fix} ({_last(said)})")
    return DeviceError(f"adb failed on the phone {serial}: {_last(said)}")


def _last(text: str) -> str:
    return next((plain(line.strip()) for line in reversed(text.splitlines()) if line.strip()), "it said nothing")
