"""Some forty ways to get data or preprocessing wrong: is each refused before anything is done, and named rightly?

Three nets are trained on folders of pictures, each with another preprocessing: ImageNet's mean and deviation; mean and
deviation of 0.5, blue first, classes in the order of the numbers in their names; grey levels 0..255 in a frame. Then
each is given pictures that it has not seen, in a wrong set-up, through the same door as by `slimwright shrink`:
`set_up`. A set-up is tried without an expectation first and, where it passes, with what the user knows: the net's
accuracy, less a point. Right set-ups, nets that are just bad among them, must pass.

caught: refused at all. alone: refused without an expectation. named: what is wrong is in the message.
"""

import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from lib.coloured_digits import dealt, write
from lib.results import Column, Row, environment, options, publish, show
from slimwright.cli.sources import load_data
from slimwright.data import Dataset, StreamedData, images_of, labelled, labels_of, whole
from slimwright.errors import RequestError
from slimwright.jobs.setups import set_up
from slimwright.measure import Original, original_of
from slimwright.progress import silent
from slimwright.tasks import Classification, task_for
from slimwright.train import Schedule, fit
from slimwright.zoo import build

SEED = 7
TRAIN, SHOWN, EPOCHS = 1_100, 690, 12
QUICK_EVERY = 4  # of the set-ups in a quick run
LETTERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NUMBERS = tuple(map(str, range(8, 18)))  # as letters: 10, 11, ..., 17, 8, 9
COLUMNS = (
    Column("net", "net"),
    Column("setup", "set-up"),
    Column("caught", "caught"),
    Column("alone", "alone"),
    Column("named", "named"),
    Column("seconds", "s", "{:.1f}"),
    Column("said", "message"),
)


@dataclass(frozen=True)
class Trained:
    """A net, the preprocessing that it was trained with, and its folder of pictures that it has not seen."""

    name: str
    original: Original
    spec: str  # of --preprocessing
    names: tuple[str, ...]
    home: Path
    accuracy: float  # on the validation part, in percent

    def data(self, spec: str | None = None, size: str = "32", home: Path | None = None) -> Dataset:
        """Return its pictures, prepared as it needs them or in another way."""
        return load_data(f"folder:{home or self.home}@{size}", SEED, self.spec if spec is None else spec)


@dataclass(frozen=True)
class Case:
    """A set-up: the data as it gives them, the model if it is another, and what the message must say."""

    net: Trained
    name: str
    data: Callable[[], Dataset]
    says: str  # a pattern; "" for a set-up that is right
    original: Original | None = None


def main() -> None:
    asked = options(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        nets = [_trained(Path(folder), *one, epochs=EPOCHS) for one in _wanted()]
        wrong = [case for net in nets for case in _wrong(net, Path(folder))]
        right = [case for net in nets for case in _right(net, Path(folder))]
        chosen = wrong[::QUICK_EVERY] if asked.quick else wrong
        rows = [_row(case) for case in (*chosen, *(right[::QUICK_EVERY] if asked.quick else right))]
    show("wrong set-ups, and right ones", COLUMNS, rows, sections=("net",))
    bad, good = rows[: len(chosen)], rows[len(chosen) :]
    headline = {
        "wrong": len(bad),
        "caught": sum(int(row["caught"]) for row in bad),
        "caught_without_expectation": sum(int(row["alone"]) for row in bad),
        "named": sum(int(row["named"]) for row in bad),
        "right": len(good),
        "false_alarms": sum(int(row["caught"]) for row in good),
        "seconds_median": float(np.median([float(row["seconds"]) for row in rows])),
    }
    about = environment("pillow", "scipy", seed=SEED)
    publish(asked, headline=headline, rows=rows, environment={**about, **{n.name: n.accuracy for n in nets}})


def _row(case: Case) -> Row:
    began = time.perf_counter()
    alone = _refused(case, None)
    seconds = time.perf_counter() - began
    expected = f"{case.net.accuracy - 1:.2f}%"
    said = alone or (_refused(case, expected) if case.says else "")
    named = bool(case.says and said and re.search(case.says, said))
    return {
        "net": case.net.name,
        "setup": case.name,
        "caught": int(bool(said)),
        "alone": int(bool(alone)),
        "named": int(named),
        "seconds": seconds,
        "said": said.replace(str(case.net.home.parent), ""),
    }


def _refused(case: Case, expect: str | None) -> str:
    """What the job says before it begins, "" where it would go on."""
    original = case.original or case.net.original
    try:
        data = case.data()
        task = task_for(data, original.output_shapes, original.forward)
        set_up(original, task, data, expect=expect, embed=False, tell=silent)
    except RequestError as error:
        return str(error)
    return ""


def _wanted() -> list[tuple[str, str, tuple[str, ...], Callable[[], nn.Module]]]:
    return [
        ("colour", "mean=0.485/0.456/0.406,std=0.229/0.224/0.225", LETTERS, partial(_resnet, 3)),
        ("bgr", "mean=0.5,std=0.5,channels=BGR", NUMBERS, partial(_small, 3)),
        ("grey", "mean=0,std=1,scale=1,channels=grey,fit=letterbox,fill=255", LETTERS, partial(_small, 1)),
    ]


def _trained(
    folder: Path, name: str, spec: str, names: tuple[str, ...], make: Callable[[], nn.Module], *, epochs: int
) -> Trained:
    """Train a net on pictures of its own."""
    taught, shown = dealt(SEED, TRAIN, SHOWN)
    homes = [write(folder / name / part, some, names, seed=SEED) for part, some in (("a", taught), ("b", shown))]
    if names == NUMBERS:
        for home in homes:
            (home / "classes.txt").write_text("\n".join(NUMBERS))
    data = load_data(f"folder:{homes[0]}@32", SEED, spec)
    torch.manual_seed(SEED)
    model = fit(make(), data, Schedule(epochs=epochs), task=Classification(data.labels))
    original = original_of(model.eval(), [data.image_shape])
    made = Trained(name, original, spec, names, homes[1], 0.0)
    seen = made.data()
    inputs, targets = whole(seen, "validation")
    score = Classification(seen.labels).score(original.forward(inputs), targets)
    return Trained(name, original, spec, names, homes[1], score)


def _resnet(channels: int) -> nn.Module:
    return build("resnet8", classes=10, in_channels=channels)


def _small(channels: int) -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in ((channels, 16), (16, 32), (32, 48)):
        layers += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(48 * 16, 10))


def _wrong(net: Trained, folder: Path) -> Iterator[Case]:
    """Set-ups that are wrong for a net: of numbers, channels and placing, then of files and labels."""
    if net.names == NUMBERS:
        yield Case(net, "folders in the order of letters", _unlisted(net, folder), "order of the numbers")
    for name, spec, says in SPECS[net.name]:
        yield Case(net, name, partial(net.data, spec), says)
    made = partial(_changed, net, folder)
    yield Case(net, "dark and bright exchanged", made("inverted", ImageOps.invert), "dark and bright exchanged")
    yield Case(net, "pictures turned by their metadata", made("turned", _turned), "turned as their metadata say")
    yield Case(net, "each label one too high", _relabelled(net, lambda of: (of + 1) % 10), "one score earlier")
    yield Case(net, "classes in another order", _relabelled(net, lambda of: (3 * of + 4) % 10), "in another order")
    yield Case(net, "labels drawn by lot", _relabelled(net, _by_lot), "chance alone gives")
    yield Case(net, "weights not loaded", net.data, "chance alone gives", _untrained(net))
    yield Case(net, "a class is missing", _without(net, folder), "classes")
    yield Case(net, "pictures of another size", partial(net.data, None, "48x32"), "32, 32")
    yield Case(net, "levels stored as 0..1", _stored(net, folder), MEANT[net.name])


PLACED = {"colour": "fit=crop", "bgr": "fit=crop", "grey": "channels=grey,fit=letterbox,fill=255"}
MEANT = {"colour": "ImageNet's mean and std", "bgr": "0.5", "grey": "levels as 0..255"}
SPECS: dict[str, list[tuple[str, str, str]]] = {
    "colour": [
        ("mean and std of 0.5", "mean=0.5,std=0.5", "ImageNet's mean and std"),
        ("no normalization", "mean=0,std=1", "ImageNet's mean and std"),
        ("levels 0..255", "mean=0,std=1,scale=1", "ImageNet's mean and std"),
        ("BGR", "channels=BGR", "the other order of channels"),
        ("grey", "channels=grey3", "preprocessing|channels"),
        ("BGR and 0.5", "channels=BGR,mean=0.5,std=0.5", "the other order of channels"),
        ("Caffe's", "channels=BGR,scale=1,mean=103.939/116.779/123.68,std=1", "ImageNet's mean and std"),
        ("one channel", "channels=grey", "channels"),
        ("stretched", "fit=stretch", "the middle of pictures"),
    ],
    "bgr": [
        ("RGB", "mean=0.5,std=0.5", "the other order of channels"),
        ("ImageNet's, RGB", "channels=RGB", "the other order of channels"),
        ("ImageNet's, BGR", "channels=BGR", "0.5"),
        ("no normalization", "channels=BGR,mean=0,std=1", "0.5"),
        ("levels 0..255, RGB", "mean=0,std=1,scale=1", "the other order of channels"),
        ("in a frame", "mean=0.5,std=0.5,channels=BGR,fit=letterbox", "the middle of pictures"),
    ],
    "grey": [
        ("levels 0..1", "mean=0,std=1,channels=grey,fit=letterbox,fill=255", "levels as 0..255"),
        ("mean and std of 0.5", "mean=0.5,std=0.5,channels=grey,fit=letterbox,fill=255", "levels as 0..255"),
        ("MNIST's", "mean=0.1307,std=0.3081,channels=grey,fit=letterbox,fill=255", "levels as 0..255"),
        ("three channels", "mean=0,std=1,scale=1", "channels"),
    ],
}


def _right(net: Trained, folder: Path) -> Iterator[Case]:
    """Right set-ups: the net's own, through a file, with few pictures, and nets that are not good."""
    yield Case(net, "right", net.data, "")
    if net.name != "grey":
        yield Case(net, "right, a point rounded", partial(net.data, _rounded(net.spec)), "")
    for name, share in ((f"{wanted} % right", wanted) for wanted in (70.0, 55.0, 40.0, 30.0)):
        yield Case(net, f"right, a net with {name}", net.data, "", _worn(net, share))


def _rounded(spec: str) -> str:
    return re.sub(r"0\.(\d\d)\d", r"0.\1", spec)


def _worn(net: Trained, wanted: float) -> Original:
    """The net with as much noise on its weights that it has about so many per cent of the pictures right."""
    data, whole_net = net.data(), net.original.net
    inputs, targets = whole(data, "validation")
    task, drawn = Classification(data.labels), torch.Generator().manual_seed(SEED)
    noise = {
        name: t.std(correction=0) * torch.randn(t.shape, generator=drawn)
        for name, t in whole_net.tensors.items()
        if t.ndim > 1
    }
    for share in np.arange(0.1, 3, 0.05):
        worn = whole_net.edited(tensors={name: whole_net.tensors[name] + share * n for name, n in noise.items()})
        if task.score(worn.run(images_of(inputs)), targets) <= wanted:
            break
    return original_of(worn, [])


def _changed(
    net: Trained, folder: Path, name: str, change: Callable[[Image.Image], Image.Image]
) -> Callable[[], Dataset]:
    home = write(folder / net.name / name, dealt(SEED, TRAIN, SHOWN)[1], net.names, seed=SEED, change=change)
    return partial(net.data, home=_listed(net, home))


def _turned(image: Image.Image) -> Image.Image:
    """The picture as a camera that was held upside down stores it."""
    stored = image.rotate(180)
    stored.getexif()[0x0112] = 3
    return stored


def _listed(net: Trained, home: Path) -> Path:
    """The folder with its list of classes, where the net has one."""
    if net.names == NUMBERS:
        (home / "classes.txt").write_text("\n".join(NUMBERS))
    return home


def _relabelled(net: Trained, moved: Callable[[Tensor], Tensor]) -> Callable[[], Dataset]:
    """The same pictures with other labels."""

    def made() -> Dataset:
        data = net.data()
        assert isinstance(data, StreamedData)
        shares = {part: replace(share, targets=moved(labels_of(share.targets))) for part, share in data.shares.items()}
        return replace(data, shares=shares, remade=None)

    return made


def _by_lot(labels: Tensor) -> Tensor:
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(SEED))]


def _without(net: Trained, folder: Path) -> Callable[[], Dataset]:
    """The pictures of all classes but the last."""
    home = folder / net.name / "fewer"
    shutil.copytree(net.home, home, ignore=shutil.ignore_patterns(net.names[-1], "classes.txt"))
    return partial(net.data, home=home)


def _unlisted(net: Trained, folder: Path) -> Callable[[], Dataset]:
    """The pictures without the list of their classes."""
    home = folder / net.name / "unlisted"
    shutil.copytree(net.home, home, ignore=shutil.ignore_patterns("classes.txt"))
    return partial(net.data, home=home)


def _stored(net: Trained, folder: Path) -> Callable[[], Dataset]:
    """The pictures as tensors in a file, RGB or grey, as shares of the largest level."""
    data = load_data(f"folder:{net.home}@32", SEED, f"{PLACED[net.name]},mean=0,std=1,scale=255")
    parts = [labelled(whole(data, part)) for part in ("train", "validation", "test")]
    images, labels = (torch.cat(some) for some in zip(*parts, strict=True))
    path = folder / net.name / "stored.safetensors"
    names = {"labels": json.dumps(list(data.labels))}
    safetensors.torch.save_file({"images": images.contiguous(), "labels": labels}, path, names)
    return partial(load_data, str(path), SEED)


def _untrained(net: Trained) -> Original:
    torch.manual_seed(SEED + 1)
    data = net.data()
    module = _resnet(3) if net.name == "colour" else _small(data.image_shape[0])
    return original_of(module.eval(), [data.image_shape])


if __name__ == "__main__":
    main()
