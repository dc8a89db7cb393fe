"""The page of an inspection: what it shows, what it may load, and that a browser draws it."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from pages import HOSTILE, Page, charts, rendered, text_of

from example_nets import SHAPE, hand_made
from slimwright.errors import RequestError
from slimwright.importers import capture
from slimwright.measure.inspection import Inspection, Measured, inspection_of
from slimwright.report.inspected import WRITTEN_BY, inspection_page, write_inspection
from slimwright.runner.timing import Latency
from slimwright.tasks import Metric

STRIPS = {"memory", "macs", "params", "elementwise-ops", "moved-bytes", "largest"}


@pytest.fixture(scope="module")
def plain() -> Inspection:
    return inspection_of(capture(hand_made("Residual"), SHAPE), "residual")


@pytest.fixture(scope="module")
def timed() -> Inspection:
    kernels = {"FusedConv": 0.3, "ReduceMean": 0.1}
    measured = Measured(2_345, Latency(0.5, 0.4, 0.75, 60, 0.5), kernels, score=97.5, metric=Metric("accuracy"))
    return inspection_of(capture(hand_made("Separable"), SHAPE), "separable", measured)


def test_one_network_has_its_numbers_its_charts_and_its_layers(plain: Inspection) -> None:
    html = inspection_page([plain])
    assert charts(html) == {f"n0-{name}" for name in STRIPS}
    tiles = text_of(html, "tiles-0")
    assert "MACs exact 13.6 k multiply-accumulates" in tiles
    assert "Layers exact 8 3 tensor, 5 non-tensor (62%)" in tiles
    assert "measured" not in tiles
    layers = text_of(html, "layers-0")
    assert "conv2 conv2d 6x6x6 11.7 k 330 216 3.05 kB 7.7 1.73 kB yes" in layers
    assert "total 13.6 k" in layers
    assert "fc: channels that must stay" in html
    assert "comparison" not in Page(html).tests


def test_measurements_are_marked_as_such(timed: Inspection) -> None:
    html = inspection_page([timed])
    assert charts(html) == {f"n0-{name}" for name in (*STRIPS, "kernels")}
    tiles = text_of(html, "tiles-0")
    assert "Latency measured 0.500 ms median of 60 runs; p10 to p90 0.400 to 0.750 ms" in tiles
    assert "Accuracy measured 97.50 %" in tiles
    assert "Non-tensor time measured 25.0%" in tiles


def test_several_networks_are_compared_and_then_shown_one_by_one(plain: Inspection, timed: Inspection) -> None:
    why = "torch.onnx cannot export the net: no"
    broken = replace(plain, measured=Measured(missing={"size_bytes": why, "latency": why}))
    html = inspection_page([timed, broken])
    assert charts(html) == {"latency", *(f"n{n}-{name}" for n in (0, 1) for name in STRIPS), "n0-kernels"}
    table = text_of(html, "comparison")
    assert "separable 97.50 % 235 1.67 k 576 B 2.35 kB 0.500 ms 0.400–0.750" in table  # two 8x3x3 values at the most
    assert "residual — 417 13.6 k 1.73 kB — — —" in table
    assert text_of(html, "reason").startswith(f"residual : {why}")


def test_layers_by_module(plain: Inspection) -> None:
    layers = text_of(inspection_page([plain], depth=1), "layers-0")
    assert "bn1 2 layers" in layers  # with the activation behind it
    assert "total 13.6 k 417" in layers and "total 13.6 k 417" in text_of(inspection_page([plain]), "layers-0")


def test_the_page_loads_nothing_and_allows_only_its_own_script(plain: Inspection, timed: Inspection) -> None:
    html = inspection_page([plain, timed])
    page = Page(html)
    assert page.loads == ["#network-0", "#network-1"]
    assert not {"link", "img", "iframe", "object", "base"} & set(page.tags)
    assert re.search(r"default-src (&#39;|')none(&#39;|'); script-src (&#39;|')sha256-", html)


def test_a_hostile_name_is_only_ever_shown(plain: Inspection, timed: Inspection) -> None:
    rows = tuple(replace(row, path=HOSTILE, module=HOSTILE) for row in plain.rows)
    hostile = replace(
        plain, name=HOSTILE, rows=rows, fixed={HOSTILE: HOSTILE}, measured=Measured(missing={"latency": HOSTILE})
    )
    for html in (inspection_page([hostile]), inspection_page([hostile, replace(timed, name=HOSTILE)], depth=1)):
        page = Page(html)
        assert HOSTILE not in html
        assert "img" not in page.tags and page.handlers == []
        assert page.tags.count("script") == len(charts(html)) + 1


def test_a_browser_draws_every_chart(plain: Inspection, timed: Inspection, tmp_path: Path) -> None:
    page = tmp_path / "new" / "page.html"
    write_inspection(page, [plain, timed])
    document = rendered(page, tmp_path / "profile")
    assert document.count('data-state="drawn"') == 2 * len(STRIPS) + 2
    assert 'data-state="failed"' not in document


def test_a_page_is_replaced_and_what_is_none_stays(plain: Inspection, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    write_inspection(page, [plain])
    write_inspection(page, [plain], depth=1)
    for other in ("def mine(): ...", "<!doctype html>\n<title>slimwright inspect</title>", ""):
        page.write_text(other)
        with pytest.raises(RequestError, match=r"was not written by this command; .* --html, or .* --force"):
            write_inspection(page, [plain])
        assert page.read_text() == other
    write_inspection(page, [plain], force=True)
    assert WRITTEN_BY in page.read_text()
    for place in (tmp_path, Path("/dev/full")):
        with pytest.raises(RequestError, match="is not a plain file; name another one with --html"):
            write_inspection(place, [plain], force=True)
    assert Path("/dev/full").is_char_device()


def test_a_page_that_cannot_be_written_is_told_of(plain: Inspection, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="cannot write"):
        write_inspection(tmp_path / "file" / "page.html", [plain])
