"""Phones over a scripted `adb`: an executable that keeps a phone's files in a folder and runs its commands in a shell.

No phone, and no adb, was used; the scripted adb answers in the forms of adb 1.0.41.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from slimwright.errors import DeviceError, RequestError
from slimwright.runtimes.artefact import Artefact
from slimwright.targets.adb import Adb, attached, benchmark

SCRIPTED_ADB = """#!{python} -S
import pathlib, shutil, subprocess, sys
phone = pathlib.Path({phone!r})
arguments = sys.argv[1:]
(phone / "asked").open("a").write(repr(arguments) + "\\n")
def told(name):
    path = phone / name
    return path.read_text() if path.exists() else ""
if arguments == ["devices"]:
    print("* daemon not running; starting now at tcp:5037\\n* daemon started successfully")
    print("List of devices attached\\n" + told("devices"))
    sys.exit()
assert arguments[0] == "-s", arguments
action, rest = arguments[2], arguments[3:]
if told("gone_at") == action:
    sys.exit("adb: device '%s' not found" % arguments[1])
if action == "push":
    if told("full"):
        sys.exit("adb: error: failed to copy '%s' to '%s': remote write failed: No space left on device" % tuple(rest))
    shutil.copy(rest[0], rest[1].replace("/data/local/tmp", str(phone / "tmp")))
elif action == "shell":
    script = rest[0].replace("/data/local/tmp", str(phone / "tmp"))
    shell = "getprop() {{ cat %s/props; }}; dumpsys() {{ cat %s/$1; }}\\n" % (phone, phone)
    sys.exit(subprocess.run(["sh", "-c", shell + script]).returncode)
"""
BENCHMARK = """#!/bin/sh
echo "INFO: count=5 first=9 curr=9 min=900 max=1100 avg=1000.5 std=8"
echo "INFO: Inference timings in us: Init: 1, First inference: 9, Warmup (avg): 9, Inference (avg): 1000.5"
test -f "${1#--graph=}" || exit 3
test -x "$0" || exit 4
echo "$LD_LIBRARY_PATH" > "$(dirname "$0")/../../library_path"
"""
PROPS = """[ro.product.model]: [Pixel 8]
[ro.product.manufacturer]: [Google]
[ro.soc.manufacturer]: [Google]
[ro.soc.model]: [Tensor G3]
[ro.product.cpu.abi]: [arm64-v8a]
[ro.build.version.release]: [14]
"""
BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  level: 85
  scale: 100
  voltage: 4321
  temperature: 287
"""


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The phone's folder, with a scripted adb on PATH."""
    folder = tmp_path / "phone"
    (folder / "tmp").mkdir(parents=True)
    for name, text in (("devices", "R58M\tdevice\n"), ("props", PROPS), ("battery", BATTERY)):
        (folder / name).write_text(text)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/adb").write_text(SCRIPTED_ADB.format(python=sys.executable, phone=str(folder)))
    (tmp_path / "bin/adb").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    return folder


@pytest.fixture
def artefact(tmp_path: Path) -> Artefact:
    (tmp_path / "model.tflite").write_bytes(b"model")
    return Artefact("litert", "fp32", (tmp_path / "model.tflite",), ((1, 3, 8, 8),))


def program(tmp_path: Path, text: str = BENCHMARK) -> Path:
    (tmp_path / "benchmark_model").write_text(text)
    return tmp_path / "benchmark_model"


def test_a_pushed_program_times_a_model(phone: Path, artefact: Artefact, tmp_path: Path) -> None:
    found = benchmark(artefact, program(tmp_path), threads=2, runs=7)
    assert (found.phone, found.program, found.runs, found.threads) == ("R58M", "benchmark_model", 7, 2)
    assert (found.reading.ms, found.reading.statistic) == (1.0005, "mean")
    assert (found.reading.least_ms, found.reading.most_ms) == (0.9, 1.1)
    assert (found.battery_percent, found.battery_temperature_c) == (85, 28.7)
    assert not any((phone / "tmp").iterdir())
    assert "--num_threads=2 --num_runs=7" in (phone / "asked").read_text()


def test_a_program_on_the_phone_stays_there(phone: Path, artefact: Artefact, tmp_path: Path) -> None:
    program(tmp_path).rename(phone / "tmp/benchmark_model")
    (tmp_path / "libx.so").write_bytes(b"")
    found = benchmark(artefact, "/data/local/tmp/benchmark_model", serial="R58M", beside=[tmp_path / "libx.so"])
    assert found.reading.ms == 1.0005
    assert [path.name for path in (phone / "tmp").iterdir()] == ["benchmark_model"]
    assert (phone / "library_path").read_text().endswith(f":{phone / 'tmp'}\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("#!/bin/sh\nkill -SEGV $$\n", "benchmark_model was killed by SIGSEGV on the phone R58M"),
        ("#!/bin/sh\nkill -KILL $$\n", "benchmark_model was killed by SIGKILL"),
        ("#!/bin/sh\necho no such model\nexit 3\n", "ended with status 3 on the phone R58M. It said: no such model"),
        ("#!/bin/sh\necho hello\n", "printed no time: is it benchmark_model, and recent.* It said: hello"),
        ("#!/nowhere/sh\n", "cannot start benchmark_model: is it built for its processor"),
        (
            "#!/bin/sh\necho 'CANNOT LINK EXECUTABLE: libx.so'; exit 1\n",
            "lacks a library on the phone R58M; push it along",
        ),
    ],
)
def test_a_program_that_fails_is_told_of(text: str, says: str, phone: Path, artefact: Artefact, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=says):
        benchmark(artefact, program(tmp_path, text))
    assert not any((phone / "tmp").iterdir())


def test_a_full_phone_is_told_of_and_cleaned(phone: Path, artefact: Artefact, tmp_path: Path) -> None:
    (phone / "full").write_text("yes")
    with pytest.raises(DeviceError, match="the phone R58M has no room in /data/local/tmp: remove something"):
        benchmark(artefact, program(tmp_path))
    assert not any((phone / "tmp").iterdir())


@pytest.mark.parametrize("moment", ["push", "shell"])
def test_a_pulled_cable_is_told_of(moment: str, phone: Path, artefact: Artefact, tmp_path: Path) -> None:
    (phone / "gone_at").write_text(moment)
    with pytest.raises(DeviceError, match="the phone R58M has gone: is the cable in, and USB debugging on"):
        benchmark(artefact, program(tmp_path))


def test_a_program_that_hangs_is_ended(
    phone: Path, artefact: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slimwright.targets.adb.RUN_S", 1.0)
    with pytest.raises(DeviceError, match="adb gave no answer within 1 s"):
        benchmark(artefact, program(tmp_path, "#!/bin/sh\nwhile :; do sleep 0.1; done\n"))
    assert not any((phone / "tmp").iterdir())
    assert not subprocess.run(["pgrep", "-f", f"{phone}/tmp/slimwright-"], capture_output=True, check=False).stdout


def test_a_program_that_prints_without_end_is_ended(
    phone: Path, artefact: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slimwright.targets.adb.MOST_SAID", 100_000)
    with pytest.raises(DeviceError, match="adb sent more than the 100,000 bytes that any program prints"):
        benchmark(artefact, program(tmp_path, "#!/bin/sh\nwhile :; do echo again; done\n"))
    assert not any((phone / "tmp").iterdir())
    assert not subprocess.run(["pgrep", "-f", f"{phone}/tmp/slimwright-"], capture_output=True, check=False).stdout


def test_a_long_answer_is_read_no_further_than_it_may_be(phone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slimwright.targets.adb.MOST_SAID", 2000)
    assert Adb().about()["cpu"] == "Google Tensor G3"
    (phone / "props").write_text(PROPS + "[x]: [y]\n" * 500)
    with pytest.raises(DeviceError, match="adb sent more than the 2,000 bytes"):
        Adb().about()


@pytest.mark.parametrize(
    ("devices", "says"),
    [
        ("", "adb finds no phone: plug it in"),
        ("R58M\tunauthorized\n", "the phone R58M does not trust this computer yet: unlock it"),
        ("R58M\toffline\n", "the phone R58M is offline: unplug it"),
        (
            "R58M\tno permissions (user in plugdev group; are your udev rules wrong?)\n",
            "R58M cannot be opened: add the udev",
        ),
        ("R58M\tbootloader\n", "the phone R58M is in its bootloader"),
        ("R58M\tsomething new\n", "the phone R58M is 'something new'"),
        ("R58M\tdevice\n10.0.0.7:5555\tdevice\n", r"several phones \(R58M, 10\.0\.0\.7:5555\): name one"),
    ],
)
def test_a_phone_that_cannot_be_used_is_told_of(devices: str, says: str, phone: Path) -> None:
    (phone / "devices").write_text(devices)
    with pytest.raises(DeviceError, match=says):
        attached(None)


def test_one_of_several_phones_is_chosen(phone: Path) -> None:
    (phone / "devices").write_text("R58M\tdevice\n10.0.0.7:5555\tdevice\n")
    assert attached("10.0.0.7:5555") == "10.0.0.7:5555"
    with pytest.raises(DeviceError, match="adb does not find the phone X; it finds R58M, "):
        attached("X")


def test_a_phone_describes_itself_and_does_no_jobs(phone: Path) -> None:
    about = Adb().about()
    assert (about["cpu"], about["machine"]) == ("Google Tensor G3", "arm64-v8a")
    assert about["system"] == "Android 14, Google Pixel 8"
    with pytest.raises(RequestError, match="start an SSH server there, in Termux"):
        Adb("R58M").answer(b"", 1.0)


def test_a_machine_without_adb_is_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="there is no adb on this machine; install Android's platform tools"):
        attached(None)


def test_a_program_that_is_not_there_is_refused(artefact: Artefact) -> None:
    with pytest.raises(RequestError, match="there is no file /nowhere/benchmark_model"):
        benchmark(artefact, "/nowhere/benchmark_model")
