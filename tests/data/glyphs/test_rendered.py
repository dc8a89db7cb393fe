import numpy as np
import pytest
import torch

from slimwright.data import PARTS, Dataset, Glyphs, StreamedData, glyphs, labelled, whole
from slimwright.data.glyphs import parsed
from slimwright.data.glyphs.rendered import MEAN, STD
from slimwright.errors import DataError

SMALL = "classes=10,train=60,calibration=20,validation=30,test=40"


@pytest.fixture(scope="module")
def small() -> StreamedData:
    return glyphs(parsed(SMALL))


def test_sizes_shape_and_labels_are_as_asked(small: StreamedData) -> None:
    data: Dataset = small
    assert [data.size(part) for part in PARTS] == [60, 20, 30, 40]
    assert data.image_shape == (3, 32, 32) and data.labels == ("0", "1", "A", "B", "a", "b", "Γ", "Δ", "+", "?")
    images, labels = labelled(whole(data, "test"))
    assert images.shape == (40, 3, 32, 32) and images.dtype == torch.float32 and labels.dtype == torch.int64


@pytest.mark.parametrize("part", PARTS)
def test_images_do_not_depend_on_the_batch_size(small: StreamedData, part: str) -> None:
    at_once = labelled(whole(small, part))[0]  # type: ignore[arg-type]
    for size in (1, 7, 16):
        batches = torch.cat([images for images, _ in map(labelled, small.batches(part, size))])  # type: ignore[arg-type]
        assert torch.equal(batches, at_once)


def test_every_part_has_images_of_its_own(small: StreamedData) -> None:
    images = torch.cat([labelled(whole(small, part))[0] for part in PARTS])
    assert len({image.numpy().tobytes() for image in images}) == len(images) == 150


def test_an_image_stays_when_its_part_grows(small: StreamedData) -> None:
    larger = glyphs(parsed(SMALL.replace("train=60", "train=90")))
    assert torch.equal(labelled(whole(larger, "train"))[0][:60], labelled(whole(small, "train"))[0])
    assert torch.equal(labelled(whole(larger, "test"))[0], labelled(whole(small, "test"))[0])


def test_the_seed_fixes_every_picture(small: StreamedData) -> None:
    same, other = (labelled(whole(glyphs(parsed(SMALL), seed), "test"))[0] for seed in (0, 1))
    assert torch.equal(same, labelled(whole(small, "test"))[0])
    assert not any(torch.equal(one, two) for one, two in zip(same, other, strict=True))


@pytest.mark.parametrize("part", PARTS)
def test_classes_are_balanced(small: StreamedData, part: str) -> None:
    counts = torch.bincount(labelled(whole(small, part))[1], minlength=10)  # type: ignore[arg-type]
    assert int(counts.max() - counts.min()) <= 1 and int(counts.min()) > 0


@pytest.mark.parametrize("classes", [10, 23, 100])
def test_the_super_classes_partition_the_classes(classes: int) -> None:
    data = glyphs(parsed(f"classes={classes},train=200,calibration=100,validation=100,test=100"))
    assert [member for members in data.superclasses.values() for member in members] == list(range(classes))
    assert len(data.superclasses) == 5 and all(data.superclasses.values())
    assert all(data.labels[member].isdigit() for member in data.superclasses["digits"])
    assert all(data.labels[member].isupper() for member in data.superclasses["upper case"])
    assert all(data.labels[member].islower() for member in data.superclasses["lower case"])


def test_shuffled_passes_hold_every_image_once_moved_a_little(small: StreamedData) -> None:
    plain, _ = labelled(whole(small, "train"))
    one, same, other = ([*map(labelled, small.batches("train", 16, seed=seed))] for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(one, same, strict=True))
    assert not torch.equal(one[0][0], other[0][0])
    inner = {image[:, 12:20, 12:20].numpy().tobytes() for image in plain}
    moved = torch.cat([images for images, _ in one])
    found = set()
    for image in moved:
        windows = [image[:, y : y + 8, x : x + 8].numpy().tobytes() for y in range(10, 15) for x in range(10, 15)]
        found.update(inner.intersection(windows))
    assert found == inner  # up to two pixels either way
    assert torch.bincount(torch.cat([labels for _, labels in one])).tolist() == [6] * 10


def test_pixels_are_normalized_at_the_default_difficulty() -> None:
    images, _ = labelled(whole(glyphs(parsed("train=400,calibration=20,validation=20,test=20")), "train"))
    assert abs(float(images.mean())) < 0.1 and abs(float(images.std()) - 1) < 0.05


def test_the_preprocessing_says_how_a_device_does_the_same(small: StreamedData) -> None:
    said = small.preprocessing
    assert said["size"] == [32, 32] and said["mean"] == [MEAN] * 3 and said["std"] == [STD] * 3
    assert said["scale"] == 255 and said["layout"] == "NCHW"


def test_a_nearest_mean_tells_easy_glyphs_and_often_fails_at_hard_ones() -> None:
    """The simplest classifier, on grey levels turned so that the pen is bright, feels what difficulty does."""

    def right(difficulty: float) -> float:
        options = f"classes=10,difficulty={difficulty},train=600,calibration=10,validation=10,test=400"
        data = glyphs(parsed(options))
        (images, labels), (tests, truth) = (
            (inked(x), y) for x, y in (labelled(whole(data, "train")), labelled(whole(data, "test")))
        )
        means = torch.stack([images[labels == label].mean(0) for label in range(10)])
        means = means / means.norm(dim=1, keepdim=True)
        return float(((tests @ means.T).argmax(1) == truth).float().mean())

    def inked(images: torch.Tensor) -> torch.Tensor:
        grey = images.mean(1).flatten(1)
        return (grey - grey.median(1, keepdim=True).values).abs()

    easy, usual, hard = right(0), right(Glyphs().difficulty), right(1)
    assert easy > 0.85 and easy - 0.3 > usual > hard > 0.1


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("classes=9", r"10 to 100 classes, not 9; set classes=20"),
        ("classes=101", "10 to 100 classes, not 101"),
        ("size=8", r"16 to 256 pixels, not 8; set size=32"),
        ("size=5000", "16 to 256 pixels"),
        ("difficulty=1.5", r"between 0 and 1, not 1\.5"),
        ("difficulty=-1", "between 0 and 1"),
        ("difficulty=nan", "between 0 and 1"),
        ("classes=20.5", r"'20\.5' in 'classes=20\.5' is no number; write classes=20"),
        ("classes", "'' in 'classes' is no number"),
        ("difficulty=hard", r"'hard' in 'difficulty=hard' is no number; write difficulty="),
        ("colour=red", r"no option 'colour=red'; give NAME=NUMBER with a name of classes, size, difficulty, train"),
        ("test=5", r"5 test images for 20 classes; every class needs at least one: set test=20"),
        ("train=99999999999", "cannot have 99999999999 train images"),
    ],
)
def test_bad_options_are_told_with_the_fix(options: str, why: str) -> None:
    with pytest.raises(DataError, match=why):
        parsed(options)


@pytest.mark.parametrize("options", ["", "classes=50", "size=64,difficulty=0.25,train=2000", SMALL])
def test_the_name_is_what_a_command_line_calls_it(options: str) -> None:
    wanted = parsed(options)
    assert parsed(wanted.name.removeprefix("glyphs").removeprefix(":")) == wanted
    assert parsed("").name == "glyphs" and Glyphs(size=64).name == "glyphs:size=64"


def test_classes_far_apart_in_the_list_are_drawn_as_themselves() -> None:
    """The hundredth class is the last symbol, not a wrapped index."""
    data = glyphs(parsed("classes=100,difficulty=0,train=100,calibration=100,validation=100,test=100"))
    images, labels = labelled(whole(data, "train"))
    assert labels.tolist() == list(range(100)) and data.labels[99] == "◇"
    diamond = images[99].mean(0)
    ink = (diamond - diamond[0, 0]).abs() > 0.5
    rows = np.flatnonzero(ink.any(1).numpy())
    widths = [int(np.ptp(np.flatnonzero(ink[row].numpy()))) for row in rows]
    assert widths[len(widths) // 2] > 2 * max(widths[0], 1) and widths[len(widths) // 2] > 2 * max(widths[-1], 1)
