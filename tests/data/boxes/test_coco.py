import json
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_boxes import COUNT, check_boxes_surround_what_they_name, drawn

from slimwright.cli.sources import load_data
from slimwright.data import PARTS, Preprocessing, StreamedData, coco, letterbox, tensors_of, whole
from slimwright.errors import DataError

NUMBERS = {"cat": 7, "dog": 9}
HOW = letterbox(32, 32)


def said(home: Path) -> dict[str, Any]:
    """What a file says of pictures that are drawn into `home`."""
    images, annotations = [], []
    for number, (name, (width, height), kind, (left, top, right, bottom)) in enumerate(drawn(home)):
        images.append({"id": 100 + number, "file_name": name, "width": width, "height": height})
        box = {"bbox": [left, top, right - left, bottom - top], "category_id": NUMBERS[kind], "image_id": 100 + number}
        crowd = {"bbox": [0, 0, 5, 5], "category_id": 7, "image_id": 100 + number, "iscrowd": 1}
        annotations += [box, crowd, {**box, "bbox": [3, 3, 0, 4]}]
    categories = [{"id": number, "name": name} for name, number in reversed(NUMBERS.items())]
    return {"images": images, "annotations": annotations, "categories": categories}


def written(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


@pytest.mark.parametrize(
    ("file", "home"),
    [("a.json", "."), ("a.json", "images"), ("annotations/instances_val2017.json", "val2017")],
)
def test_boxes_follow_their_pictures_and_crowds_are_left_out(file: str, home: str, tmp_path: Path) -> None:
    path = written(tmp_path / file, said(tmp_path / home))
    data = load_data(f"coco:{path}@32x48")
    assert isinstance(data, StreamedData) and data.image_shape == (3, 32, 48)
    assert sum(data.size(part) for part in PARTS) == COUNT
    check_boxes_surround_what_they_name(data)
    assert data.preprocessing["fit"] == "letterbox" and data.preprocessing["std"] == [1.0]


@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_boxes_are_cut_where_their_picture_is(fit: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", said(tmp_path))
    data = coco(path, Preprocessing(24, 24, fit=fit, mean=(0.0,), std=(1.0,)))  # type: ignore[arg-type]
    _, targets = whole(data, "train")
    rows = tensors_of(targets)[0]
    shown = rows[rows[..., 0] >= 0]
    assert float(shown[:, 1:].min()) >= 0 and float(shown[:, 1:].max()) <= 24
    assert bool((shown[:, 3] > shown[:, 1]).all() and (shown[:, 4] > shown[:, 2]).all())
    if fit == "stretch":
        check_boxes_surround_what_they_name(data)


def test_a_picture_without_boxes_stays(tmp_path: Path) -> None:
    value = said(tmp_path)
    value["annotations"] = value["annotations"][:3]
    _, targets = whole(coco(written(tmp_path / "a.json", value), HOW), "train")
    rows = tensors_of(targets)[0]
    assert (
        rows.shape[1:] == (1, 5)
        and int((rows[..., 0] >= 0).sum()) <= 1
        and not bool(rows[rows[..., 0] < 0][:, 1:].any())
    )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            lambda v: v["annotations"][4].update(image_id=5),
            r"annotations\[4\] of .*a\.json is of image 5, which .* not list",
        ),
        (lambda v: v["annotations"][0].update(category_id=1), r"annotations\[0\] of .* is of category 1"),
        (lambda v: v["annotations"][0].update(bbox=[1, 2, 3]), r"annotations\[0\] of .* has no bbox of four numbers"),
        (lambda v: v["annotations"][0].update(bbox=[1, 2, 3, float("nan")]), "no bbox of four numbers"),
        (lambda v: v["annotations"][0].update(bbox=[1, 2, 3, "4"]), "no bbox of four numbers"),
        (lambda v: v["images"][2].pop("id"), r"images\[2\] of .* has no whole number under 'id'"),
        (lambda v: v["images"][0].update(width=10**9), r"images\[0\] of .* claims 1000000000x30 pixels"),
        (lambda v: v["images"][0].update(file_name=3), "no text under 'file_name'"),
        (lambda v: v["images"][0].update(file_name="gone.png"), r"'gone\.png', which .* lists, is in none of"),
        (lambda v: v.update(categories={}), "has no list of categories"),
        (lambda v: v.update(images=[1]), r"images\[0\] of .* is not an object"),
        (lambda v: v.update(images=[], annotations=[]), "lists no images"),
        (lambda v: v.update(annotations=[]), "12 pictures and no boxes"),
    ],
)
def test_wrong_entries_are_named(change: Any, why: str, tmp_path: Path) -> None:
    value = said(tmp_path)
    change(value)
    with pytest.raises(DataError, match=why):
        coco(written(tmp_path / "a.json", value), HOW)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "3"])
def test_what_is_no_such_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=r"a\.json (is not JSON|holds no object)"):
        coco(tmp_path / "a.json", HOW)
    with pytest.raises(DataError, match="is missing"):
        coco(tmp_path / "b.json", HOW)


def test_a_picture_of_another_size_than_its_boxes_are_for_is_told(tmp_path: Path) -> None:
    value = said(tmp_path)
    for image in value["images"]:
        image["width"] += 1
    data = coco(written(tmp_path / "a.json", value), HOW)
    with pytest.raises(DataError, match=r"p\d\d\.png has \d+x\d+ pixels, and its boxes are for"):
        whole(data, "train")


def test_no_picture_is_read_outside_the_folder(tmp_path: Path) -> None:
    value = said(tmp_path / "outside")
    for image in value["images"]:
        image["file_name"] = f"../outside/{image['file_name']}"
    data = coco(written(tmp_path / "inside" / "a.json", value), HOW)
    with pytest.raises(DataError, match="leads out of"):
        whole(data, "train")


def test_boxes_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    data = coco(written(tmp_path / "a.json", said(tmp_path)), HOW)
    one = torch.cat([tensors_of(targets)[0] for _, targets in data.batches("train", 1)])
    assert torch.equal(one, tensors_of(whole(data, "train")[1])[0])
