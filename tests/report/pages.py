"""What a page loads, runs and says, read from its HTML or from a browser that drew it."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"><!--<script>"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Page(HTMLParser):
    """Collects what a browser would load or run, and the elements that have a data-testid."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.handlers: list[str] = []
        self.tests: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.tests += [value or "" for name, value in attrs if name == "data-testid"]


def charts(html: str) -> set[str]:
    return {test.removeprefix("chart-") for test in Page(html).tests if test.startswith("chart-")}


def text_of(html: str, test: str) -> str:
    """The text from one data-testid to the next, tags removed."""
    found = re.search(rf'data-testid="{test}"[^>]*>(.*?)(?=data-testid=|</main>)', html, re.S)
    assert found is not None, test
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>?", " ", found[1])).strip()


def rendered(page: Path, profile: Path, at: str = "") -> str:
    """The page's document after its script has run in a real browser, whose files lie in the folder `profile`.

    `at` stands behind the page's address, after a #.
    """
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run(
        [*command, f"--user-data-dir={profile}", page.as_uri() + (f"#{at}" if at else "")],
        capture_output=True,
        timeout=60,
        check=True,
    )
    return done.stdout.decode()
