import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from slimwright.data.pictures import MOST_PIXELS, fault_of, picture
from slimwright.data.preprocessing import square
from slimwright.errors import DataError


def ramp(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.zeros_like(x)], 2).astype(np.uint8))


def encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A part of a PNG, with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims any size."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def test_a_picture_of_the_size_is_taken_as_it_is(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(picture(tmp_path, tmp_path / "a.png", square(16)), pixels.transpose(2, 0, 1))


@pytest.mark.parametrize(("width", "height"), [(60, 20), (20, 60)])
def test_a_picture_is_cropped_in_the_middle_and_resized(width: int, height: int, tmp_path: Path) -> None:
    ramp(width, height).save(tmp_path / "a.png")
    found = picture(tmp_path, tmp_path / "a.png", square(10)).astype(float)
    assert found.shape == (3, 10, 10)
    long, short = (found[0].mean(0), found[1].mean(1)) if width > height else (found[1].mean(1), found[0].mean(0))
    assert 85 < long[0] < 95 and 160 < long[-1] < 170  # the middle third of the longer side
    assert short[0] <= 12 and short[-1] >= 243


def test_a_jpeg_is_read_up_to_its_own_loss(tmp_path: Path) -> None:
    ramp(32, 32).save(tmp_path / "a.jpeg", quality=95)
    expected = np.asarray(ramp(32, 32)).transpose(2, 0, 1).astype(int)
    assert np.abs(picture(tmp_path, tmp_path / "a.jpeg", square(32)) - expected).max() <= 12


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK"])
def test_every_mode_becomes_three_planes(mode: str, tmp_path: Path) -> None:
    kind = "jpg" if mode == "CMYK" else "png"
    ramp(12, 12).convert(mode).save(tmp_path / f"a.{kind}")
    assert picture(tmp_path, tmp_path / f"a.{kind}", square(8)).shape == (3, 8, 8)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_that_is_cut_short_is_told(kind: str, tmp_path: Path) -> None:
    data = encoded(ramp(64, 64), kind)
    for length in (0, 10, len(data) // 2):
        (tmp_path / "a.png").write_bytes(data[:length])
        with pytest.raises(DataError, match=r"a\.png cannot be read as JPEG, PNG.*replace or remove it"):
            picture(tmp_path, tmp_path / "a.png", square(8))


def test_a_damaged_part_behind_the_pixels_is_told_though_its_checksum_is_right(tmp_path: Path) -> None:
    data = encoded(ramp(12, 12).convert("P"), "PNG")
    end = data.rindex(b"IEND") - 4
    (tmp_path / "a.png").write_bytes(data[:end] + chunk(b"iCCP", b"") + data[end:])  # a colour profile of no bytes
    with pytest.raises(DataError, match=r"a\.png cannot be read as JPEG, PNG.*replace or remove it"):
        picture(tmp_path, tmp_path / "a.png", square(8))


@pytest.mark.parametrize("palette", [b"", chunk(b"PLTE", b"abcdef"), chunk(b"PLTE", b"abcde")])
def test_a_colour_that_a_palette_has_not_is_black(palette: bytes, tmp_path: Path) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 3, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress((b"\0" + b"\xff" * 8) * 8))  # each of them the 255th colour
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + palette + pixels + chunk(b"IEND", b""))
    assert not picture(tmp_path, tmp_path / "a.png", square(8)).any()


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "WEBP"])
def test_other_formats_are_read_whatever_their_name(kind: str, tmp_path: Path) -> None:
    stream = io.BytesIO()
    ramp(16, 16).save(stream, kind, **({"lossless": True} if kind == "WEBP" else {}))
    (tmp_path / "a.png").write_bytes(stream.getvalue())
    found = picture(tmp_path, tmp_path / "a.png", square(16))
    assert np.array_equal(found, np.asarray(ramp(16, 16)).transpose(2, 0, 1))


def test_of_a_moving_picture_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.new("P", (16, 16), number) for number in (3, 9)]
    for frame in frames:
        frame.putpalette([level for number in range(256) for level in (number * 10 % 256,) * 3])
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (picture(tmp_path, tmp_path / "a.gif", square(16)) == 30).all()


@pytest.mark.parametrize("kind", ["ICO", "PPM", "TGA"])
def test_a_format_that_is_not_read_is_told_whatever_its_name(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(ramp(16, 16), kind))
    with pytest.raises(DataError, match="cannot be read as JPEG, PNG"):
        picture(tmp_path, tmp_path / "a.png", square(8))


@pytest.mark.parametrize("side", [8_001, 9_500, 14_000, 60_000, 2**31 - 1])
def test_absurd_dimensions_are_refused_before_they_are_decoded(side: int, tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png_claiming(side, side))
    with pytest.raises(DataError, match=rf"bomb\.png .*limit of {MOST_PIXELS}"):
        picture(tmp_path, tmp_path / "bomb.png", square(8))


def test_more_than_eight_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match="more than 8 bits per channel; save it with 8"):
        picture(tmp_path, tmp_path / "deep.png", square(8))


def test_missing_files_links_out_and_huge_files_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(DataError, match="is missing or cannot be reached"):
        picture(root, root / "none.png", square(8))
    (root / "loop.png").symlink_to(root / "loop.png")
    with pytest.raises(DataError, match="is missing or cannot be reached"):
        picture(root, root / "loop.png", square(8))
    ramp(8, 8).save(tmp_path / "outside.png")
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    for way in (root / "link.png", root / ".." / "outside.png"):
        with pytest.raises(DataError, match="leads out of"):
            picture(root, way, square(8))
    monkeypatch.setattr("slimwright.data.pictures.MOST_BYTES", 10)
    with pytest.raises(DataError, match="bytes, over the limit of 10"):
        picture(tmp_path, tmp_path / "outside.png", square(8))


@given(
    st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"]),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=8),
)
def test_whatever_bytes_are_changed_the_error_is_ours(
    tmp_path_factory: pytest.TempPathFactory, kind: str, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(encoded(ramp(24, 24), kind))
    for place, value in changes:
        data[place % len(data)] = value
    path = tmp_path_factory.mktemp("changed") / "a.png"
    path.write_bytes(data)
    try:
        assert picture(path.parent, path, square(8)).shape == (3, 8, 8)
    except DataError as error:
        assert str(path) in str(error)
    assert isinstance(fault_of(path.parent, path), str)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_file_that_was_cut_short_is_found_without_its_pixels(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = encoded(Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)), kind)
    (tmp_path / "whole").write_bytes(data)
    (tmp_path / "cut").write_bytes(data[: len(data) * 3 // 4])
    assert fault_of(tmp_path, tmp_path / "whole") == "" and "cut cannot be read" in fault_of(tmp_path, tmp_path / "cut")


def test_a_jpeg_with_much_behind_it_is_a_picture(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(ramp(64, 64), "JPEG") + bytes(100_000))  # such as a short film
    assert fault_of(tmp_path, tmp_path / "a.jpg") == ""
