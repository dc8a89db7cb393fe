"""Device profiles: size, weight and power (SWaP), peak rates and memory of a device, every number with its source.

A profile is a TOML file. Those that come with slimwright lie in `profiles/`; anyone can write another: docs/devices.md.
A number is `{ value = 12.8e9, source = "datasheet: ..." }`: the word before the colon says how far it can be trusted.
What is not known is left out, never guessed. Rates count multiply-accumulates: one MAC is two of the operations of
which makers count trillions (TOPS, FLOPS).
"""

import tomllib
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from slimwright.errors import ProfileError
from slimwright.reading import reading, text_of

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
FOLDER = Path(__file__).parent / "profiles"
SOURCES = {
    "datasheet": "the maker's own figure",
    "paper": "published, with a reference",
    "measured": "somebody measured it and said how",
    "review": "a third party's page",
    "computed": "arithmetic on figures of the kinds above",
    "unverified": "stated without the document at hand",
    "estimate": "a guess, and on what it rests",
}
MOST_CORES = 100_000  # of one kind
UNCERTAIN = ("unverified", "estimate")

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Sourced(_Record):
    source: str

    @field_validator("source")
    @classmethod
    def _says_its_kind(cls, source: str) -> str:
        kind, colon, rest = source.partition(":")
        if kind not in SOURCES or not colon or not rest.strip():
            raise ValueError(f"a source starts with one of {', '.join(SOURCES)} and a colon, and then says which")
        return source

    @property
    def kind(self) -> str:
        """How far the number can be trusted: one of `SOURCES`."""
        return self.source.partition(":")[0]


class Fact(_Sourced):
    """A number and where it is from; its unit is in the name of the field that holds it."""

    value: Positive


class Count(_Sourced):
    """A whole number and where it is from."""

    value: Annotated[int, Field(gt=0, le=MOST_CORES)]


class Lengths(_Sourced):
    """Length, width and, where known, height."""

    value: Annotated[tuple[Positive, ...], Field(min_length=2, max_length=3)]


class ByPrecision(_Record):
    """One number for each precision; None: not supported, or not known."""

    fp32: Fact | None = None
    fp16: Fact | None = None
    int8: Fact | None = None


class Cores(_Record):
    """Cores of one kind. `macs_per_s` is what one of them reaches at most; an accelerator is one core."""

    name: str
    count: Count
    macs_per_s: ByPrecision


class Device(_Record):
    """A device and what is known of it; None: not known."""

    name: str
    title: str
    kind: Literal["phone", "board", "FPGA", "ASIC", "GPU", "microcontroller"]
    processor: str
    scope: str  # which of its processors the rates are of
    cores: Annotated[tuple[Cores, ...], Field(min_length=1)]
    memory_bytes_per_s: Fact
    cache_bytes: Fact | None = None  # of the last level, or the buffer on the chip
    ram_bytes: Fact
    storage_bytes: Fact | None = None
    weights_in: Literal["ram", "storage"] = "ram"  # where they are read from; a microcontroller reads them in flash
    idle_power_w: Fact | None = None
    typical_power_w: Fact | None = None
    max_power_w: Fact | None = None
    energy_per_mac_pj: ByPrecision = ByPrecision()
    energy_per_byte_pj: Fact | None = None  # of memory traffic, beyond the cache
    size_mm: Lengths | None = None
    weight_g: Fact | None = None
    price_usd: Fact | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> "Device":
        if not self.supported:
            raise ValueError("no core has a rate; give macs_per_s for fp32, fp16 or int8")
        powers = [fact.value for fact in (self.idle_power_w, self.typical_power_w, self.max_power_w) if fact]
        if powers != sorted(powers):
            raise ValueError("idle_power_w, typical_power_w and max_power_w must not fall in this order")
        return self

    @property
    def supported(self) -> tuple[Precision, ...]:
        """Precisions that the device computes in."""
        return tuple(p for p in PRECISIONS if any(getattr(cores.macs_per_s, p) for cores in self.cores))

    @property
    def core_count(self) -> int:
        """Cores of all kinds: the most threads that compute at once."""
        return sum(cores.count.value for cores in self.cores)

    def macs_per_s(self, precision: Precision, threads: int | None = None) -> float:
        """Return the peak rate of the `threads` fastest cores together, of all by default; 0 where not supported."""
        rates: list[float] = [
            fact.value
            for cores in self.cores
            if (fact := getattr(cores.macs_per_s, precision)) is not None
            for _ in range(cores.count.value)
        ]
        return sum(sorted(rates, reverse=True)[:threads])


def device_names() -> list[str]:
    """Return the names of the profiles that come with slimwright."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_device(spec: str | Path) -> Device:
    """Return the device of a profile that comes with slimwright, by name, or of a TOML file.

    Raises ProfileError, naming the file, the field and the way out.
    """
    path = Path(spec)
    if path.suffix != ".toml":
        if str(spec) not in device_names():
            near = get_close_matches(str(spec).lower(), device_names(), n=3, cutoff=0.4)
            meant = f"did you mean {' or '.join(near)}? " if near else ""
            raise ProfileError(
                f"there is no device '{spec}'; {meant}There are {', '.join(device_names())}; or name a .toml file"
            )
        path = FOLDER / f"{spec}.toml"
    with reading(path, "a device profile", ProfileError):
        found = tomllib.loads(text_of(path, "a device profile", ProfileError))
        try:
            return Device.model_validate(found)
        except ValidationError as error:
            raise ProfileError(f"the device profile {path} is not valid: {_fault(error)}") from error


def load_devices() -> list[Device]:
    """Return every device that comes with slimwright, in the order of their names."""
    return [load_device(name) for name in device_names()]


def facts(device: Device) -> Iterator[tuple[str, Fact | Count | Lengths]]:
    """Yield every number of a profile with its place, such as "cores.0.macs_per_s.fp32"."""
    yield from _facts(device, ())


def _facts(record: _Record, place: tuple[str, ...]) -> Iterator[tuple[str, Fact | Count | Lengths]]:
    for name in type(record).model_fields:
        value, here = getattr(record, name), (*place, name)
        if isinstance(value, (Fact, Count, Lengths)):
            yield ".".join(here), value
        elif isinstance(value, _Record):
            yield from _facts(value, here)
        elif isinstance(value, tuple):
            for number, item in enumerate(value):
                yield from _facts(item, (*here, str(number)))


def _fault(error: ValidationError) -> str:
    """Say which field is wrong, how, and what to do: the first one."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "the whole"
    return f"{where}: {_said(first)}"


def _said(fault: Any) -> str:
    match fault["type"]:
        case "missing":
            return "it is missing; give it, as docs/devices.md shows"
        case "extra_forbidden":
            known = {name for record in (Device, Cores, Fact, ByPrecision) for name in record.model_fields}
            near = get_close_matches(str(fault["loc"][-1]), sorted(known), n=1)
            return f"there is no such field{f'; did you mean {near[0]}?' if near else ', take it out'}"
        case "model_type":
            return 'a number needs its source; write { value = 1.5e9, source = "datasheet: ..." }'
        case _:
            return str(fault["msg"]).removeprefix("Value error, ")
