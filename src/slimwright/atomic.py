"""Files and folders that appear whole or not at all, and what killed processes left is removed by the next.

What is being written bears the process's number in its name: `.NAME.PID-RANDOM.part`. Where that process is gone,
nobody will finish it.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from slimwright.errors import RequestError

LITTER = (".DS_Store", "Thumbs.db")  # that systems leave in folders which people look into
MARKED_BYTES = 2_000  # of a page, within which it says what wrote it
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


def check_replaceable(path: Path, mark: str, option: str, *, force: bool = False) -> None:
    """Raise RequestError, naming the `option` that gave the path, where a file that is not ours would be replaced.

    Ours has `mark` near its beginning. With `force` any plain file may be replaced.
    """
    if not path.exists():
        return
    if not path.is_file():
        raise RequestError(f"{path} is not a plain file; name another one with {option}")
    with path.open("rb") as file:
        ours = mark.encode() in file.read(MARKED_BYTES)
    if not (ours or force):
        raise RequestError(
            f"{path} exists and was not written by this command; name another file with {option}, or replace it with "
            "--force"
        )


@contextmanager
def appearing(out: Path, mark: str, *, ours: Sequence[str] = ("*",), force: bool = False) -> Iterator[Path]:
    """Give a hidden folder beside `out` that takes its place when the block ends well; else nothing is left.

    What is there is replaced where it was made by the same command: it holds a file named `mark`, and no file that
    none of the patterns `ours` fits. With `force` anything is replaced but what this process works in, and the user's
    home. Raises RequestError, naming what is in the way, and where nothing can be written.
    """
    _check_replaced(out, mark, ours, force)
    place = out.resolve()  # a link stays, and the folder that it names is replaced
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        swept(place.parent, place.name)
        folder = stamped(place.parent, place.name)
    except OSError as error:
        raise _unwritable(out, error) from error
    try:
        yield folder
        try:
            _replace(place, folder)
        except OSError as error:
            raise _unwritable(out, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_replaced(out: Path, mark: str, ours: Sequence[str], force: bool) -> None:
    """Raise RequestError where something would be lost that is not to be replaced."""
    if force:
        for here, what in ((Path.cwd(), "the working directory"), (Path.home(), "the home directory")):
            if here.resolve().is_relative_to(out.resolve()):
                raise RequestError(f"{out} holds {what}, which --force does not replace; name another folder")
        return
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    way_out = "name another folder with --out, or replace it with --force"
    if not (out / mark).exists():
        raise RequestError(f"{out} exists and was not made by this command; {way_out}")
    for name in _strange(out, ours):
        raise RequestError(f"{out} holds {name}, which this command did not write; {way_out}")


def _strange(folder: Path, ours: Sequence[str]) -> list[str]:
    """The files in a folder that none of the patterns fits."""
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if not path.is_dir()]
    return [
        name for name in names if Path(name).name not in LITTER and not any(fnmatchcase(name, each) for each in ours)
    ]


def _replace(place: Path, folder: Path) -> None:
    """Move `folder` to `place`; what was there is gone then, and is there again where that fails."""
    folder.chmod(0o755)
    old = stamped(place.parent, place.name)
    if place.exists():
        place.rename(old / "old")
    try:
        folder.rename(place)
    finally:
        if (old / "old").exists() and not place.exists():
            (old / "old").rename(place)
        shutil.rmtree(old, ignore_errors=True)


def _unwritable(out: Path, error: OSError) -> RequestError:
    return RequestError(f"cannot write to {out}: {error.strerror}")


@contextmanager
def keeping(cache: Path | None) -> Iterator[Path]:
    """Yield the folder for what is not to be computed again; one that goes with the job where nothing shall be kept."""
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
        yield cache
        return
    with tempfile.TemporaryDirectory(prefix="slimwright-") as folder:
        yield Path(folder)


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
