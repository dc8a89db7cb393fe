"""Look through a folder of pictures once: what can be read, and what was passed over and why.

A file that cannot be read costs that file alone. Everything that is left out is counted, so that nobody takes a part of
a folder for the whole.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from slimwright.data.pictures import SUFFIXES, fault_of
from slimwright.data.streamed import Share, StreamedData
from slimwright.errors import DataError
from slimwright.progress import Event, Tell, silent

STAGE = "look through pictures"
EVERY = 200  # pictures between two events
NAMED = 2  # examples for each reason
READ, DEEP, HIDDEN, OTHER = "cannot be read", "too deep in folders", "hidden", "of other kinds"


@dataclass(frozen=True)
class Passed:
    """What was passed over: for each reason how many files, and the first of them."""

    counts: Mapping[str, int] = field(default_factory=dict)
    examples: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def said(self) -> str:
        """One line for people, "" where nothing was passed over."""
        parts = [f"{count:,} {why} ({_some(self.examples[why], count)})" for why, count in self.counts.items()]
        return f"passed over: {'; '.join(parts)}" if parts else ""


def sound(root: Path, found: Sequence[Sequence[str]], tell: Tell = silent) -> tuple[list[list[str]], dict[str, str]]:
    """Return groups of paths from `root` without the files that cannot be read, and why each of those cannot.

    Raises DataError where nothing is left of a group that had pictures, saying why.
    """
    faults: dict[str, str] = {}
    total, done = sum(map(len, found)), 0
    for paths in found:
        for path in paths:
            if why := fault_of(root, root / path):
                faults[path] = why
            done += 1
            if done % EVERY == 0 and done < total:
                tell(Event(STAGE, done, total))
        if paths and all(path in faults for path in paths):
            raise DataError(f"{(root / paths[0]).parent} holds no picture that can be read: {faults[paths[0]]}")
    return [[path for path in paths if path not in faults] for paths in found], faults


def readable(data: StreamedData, tell: Tell = silent) -> StreamedData:
    """Return a data set of picture files without those that cannot be read; `tell` hears how many these are.

    A picture goes with what belongs to it, such as its mask. Raises DataError where a part would be empty.
    """
    every = [share.numbers for share in data.shares.values() if share.pictures]
    looked = _Looked(tell, sum(map(len, every)))
    shares = {part: looked.sound_of(share) for part, share in data.shares.items()}
    for part, share in shares.items():
        if not len(share.numbers):
            raise DataError(f"no picture of the {part} part can be read: {next(iter(looked.faults.values()))}")
    if looked.total:
        names = list(looked.faults)
        said = Passed({READ: len(names)}, {READ: names[:NAMED]}).said if names else ""
        tell(Event(STAGE, looked.total, looked.total, said))
    return replace(data, shares=shares) if looked.faults else data


@dataclass
class _Looked:
    """Goes through pictures one by one and keeps why some cannot be read."""

    tell: Tell
    total: int
    done: int = 0
    faults: dict[str, str] = field(default_factory=dict)

    def sound_of(self, share: Share) -> Share:
        """The share without pictures that cannot be read, or whose partner cannot."""
        if share.pictures is None:
            return share
        root, names = share.pictures
        good = []
        for place, number in enumerate(share.numbers.tolist()):
            files = [(names[number], False), *((beside[number], True) for beside in (share.beside,) if beside)]
            why = {name: fault for name, deep in files if (fault := fault_of(root, root / name, deep=deep))}
            self.faults |= why
            good += [place] * (not why)
            self.done += 1
            if self.done % EVERY == 0 and self.done < self.total:
                self.tell(Event(STAGE, self.done, self.total))
        return share if len(good) == len(share.numbers) else share.only(np.array(good, np.int64))


def passed_over(root: Path, used: Sequence[Sequence[str]], faults: Mapping[str, str]) -> Passed:
    """Return what lies in a folder besides the pictures that are used."""
    taken = {path for paths in used for path in paths}
    reasons: dict[str, list[str]] = {why: [] for why in (READ, DEEP, OTHER, HIDDEN)}
    for folder, inner, names in os.walk(root):
        hidden = [name for name in (*inner, *names) if name.startswith(".")]
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(names):
            path = str((Path(folder) / name).relative_to(root))
            if name not in hidden and path not in taken:
                pictured = name.lower().endswith(SUFFIXES)
                reasons[READ if path in faults else DEEP if pictured else OTHER].append(path)
        reasons[HIDDEN] += [str((Path(folder) / name).relative_to(root)) for name in hidden]
    found = {why: paths for why, paths in reasons.items() if paths}
    return Passed({why: len(paths) for why, paths in found.items()}, {w: p[:NAMED] for w, p in found.items()})


def _some(names: Sequence[str], count: int) -> str:
    return ", ".join(names) + (", ..." if count > len(names) else "")
