"""Kinds of input from elsewhere: how each is written, which of its files is changed, which command reads it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from torch import nn

from slimwright.graph import save_net
from slimwright.importers import capture
from slimwright.techniques import Fold, Quantize, Recipe

SHAPE, COUNT = (3, 8, 8), 24
SMALL = "lib.hostile_kinds:small"


@dataclass(frozen=True)
class Kind:
    """`write` fills a folder and returns the file to change; `reads` is the command line, run in that folder."""

    write: Callable[[Path], Path]
    reads: Sequence[str]
    writes: Sequence[str] = field(default=())  # what the command may put into the folder


def small() -> nn.Module:
    """A network that costs nothing to run."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(body, nn.Flatten(), nn.Linear(8, 4)).eval()


def _net(folder: Path, name: str = "net.json") -> Path:
    (folder / "net").mkdir()
    save_net(capture(small(), SHAPE), folder / "net")
    return folder / "net" / name


def _onnx(folder: Path) -> Path:
    program = torch.onnx.export(small(), (torch.zeros(1, *SHAPE),), dynamo=True, verbose=False)
    assert program is not None
    program.save(folder / "case.onnx")
    return folder / "case.onnx"


def _pt2(folder: Path) -> Path:
    torch.export.save(torch.export.export(small(), (torch.zeros(1, *SHAPE),)), folder / "case.pt2")
    return folder / "case.pt2"


def _checkpoint(folder: Path) -> Path:
    torch.save({"state_dict": small().state_dict(), "epoch": 3}, folder / "case.pth")
    return folder / "case.pth"


def _safetensors_weights(folder: Path) -> Path:
    safetensors.torch.save_file(small().state_dict(), folder / "case.safetensors")
    return folder / "case.safetensors"


def _tensors(folder: Path) -> Path:
    tensors = {"images": torch.rand(COUNT, *SHAPE), "labels": torch.arange(COUNT) % 4}
    safetensors.torch.save_file(tensors, folder / "case.safetensors", {"labels": json.dumps(["a", "b", "c", "d"])})
    return folder / "case.safetensors"


def _recipe(folder: Path) -> Path:
    _net(folder)
    _tensors(folder)
    recipe = Recipe(original=None, steps=(Fold(), Quantize(images=8)))
    (folder / "recipe.json").write_text(recipe.model_dump_json())
    return folder / "recipe.json"


def _device(folder: Path) -> Path:
    said = ['name = "toy"', 'title = "A toy"', 'kind = "board"', 'processor = "none"', 'scope = "all"']
    said += [f'{key} = {{ value = 1e9, source = "paper: b" }}' for key in ("memory_bytes_per_s", "ram_bytes")]
    said += ["[[cores]]", 'name = "a"', 'count = { value = 2, source = "paper: b" }']
    said += ['macs_per_s = { fp32 = { value = 1e9, source = "paper: b" } }']
    (folder / "device.toml").write_text("\n".join(said) + "\n")
    return folder / "device.toml"


def _drawn(folder: Path, form: str = "png") -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(0)
    names = [f"{number:02}.{form}" for number in range(COUNT)]
    for name in names:
        Image.fromarray(chance.integers(0, 256, (12, 16, 3), dtype=np.uint8)).save(folder / name)
    return names


def _pictures(folder: Path, form: str) -> Path:
    for label in "abcd":
        _drawn(folder / "photos" / label, form)
    return folder / "photos" / "a" / f"00.{form}"


def _table(folder: Path) -> Path:
    rows = [f"{name},{number},{number / 7:.2f},1,2" for number, name in enumerate(_drawn(folder))]
    (folder / "table.csv").write_text("\n".join(["path,age,weight,x,y", *rows]) + "\n")
    return folder / "table.csv"


def _coco(folder: Path) -> Path:
    images = [{"id": i, "file_name": name, "width": 16, "height": 12} for i, name in enumerate(_drawn(folder))]
    boxes = [{"id": i, "bbox": [1, 1, 5, 5], "category_id": 1, "image_id": one["id"]} for i, one in enumerate(images)]
    whole = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}
    (folder / "boxes.json").write_text(json.dumps(whole))
    return folder / "boxes.json"


def _yolo(folder: Path) -> Path:
    (folder / "labels").mkdir()
    for name in _drawn(folder / "images"):
        (folder / "labels" / name).with_suffix(".txt").write_text("0 0.5 0.5 0.25 0.25\n1 0.3 0.3 0.1 0.1\n")
    (folder / "data.yaml").write_text("names:\n  0: cat\n  1: dog\n")
    return folder / "labels" / "00.txt"


def _voc(folder: Path) -> Path:
    (folder / "Annotations").mkdir()
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox>"
    for name in _drawn(folder / "JPEGImages"):
        text = f"<annotation><filename>{name}</filename><object><name>cat</name>{box}</object></annotation>"
        (folder / "Annotations" / name).with_suffix(".xml").write_text(text)
    return folder / "Annotations" / "00.xml"


def _preprocessing(folder: Path) -> Path:
    _tensors(folder)
    (folder / "how.json").write_text(json.dumps({"size": [8, 8], "mean": [0.5] * 3, "std": [0.5] * 3}))
    _pictures(folder, "png")
    return folder / "how.json"


def _measured(data: str, *more: str) -> list[str]:
    return ["inspect", SMALL, "--image", "3x8x8", "--data", data, "--expect", "0", "--json", *more]


KINDS: dict[str, Kind] = {
    "saved net": Kind(_net, ["inspect", "net"]),
    "tensors of a net": Kind(partial(_net, name="net.safetensors"), ["inspect", "net"]),
    ".onnx": Kind(_onnx, ["inspect", "case.onnx"]),
    ".pt2": Kind(_pt2, ["inspect", "case.pt2"]),
    "checkpoint": Kind(_checkpoint, ["inspect", SMALL, "--image", "3x8x8", "--weights", "case.pth"]),
    "weights": Kind(_safetensors_weights, ["inspect", SMALL, "--image", "3x8x8", "--weights", "case.safetensors"]),
    "recipe": Kind(
        _recipe, ["apply", "recipe.json", "net", "--data", "case.safetensors", "--out", "made"], writes=("made",)
    ),
    "device": Kind(_device, ["devices", SMALL, "--image", "3x8x8", "--device", "device.toml"]),
    "tensors": Kind(_tensors, _measured("case.safetensors")),
    "png": Kind(partial(_pictures, form="png"), _measured("folder:photos@8")),
    "jpg": Kind(partial(_pictures, form="jpg"), _measured("folder:photos@8")),
    "table": Kind(_table, _measured("table:table.csv@8", "--task", "regression")),
    "COCO": Kind(_coco, _measured("coco:boxes.json@8", "--task", "imitation")),
    "YOLO": Kind(_yolo, _measured("yolo:.@8", "--task", "imitation")),
    "VOC": Kind(_voc, _measured("voc:.@8", "--task", "imitation")),
    "preprocessing": Kind(_preprocessing, _measured("folder:photos@8", "--preprocessing", "how.json")),
}
