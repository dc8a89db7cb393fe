"""What a user says of preprocessing, in a text or in a file of any of the known kinds."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from slimwright.cli.sources import load_data
from slimwright.data import Described, Preprocessing, described, digits, images_of, recorded, whole
from slimwright.data.preprocessing import MEAN, STD
from slimwright.errors import DataError

EVERYTHING = Preprocessing(
    48,
    192,
    fit="letterbox",
    crop_share=0.875,
    interpolation="bicubic",
    channels="BGR",
    scale=1.0,
    mean=(103.939, 116.779, 123.68),
    std=(1.0,),
    fill=114,
    upright=True,
)
TEXT = (
    "size=48x192, fit=letterbox, crop=0.875, interpolation=bicubic, channels=BGR, scale=1, "
    "mean=103.939/116.779/123.68, std=1, fill=114, orientation=upright"
)
FACTS = {
    "size": [48, 192],
    "fit": "letterbox",
    "crop": 0.875,
    "interpolation": "bicubic",
    "channels": "BGR",
    "scale": 1,
    "mean": [103.939, 116.779, 123.68],
    "std": 1,
    "fill": 114,
    "orientation": "upright",
}


def written(path: Path, said: object) -> str:
    path.write_text(json.dumps(said))
    return str(path)


def test_a_text_a_json_file_and_a_toml_file_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("\n".join(f"{name} = {json.dumps(value)}" for name, value in FACTS.items()))
    for spec in (TEXT, written(tmp_path / "a.json", FACTS), str(tmp_path / "a.toml")):
        assert described(spec).preprocessing() == EVERYTHING


def test_what_is_not_said_keeps_its_default_and_a_size_of_the_data_wins() -> None:
    assert described("size=32").preprocessing() == Preprocessing(32, 32)
    assert described("size=32,mean=0.5,std=0.5").preprocessing((16, 24)) == Preprocessing(
        16, 24, mean=(0.5,), std=(0.5,)
    )
    grey = described("channels=grey").preprocessing((16, 16))
    assert grey.mean == (sum(MEAN) / 3,) and grey.std == (sum(STD) / 3,)


def test_what_a_data_set_records_says_the_same_preprocessing_again(tmp_path: Path) -> None:
    for index in range(8):
        Image.new("RGB", (60, 60), (9 * index, 0, 0)).save(tmp_path / f"{index}.png")
    data = load_data(f"folder:{tmp_path}", preprocessing=TEXT)
    assert recorded(data.preprocessing, "here").preprocessing() == EVERYTHING
    assert data.preprocessing == {**FACTS, "scale": 1.0, "std": [1.0], "layout": "NCHW"}
    manifest = {"format": "slimwright-bundle", "data": {"preprocessing": data.preprocessing}}
    (tmp_path / "bundle").mkdir()
    written(tmp_path / "bundle" / "manifest.json", manifest)
    assert described(str(tmp_path / "bundle")).preprocessing() == EVERYTHING


def test_what_is_null_in_a_file_is_not_given(tmp_path: Path) -> None:
    said = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 16, "width": 16}}
    nulls = dict.fromkeys(("do_center_crop", "crop_size", "resample", "do_rescale", "device"))
    assert described(str(written(tmp_path / "new.json", said | nulls))) == described(
        str(written(tmp_path / "old.json", said))
    )
    (tmp_path / "marked.json").write_text((tmp_path / "old.json").read_text(), encoding="utf-8-sig")
    assert described(str(tmp_path / "marked.json")) == described(str(tmp_path / "old.json"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("mean=a", r"mean\.0 is 'a': Input should be a valid number"),
        ("mean=0.5/0.5", "mean needs one number, or 3"),
        ("colour=RGB", "names 'colour'; there is size, fit, crop"),
        ("channels=RBG", "channels is 'RBG': Input should be 'RGB', 'BGR'"),
        ("mean=0.5,0.5,0.5", "'0.5' in the preprocessing is not NAME=VALUE"),
        ("mean=0.5,mean=0.4", "'mean=0.4' .* said twice"),
        ("std=0/1/1", "no number of std may be 0"),
        ("scale=0", "scale, which levels are divided by, must be above 0"),
        ("size=3x4x5", "size"),
        ("fill=300", "fill is a level from 0 to 255"),
        ("crop=2", "between 0.1 and 1"),
        ("interpolation=best", "there is no interpolation 'best'"),
        ("nothing.json", "there is no file 'nothing.json'"),
        ("BGR", "there is no file 'BGR' with a preprocessing; give one, or a text such as mean=0.5"),
    ],
)
def test_what_is_wrong_is_named(text: str, why: str) -> None:
    with pytest.raises(DataError, match=why):
        described(text).preprocessing((16, 16))


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.json", "{", "a.json is not JSON"),
        ("a.toml", "mean = ", "a.toml is not TOML"),
        ("a.json", "[1]", "a.json holds a list"),
        ("a.json", "[" * 100_000, "a.json is not JSON"),
        ("a.json", '{"pretrained_cfg": {"input_size": [3, 8]}}', "input_size"),
        ("a.json", '{"input_size": [3, 8, 8], "crop_mode": "border"}', "a.json: crop_mode is 'border'"),
        ("a.json", '{"do_resize": false, "size": 32}', "do_resize is false"),
        ("a.json", '{"do_normalize": true, "size": 32}', "image_mean or image_std is missing"),
        ("a.json", '{"image_mean": [0.5], "image_std": [0.5], "size": {"longest_edge": 9}}', "longest_edge"),
        ("a.json", '{"do_resize": true, "resample": 9}', "resample is 9"),
        ("a.json", '{"do_resize": true}', "size needs height and width, or shortest_edge"),
        ("a.json", '{"format": "slimwright-bundle"}', "a.json holds no object under 'data'"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(name: str, text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=why):
        described(str(tmp_path / name)).preprocessing()


def test_a_bundle_of_other_data_than_pictures_is_told() -> None:
    with pytest.raises(DataError, match="its data were no folder of pictures"):
        recorded({"scale": 16.0}, "bundle")


def test_hugging_faces_words_mean_what_its_processors_do(tmp_path: Path) -> None:
    clip = {
        "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.48, 0.45, 0.4],
        "image_std": [0.26, 0.26, 0.27],
        "image_processor_type": "CLIPImageProcessor",
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": {"shortest_edge": 256},
    }
    found = described(written(tmp_path / "clip.json", clip)).preprocessing()
    assert found == Preprocessing(
        224, 224, crop_share=0.875, interpolation="bicubic", mean=(0.48, 0.45, 0.4), std=(0.26, 0.26, 0.27)
    )
    vit = {"size": 224, "do_resize": True, "do_normalize": True, "image_mean": 0.5, "image_std": 0.5, "resample": 2}
    assert described(written(tmp_path / "vit.json", vit)).preprocessing() == Preprocessing(
        224, 224, fit="stretch", mean=(0.5,), std=(0.5,)
    )
    efficientnet: dict[str, object] = {
        "size": {"height": 96, "width": 96},
        "do_resize": True,
        "rescale_factor": 1 / 127.5,
    }
    efficientnet |= {"rescale_offset": True, "resample": 0}
    how = described(written(tmp_path / "e.json", efficientnet)).preprocessing()
    assert (how.scale, how.mean, how.std, how.fit, how.interpolation) == (127.5, (1.0,), (1.0,), "stretch", "nearest")
    mobilevit: dict[str, object] = {"do_flip_channel_order": True, "do_normalize": False, "do_rescale": False}
    mobilevit |= {"size": {"shortest_edge": 288}, "do_center_crop": True, "crop_size": 256}
    how = described(written(tmp_path / "m.json", mobilevit)).preprocessing()
    assert (how.scale, how.mean, how.std, how.channels, how.height) == (1.0, (0.0,), (1.0,), "BGR", 256)
    convnext = {"size": {"shortest_edge": 224}, "crop_pct": 0.9, "do_resize": True}
    how = described(written(tmp_path / "c.json", convnext)).preprocessing()
    assert how.placement(500, 400).height == 248 and how.height == 224 and how.fit == "crop"
    free = {"size": {"shortest_edge": 224}, "do_resize": True}
    with pytest.raises(DataError, match="nothing says how large pictures shall be"):
        described(written(tmp_path / "f.json", free)).preprocessing()


@pytest.mark.parametrize("cut", range(8, 400, 7))
@pytest.mark.parametrize("spare", [1, 8, 31, 32])
def test_the_whole_that_a_crop_is_cut_out_of_has_every_pixel(cut: int, spare: int, tmp_path: Path) -> None:
    said = {"size": {"shortest_edge": cut + spare}, "do_center_crop": True, "crop_size": cut, "do_resize": True}
    if cut / (cut + spare) >= 0.1:
        how = described(written(tmp_path / "a.json", said)).preprocessing()
        assert how.placement(5000, 4000).height == cut + spare


def test_data_with_pictures_of_their_own_size_take_another_normalization(tmp_path: Path) -> None:
    plain = load_data("glyphs:size=32,train=10,calibration=10,validation=10,test=10,classes=10")
    levels = load_data(
        "glyphs:size=32,train=10,calibration=10,validation=10,test=10,classes=10",
        preprocessing="scale=1,mean=0,std=1,channels=BGR",
    )
    ours, raw = images_of(whole(plain, "test")[0]), images_of(whole(levels, "test")[0])
    mean, std = (torch.tensor(plain.preprocessing[name]).reshape(3, 1, 1) for name in ("mean", "std"))
    assert torch.allclose((raw.flip(1) / 255 - mean) / std, ours, atol=1e-5)
    assert levels.preprocessing["channels"] == "BGR" and levels.preprocessing["scale"] == 1
    with pytest.raises(DataError, match="their size already; leave out crop, fit"):
        load_data("glyphs", preprocessing="fit=stretch,crop=0.9")
    with pytest.raises(DataError, match="mean needs one number, or 3"):
        load_data("glyphs", preprocessing="mean=0.5/0.4")


def test_tensors_in_a_file_are_normalized_as_they_are_stored(tmp_path: Path) -> None:
    import safetensors.torch

    images = torch.randint(0, 256, (24, 3, 8, 8)).float()
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file({"images": images, "labels": torch.arange(24) % 3}, path)
    stored = images_of(whole(load_data(str(path)), "train")[0])
    data = load_data(str(path), preprocessing="scale=255,mean=0.5/0.25/0.125,std=0.5")
    expected = (stored / 255 - torch.tensor([0.5, 0.25, 0.125]).reshape(3, 1, 1)) / 0.5
    assert torch.allclose(images_of(whole(data, "train")[0]), expected, atol=1e-6)
    assert data.preprocessing["mean"] == [0.5, 0.25, 0.125]
    with pytest.raises(DataError, match="has 1 channels, so they cannot be BGR"):
        load_data("digits", preprocessing="channels=BGR")


def test_three_grey_channels_are_equal() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    levels = Described(channels="grey3").preprocessing((16, 16)).levels(image)
    assert levels.shape == (3, 16, 16) and all(np.array_equal(each, np.asarray(image.convert("L"))) for each in levels)


def test_digits_are_normalized_once_only() -> None:
    assert digits().preprocessing["scale"] == 16
