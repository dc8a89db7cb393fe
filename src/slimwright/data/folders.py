"""Data sets that are folders of picture files: one folder a class, no classes, or the layout of Tiny ImageNet.

Files are looked through at first; a picture is decoded when a batch asks for it, so a folder may be larger than memory.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from slimwright.data import files
from slimwright.data.batch import labels_of
from slimwright.data.dataset import PARTS, SHARES, Part
from slimwright.data.pictures import SUFFIXES, pictures
from slimwright.data.preprocessing import Preprocessing, square
from slimwright.data.scanned import STAGE, passed_over, sound
from slimwright.data.streamed import MOST_BYTES, Numbers, Share, StreamedData, cropped, dealt, of_pictures, parted
from slimwright.errors import DataError
from slimwright.progress import Event, Tell, silent

TINY = square(64)
TRAINING = ("train", "training")  # what folders of parts are called, in any case
TESTS = (("test", "testing"), ("val", "valid", "validation"))
ORDER = "classes.txt"  # a name a line
LEAST_CALIBRATION = 64  # images; where there are fewer, training images, which choose nothing either, are observed too


def image_folder(path: Path, how: Preprocessing, seed: int = 0, tell: Tell = silent) -> StreamedData:
    """Return the pictures in `path`, preprocessed like this, a class for each of its folders, named like it.

    Classes are in the order of their names, or as classes.txt lists them. With a folder `train` in it, classes lie in
    there; `test` or `val` beside it is the test part, and where there are both, `val` is the validation part; other
    names of these are in `TRAINING` and `TESTS`. `seed` deals what is not given. Pictures that lie in no folders of
    classes, but directly there or in one folder or deeper, have no labels. Files that cannot be read are left out, and
    `tell` hears of what is left out. Raises DataError, naming the folder or file.
    """
    files.folder(path, "a folder for each class, or pictures without labels")
    home, *given = homes(path)
    names = _classes(path, home)
    found = [_labelled(path, at, names) if names else [_unlabelled(path, at)] for at in (home, *given)]
    looked, faults = sound(path, [paths for groups in found for paths in groups], tell)
    kinds = max(len(names), 1)
    groups = [looked[start : start + kinds] for start in range(0, len(looked), kinds)]
    shares = [_share(path, some, how, labelled=bool(names)) for some in groups]
    parts = parted(shares, names=names, image_shape=how.shape, seed=seed)
    count = sum(map(len, looked))
    said = [_unlabelled_said(path, home, looked)] * (not names)
    said.append(passed_over(path, [*looked, _lists(path, home)], faults).said)
    tell(Event(STAGE, count, count, "; ".join(filter(None, said))))
    return _data(path.resolve().name, names, how, _observed(parts, how.shape))


def _unlabelled_said(root: Path, home: Path, looked: Sequence[Sequence[str]]) -> str:
    """A line for people who may think that their folders are classes; "" where there are none."""
    folders = _folders(root, home)
    if len(folders) < 2:
        return ""
    return f"no labels: pictures lie deeper than in the {len(folders)} folders of {home.name} ({looked[0][0]})"


def homes(path: Path) -> list[Path]:
    """Return where training pictures lie, and where those of the test and of the validation part, as far as given."""
    home = _called(path, TRAINING)
    return [path] if home is None else [home, *(at for names in TESTS if (at := _called(path, names)) is not None)]


def _called(path: Path, names: Sequence[str]) -> Path | None:
    """The folder in `path` that has one of these names, in upper or lower case. Raises DataError where two do."""
    found = sorted(entry.name for entry in os.scandir(path) if entry.is_dir() and entry.name.lower() in names)
    if len(found) > 1:
        raise DataError(f"{path} holds {' and '.join(found)}, which are the same part; keep one, or put them together")
    return path / found[0] if found else None


def identities(path: Path, how: Preprocessing, seed: int = 0) -> StreamedData:
    """Return the pictures in `path`, a folder for each identity: a part holds identities that no other part knows.

    So an embedding is judged on identities that it was not tuned on. Raises DataError, naming the folder or file.
    """
    files.folder(path, "a folder for each identity")
    names = _classes(path, path)
    if len(names) < 2 * len(PARTS):
        raise DataError(
            f"{path} holds {len(names)} identities; each of {len(PARTS)} parts needs at least two: add some"
        )
    share = _share(path, [_pictures(path, path / name) for name in names], how, labelled=True)
    sizes = [max(2, round(SHARES[part] * len(names))) for part in PARTS[1:]]
    ends = np.cumsum([len(names) - sum(sizes), *sizes])[:-1]
    chosen = np.split(np.random.default_rng(seed).permutation(len(names)), ends)
    shown = labels_of(share.targets).numpy()
    parts = {part: share.only(np.flatnonzero(np.isin(shown, some))) for part, some in zip(PARTS, chosen, strict=True)}
    return replace(_data(path.resolve().name, names, how, parts), task="embedding")


def tiny_imagenet(path: Path, seed: int = 0) -> StreamedData:
    """Return Tiny ImageNet from its folder; its validation pictures, the only others with labels, are the test part.

    Raises DataError, naming the file.
    """
    files.folder(path, "wnids.txt, train and val")
    ids = [line.strip() for line in files.lines(path, path / "wnids.txt")]
    for name in ids:
        if not re.fullmatch(r"[A-Za-z0-9_]+", name):
            raise DataError(f"{path / 'wnids.txt'} names the class {name!r}, which is no WordNet id; get it again")
    if len(set(ids)) != len(ids) or len(ids) < 2:
        raise DataError(f"{path / 'wnids.txt'} names {len(set(ids))} classes in {len(ids)} lines; get it again")
    found = [_pictures(path, path / "train" / name / "images") for name in ids]
    train, test, names = _share(path, found, TINY, labelled=True), _annotated(path, ids), _words(path, ids)
    parts = dealt(train, test, names=names, image_shape=TINY.shape, seed=seed)
    return _data("tiny-imagenet", names, TINY, parts)


def _data(name: str, labels: Sequence[str], how: Preprocessing, parts: Mapping[Part, Share]) -> StreamedData:
    augment = partial(cropped, margin=min(how.height, how.width) // 8, mirror=True)
    made = of_pictures(name, labels, how, parts)
    return replace(made, augment=augment, how=how, remade=partial(_again, name, tuple(labels), parts))


def _again(name: str, labels: Sequence[str], parts: Mapping[Part, Share], how: Preprocessing) -> StreamedData:
    """The same pictures in the same parts, with another preprocessing."""
    shares = {part: replace(share, read=partial(share.read, how=how)) for part, share in parts.items()}  # type: ignore[call-arg]
    return _data(name, labels, how, shares)


def _observed(parts: Mapping[Part, Share], shape: tuple[int, int, int]) -> dict[Part, Share]:
    """The parts, the calibration part with the training images where it is small: both only teach."""
    own, least = parts["calibration"], min(LEAST_CALIBRATION, MOST_BYTES // (4 * int(np.prod(shape))))
    if len(own.numbers) >= least:
        return dict(parts)
    joint = own.with_more(parts["train"])
    chosen = np.random.default_rng(0).permutation(len(joint.numbers))[:least]
    return {**parts, "calibration": joint.only(np.sort(chosen))}


def _classes(root: Path, home: Path) -> list[str]:
    """The names of the folders in `home` that are classes; none where its pictures have no labels.

    Classes are two folders or more, at least one with pictures in it. Pictures beside them belong to no class, so they
    are refused. A file classes.txt in `root` or `home` lists them in the order of a model's scores.
    """
    names, beside = _folders(root, home), named_pictures(home)
    if len(names) < 2 or not any(named_pictures(home / name) for name in names):
        return []
    if beside:
        raise DataError(
            f"{home} holds {len(beside)} pictures ({beside[0]}, ...) beside {len(names)} folders of classes; move them "
            "into the folder of a class, or, if no picture has a label, all into one folder"
        )
    return _in_order(root, home, names)


def _in_order(root: Path, home: Path, names: list[str]) -> list[str]:
    """The classes in the order of the file that lists them, or of their names where there is none."""
    lists = _lists(root, home)
    if not lists:
        return names
    at = root / lists[0]
    listed = [line.strip() for line in files.lines(root, at)]
    wrong = sorted(set(listed) ^ set(names))
    if wrong or len(listed) != len(names):
        raise DataError(
            f"{at} must list each of the {len(names)} folders of classes once, and nothing else"
            + (f"; '{wrong[0]}' is only {'listed' if wrong[0] in listed else 'a folder'}" if wrong else "")
        )
    return listed


def _lists(root: Path, home: Path) -> list[str]:
    """The files that list classes, as paths from `root`; the first one counts."""
    there = [folder / ORDER for folder in dict.fromkeys((root, home)) if (folder / ORDER).exists()]
    return [str(at.relative_to(root)) for at in there]


def _labelled(root: Path, home: Path, names: Sequence[str]) -> list[list[str]]:
    """The pictures of each class under a folder that must hold a folder for each class and no other."""
    others = set(_folders(root, home)) ^ set(names)
    if others:
        raise DataError(
            f"{home} and the training folder do not hold the same classes: {sorted(others)[0]!r} is in one of them "
            "only; add or remove that folder"
        )
    return [_pictures(root, home / name) for name in names]


def _unlabelled(root: Path, home: Path) -> list[str]:
    """All pictures under a folder, at any depth."""
    paths = pictures_below(root, home)
    if not paths:
        raise DataError(
            f"{home} holds {len(_folders(root, home))} folders; it needs one for each of at least two classes, with "
            f"pictures in it, or {', '.join(SUFFIXES)} files without labels"
        )
    return paths


def _share(root: Path, found: Sequence[Sequence[str]], how: Preprocessing, *, labelled: bool) -> Share:
    paths = [path for members in found for path in members]
    labels = torch.repeat_interleave(torch.tensor([len(members) for members in found]))
    targets = labels if labelled else torch.zeros(len(paths), 0)
    return Share(partial(_read, root, paths, how=how), np.arange(len(paths)), targets, pictures=(root, paths))


def _read(root: Path, paths: Sequence[str], numbers: Numbers, *, how: Preprocessing) -> NDArray[np.uint8]:
    return pictures(root, paths, how, numbers.tolist())


def _folders(root: Path, home: Path) -> list[str]:
    """The names of the folders in `home`, hidden ones left out, none of which may lead out of `root`."""
    names = sorted(entry.name for entry in os.scandir(home) if entry.is_dir() and not entry.name.startswith("."))
    for name in names:
        within(root, home / name)
    return names


def _pictures(root: Path, home: Path) -> list[str]:
    """The pictures in a folder, as paths from `root`, in the order of their names."""
    if not home.is_dir():
        raise DataError(f"{home} is missing; get the data set again, or leave its class out")
    within(root, home)
    found = named_pictures(home)
    if not found:
        raise DataError(f"{home} holds no {', '.join(SUFFIXES)} file; add pictures, or remove the folder of this class")
    return [str((home / name).relative_to(root)) for name in found]


def named_pictures(home: Path) -> list[str]:
    """Return the names of the pictures in a folder, hidden ones left out, in order."""
    return sorted(
        entry.name
        for entry in os.scandir(home)
        if entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith(".") and not entry.is_dir()
    )


def pictures_below(root: Path, home: Path) -> list[str]:
    """Return the pictures below a folder, as sorted paths from `root`; links to folders are not followed."""
    found = []
    for folder, inner, _ in os.walk(home):
        inner[:] = _folders(root, Path(folder))
        found += [str((Path(folder) / name).relative_to(root)) for name in named_pictures(Path(folder))]
    return sorted(found)


def within(root: Path, folder: Path) -> None:
    """Raise DataError where a folder is a link that leads out of `root`."""
    if not folder.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{folder} leads out of {root}; copy the folder into it instead of linking to it")


def _annotated(path: Path, ids: Sequence[str]) -> Share:
    """The pictures that val_annotations.txt lists, with their classes."""
    at, places = path / "val" / "val_annotations.txt", {name: place for place, name in enumerate(ids)}
    paths, labels = [], []
    for number, line in enumerate(files.lines(path, at), 1):
        name, _, rest = line.partition("\t")
        label = rest.partition("\t")[0]
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name) or label not in places:
            raise DataError(f"line {number} of {at} is no picture with a class of wnids.txt: {line[:60]!r}")
        paths.append(f"val/images/{name}")
        labels.append(places[label])
    return Share(partial(_read, path, paths, how=TINY), np.arange(len(paths)), torch.tensor(labels, dtype=torch.int64))


def _words(path: Path, ids: Sequence[str]) -> list[str]:
    """The first word for each WordNet id in words.txt, with the id where two share it; the ids where there is none."""
    at = path / "words.txt"
    if not at.exists():
        return list(ids)
    meant = dict(line.partition("\t")[::2] for line in files.lines(path, at))
    words = [meant.get(name, name).partition(",")[0].strip() or name for name in ids]
    times = Counter(words)
    return [word if times[word] == 1 else f"{word} ({name})" for word, name in zip(words, ids, strict=True)]
