from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dense_folders import HIGH, WIDE, mask_home, save, squares
from slimwright.data import PARTS, Preprocessing, StreamedData, images_of, mask_folder, tensors_of, whole
from slimwright.errors import DataError

HOW = Preprocessing(HIGH, WIDE, mean=(0.0,), std=(1.0,))


def masks_of(data: StreamedData, part: str = "train") -> tuple[torch.Tensor, torch.Tensor]:
    inputs, targets = whole(data, part)  # type: ignore[arg-type]
    return images_of(inputs), tensors_of(targets)[0]


def test_masks_follow_their_pictures_in_every_part(tmp_path: Path) -> None:
    data = mask_folder(mask_home(tmp_path), HOW)
    assert data.task == "segmentation" and sum(data.size(part) for part in PARTS) == 24
    for part in PARTS:
        images, masks = masks_of(data, part)
        assert masks.dtype == torch.int64 and masks.shape[1:] == images.shape[2:]
        assert ((images[:, 0] > 0.5) == (masks > 0)).all()
        assert ((images[:, 1] > 0.5) == (masks == 1)).all()


@pytest.mark.parametrize("fit", ["crop", "letterbox", "stretch", "cut"])
def test_a_mask_goes_where_its_picture_goes_and_a_frame_does_not_count(tmp_path: Path, fit: str) -> None:
    how = Preprocessing(48, 24, fit=fit, interpolation="nearest", mean=(0.0,), std=(1.0,))  # type: ignore[arg-type]
    images, masks = masks_of(mask_folder(mask_home(tmp_path), how))
    counts = masks >= 0
    assert ((images[:, 0] > 0.5) == (masks > 0)).all()
    framed = fit in ("letterbox", "cut")
    assert bool(counts.all()) != framed and (images.sum(1)[~counts] == 0).all()


def test_level_255_does_not_count_and_a_palette_is_read_by_its_indices(tmp_path: Path) -> None:
    mask_home(tmp_path)
    mask = squares(24)[0].mask
    mask[0] = 255
    indexed = Image.fromarray(mask)
    indexed.putpalette([200, 10, 10] * 256)
    indexed.save(tmp_path / "masks" / "0.png")
    assert indexed.mode == "P"
    data = mask_folder(tmp_path, HOW)
    every = torch.cat([masks_of(data, part)[1] for part in PARTS])
    assert (every == -1).sum() == WIDE and set(every.unique().tolist()) == {-1, 0, 1, 2}


def test_masks_of_0_and_255_alone_are_a_foreground(tmp_path: Path) -> None:
    for number, square in enumerate(squares(20)):
        save(tmp_path / "images" / f"{number}.png", square.picture)
        save(tmp_path / "masks" / f"{number}.png", np.where(square.mask > 0, 255, 0).astype(np.uint8))
    images, masks = masks_of(mask_folder(tmp_path, HOW))
    assert set(masks.unique().tolist()) == {0, 1} and ((images[:, 0] > 0.5) == (masks == 1)).all()


def test_parts_that_are_given_stay_what_they_are(tmp_path: Path) -> None:
    for place, (part, count) in enumerate({"train": 20, "val": 5, "test": 7}.items()):
        mask_home(tmp_path / part, count, seed=place)
    data = mask_folder(tmp_path, HOW)
    assert {part: data.size(part) for part in PARTS} == {"train": 18, "calibration": 2, "validation": 5, "test": 7}
    images, masks = masks_of(data, "validation")
    assert ((images[:, 0] > 0.5) == (masks > 0)).all()


def test_shuffled_passes_keep_pictures_and_masks_together(tmp_path: Path) -> None:
    for inputs, targets in mask_folder(mask_home(tmp_path), HOW).batches("train", 5, seed=3):
        assert ((images_of(inputs)[:, 0] > 0.5) == (tensors_of(targets)[0] > 0)).all()


def test_classes_have_the_names_that_are_given(tmp_path: Path) -> None:
    mask_home(tmp_path)
    (tmp_path / "classes.txt").write_text("ground\ngrey\nred\n")
    assert mask_folder(tmp_path, HOW).labels == ("ground", "grey", "red")
    (tmp_path / "classes.txt").write_text("ground\ngrey\n")
    with pytest.raises(DataError, match=r"masks/\d+.png has levels for which classes.txt names no class; it names 2"):
        list(mask_folder(tmp_path, HOW).batches("train", 50))
    (tmp_path / "classes.txt").write_text("ground\nground\n")
    with pytest.raises(DataError, match=r"classes.txt must name 2 to 255 classes, one a line, each once"):
        mask_folder(tmp_path, HOW)


def test_what_is_wrong_is_told_with_its_file(tmp_path: Path) -> None:
    home = mask_home(tmp_path)
    (home / "masks" / "3.png").rename(home / "3.png")
    with pytest.raises(DataError, match=r"images/3.png has no picture of its name in .*masks; add 3.png there"):
        mask_folder(home, HOW)
    save(home / "masks" / "3.png", squares(1)[0].mask[:-1])
    with pytest.raises(DataError, match=r"masks/3.png is 40x31, and its picture 40x32"):
        list(mask_folder(home, HOW).batches("train", 50)) + list(mask_folder(home, HOW, 1).batches("train", 50))
    save(home / "masks" / "3.png", squares(1)[0].picture)
    with pytest.raises(DataError, match=r"3.png has colours; save masks as grey levels"):
        mask_folder(home, HOW)
    (home / "masks" / "3.png").rename(home / "masks" / "3.jpg")
    with pytest.raises(DataError, match=r"masks/3.jpg must be a .png file, which keeps every level"):
        mask_folder(home, HOW)


def test_a_mask_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    home = mask_home(tmp_path / "home")
    (home / "masks" / "0.png").rename(tmp_path / "0.png")
    (home / "masks" / "0.png").symlink_to(tmp_path / "0.png")
    with pytest.raises(DataError, match=r"0.png leads out of"):
        mask_folder(home, HOW)
