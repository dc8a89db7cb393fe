import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dense_folders import HIGH, SIDE, WIDE, point_table, save, squares
from slimwright.data import PARTS, Preprocessing, StreamedData, images_of, point_file, tensors_of, whole
from slimwright.data.preprocessing import Fit
from slimwright.errors import DataError

PLAIN = Preprocessing(HIGH, WIDE, mean=(0.0,), std=(1.0,))


def points_of(data: StreamedData) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, targets = whole(data, "train")
    return images_of(inputs), tensors_of(targets)[0]


def assert_marks_the_square(image: torch.Tensor, marked: torch.Tensor, slack: float) -> None:
    """The first and the last point are the corners of what is bright."""
    rows, columns = (image[0] > 0.45).nonzero().unbind(1)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    wanted = [*marked[0, :2].tolist(), *marked[1, :2].tolist()]
    assert np.abs(np.subtract([float(one) for one in found], wanted)).max() <= slack


def test_points_of_a_table_are_pixels_of_the_placed_picture(tmp_path: Path) -> None:
    data = point_file(point_table(tmp_path), PLAIN)
    assert data.task == "keypoints" and data.labels == ("first", "last")
    assert sum(data.size(part) for part in PARTS) == 24
    images, marked = points_of(data)
    assert marked.dtype == torch.float32 and (marked[:, :, 2] == 1).all()
    for image, one in zip(images, marked, strict=True):
        assert_marks_the_square(image, one, 0)


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop", "cut"])
def test_points_follow_their_picture_and_count_only_inside(tmp_path: Path, fit: Fit) -> None:
    how = Preprocessing(64, 40, fit, mean=(0.0,), std=(1.0,))
    images, marked = points_of(point_file(point_table(tmp_path), how))
    both = marked[:, :, 2].sum(1) == 2
    assert int(both.sum()) >= 3 and bool(both.all()) != (fit == "crop")
    for image, one in zip(images[both], marked[both], strict=True):
        assert_marks_the_square(image, one, 1.01)
    assert (marked[~both].amin((1, 2)) == 0).all()


def test_empty_cells_are_points_that_are_not_marked(tmp_path: Path) -> None:
    path = point_table(tmp_path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *(",".join([*line.split(",")[:3], "", ""]) for line in lines[1:])]))
    _, marked = points_of(point_file(path, PLAIN))
    assert (marked[:, 0, 2] == 1).all() and (marked[:, 1] == 0).all()
    path.write_text("\n".join([lines[0], f"{lines[1]}", ",".join([*lines[2].split(",")[:4], ""])]))
    with pytest.raises(DataError, match=r"line 3 of .*, column 'last_y': '' is not a number"):
        point_file(path, PLAIN)


def coco(home: Path, count: int = 24, boxed: bool = True) -> Path:
    """Two squares to a picture, side by side, each an annotation."""
    found = squares(2 * count)
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for number in range(count):
        pair = found[2 * number : 2 * number + 2]
        save(home / "images" / f"{number}.png", np.concatenate([one.picture for one in pair], 1))
        images.append({"id": 100 + number, "file_name": f"{number}.png", "width": 2 * WIDE, "height": HIGH})
        for place, one in enumerate(pair):
            left, top = one.left + place * WIDE, one.top
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": 100 + number,
                    "keypoints": [left, top, 2, left + SIDE, top + SIDE, 1, 0, 0, 0],
                    **({"bbox": [left, top, SIDE, SIDE]} if boxed else {}),
                }
            )
    crowd = {**annotations[0], "iscrowd": 1}
    nobody = {**annotations[0], "keypoints": [0.0] * 9}
    kinds = [{"id": 1, "name": "square", "keypoints": ["first", "last", "hidden"]}]
    (home / "points.json").write_text(
        json.dumps({"images": images, "annotations": [*annotations, crowd, nobody], "categories": kinds})
    )
    return home / "points.json"


def test_an_annotation_is_an_image_that_its_box_cuts_out(tmp_path: Path) -> None:
    data = point_file(coco(tmp_path), Preprocessing(50, 25, mean=(0.0,), std=(1.0,)))
    assert data.labels == ("first", "last", "hidden") and sum(data.size(part) for part in PARTS) == 48
    images, marked = points_of(data)
    assert (marked[:, :2, 2] == 1).all() and (marked[:, 2] == 0).all()
    for image, one in zip(images, marked, strict=True):
        assert_marks_the_square(image, one, 1.5)
        assert (one[1, :2] - one[0, :2]).tolist() == pytest.approx([25 / 1.25] * 2, abs=2)  # 10 of 12.5 pixels


def test_without_a_box_the_whole_picture_is_the_image(tmp_path: Path) -> None:
    how = Preprocessing(HIGH, 2 * WIDE, mean=(0.0,), std=(1.0,))
    _, marked = points_of(point_file(coco(tmp_path, boxed=False), how))
    assert (marked[:, 1, :2] - marked[:, 0, :2] == SIDE).all()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"keypoints": [1, 1, 2]}, r"annotation 5 in .* has 3 numbers of keypoints; every one needs three"),
        ({"image_id": 7}, r"annotation 5 in .* is of picture 7, which is not listed there"),
        (
            {"keypoints": "many"},
            r"is not COCO's JSON of keypoints: annotations.5.keypoints: Input should be a valid array",
        ),
        ({"bbox": [500, 500, 4, 4]}, r"a box of .*2.png lies outside of the picture, which is 80x32"),
    ],
)
def test_what_is_wrong_with_an_annotation_is_told(tmp_path: Path, changed: dict[str, object], said: str) -> None:
    path = coco(tmp_path)
    read = json.loads(path.read_text())
    read["annotations"][5].update(changed)
    path.write_text(json.dumps(read))
    with pytest.raises(DataError, match=said):
        for part in PARTS:
            list(point_file(path, PLAIN).batches(part, 50))


def test_a_picture_outside_of_the_folder_is_refused(tmp_path: Path) -> None:
    path = coco(tmp_path / "home")
    save(tmp_path / "out.png", squares(1)[0].picture)
    read = json.loads(path.read_text())
    for name in ("../out.png", str(tmp_path / "out.png")):
        read["images"][0]["file_name"] = name
        path.write_text(json.dumps(read))
        with pytest.raises(DataError, match="leads out of"):
            point_file(path, PLAIN)
    path.write_text("{")
    with pytest.raises(DataError, match="is not COCO's JSON of keypoints: content: Invalid JSON"):
        point_file(path, PLAIN)
