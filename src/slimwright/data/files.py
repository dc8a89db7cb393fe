"""Open files that came from elsewhere: none outside the folder that was named, none larger than it should be."""

import gzip
import stat
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slimwright.errors import DataError

TEXT_BYTES = 16 * 2**20  # of a list of names


def folder(path: Path, what: str) -> Path:
    """Return `path`, which must be a folder. Raises DataError, saying what should be in it."""
    if not path.is_dir():
        state = "is not a folder" if path.exists() else "does not exist"
        raise DataError(f"{path} {state}; name the folder that holds {what}")
    return path


def there(path: Path) -> bool:
    """Whether something is at a path that a file names; a name that no file can have names nothing."""
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, a null byte
        return False


def held(root: Path, path: Path) -> Path:
    """Return `path`, which must be a plain file whose real place is within `root`. Raises DataError."""
    try:
        real = path.resolve(strict=True)
        plain = stat.S_ISREG(real.stat().st_mode)
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links is a RuntimeError, a null byte a ValueError
        raise DataError(f"{path} is missing or cannot be reached; copy it there again") from error
    if not real.is_relative_to(root.resolve()):
        raise DataError(
            f"{path} leads out of {root}, to {real}; copy the file into the folder instead of linking to it"
        )
    if not plain:
        raise DataError(f"{path} is not a plain file; put the file itself there")
    return real


def lines(root: Path, path: Path) -> list[str]:
    """Return the lines of a text file without the empty ones at its end. Raises DataError for what is no text."""
    return text(root, path).rstrip().splitlines()


def text(root: Path, path: Path, most: int = TEXT_BYTES) -> str:
    """Return what a text file in `root` says, without a mark of its byte order.

    Raises DataError for what is no text, or has over `most` bytes.
    """
    real = held(root, path)
    if real.stat().st_size > most:
        raise DataError(f"{path} has {real.stat().st_size} bytes, over the limit of {most}; get it again, or split it")
    try:
        return real.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text in UTF-8: {error}; get it again") from error


def mapped(path: Path) -> NDArray[np.uint8]:
    """Return a file's bytes without reading them yet. Raises DataError for an empty file."""
    if not path.stat().st_size:
        raise DataError(f"{path} is empty; get it again")
    return np.memmap(path, np.uint8, "r")


def unzipped(path: Path, most: int) -> NDArray[np.uint8]:
    """Return the first `most` bytes, or all, in a gzip file. Raises DataError where it is damaged or cut short."""
    try:
        with gzip.open(path) as file:
            return np.frombuffer(file.read(most), np.uint8)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged or cut short: {error}; get it again") from error
