"""The page of a fleet: what it holds, what it may load, and that a browser filters and sorts thousands of rows."""

import re
from html import unescape
from pathlib import Path

import pytest
from pages import HOSTILE, Page, rendered, text_of

from fleet_records import deployed
from slimwright.measure import DataCard, Failed, Fleet, MetricCard, TaskCard
from slimwright.report import fleet_page
from slimwright.tasks import Metric

ROWS = 3000


def fleet(*, name: str = "net", rows: int = 3) -> Fleet:
    """A fleet with rows of latencies that fall, every tenth of them beyond its budget, and a failure."""
    many = []
    for number in range(rows):
        one = deployed(f"s{number}", within=number % 10 != 0)
        result = one.model.result.model_copy(update={"latency_ms": 1 - number / 10_000})
        many.append(one.model_copy(update={"model": one.model.model_copy(update={"result": result})}))
    return Fleet(
        created="2026-11-30T10:00:00+00:00",
        seconds={"deploy": 10.0},
        model=name,
        seed=0,
        versions={},
        machine={},
        task=TaskCard(name="classification", metric=MetricCard.of(Metric("accuracy"))),
        data=DataCard(name="digits", labels=["a"], image_shape=[1, 8, 8], preprocessing={}, sizes={}),
        deployed=many,
        failed=[Failed(name="broken/one", subset="broken", budget="one", why=HOSTILE)],
    )


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fleet") / "index.html"
    path.write_text(fleet_page(fleet(rows=ROWS), ROWS + 1))
    return path


def rows_of(document: str) -> list[str]:
    """The texts of the rows that a browser has drawn."""
    (body,) = re.findall(r'<tbody id="rows">(.*?)</tbody>', document, re.S)
    texts = (re.sub(r"<[^>]*>", " ", row) for row in re.findall(r"<tr class=.(?!space)[^>]*>(.*?)</tr>", body, re.S))
    return [re.sub(r"\s+", " ", unescape(text)).strip() for text in texts]


def test_the_headline_counts_what_is_within_its_budget() -> None:
    html = fleet_page(fleet(), 4)
    assert "2 of 4 deployments within their budgets" in text_of(html, "headline")
    assert "3 proven, 1 failed" in html


def test_the_page_loads_nothing_and_runs_its_own_script_alone() -> None:
    page = Page(fleet_page(fleet(name=HOSTILE), 4))
    assert not page.loads and not page.handlers
    assert page.tags.count("script") == 2  # its rows, and what shows them
    assert not {"img", "link", "iframe", "object", "base"} & set(page.tags)


def test_a_browser_shows_the_first_of_thousands_of_rows(large: Path, tmp_path: Path) -> None:
    document = rendered(large, tmp_path)
    assert f"{ROWS + 1} of {ROWS + 1}" in document
    rows = rows_of(document)
    assert 10 < len(rows) < 200 and rows[0].startswith("s0/0.5x cat, dog onnxruntime latency 0.500 ms pruned")
    assert "10.0 % over its limit" in rows[0] and rows[1].endswith("within")


def test_a_browser_filters_and_sorts(large: Path, tmp_path: Path) -> None:
    document = rendered(large, tmp_path, at="words=pruned%20S29&state=missed&sort=8")
    rows = rows_of(document)
    assert f"11 of {ROWS + 1}" in document  # s290, and s2900 to s2990 in tens
    assert [row.split("/")[0] for row in rows] == ["s2990", *(f"s29{ten}0" for ten in range(8, -1, -1)), "s290"]


def test_a_hostile_text_is_a_text(large: Path, tmp_path: Path) -> None:
    document = rendered(large, tmp_path, at="state=failed")
    (row,) = rows_of(document)
    assert row.startswith("broken/one") and "<title>owned</title>" not in document
