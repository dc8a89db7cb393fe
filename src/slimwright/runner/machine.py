"""What a device tells of itself: processor, memory, energy, temperature, and which runtimes it has."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypedDict

PACKAGES = {
    "onnxruntime": "onnxruntime",
    "ncnn": "ncnn",
    "mnn": "MNN",
    "executorch": "executorch",
    "litert": "ai-edge-litert",
    "openvino": "openvino",
}
FORMATS = {"ort": "onnxruntime"}  # that a runtime loads beside its own


def loaded_by(runtime: str) -> str:
    """Return the runtime that loads artefacts named after `runtime`, or after a format."""
    return FORMATS.get(runtime, runtime)


class Described(TypedDict):
    """What a machine tells of itself."""

    cpu: str
    machine: str
    cores: int
    cache_bytes: int  # of the last level, 0 where the system does not tell
    system: str
    python: str
    byteorder: str
    runtimes: dict[str, str]  # version of each that is installed


def about() -> Described:
    """Describe this machine: processor, cores, cache, system, Python, and each runtime that is installed."""
    return {
        "cpu": cpu_name(),
        "machine": platform.machine(),
        "cores": os.cpu_count() or 1,
        "cache_bytes": cache_bytes(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "byteorder": sys.byteorder,
        "runtimes": runtimes(),
    }


def runtimes() -> dict[str, str]:
    """Return the version of each runtime that is installed."""
    return {name: found for name in PACKAGES if (found := runtime_version(name))}


def runtime_version(name: str) -> str:
    """Return the version of an installed runtime, or "" where it is not installed."""
    try:
        return version(PACKAGES[name])
    except PackageNotFoundError:
        return ""


def cpu_name() -> str:
    """Return the processor's model name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    x86 = [told.get(key, "") for key in ("model name", "cpu family", "model", "stepping")]
    arm = [told.get(key, "") for key in ("Hardware", "CPU implementer", "CPU part", "CPU variant", "CPU revision")]
    return " ".join(part for part in (x86 if x86[0] else arm) if part) or platform.machine()


def cache_bytes(root: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int:
    """Return the size of the last level of the first core's caches, or 0 where the system does not tell."""
    found = [0]
    for size in root.glob("index*/size"):
        try:
            found.append(int(size.read_text().strip().removesuffix("K")) * 1024)
        except (OSError, ValueError):
            continue
    return max(found)


def peak_rss_bytes() -> int:
    """Return the peak resident memory of this process so far, or 0 where the system does not tell.

    VmHWM is the peak of this process alone; `ru_maxrss` would start from the parent's.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def energy_uj(root: Path = Path("/sys/class/powercap")) -> int | None:
    """Return the processor packages' energy counters, summed, in microjoules; None where none can be read."""
    total = None
    for counter in sorted(root.glob("intel-rapl:?/energy_uj")):
        try:
            total = (total or 0) + int(counter.read_text())
        except (OSError, ValueError):
            return None
    return total


def temperature_c(root: Path = Path("/sys/class/thermal")) -> float | None:
    """Return the hottest sensor's temperature in degrees Celsius; None where none can be read."""
    found = []
    for sensor in root.glob("thermal_zone*/temp"):
        try:
            found.append(int(sensor.read_text()) / 1000)
        except (OSError, ValueError):
            continue
    return max((celsius for celsius in found if 0 < celsius < 150), default=None)
