"""Files changed at random: what is read of each is used, or an error of ours names the file.

Each kind of input is made once, by the tool or the code that writes such files, and then changed. No reader may raise
an error of another kind, take more than ten seconds or a gigabyte, or end the interpreter.
"""

import json
import random
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch.export import Dim, export

from example_nets import SHAPE, classification, hand_made
from mutating import as_text, numbered, with_changes, with_other_bytes
from onnx_files import exported
from packed_files import resealed
from slimwright.cli.sources import read_original
from slimwright.cost.device import load_device
from slimwright.data import Preprocessing, coco, described, point_file, table_file, tensor_file, voc, yolo
from slimwright.data.naming import class_names
from slimwright.data.pictures import fault_of, picture
from slimwright.errors import SlimwrightError
from slimwright.evidence import load_evidence, observe
from slimwright.graph import load_net, save_net
from slimwright.graph.encoding import Encoding
from slimwright.importers import capture, read_onnx, read_pt2
from slimwright.importers.checkpoint import read_checkpoint
from slimwright.search import open_journal
from slimwright.storage import read_packed, write_packed
from slimwright.swz.hashed import Hashed
from slimwright.techniques import Fold, Prune, Quantize, Recipe, Tune, load_recipe

CASES = 500
MOST_S, MOST_GROWTH = 10.0, 10**9  # bytes
HOW = Preprocessing(8, 8)
Read = Callable[[Path], object]


@dataclass(frozen=True)
class Kind:
    """How a kind of file is written into a folder, which file is changed, and what reads it."""

    write: Callable[[Path], Path]
    read: Read
    is_json: bool = False


def net(folder: Path) -> Path:
    save_net(capture(hand_made("Flat"), SHAPE), folder)
    return folder / "net.json"


def tensors_of_net(folder: Path) -> Path:
    return net(folder).with_suffix(".safetensors")


def run_net(path: Path) -> object:
    found = load_net(path.parent)
    return found.run(tuple(torch.zeros(1, *node.shape[1:], dtype=getattr(torch, node.dtype)) for node in found.inputs))


def pt2(folder: Path) -> Path:
    program = export(hand_made("Flat"), (torch.zeros(2, *SHAPE),), dynamic_shapes=({0: Dim.AUTO},), strict=False)
    torch.export.save(program, folder / "model.pt2")
    return folder / "model.pt2"


def onnx(folder: Path) -> Path:
    return exported(hand_made("Flat"), folder / "model.onnx", SHAPE, dynamic=True)


def weights(folder: Path) -> Path:
    tensors = {"w": torch.randn(3, 4), "b": torch.zeros(3, dtype=torch.float16)}
    torch.save({"state_dict": tensors, "epoch": 3}, folder / "w.pth")
    return folder / "w.pth"


def packed_net(folder: Path) -> Path:
    net = capture(hand_made("Flat"), SHAPE)
    gridded = {k: (values * 20).round() / 20 for k, values in net.tensors.items() if k != "fc.weight"}
    codes = torch.from_numpy(Hashed(60, 4).codes(net.tensors["wide.weight"].numel()))
    hashed = torch.randn(60)[codes].reshape(net.tensors["wide.weight"].shape)
    net = net.edited(tensors={**gridded, "wide.weight": hashed}).encoded({"wide.weight": Encoding.of_hash(60, 4)})
    assert "hashed" in {one.form for one in write_packed(net, folder / "net.swz").tensors}
    return folder / "net.swz"


def sealed(path: Path) -> object:
    """What a packed net says once its checksums are right, as whoever wants to break a reader makes them."""
    resealed(path)
    return read_packed(path)


def recipe(folder: Path) -> Path:
    steps = (Prune(keep={"a": [0, 2]}), Fold(), Quantize(images=8), Tune(epochs=1, rate=0.1))
    (folder / "recipe.json").write_text(Recipe(original=None, steps=steps).model_dump_json())
    return folder / "recipe.json"


def evidence(folder: Path) -> Path:
    seen = capture(hand_made("Flat"), SHAPE)
    classes = seen[seen.outputs[0]].shape[1]
    batches = [(torch.rand(6, *SHAPE), torch.arange(6) % classes)]
    observe(seen, batches, task=classification(classes)).save(folder / "evidence.safetensors")
    return folder / "evidence.safetensors"


def data(folder: Path) -> Path:
    tensors = {"images": torch.rand(40, 1, 4, 4), "labels": torch.arange(40) % 3}
    safetensors.torch.save_file(tensors, folder / "data.safetensors", {"labels": json.dumps(["a", "b", "c"])})
    return folder / "data.safetensors"


def device(folder: Path) -> Path:
    path = folder / "device.toml"
    path.write_text(
        'name = "toy"\ntitle = "A toy"\nkind = "board"\nprocessor = "none"\nscope = "all"\n'
        'memory_bytes_per_s = { value = 1e9, source = "paper: b" }\nram_bytes = { value = 1e9, source = "paper: b" }\n'
        '[[cores]]\nname = "a"\ncount = { value = 2, source = "paper: b" }\n'
        'macs_per_s = { fp32 = { value = 1e9, source = "paper: b" } }\n'
    )
    return path


def journal(folder: Path) -> Path:
    written = open_journal(folder / "journal")
    for number in range(8):
        written.add(str(number), {"cost": {"latency_ms": 1.5, "macs": number}, "why": "ü"})
    return folder / "journal" / "journal.jsonl"


def names(folder: Path) -> Path:
    (folder / "names.txt").write_text("cat\ndog\nhäuser\n")
    return folder / "names.txt"


def how(folder: Path) -> Path:
    (folder / "how.json").write_text(json.dumps({"size": [8, 8], "mean": [0.5], "std": [0.5], "channels": "BGR"}))
    return folder / "how.json"


def drawn(folder: Path, count: int = 6, form: str = "png") -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(0)
    for number in range(count):
        levels = chance.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(levels).save(folder / f"{number}.{form}")
    return [f"{number}.{form}" for number in range(count)]


def table(folder: Path) -> Path:
    (folder / "table.csv").write_text("path,age,weight\n" + "".join(f"{name},3,4.5\n" for name in drawn(folder)))
    return folder / "table.csv"


def boxes_of_coco(folder: Path) -> Path:
    images = [{"id": i, "file_name": name, "width": 16, "height": 12} for i, name in enumerate(drawn(folder))]
    boxes = [{"bbox": [1, 1, 5, 5], "category_id": 1, "image_id": image["id"]} for image in images]
    said = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}
    (folder / "boxes.json").write_text(json.dumps(said))
    return folder / "boxes.json"


def points(folder: Path) -> Path:
    images = [{"id": i, "file_name": name, "width": 16, "height": 12} for i, name in enumerate(drawn(folder))]
    marks = [{"keypoints": [1, 1, 2, 5, 5, 2], "category_id": 1, "image_id": image["id"]} for image in images]
    kinds = [{"id": 1, "name": "hand", "keypoints": ["thumb", "wrist"]}]
    (folder / "points.json").write_text(json.dumps({"images": images, "annotations": marks, "categories": kinds}))
    return folder / "points.json"


def boxes_of_yolo(folder: Path) -> Path:
    (folder / "labels").mkdir()
    for name in drawn(folder / "images"):
        (folder / "labels" / name).with_suffix(".txt").write_text("0 0.5 0.5 0.25 0.25\n1 0.1 0.1 0.1 0.1 0.2 0.2\n")
    (folder / "data.yaml").write_text("names:\n  0: cat\n  1: dog\n")
    return folder / "labels" / "0.txt"


def boxes_of_voc(folder: Path) -> Path:
    (folder / "Annotations").mkdir()
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox>"
    for name in drawn(folder / "JPEGImages"):
        text = f"<annotation><filename>{name}</filename><object><name>cat</name>{box}</object></annotation>"
        (folder / "Annotations" / name).with_suffix(".xml").write_text(text)
    return folder / "Annotations" / "0.xml"


def pictures(form: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (name,) = drawn(folder, 1, form)
        if form == "png":  # with a palette, which names colours by number
            Image.open(folder / name).convert("P").save(folder / name)
        return folder / name

    return write


def seen(path: Path) -> object:
    """A picture as a network is given it, and whether it is sound."""
    return fault_of(path.parent, path), picture(path.parent, path, HOW)


KINDS = {
    "saved net": Kind(net, run_net, is_json=True),
    "tensors of a net": Kind(tensors_of_net, run_net),
    ".pt2": Kind(pt2, read_pt2),
    ".onnx": Kind(onnx, read_onnx),
    ".swz": Kind(packed_net, read_packed),
    ".swz with checksums": Kind(packed_net, sealed),
    "checkpoint": Kind(weights, read_checkpoint),
    "recipe": Kind(recipe, load_recipe, is_json=True),
    "evidence": Kind(evidence, load_evidence),
    "tensors": Kind(data, tensor_file),
    "device": Kind(device, load_device),
    "journal": Kind(journal, lambda path: open_journal(path.parent)),
    "names": Kind(names, lambda path: class_names(str(path))),
    "preprocessing": Kind(how, lambda path: described(str(path)), is_json=True),
    "table": Kind(table, lambda path: table_file(path, HOW)),
    "COCO": Kind(boxes_of_coco, lambda path: coco(path, HOW), is_json=True),
    "points": Kind(points, lambda path: point_file(path, HOW), is_json=True),
    "YOLO": Kind(boxes_of_yolo, lambda path: yolo(path.parent.parent, HOW)),
    "VOC": Kind(boxes_of_voc, lambda path: voc(path.parent.parent, HOW)),
    **{form: Kind(pictures(form), seen) for form in ("png", "jpg", "gif", "webp", "bmp", "tiff")},
}


def changed(kind: Kind, whole: bytes, chance: random.Random) -> bytes:
    if kind.is_json and chance.random() < 0.8:
        return as_text(with_changes(json.loads(whole), chance), chance)
    return with_other_bytes(whole, chance)


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("name", KINDS)
def test_a_file_that_was_changed_is_read_or_refused(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    path = kind.write(tmp_path)
    whole = path.read_bytes()
    kind.read(path)
    before, read = peak_bytes(), 0
    for number, chance in enumerate(numbered(CASES)):
        path.write_bytes(changed(kind, whole, chance))
        began = time.monotonic()
        try:
            kind.read(path)
            read += 1
        except SlimwrightError as error:
            assert str(error), f"case {number}"
        except Exception as error:
            raise AssertionError(f"case {number} of {name}: {error!r}") from error
        assert time.monotonic() - began < MOST_S, f"case {number} of {name}"
    assert peak_bytes() - before < MOST_GROWTH
    assert {child.name.startswith(".") for child in tmp_path.rglob("*")} <= {False}  # nothing was written


def counted(value: int) -> dict[str, Any]:
    return {"images": torch.rand(4, 1, 4, 4), "labels": torch.full((4,), value)}


@pytest.mark.parametrize("label", [10**9, 2**62, -5])
def test_labels_make_no_more_classes_than_data_can_have(label: int, tmp_path: Path) -> None:
    safetensors.torch.save_file(counted(label), tmp_path / "data.safetensors")
    with pytest.raises(SlimwrightError, match="labels"):
        tensor_file(tmp_path / "data.safetensors")


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    safetensors.torch.save_file(counted(0), tmp_path / "data.safetensors", {"labels": '["\\ud800"]'})
    with pytest.raises(SlimwrightError, match="labels"):
        tensor_file(tmp_path / "data.safetensors")


def test_a_small_file_asks_for_no_gigabytes(tmp_path: Path) -> None:
    Image.new("1", (10_000, 10_000)).save(tmp_path / "0.png")
    before = peak_bytes()
    with pytest.raises(SlimwrightError, match=r"more pixels than the limit|claims"):
        seen(tmp_path / "0.png")
    assert peak_bytes() - before < MOST_GROWTH


def test_a_bundle_is_no_model_where_a_pipe_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "net.json").symlink_to("/dev/zero")
    (tmp_path / "net.safetensors").symlink_to("/dev/zero")
    with pytest.raises(SlimwrightError, match="is a pipe or a device"):
        read_original(tmp_path)
