import re
from pathlib import Path

import pytest
from pages import HOSTILE, Page, charts, rendered, text_of

from manifest_example import example_manifest, example_recipe
from slimwright.errors import RequestError
from slimwright.measure import Decision, Manifest
from slimwright.report import write_report
from slimwright.techniques import Recipe

CHARTS = {"tradeoff", "latency", "macs", "weight-bytes", "memory", "kernels"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle")
    write_report(path, example_manifest(), example_recipe())
    return path


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile")
    write_report(path, hostile_manifest(), example_recipe())
    return path


def hostile_manifest() -> Manifest:
    """Every kind of text that a report shows, from somebody who means harm."""
    plain = example_manifest()
    kernels = {HOSTILE: 0.1, **plain.result.kernel_ms}
    memory = plain.memory.result
    return plain.model_copy(
        update={
            "model": HOSTILE,
            "runtime": HOSTILE,
            "versions": {HOSTILE: HOSTILE},
            "machine": {HOSTILE: HOSTILE},
            "data": plain.data.model_copy(update={"labels": [HOSTILE] * 10, "preprocessing": {HOSTILE: [HOSTILE]}}),
            "decisions": [Decision(what=HOSTILE, outcome="kept", why=HOSTILE)],
            "layers": [layer.model_copy(update={"name": HOSTILE, "op": HOSTILE}) for layer in plain.layers],
            "candidates": [candidate.model_copy(update={"name": HOSTILE}) for candidate in plain.candidates],
            "result": plain.result.model_copy(update={"kernel_ms": kernels}),
            "memory": plain.memory.model_copy(
                update={"result": memory.model_copy(update={"nodes": [HOSTILE] * len(memory.nodes)})}
            ),
        }
    )


def html_of(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_page_loads_nothing_and_allows_only_its_own_script(folder: Path) -> None:
    html = html_of(folder)
    page = Page(html)
    assert page.loads == []
    assert not {"link", "img", "iframe", "object", "base"} & set(page.tags)
    assert not re.search(r"@import|url\(", html.partition("</style>")[0])
    assert re.search(r"default-src (&#39;|')none(&#39;|'); script-src (&#39;|')sha256-", html)


def test_every_chart_is_on_the_page_and_has_its_image(folder: Path) -> None:
    assert charts(html_of(folder)) == CHARTS
    images = {path.stem: path.read_bytes() for path in (folder / "plots").iterdir()}
    assert images.keys() == CHARTS
    for image in images.values():
        assert image.startswith(b"\x89PNG\r\n\x1a\n")
        assert int.from_bytes(image[16:20], "big") > 1280  # pixels wide: 640 at scale 2, and the names
        assert len(image) > 10_000


def test_the_headline_and_the_tiles_say_what_the_summary_says(folder: Path) -> None:
    html = html_of(folder)
    said = "2.1× faster on onnxruntime, 0.3 points of accuracy lost, 74 % smaller: within budget."
    assert text_of(html, "headline").startswith(said)
    for tile, numbers in {
        "score": ("98.33 %", "from 98.61 %", "−0.28 points", "measured"),
        "latency": ("0.244 ms", "from 0.512 ms", "−52 %", "measured"),
        "size": ("81.2 kB", "from 312 kB", "−74 %", "measured"),
        "macs": ("5.16 M", "from 11.9 M", "−57 %", "exact"),
        "params": ("27.1 k", "from 74.5 k", "−64 %", "exact"),
        "memory": ("131 kB", "from 197 kB", "−33 %", "exact"),
        "rss": ("3.90 MB", "from 8.10 MB", "−52 %", "measured"),
    }.items():
        assert [number for number in numbers if number not in text_of(html, f"tile-{tile}")] == []
    assert "misses" not in Page(html).tests


def test_a_missed_budget_is_said_first_and_in_full(tmp_path: Path) -> None:
    plain = example_manifest()
    missed = plain.summary.model_copy(
        update={"within_budget": False, "latency_ratio": 1.27, "misses": ["latency_ms is 0.64, 150.0 % over its limit"]}
    )
    write_report(tmp_path, plain.model_copy(update={"summary": missed}), Recipe(original="", steps=()))
    html = html_of(tmp_path)
    assert text_of(html, "headline").startswith("1.3× slower on onnxruntime")
    assert "the budget was missed." in text_of(html, "headline")
    assert text_of(html, "misses").startswith("latency_ms is 0.64, 150.0 % over its limit")
    assert text_of(html, "recipe").startswith("No step")


def test_predicted_and_measured_numbers_have_columns_of_their_own(folder: Path) -> None:
    head, _, body = text_of(html_of(folder), "candidates").partition("original FP32")
    assert head.strip() == (
        "predicted measured exact Candidate Precision Latency Damage Latency Accuracy File size MACs"
    )
    assert body.startswith(" – – 0.512 ms 98.88 % 312 kB 11.9 M int8 INT8 – – 0.331 ms")
    assert "pruned, int8, tuned chosen INT8 0.249 ms 1.3e−03 0.244 ms 98.51 % 81.2 kB 5.16 M" in body


def test_layers_proof_decisions_and_recipe_are_told(folder: Path) -> None:
    html = html_of(folder)
    assert "stage1.block0.conv1 conv2d 16 8 2.36 M 1.18 M 9.22 kB 4.61 kB 65.5 kB 32.8 kB" in text_of(html, "layers")
    assert "0.041, tolerance 0.5" in text_of(html, "proof")
    assert re.match(r"Kept 3 .*Not chosen 1 .*Left whole 2 ", text_of(html, "decisions"))
    assert "Fine-tune for 3 epochs at rate 0.02" in text_of(html, "recipe")
    assert "Accuracy lost, points 1.0 1.00 0.28" in text_of(html, "budget")


def test_a_hostile_text_is_only_ever_shown(hostile: Path) -> None:
    html = html_of(hostile)
    page = Page(html)
    assert HOSTILE not in html
    assert "<img" not in html.rpartition("</script>")[0].partition("<script>")[0]
    assert "img" not in page.tags and page.handlers == []
    assert page.tags.count("script") == len(CHARTS) + 1
    assert "&lt;/script&gt;&lt;img" in text_of(html, "decisions")


def test_links_in_a_bundle_lead_to_nothing_that_is_written(tmp_path: Path) -> None:
    """A bundle from elsewhere may say that its page and its pictures lie where the user keeps other things."""
    precious, bundle = tmp_path / "precious", tmp_path / "bundle"
    (bundle / "plots").mkdir(parents=True)
    precious.write_text("years of work")
    for name in ("report.html", "plots/macs.png"):
        (bundle / name).symlink_to(precious)
    write_report(bundle, example_manifest(), example_recipe())
    assert precious.read_text() == "years of work"
    assert not (bundle / "report.html").is_symlink() and (bundle / "plots/macs.png").read_bytes()[:4] == b"\x89PNG"


def test_pictures_are_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/plots").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RequestError, match="plots is a link, and no pictures are written to where it leads; remove it"):
        write_report(tmp_path / "bundle", example_manifest(), example_recipe())
    assert not list((tmp_path / "elsewhere").iterdir()) and not (tmp_path / "bundle/report.html").exists()


def test_a_browser_draws_every_chart(folder: Path) -> None:
    document = rendered(folder / "report.html", folder / "profile")
    assert document.count('data-state="drawn"') == len(CHARTS)
    assert 'data-state="failed"' not in document
    assert document.count("<svg") >= len(CHARTS)
    assert "stage1.block0.conv1" in document.partition('id="spec-tradeoff"')[0].partition('data-testid="chart-macs"')[2]


def test_a_browser_does_not_run_a_hostile_text(hostile: Path) -> None:
    document = rendered(hostile / "report.html", hostile / "profile")
    assert document.count('data-state="drawn"') == len(CHARTS)
    assert "<title>owned" not in document
    assert "<img" not in document.partition("<main")[2].partition("<script>")[0]
