import pytest
import torch

from slimwright.data import ArrayData, Targets, images_of, split
from slimwright.errors import DataError, RequestError
from slimwright.tasks import NAMED, Classification, Imitation, MultiLabel, Outputs, task_for

IMAGES = torch.randn(60, 1, 4, 4, generator=torch.Generator().manual_seed(0))
NAMES = tuple("abcdef")
LABELS, FLAGS, NOTHING = torch.arange(60) % 6, torch.eye(6)[torch.arange(60) % 6], torch.zeros(60, 0)


def data(targets: Targets = LABELS, names: tuple[str, ...] = NAMES) -> ArrayData:
    return ArrayData("things", names, split(IMAGES, targets, seed=0))


def original(inputs: object) -> Outputs:
    return (images_of(inputs).flatten(1),)  # type: ignore[arg-type]


def test_the_labels_call_for_a_task() -> None:
    assert task_for(data(), [(1, 6)], original) == Classification(NAMES)
    assert task_for(data(FLAGS), [(1, 6)], original) == MultiLabel(NAMES)
    imitated = task_for(data(NOTHING, ()), [(1, 16)], original)
    assert isinstance(imitated, Imitation) and imitated.outputs == 1


def test_a_name_chooses_another_task() -> None:
    assert task_for(data(), [(1, 6)], original, "top-5") == Classification(NAMES, top=5, name="top-5")
    assert isinstance(task_for(data(), [(1, 16)], original, "imitation"), Imitation)
    assert isinstance(task_for(data(FLAGS), [(1, 16)], original, "imitation"), Imitation)
    assert {"classification", "top-5", "multi-label", "imitation"} <= set(NAMED)


@pytest.mark.parametrize("shapes", [[(1, 5)], [(1, 6), (1, 2)], [(1, 6, 4, 4)]])
def test_a_net_that_does_not_score_the_classes_is_told_with_the_way_out(shapes: list[tuple[int, ...]]) -> None:
    for targets in (LABELS, FLAGS):
        with pytest.raises(DataError, match=r"the data has 6 classes; a classifier returns \[1, 6\].*task 'imitation'"):
            task_for(data(targets), shapes, original)


@pytest.mark.parametrize(
    ("name", "targets", "names", "said"),
    [
        (
            "classification",
            NOTHING,
            (),
            "needs a label for each image, and .* has no labels; .*'imitation'",
        ),
        ("top-5", FLAGS, NAMES, "has a 0 or 1 for each image and class; choose the task 'multi-label'"),
        ("multi-label", LABELS, NAMES, "has a label for each image; choose the task 'classification'"),
        ("multi-label", (NOTHING, NOTHING), (), r"has targets \[0\] and \[0\]; choose the task 'imitation'"),
    ],
)
def test_labels_that_a_task_cannot_use_are_told(name: str, targets: Targets, names: tuple[str, ...], said: str) -> None:
    with pytest.raises(DataError, match=said):
        task_for(data(targets, names), [(1, 6)], original, name)


def test_targets_that_no_task_reads_are_told() -> None:
    boxes = torch.zeros(60, 4), torch.zeros(60, 2, 2)
    with pytest.raises(DataError, match=r"has targets \[4\] and \[2, 2\], which no task reads; choose .*'imitation'"):
        task_for(data(boxes, ()), [(1, 6)], original)
    assert isinstance(task_for(data(boxes, ()), [(1, 16)], original, "imitation"), Imitation)


def test_a_name_that_is_none_is_told() -> None:
    with pytest.raises(RequestError, match="no task 'divination'; the tasks are classification, top-5, multi-label"):
        task_for(data(), [(1, 6)], original, "divination")
