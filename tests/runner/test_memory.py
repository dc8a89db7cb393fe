"""How much memory a process may take, read from files laid out as the system lays them out, and limits on it."""

import subprocess
import sys
from pathlib import Path

import pytest

from slimwright.runner.memory import available_bytes, is_short

GB = 10**9
MACHINE = {"proc/meminfo": "MemTotal:  16000000 kB\nMemFree:  1000 kB\nMemAvailable:  8000000 kB\nHugePages_Total: 0\n"}
STATUS = {"proc/self/status": "Name:\tpython\nVmSize:\t 2000000 kB\nVmData:\t 1000000 kB\nThreads:\t1\n"}
LIMITS = (
    "Limit                     Soft Limit           Hard Limit           Units\n"
    "Max data size             {data:<20} unlimited            bytes\n"
    "Max address space         {space:<20} unlimited            bytes\n"
)
INNER, OUTER = "sys/fs/cgroup/user/job", "sys/fs/cgroup/user"
VERSION_1 = "sys/fs/cgroup/memory"


def laid_out(root: Path, *files: dict[str, str]) -> Path:
    for name, text in [item for some in files for item in some.items()]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_machine_has_what_it_says_is_available(tmp_path: Path) -> None:
    assert available_bytes(laid_out(tmp_path, MACHINE)) == 8_000_000 * 1024


def test_a_system_that_does_not_tell_has_none_told(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) is None


@pytest.mark.parametrize(("inner", "outer", "left"), [("4", "8", 3), ("max", "6", 2), ("9", "max", 8)])
def test_the_narrowest_group_on_the_way_up_counts(inner: str, outer: str, left: int, tmp_path: Path) -> None:
    groups = {
        "proc/self/cgroup": "0::/user/job\n",
        f"{INNER}/memory.max": "max\n" if inner == "max" else f"{inner}000000000\n",
        f"{INNER}/memory.current": "3000000000\n",
        f"{INNER}/memory.stat": "anon 1000000000\ninactive_file 1500000000\nactive_file 500000000\n",  # can go
        f"{OUTER}/memory.max": "max\n" if outer == "max" else f"{outer}000000000\n",
        f"{OUTER}/memory.current": "4000000000\n",
    }
    assert available_bytes(laid_out(tmp_path, MACHINE, groups)) == min(left * GB, 8_000_000 * 1024)


def test_groups_of_version_1_count_too_and_a_container_sees_its_own_as_the_root(tmp_path: Path) -> None:
    groups = {
        "proc/self/cgroup": "5:devices:/x\n4:memory:/docker/abc\n0::/\n",
        f"{VERSION_1}/memory.limit_in_bytes": "2000000000\n",
        f"{VERSION_1}/memory.usage_in_bytes": "1500000000\n",
        f"{VERSION_1}/memory.stat": "cache 9\ntotal_inactive_file 200000000\ntotal_active_file 100000000\n",
    }
    assert available_bytes(laid_out(tmp_path, MACHINE, groups)) == 800_000_000
    (tmp_path / VERSION_1 / "memory.limit_in_bytes").write_text("9223372036854771712\n")  # no limit
    assert available_bytes(tmp_path) == 8_000_000 * 1024


@pytest.mark.parametrize(("data", "space", "left"), [(1_524_000_000, "unlimited", 0.5), ("unlimited", 2 * GB, 0)])
def test_own_limits_count(data: object, space: object, left: float, tmp_path: Path) -> None:
    limits = {"proc/self/limits": LIMITS.format(data=data, space=space)}
    assert available_bytes(laid_out(tmp_path, MACHINE, STATUS, limits)) == left * GB


LIMITED = (
    "import resource\nfrom slimwright.runner.memory import available_bytes, limit\n"
    "resource.setrlimit(resource.RLIMIT_CPU, (5, 90))\nlimit({most}, 7.5)\n"
    "assert resource.getrlimit(resource.RLIMIT_CPU) == (5, 90)\n"
    "assert {most} is None or available_bytes() <= 10**8\nheld = bytearray(2 * 10**8)\n"
)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory that is written to")
def test_a_process_gets_no_more_than_its_limit_and_a_lower_limit_stays() -> None:
    ended = subprocess.run([sys.executable, "-c", LIMITED.format(most=10**8)], capture_output=True, text=True)
    assert ended.stderr.strip().splitlines()[-1] == "MemoryError"
    subprocess.run([sys.executable, "-c", LIMITED.format(most=None)], check=True)


def test_a_process_ends_after_its_processor_time() -> None:
    program = "from slimwright.runner.memory import limit\nlimit(None, 0.2)\nwhile True: pass"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert ended.returncode < 0


@pytest.mark.parametrize("said", ["MemoryError", "RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried"])
def test_what_is_said_of_short_memory_is_told_from_other_faults(said: str) -> None:
    assert is_short(said)
    assert not is_short("RuntimeError: ncnn has no layers for torch.argmax")
