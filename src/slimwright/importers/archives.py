"""Zip archives of models as untrusted input: opened, and their names and sizes looked at, before anything is read."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slimwright.errors import ModelError

FAULTS = (  # what zipfile raises of archives that it cannot read, span disks, are encrypted or have broken names
    zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, LookupError, OverflowError,
)  # fmt: skip


@contextmanager
def opened(path: Path, kind: str) -> Iterator[zipfile.ZipFile]:
    """Open an archive of a `kind`, such as "a .pt2 file", whose entries lie in it once. Raises ModelError."""
    try:
        archive = zipfile.ZipFile(path)
        stored = sum(entry.compress_size for entry in archive.infolist())
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    except FAULTS as error:
        raise ModelError(f"{path} is not {kind}, or is cut short: {error}") from error
    with archive:
        if stored > path.stat().st_size:
            raise ModelError(f"{path} says that it holds {stored} bytes, which is more than it has; it is damaged")
        yield archive


def is_archive(path: Path) -> bool:
    """True for a zip archive, also for one that is damaged."""
    try:
        return zipfile.is_zipfile(path)
    except FAULTS:  # its end says that it has several disks, for example
        return True
