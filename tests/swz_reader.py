"""The reader of packed files in C++, built once, and packed files of given tensors without a net."""

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from slimwright.jobs.kit.packing import READER
from slimwright.swz.file import row, started
from slimwright.swz.forms import Like, Stored

STRICT = "-std=c++17 -O1 -Wall -Wextra -Wshadow -Wconversion -Werror"
CHECKED = "-fsanitize=address,undefined -fno-sanitize-recover=all"
CRASHED = 99


@functools.cache
def _program() -> Path | None:
    compiler = shutil.which("c++")
    if compiler is None:
        return None
    folder = Path(tempfile.mkdtemp(prefix="swz-reader-"))
    command = [compiler, *STRICT.split(), *CHECKED.split(), str(READER / "swz_unpack.cpp"), "-o", str(folder / "main")]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder / "main"


def run_reader(*given: Path) -> subprocess.CompletedProcess[str]:
    """Run the reader, built with checks of memory and arithmetic; skips where there is no compiler."""
    program = _program()
    if program is None:
        pytest.skip("there is no C++ compiler")
    checks = dict.fromkeys(("ASAN_OPTIONS", "UBSAN_OPTIONS"), f"exitcode={CRASHED}")
    return subprocess.run(
        [str(program), *map(str, given)], capture_output=True, text=True, check=False, env={**os.environ, **checks}
    )


def file_of(tensors: Sequence[tuple[Like, Stored]]) -> bytes:
    """A packed file of tensors, without a graph."""
    head = started(b"", [row(like, one) for like, one in tensors])
    return head + b"".join(one.data for _, one in tensors)
