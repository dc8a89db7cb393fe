"""Files that came from elsewhere are opened here: plain ones, of a bounded size, and whatever is wrong is our error.

A reader looks at what it expects, and raises an error of ours. What else a damaged file may bring about (a number that
overflows, a list nested without end, an archive over several disks) becomes one at the end of its `reading` block.
"""

import hashlib
import json
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
from pydantic import ValidationError
from torch import Tensor

from slimwright.errors import RequestError, SlimwrightError

TEXT_BYTES = 16 * 2**20  # of a description, a list of names, a record
MOST_DIGITS = 300  # of a whole number, which a float then holds
SAID = 300  # characters of what another library says


@contextmanager
def reading(path: Path, what: str, wrong: type[SlimwrightError]) -> Iterator[None]:
    """Raise `wrong`, naming the file and what it should be, for anything that goes wrong in the block.

    `what` goes on from "PATH is not", such as "a recipe".
    """
    try:
        yield
    except SlimwrightError:
        raise
    except FileNotFoundError as error:
        raise wrong(f"{error.filename or path} does not exist; it should be {what}") from error
    except OSError as error:
        raise wrong(f"{path} cannot be read: {error.strerror or error}") from error
    except ValidationError as error:
        raise wrong(f"{path} is not {what}: {fault(error)}") from error
    except UnicodeDecodeError as error:
        raise wrong(f"{path} is not {what}: it is no text in UTF-8") from error
    except RecursionError as error:
        raise wrong(f"{path} is not {what}: it is nested too deeply") from error
    except MemoryError as error:
        raise wrong(f"{path} asks for more memory than there is; is it {what}?") from error
    except Exception as error:  # libraries raise what they like for what they cannot parse
        raise wrong(f"{path} is not {what}, or is damaged or cut short: {_said(error)}") from error


def plain(path: Path, what: str, wrong: type[SlimwrightError] = RequestError, most: int | None = None) -> Path:
    """Return `path`, which must be a plain file, of at most `most` bytes. Pipes and devices are not opened."""
    with reading(path, what, wrong):
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise wrong(f"{path} is a folder; name {what}")
        if not stat.S_ISREG(found.st_mode):
            raise wrong(f"{path} is a pipe or a device and is not opened; name {what}")
        if most is not None and found.st_size > most:
            raise wrong(f"{path} has {found.st_size:,} bytes; {what} has at most {most:,}")
    return path


def data_of(path: Path, what: str, wrong: type[SlimwrightError] = RequestError, most: int = TEXT_BYTES) -> bytes:
    """Return the bytes of a plain file that has at most `most` of them."""
    with reading(path, what, wrong):
        return plain(path, what, wrong, most).read_bytes()


def text_of(path: Path, what: str, wrong: type[SlimwrightError] = RequestError, most: int = TEXT_BYTES) -> str:
    """Return a text in UTF-8; a mark of its byte order goes."""
    with reading(path, what, wrong):
        return data_of(path, what, wrong, most).decode("utf-8-sig")


def json_of(path: Path, what: str, wrong: type[SlimwrightError] = RequestError, most: int = TEXT_BYTES) -> Any:
    """Return what a JSON file says."""
    with reading(path, what, wrong):
        return parsed(data_of(path, what, wrong, most))


def parsed(text: str | bytes) -> Any:
    """Return what a JSON text says. Raises ValueError where it is none, or names a whole number that no float holds."""
    return json.loads(text, parse_int=_whole)


def stored_tensors(
    path: Path, what: str, wrong: type[SlimwrightError] = RequestError
) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """Return the tensors of a safetensors file, which together are as large as the file, and its metadata."""
    with reading(path, what, wrong), safetensors.safe_open(plain(path, what, wrong), "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a plain file, or "" where there is none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8: one that JSON spells with half a surrogate pair cannot."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def fault(error: ValidationError) -> str:
    """Say which field of a file is wrong, and how: the first one."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where or 'content'}: {first['msg']}"


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"it names a whole number of {len(digits)} digits")
    return int(digits)


def _said(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:SAID] if lines else type(error).__name__
