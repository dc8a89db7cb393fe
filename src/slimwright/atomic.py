"""Files and folders that appear whole or not at all, and what killed processes left is removed by the next.

What is being written bears the process's number in its name: `.NAME.PID-RANDOM.part`. Where that process is gone,
nobody will finish it.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slimwright.errors import RequestError

PART = re.compile(r"\..+\.(\d+)-\w+\.part")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, and move it there when the block ends well: all or nothing."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.{os.getpid()}-", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def appearing(out: Path, mark: str) -> Iterator[Path]:
    """Give a hidden folder beside `out` that takes its place when the block ends well; else nothing is left.

    Raises RequestError where `out` is there and is not ours to replace: it is not empty and holds no file named `mark`.
    """
    if out.exists() and not (out / mark).exists() and not (out.is_dir() and not any(out.iterdir())):
        raise RequestError(f"{out} exists and was not made by this command; name another folder with --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        swept(out.parent, out.name)
        folder = stamped(out.parent, out.name)
    except OSError as error:
        raise RequestError(f"cannot write to {out}: {error.strerror}") from error
    try:
        yield folder
        folder.chmod(0o755)
        old = stamped(out.parent, out.name)
        if out.exists():
            out.rename(old / "old")
        folder.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def stamped(parent: Path, name: str) -> Path:
    """Return a new hidden folder for what becomes `name`, with this process's number in its name."""
    return Path(tempfile.mkdtemp(dir=parent, prefix=f".{name}.{os.getpid()}-", suffix=".part"))


def swept(parent: Path, name: str = "") -> None:
    """Remove what processes that are gone were writing in `parent`: all of it, or what was to become `name`.

    An old folder that a killed process had put aside takes its place again if nothing stands there.
    """
    prefix = f".{name}." if name else "."
    for path in parent.iterdir() if parent.is_dir() else ():
        found = PART.fullmatch(path.name) if path.name.startswith(prefix) else None
        if found is None or _runs(int(found[1])):
            continue
        if name and (path / "old").is_dir() and not (parent / name).exists():
            (path / "old").rename(parent / name)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def kept_at(folder: Path, kind: str, said: str) -> Path:
    """Return where a folder keeps tensors of some kind: under a name that all that made them, `said`, gives."""
    return folder / f"{kind}-{hashlib.sha256(said.encode()).hexdigest()[:24]}.safetensors"
