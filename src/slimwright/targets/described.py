"""What a device says, read as untrusted input."""

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from slimwright.errors import DeviceError
from slimwright.runner.machine import Described
from slimwright.terminal import UNSEEN, printable

MOST_SAID = 500  # characters
MOST_ANSWER = 1 << 30  # bytes


class _Described(BaseModel):
    model_config = ConfigDict(extra="forbid")

    cpu: str
    machine: str
    cores: int = Field(gt=0)
    cache_bytes: int = Field(default=0, ge=0)
    system: str
    python: str
    byteorder: str
    runtimes: dict[str, str]


def read_description(data: bytes, where: str) -> Described:
    """Return a device's description. Raises DeviceError where it is none."""
    try:
        told = _Described.model_validate_json(data)
    except ValidationError as error:
        raise DeviceError(f"{where} sent back something that describes no device: {error}") from error
    return Described(
        cpu=told.cpu,
        machine=told.machine,
        cores=told.cores,
        cache_bytes=told.cache_bytes,
        system=told.system,
        python=told.python,
        byteorder=told.byteorder,
        runtimes=told.runtimes,
    )


def plain(text: str) -> str:
    """Return what a device says without what would steer a terminal, and not at any length."""
    return printable(text).replace("\n", " ").replace(UNSEEN, " ")[:MOST_SAID]
