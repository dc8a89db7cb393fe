"""What a user says of preprocessing: a short text, or a file that came with the model.

    mean=0.485/0.456/0.406,std=0.229/0.224/0.225,channels=BGR,fit=letterbox,crop=0.875,interpolation=bicubic

The names are the fields of `Described`, and what is not named keeps its default. A file says the same in TOML or JSON;
timm's config.json, Hugging Face's preprocessor_config.json and the manifest of a bundle are read as well.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from slimwright.data.preprocessing import Channels, Fit, Preprocessing
from slimwright.data.published import HUGGING_FACE, TIMM, HuggingFace, Timm
from slimwright.errors import DataError
from slimwright.reading import parsed, reading, text_of

T = TypeVar("T", bound=BaseModel)
SUFFIXES = (".json", ".toml")
MANIFEST = "manifest.json"  # of a bundle
MOST_NUMBERS = 4  # of a text such as 0.5/0.5/0.5
NETWORK = frozenset({"architectures", "model_type", "id2label"})  # keys of Hugging Face's config.json
RENAMED = {"crop": "crop_share", "orientation": "upright"}  # here -> in `Preprocessing`


def _mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values)


def _numbers(value: object) -> object:
    """A text such as "0.5/0.5/0.5", a number or a list, as a tuple."""
    if isinstance(value, str):
        return tuple(value.split("/", MOST_NUMBERS))
    return tuple(value) if isinstance(value, list) else (value,) if isinstance(value, int | float) else value


def _sides(value: object) -> object:
    """A text such as "48x192", a number or a list, as height and width."""
    parts = value.lower().split("x") if isinstance(value, str) else value if isinstance(value, list) else [value]
    return tuple(parts * 2 if len(parts) == 1 else parts)


Numbers = Annotated[tuple[float, ...], BeforeValidator(_numbers)]
Sides = Annotated[tuple[int, int], BeforeValidator(_sides)]


class Described(BaseModel):
    """What is known of a preprocessing; None is what was not said."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: Sides | None = None  # height and width
    fit: Fit | None = None
    crop: float | None = None  # share of a side that a crop keeps
    interpolation: str | None = None
    channels: Channels | None = None
    scale: float | None = None
    mean: Numbers | None = None
    std: Numbers | None = None
    fill: int | None = None
    orientation: Literal["stored", "upright"] | None = None

    @property
    def given(self) -> Mapping[str, Any]:
        """The fields that were said."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}

    def preprocessing(
        self, size: tuple[int, int] | None = None, *, usual: Callable[..., Preprocessing] = Preprocessing
    ) -> Preprocessing:
        """Return the whole preprocessing, for pictures of a size [H, W] or of its own; `usual` has the defaults.

        Raises DataError where neither says how large pictures shall be, and for numbers that make no sense.
        """
        size = size or self.size
        if size is None:
            raise DataError("nothing says how large pictures shall be; write folder:PATH@64, say, or give size=64")
        said = {RENAMED.get(name, name): value for name, value in self.given.items() if name != "size"}
        if "upright" in said:
            said["upright"] = said["upright"] == "upright"
        plain = usual(*size)
        if self.channels == "grey":  # its one mean is that of the three, where nothing else was said
            said = {"mean": (_mean(plain.mean),), "std": (_mean(plain.std),)} | said
        return replace(plain, **said)


def described(spec: str) -> Described:
    """Return what a text, a file or a bundle says. Raises DataError, naming the field that is wrong."""
    if "=" not in spec or spec.endswith(SUFFIXES):
        path = Path(spec)
        return described_in(path / MANIFEST if path.is_dir() else path)
    said: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in spec.split(","))):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals or name in said:
            raise DataError(
                f"'{part}' in the preprocessing is not NAME=VALUE, or is said twice; numbers of several channels are "
                "written mean=0.485/0.456/0.406"
            )
        said[name] = value
    return _validated(Described, said, f"the preprocessing '{spec}'")


def described_in(path: Path) -> Described:
    """Return what a file says, whatever kind of those above it is. Raises DataError, naming file and field."""
    found = _read(path)
    if found.get("format") == "slimwright-bundle":
        return recorded(_inner(_inner(found, "data", path), "preprocessing", path), str(path))
    timm = _inner(found, "pretrained_cfg", path) if "pretrained_cfg" in found else found
    if TIMM & timm.keys():
        return _converted(_validated(Timm, timm, str(path)), path)
    if HUGGING_FACE & found.keys():
        return _converted(_validated(HuggingFace, found, str(path)), path)
    if NETWORK & found.keys():
        raise DataError(
            f"{path} describes a network, and not how pictures are prepared; give the preprocessor_config.json that "
            "lies beside it"
        )
    return _validated(Described, found, str(path))


def recorded(said: Mapping[str, object], where: str) -> Described:
    """Return what a data set recorded of its preprocessing. Raises DataError where that is not of pictures."""
    if "fit" not in said:
        raise DataError(f"{where} says nothing of how pictures are prepared; its data were no folder of pictures")
    known = {name: value for name, value in said.items() if name in Described.model_fields}
    if isinstance(known.get("fill"), list):  # of a line: the mean, which needs no saying
        del known["fill"]
    return _validated(Described, known, where)


def preprocessing_of(said: Mapping[str, object]) -> Preprocessing | None:
    """Return the preprocessing that a record `said`; None where it says none.

    Raises DataError for a record that makes no sense.
    """
    return recorded(said, "the record").preprocessing() if {"fit", "size"} <= said.keys() else None


def _converted(found: Timm | HuggingFace, path: Path) -> Described:
    try:
        said = found.said()
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return _validated(Described, said, str(path))


def _read(path: Path) -> dict[str, Any]:
    """The object in a JSON or TOML file."""
    if not path.exists():
        raise DataError(
            f"there is no file '{path}' with a preprocessing; give one, or a text such as mean=0.5,std=0.5,channels=BGR"
        )
    kind = "TOML" if path.suffix == ".toml" else "JSON"
    with reading(path, f"{kind} with a preprocessing", DataError):
        text = text_of(path, f"{kind} with a preprocessing", DataError)
        found = tomllib.loads(text) if kind == "TOML" else parsed(text)
    if not isinstance(found, dict):
        raise DataError(f"{path} holds a {type(found).__name__}; a preprocessing is an object with names and values")
    return found


def _inner(found: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    inner = found.get(name)
    if not isinstance(inner, dict):
        raise DataError(f"{path} holds no object under '{name}'")
    return inner


def _validated(kind: type[T], said: Mapping[str, Any], where: str) -> T:
    try:
        return kind.model_validate(dict(said))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = [str(part) for part in first["loc"]]
        if first["type"] == "extra_forbidden":
            raise DataError(f"{where} names '{place[0]}'; there is {', '.join(kind.model_fields)}") from error
        if first["type"] == "missing":
            raise DataError(f"{where} has no {'.'.join(place)}, which is needed") from error
        raise DataError(f"{where}: {'.'.join(place)} is {first['input']!r}: {first['msg']}") from error
