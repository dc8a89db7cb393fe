import numpy as np
import pytest

from slimwright.data.glyphs.atlas import REACH, RESOLUTION, atlas, distances
from slimwright.data.glyphs.fonts import BOX, FONTS, Font, segments
from slimwright.data.glyphs.strokes import SUPERCLASSES, chosen

BAR = "L 0 0 0 8"
RING = "A 4 4 4 4 0 360"


def at(x: float, y: float) -> tuple[int, int]:
    """The place of a point in a distance map."""
    return tuple(int((value / REACH + 1) / 2 * RESOLUTION) for value in (y, x))  # type: ignore[return-value]


def test_a_bar_fills_the_height_of_its_box() -> None:
    assert segments(BAR, Font("plain")).tolist() == [[[0, -BOX], [0, BOX]]]


def test_every_character_in_every_font_fits_its_box() -> None:
    for members in SUPERCLASSES.values():
        for strokes in members.values():
            for font in FONTS:
                lines = segments(strokes, font)
                assert lines.shape[1:] == (2, 2) and np.isfinite(lines).all()
                assert np.abs(lines).max() <= BOX + font.sway + 1e-9


def test_an_arc_is_round_square_or_an_octagon() -> None:
    radius = {
        name: np.linalg.norm(segments(RING, font)[:, 0], axis=1)
        for name, font in {
            "round": Font("round"),
            "square": Font("square", roundness=8, step=5),
            "octagon": Font("octagon", step=45),
        }.items()
    }
    assert np.allclose(radius["round"], BOX)
    assert radius["square"].max() > 1.25 * BOX  # the corners of a square lie at 1.41
    assert len(radius["octagon"]) == 8


def test_serifs_stand_on_free_ends_only() -> None:
    slab = Font("slab", serif=1)
    assert len(segments(BAR, slab)) == 3 and len(segments(BAR, slab, serifs=False)) == 1
    bars = segments(BAR, slab)[1:]
    assert (bars[:, 0, 1] == bars[:, 1, 1]).all() and (bars[:, 1, 0] - bars[:, 0, 0] == 2).all()
    assert len(segments("L 0 0 0 8 8 8 8 0", slab)) == 5  # a U of three lines: two ends
    assert len(segments("L 0 0 8 0; L 4 0 4 8", slab)) == 5  # a T: the stem's upper end is joined to the bar
    assert len(segments("L 0 0 8 0 4 8 0 0", slab)) == 3  # a triangle has no end
    assert len(segments("L 0 0 0 6; L 0 8 0 8", slab)) == 4  # a dot has none either


def test_a_smooth_curve_passes_through_its_points() -> None:
    points = np.array([[0, 0], [3, 1], [4, 5], [0, 8]], float)
    curve = segments("S " + " ".join(str(value) for value in points.flatten()), Font("plain"))
    ends = np.concatenate([curve[:, 0], curve[-1:, 1]])
    low, high = ends.min(0), ends.max(0)
    inner = ends[::3]  # a span is cut into three
    scale = np.linalg.norm(inner[0] - inner[-1]) / 8
    assert np.allclose(inner - inner[0], (points - points[0]) * scale)
    assert np.allclose((low + high) / 2, 0)


def test_the_distance_from_a_bar_is_the_distance_from_a_line() -> None:
    found = distances(segments(BAR, Font("plain")), Font("plain"))
    centres = ((np.arange(RESOLUTION) + 0.5) / RESOLUTION * 2 - 1) * REACH
    x, y = np.meshgrid(centres, centres)
    assert np.allclose(found, np.hypot(x, np.maximum(np.abs(y) - BOX, 0)), atol=1e-5)


def test_a_broad_pen_is_thick_across_one_direction_only() -> None:
    pen = Font("broad", nib=4)
    upright, flat = (distances(segments(strokes, pen), pen) for strokes in (BAR, "L 0 0 8 0"))
    assert upright[at(1.1, 0)] == pytest.approx(1.125 / 2) and flat[at(0, 1.1)] == pytest.approx(1.125 * 2)


def test_the_atlas_holds_every_font_of_every_class_and_curved_characters_differ_in_each() -> None:
    maps = atlas(chosen(10))
    assert maps.shape == (10 * len(FONTS), RESOLUTION, RESOLUTION) and bool((maps >= 0).all())
    zeros = maps[: len(FONTS)].flatten(1)  # the class "0"; a character of straight lines is alike in some fonts
    apart = (zeros[:, None] - zeros[None]).abs().mean(2).fill_diagonal_(1)
    assert float(apart.min()) > 0.01


def test_no_two_characters_look_alike_in_the_plain_font() -> None:
    maps = atlas(chosen(100))[:: len(FONTS)]
    ink = (maps < 0.6).float().flatten(1)
    shared = ink @ ink.T
    union = ink.sum(1)[:, None] + ink.sum(1)[None] - shared
    alike = shared / union
    alike.fill_diagonal_(0)
    assert float(alike.max()) < 0.9  # A and Λ: all but a bar
