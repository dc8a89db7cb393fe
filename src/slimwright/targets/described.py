"""What a device says of itself, read as untrusted input."""

from pydantic import TypeAdapter, ValidationError

from slimwright.errors import DeviceError
from slimwright.runner.machine import Described

_DESCRIBED: TypeAdapter[Described] = TypeAdapter(Described)


def read_description(data: bytes, where: str) -> Described:
    """Return a device's description. Raises DeviceError where it is none."""
    try:
        return _DESCRIBED.validate_json(data)
    except ValidationError as error:
        raise DeviceError(f"{where} sent back something that describes no device") from error
