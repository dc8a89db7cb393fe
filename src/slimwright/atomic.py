"""Files and folders that appear whole or not at all, and what killed processes left is removed by the next.

What is being written bears the process's number in its name: `.NAME.PID-RANDOM.part`. Where that process is gone,
nobody will finish it. What stands at a name is replaced, never written into: a link that somebody put there leads
nowhere, and pipes and devices are left alone.
"""

import ctypes
import fcntl
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path

from slimwright.errors import RequestError

LITTER = (".DS_Store", "Thumbs.db")  # that systems leave in folders which people look into
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
RENAME_SWAP = 2  # sys/stdio.h of macOS
MARKED_BYTES = 2_000  # of a page, within which it says what wrote it
PART = re.compile(r"\..+\.(\d+)-\w+\.part")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, and move it there when the block ends well: all or nothing.

    Raises RequestError where nothing can be written, and where something other than a file or a link is in the way.
    """
    try:
        _check_file(path)
        swept(path.parent, path.name)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.{os.getpid()}-", suffix=".part")
    except OSError as error:
        raise unwritable(path, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8 as a file, replaced at once."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _check_file(path: Path) -> None:
    """Raise RequestError where `path` is a folder, a pipe or a device."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise RequestError(f"{path} is {what} and is not replaced by a file; name a file")


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
        before = _identity(place)
    except OSError as error:
        raise unwritable(out, error) from error
    try:
        yield folder
        try:
            with _alone_in(place.parent):
                if _identity(place) != before:
                    raise RequestError(
                        f"{out} was written by another process meanwhile and is left as that made it; name another "
                        "folder, or run this again"
                    )
                _replace(place, folder)
        except OSError as error:
            raise unwritable(out, error) from error
    finally:
        removed(folder)


def _identity(place: Path) -> tuple[int, int] | None:
    """What stands at a name, told from what may stand there later; None where nothing does."""
    try:
        found = place.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Let one process at a time replace what is in a folder. Nothing is left: the folder itself is locked."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # on file systems that lock no folders, the last one wins whole
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _check_replaced(out: Path, mark: str, ours: Sequence[str], force: bool) -> None:
    """Raise RequestError where something would be lost that is not to be replaced."""
    if out.exists() and not (out.is_dir() or out.is_file()):
        raise RequestError(f"{out} is a pipe or a device and is not replaced; name a folder with --out")
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
    """Move `folder` to `place`. What was there stands there until then; it is gone afterwards.

    Where the system cannot exchange two names at once, there is a moment between two moves; `swept` mends what a kill
    leaves then.
    """
    folder.chmod(0o755)
    if not place.exists():
        folder.rename(place)
        return
    if _exchanged(place, folder):
        return  # what was there bears the hidden name now, and goes with it
    old = stamped(place.parent, place.name)
    place.rename(old / "old")
    try:
        folder.rename(place)
    finally:
        if (old / "old").exists() and not place.exists():
            (old / "old").rename(place)
        shutil.rmtree(old, ignore_errors=True)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two names at once; False where this system or file system cannot."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        names = os.fsencode(one), os.fsencode(other)
        if sys.platform == "darwin":
            return bool(library.renamex_np(*names, RENAME_SWAP) == 0)
        return bool(library.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE) == 0)
    except (OSError, AttributeError):
        return False


def unwritable(path: Path, error: OSError) -> RequestError:
    """Return the error that says why nothing can be written at `path`."""
    return RequestError(f"cannot write to {path}: {error.strerror or error}")


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
        removed(path)


def removed(path: Path) -> None:
    """Remove a file or a folder as far as that can be done; of a link, the link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
