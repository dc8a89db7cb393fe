"""What a runtime's fast path did not take of a net: noted by the exporter beside its artefact, read by `convert`."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = "fallbacks.json"


@dataclass(frozen=True)
class Fallback:
    """One operator that runs outside the fast path, or not at all; `node` is "" where the converter does not tell."""

    op: str
    node: str = ""


def note(folder: Path, found: Iterable[Fallback]) -> None:
    """Write down what an exporter saw."""
    (folder / FILE).write_text(json.dumps([asdict(one) for one in found]))


def noted(folder: Path) -> tuple[Fallback, ...]:
    """Return what an exporter wrote down; nothing where it looked for nothing."""
    path = folder / FILE
    return tuple(Fallback(**one) for one in json.loads(path.read_text())) if path.exists() else ()
