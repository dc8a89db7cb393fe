from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image

from slimwright.cli.sources import load_data
from slimwright.data import PARTS, Preprocessing, images_of, in_a_line, tensors_of, text_lines, whole
from slimwright.errors import DataError

HOW = in_a_line(16, 48)


def written(home: Path, texts: list[str], alphabet: str | None = "a\nb\n ", listed: str = "labels.txt") -> Path:
    """Pictures whose width follows their text, and the list of them."""
    home.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(texts):
        Image.new("RGB", (8 + 8 * len(text), 8), (10 * number, 0, 0)).save(home / f"{listed}{number}.png")
    (home / listed).write_text("".join(f"{listed}{number}.png\t{text}\n" for number, text in enumerate(texts)))
    if alphabet is not None:
        (home / "alphabet.txt").write_text(alphabet)
    return home


def test_lines_become_four_parts_with_numbers_of_characters(tmp_path: Path) -> None:
    texts = ["a", "ab", "b a", "", *["b" * n for n in range(1, 5)] * 4]
    data = text_lines(written(tmp_path / "receipts", texts), HOW)
    assert data.name == "receipts" and data.task == "ctc" and data.labels == ("a", "b", " ")
    assert sum(data.size(part) for part in PARTS) == len(texts)
    rows = [row for part in PARTS for row in tensors_of(whole(data, part)[1])[0].tolist()]
    said = ["".join(data.labels[number - 1] for number in row if number != -1) for row in rows]
    assert sorted(said) == sorted(texts)


def test_a_line_is_as_high_as_wanted_begins_at_the_left_and_is_zero_behind_its_end(tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("")
    home = written(tmp_path, ["a" * 9] * 5)  # five times as wide as what the network reads is high
    data = text_lines(written(home, ["a", "a" * 9], listed="test.txt"), HOW)
    images = images_of(whole(data, "test")[0])
    assert images.shape == (2, 3, 16, 48) and images.dtype == torch.float32
    assert bool((images[0, :2, :, :32] == -1).all()) and bool((images[0, :, :, 32:] == 0).all())  # 16 of 8 is twice
    assert bool((images[1, 0] == -1).all())  # too wide: squeezed
    torch.testing.assert_close(images[1, 2], torch.full((16, 48), 10 / 127.5 - 1))  # red is the last channel
    assert data.preprocessing["fill"] == [127.5] * 3 and data.preprocessing["fit"] == "line"


@pytest.mark.parametrize(("size", "wide"), [((30, 10), 48), ((29, 10), 47), ((7, 20), 6), ((5, 5), 16)])
def test_the_width_is_that_of_paddleocr(size: tuple[int, int], wide: int) -> None:
    where = Preprocessing(16, 48, fit="line").placement(*size)
    assert (where.width, where.height, where.left, where.top) == (wide, 16, 0, 0)


def test_the_levels_of_a_line_are_those_that_are_normalized() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 60, 3), dtype=np.uint8))
    how = Preprocessing(16, 32, fit="stretch", mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    levels = how.levels(image).astype(np.float64)
    expected = (levels / 255 - np.reshape(how.mean, (3, 1, 1))) / np.reshape(how.std, (3, 1, 1))
    assert np.allclose(how.normalized(image), expected, atol=1e-6)


def model(path: Path, alphabet: str) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    made = helper.make_model(helper.make_graph([node], "reader", [x], [y]))
    helper.set_model_props(made, {"character": alphabet})
    onnx.save(made, str(path))


def test_the_alphabet_of_a_model_gets_the_space_that_it_scores_at_the_end(tmp_path: Path) -> None:
    written(tmp_path, ["a b"] * 6, alphabet=None)
    with pytest.raises(DataError, match=r"alphabet\.txt is missing; write each character .* under \"character\""):
        text_lines(tmp_path, HOW)
    model(tmp_path / "reader.onnx", "b\na")
    assert text_lines(tmp_path, HOW).labels == ("b", "a", " ")


@pytest.mark.parametrize(
    ("labels", "alphabet", "said"),
    [
        ("x.png a\n", "a", r"line 1 of .*labels\.txt has no tab"),
        ("\n\n", "a", "lists no pictures"),
        ("x.png\taba\n", "a", "line 1 of .* has 'b', which is not in the alphabet"),
        ("x.png\ta\n" * 8, "a\n\nb", r"line 2 of .*alphabet\.txt is empty"),
        ("x.png\ta\n" * 8, "a\nb\na", "has 'a' more than once"),
        ("../x.png\ta\n" * 8, "a", "missing or cannot be reached|leads out of"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(labels: str, alphabet: str, said: str, tmp_path: Path) -> None:
    home = tmp_path / "lines"
    home.mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "x.png")
    (home / "labels.txt").write_text(labels)
    (home / "alphabet.txt").write_text(alphabet)
    with pytest.raises(DataError, match=said):
        next(text_lines(home, HOW).batches("train", 1))


def test_what_a_user_says_of_lines_goes_before_what_is_usual(tmp_path: Path) -> None:
    home = written(tmp_path / "notes", ["a", "b", "ab", "ba"] * 5)
    usual = load_data(f"lines:{home}@16x48")
    assert usual.preprocessing["fit"] == "line" and usual.preprocessing["channels"] == "BGR"
    assert usual.preprocessing["mean"] == [0.5] * 3
    own = load_data(f"lines:{home}@16x48", preprocessing="channels=RGB,mean=0.1/0.2/0.3,std=0.4,fit=stretch")
    assert own.preprocessing["fit"] == "stretch" and own.preprocessing["channels"] == "RGB"
    assert own.preprocessing["mean"] == [0.1, 0.2, 0.3]
    grey = load_data(f"lines:{home}@16x48", preprocessing="channels=grey")
    assert grey.image_shape == (1, 16, 48) and grey.preprocessing["mean"] == grey.preprocessing["std"] == [0.5]
