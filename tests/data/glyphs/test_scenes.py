import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from slimwright.cli.sources import load_data
from slimwright.data import PARTS, Dataset, SceneData, Scenes, images_of, scenes, tensors_of, whole
from slimwright.data.glyphs import parsed_scenes
from slimwright.data.glyphs.scenes import MEAN, STD
from slimwright.errors import DataError

FEW = "train=40,calibration=8,validation=9,test=12"


def data(kind: str, more: str = "") -> SceneData:
    found = load_data(f"scenes:{kind},{FEW}{more}")
    assert isinstance(found, SceneData)
    return found


def images_and_truth(of: Dataset, part: str = "train") -> tuple[Tensor, Tensor]:
    inputs, targets = whole(of, part)  # type: ignore[arg-type]
    return images_of(inputs), tensors_of(targets)[0]


def test_sizes_labels_and_tasks_are_as_asked() -> None:
    boxes, masks, double = (data(kind) for kind in ("boxes", "masks", "double"))
    assert [boxes.size(part) for part in PARTS] == [40, 8, 9, 12]
    assert [one.task for one in (boxes, masks, double)] == ["detection", "segmentation", "restoration"]
    assert len(boxes.labels) == 10 and masks.labels == ("background", *boxes.labels) and double.labels == ()
    assert boxes.image_shape == masks.image_shape == (3, 64, 64) and double.image_shape == (3, 32, 32)
    assert images_and_truth(boxes, "test")[1].shape == (12, 4, 5)
    assert images_and_truth(masks, "test")[1].shape == (12, 64, 64)


def test_boxes_surround_what_the_masks_show() -> None:
    """Where one character covers another, its box is larger than what is left of it."""
    images, boxes = images_and_truth(data("boxes"))
    same, masks = images_and_truth(data("masks"))
    assert torch.equal(images, same)
    exact = 0
    for rows, mask in zip(boxes, masks, strict=True):
        shown = rows[rows[:, 0] >= 0]
        assert set(mask.unique().tolist()) - {0} <= {int(kind) + 1 for kind in shown[:, 0]}
        for kind, left, top, right, bottom in shown.int().tolist():
            assert 0 <= left < right <= 64 and 0 <= top < bottom <= 64
            inside = mask[top:bottom, left:right] == kind + 1
            exact += bool(inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any())
        covered = torch.zeros(64, 64, dtype=torch.bool)
        for _, left, top, right, bottom in shown.int().tolist():
            covered[top:bottom, left:right] = True
        assert not bool(mask[~covered].any())
    assert exact > 0.9 * int((boxes[..., 0] >= 0).sum())


def test_what_a_mask_marks_looks_other_than_what_surrounds_it() -> None:
    images, masks = images_and_truth(data("masks", ",difficulty=0"))
    grey = images.mean(1) * STD + MEAN
    ink, paper = (torch.stack([g[m].mean() for g, m in zip(grey, which, strict=True) if m.any()])
                  for which in ((masks > 0), (masks == 0)))  # fmt: skip
    assert float((ink - paper[: len(ink)]).abs().mean()) > 0.3


def test_pairs_are_a_picture_and_its_half() -> None:
    small, large = images_and_truth(data("double"), "test")
    assert float(large.min()) >= 0 and float(large.max()) <= 1 and large.shape == (12, 3, 64, 64)
    assert torch.allclose(small * STD + MEAN, F.avg_pool2d(large, 2), atol=1e-6)
    pictures, _ = images_and_truth(data("boxes"), "test")
    assert torch.allclose(pictures * STD + MEAN, large, atol=1e-6)


def test_a_scene_depends_on_its_number_part_and_seed_alone() -> None:
    one = data("boxes")
    images, boxes = images_and_truth(one)
    for size in (1, 7):
        batches = list(one.batches("train", size))
        assert torch.equal(torch.cat([images_of(inputs) for inputs, _ in batches]), images)
        assert torch.equal(torch.cat([tensors_of(targets)[0] for _, targets in batches]), boxes)
    larger = load_data(f"scenes:boxes,{FEW.replace('train=40', 'train=60')}")
    assert torch.equal(images_and_truth(larger)[0][:40], images)
    others = [images_and_truth(one, "test")[0], images_and_truth(scenes(one.wanted, 1))[0]]
    every = {image.numpy().tobytes() for image in images}
    assert len(every) == 40 and not any(image.numpy().tobytes() in every for other in others for image in other)
    assert scenes(one.wanted) == one


def test_a_shuffled_pass_holds_every_scene_with_its_truth() -> None:
    one = data("boxes")
    images, boxes = images_and_truth(one)
    place = {image.numpy().tobytes(): number for number, image in enumerate(images)}
    seen = []
    for inputs, targets in one.batches("train", 16, seed=3):
        for image, rows in zip(images_of(inputs), tensors_of(targets)[0], strict=True):
            seen.append(place[image.numpy().tobytes()])
            assert torch.equal(rows, boxes[seen[-1]])
    assert sorted(seen) == list(range(40)) != seen


def test_pixels_are_normalized_at_the_default_difficulty() -> None:
    images, boxes = images_and_truth(scenes(Scenes(sizes={"train": 200, "calibration": 1, "validation": 1, "test": 1})))
    assert abs(float(images.mean())) < 0.1 and abs(float(images.std()) - 1) < 0.1
    assert len(boxes[..., 0][boxes[..., 0] >= 0].unique()) == 10


@pytest.mark.parametrize("text", ["boxes", "masks,classes=20", "double,size=96,difficulty=0.5,glyphs=9,train=5"])
def test_the_name_is_what_a_command_line_calls_it(text: str) -> None:
    assert parsed_scenes(text).name == f"scenes:{text}"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no scenes ''; write scenes:boxes, scenes:masks, scenes:double"),
        ("spheres", "no scenes 'spheres'"),
        ("boxes,classes=1", "2 to 100 classes, not 1"),
        ("boxes,size=63", "an even size of 32 to 512 pixels, not 63"),
        ("boxes,size=4096", "an even size"),
        ("boxes,difficulty=nan", "between 0 and 1"),
        ("boxes,glyphs=0", "1 to 25 glyphs"),
        ("boxes,train=0", "0 train images"),
        ("boxes,colour=red", "scenes knows no option 'colour=red'"),
    ],
)
def test_bad_options_are_told_with_the_fix(text: str, why: str) -> None:
    with pytest.raises(DataError, match=why):
        parsed_scenes(text)
