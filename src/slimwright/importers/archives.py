"""Zip archives of models as untrusted input: opened, and their names and sizes looked at, before anything is read."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slimwright.errors import ModelError
from slimwright.reading import plain, reading


@contextmanager
def opened(path: Path, kind: str) -> Iterator[zipfile.ZipFile]:
    """Open an archive of a `kind`, such as "a .pt2 file", whose entries lie in it once.

    Raises ModelError, for what goes wrong in the block, too.
    """
    with reading(path, kind, ModelError), zipfile.ZipFile(plain(path, kind, ModelError)) as archive:
        stored = sum(entry.compress_size for entry in archive.infolist())
        if stored > path.stat().st_size:
            raise ModelError(f"{path} says that it holds {stored} bytes, which is more than it has; it is damaged")
        yield archive


def is_archive(path: Path) -> bool:
    """True for a zip archive, also for one that is damaged."""
    try:
        return zipfile.is_zipfile(path)
    except Exception:  # its end says that it has several disks, for example
        return True
