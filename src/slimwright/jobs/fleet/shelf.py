"""Where a fleet is kept: a folder, or any address that fsspec knows, such as s3://bucket/fleet.

A file appears whole or not at all: in a folder it is replaced at once, and stores of objects do the same. What belongs
together is complete once its last file is there, which is the record that names the others.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from slimwright.atomic import replacing, unwritable
from slimwright.errors import RequestError, check_extra


@dataclass(frozen=True)
class Shelf:
    """Files by name at an address. A folder at a path is one, too."""

    address: str

    @classmethod
    def at(cls, out: Path | str) -> Self:
        """Return the shelf at an address, or in a folder, whose path workers elsewhere understand, too."""
        text = str(out)
        return cls(text if "://" in text else str(Path(text).absolute()))

    @cached_property
    def folder(self) -> Path | None:
        """The folder on this machine; None where files lie elsewhere."""
        kind, mark, rest = self.address.partition("://")
        if not mark:
            return Path(self.address)
        return Path(rest) if kind in ("file", "local") else None

    @cached_property
    def _elsewhere(self) -> tuple[Any, str]:
        """The file system and the folder in it. Raises RequestError where fsspec does not know the address."""
        check_extra("fleet", "addresses are read by", "fsspec")
        import fsspec

        try:
            system, root = fsspec.core.url_to_fs(self.address)
        except (ValueError, ImportError) as error:
            raise RequestError(f"nothing can be kept at {self.address}: {error}") from error
        return system, str(root).rstrip("/")

    def write(self, name: str, data: bytes) -> None:
        """Write a file, replaced at once."""
        if self.folder is None:
            system, root = self._elsewhere
            system.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
            system.pipe_file(f"{root}/{name}", data)
            return
        path = self.folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(path, error) from error
        with replacing(path) as temporary:
            temporary.write_bytes(data)

    def read(self, name: str) -> bytes | None:
        """Return a file; None where there is none."""
        try:
            if self.folder is not None:
                return (self.folder / name).read_bytes()
            system, root = self._elsewhere
            found: bytes = system.cat_file(f"{root}/{name}")
            return found
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        if self.folder is not None:
            (self.folder / name).unlink(missing_ok=True)
            return
        system, root = self._elsewhere
        if system.exists(f"{root}/{name}"):
            system.rm_file(f"{root}/{name}")

    def names(self, under: str = "") -> list[str]:
        """Return the names of all files below a folder, sorted."""
        if self.folder is not None:
            files = (path for path in (self.folder / under).rglob("*") if path.is_file())
            return sorted(path.relative_to(self.folder).as_posix() for path in files)
        system, root = self._elsewhere
        there = system.find(f"{root}/{under}".rstrip("/"))
        return sorted(str(path).removeprefix(f"{root}/") for path in there)

    def check_is_fleets(self, mark: str, *, force: bool = False) -> None:
        """Raise RequestError where there are files and none is the `mark` of a fleet, unless by `force`."""
        if not force and self.read(mark) is None and self.names():
            raise RequestError(
                f"{self.address} holds files and is not a fleet; name another place with --out, or write there with "
                "--force"
            )
