"""Many budgets from one observation: each point is measured, predictions stand apart, and a stop loses one at most."""

from pathlib import Path

import pytest

from guarded_data import Guarded
from scripted_target import Scripted, in_blocks
from slimwright import Settings
from slimwright.errors import BudgetError, RequestError
from slimwright.jobs import front
from slimwright.kept import from_line
from slimwright.measure import Front
from slimwright.progress import Event
from small_digits import SIZES, few_digits, small_digit_net

SHARES = (0.4,)  # more would only take longer


class Stopped(Exception):
    """By whoever listens."""


def board() -> Scripted:
    return Scripted(layer_ms=in_blocks(4))


def run(board: Scripted, home: Path, stop_at: int | None = None) -> tuple[Front, list[Event]]:
    told: list[Event] = []

    def tell(event: Event) -> None:
        told.append(event)
        if event.stage == "front" and event.done == stop_at:
            raise Stopped

    data = Guarded(few_digits(), "test", "train")  # neither is read
    settings = Settings(target=board, cache=home / "cache")
    found = front(small_digit_net(), data=data, out=home / "front", shares=SHARES, settings=settings, tell=tell)
    return found, told


def scored(board: Scripted) -> int:
    return sum(turn.images == SIZES["validation"] for turn in board.told)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("front")


@pytest.fixture(scope="module")
def seen(home: Path) -> tuple[Front, list[Event], int]:
    """A front that was stopped once its point was there, and then went on; how much was scored in all."""
    first, second = board(), board()
    with pytest.raises(Stopped):
        run(first, home, stop_at=1)
    assert not (home / "front").exists() and scored(first) >= 2
    found, told = run(second, home)
    return found, told, scored(first) + scored(second)


def test_a_limit_has_a_point_that_was_measured_within_it(seen: tuple[Front, list[Event], int]) -> None:
    found, _, _ = seen
    (point,) = found.points
    one = point.candidate
    assert point.share == pytest.approx(0.4) and point.fits and one.proven and not point.dominated
    assert one.latency_ms <= point.limit_ms == pytest.approx(0.4 * found.original.latency_ms)
    assert point.latency_ratio == pytest.approx(one.latency_ms / found.original.latency_ms)
    assert one.macs < found.original.macs
    assert one.predicted_damage is not None and one.predicted_damage > 0


def test_what_was_measured_before_a_stop_is_not_measured_again(
    home: Path, seen: tuple[Front, list[Event], int]
) -> None:
    _, told, every = seen
    assert "observe" not in {event.stage for event in told}  # nor is anything observed again
    (path,) = (home / "cache" / "jobs").glob("*/journal.jsonl")
    judged, *results = [from_line(line)["result"] for line in path.read_text().splitlines()]
    assert judged == {"right": True}  # the set-up
    assert every == sum(1 for result in results if result["proven"] or result["why"])


def test_the_folder_holds_the_record_and_its_page(home: Path, seen: tuple[Front, list[Event], int]) -> None:
    found, _, _ = seen
    folder = home / "front"
    assert Front.model_validate_json((folder / "front.json").read_bytes()) == found
    page = (folder / "front.html").read_text()
    assert 'id="spec-measured"' in page and 'id="spec-predicted"' in page
    assert all(point.candidate.name in page for point in found.points)
    assert {path.name for path in (folder / "plots").iterdir()} == {"measured.png", "predicted.png"}


@pytest.mark.parametrize("shares", [(), (0.0,), (0.5, 1.5), (-1.0,)])
def test_shares_that_are_no_limits_are_refused(shares: tuple[float, ...], tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="shares of the original's latency"):
        front(small_digit_net(), data=few_digits(), out=tmp_path / "out", shares=shares)


def test_a_folder_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "front").mkdir()
    (tmp_path / "front" / "thesis.txt").write_text("years of work")
    with pytest.raises(RequestError, match="was not made by this command"):
        run(board(), tmp_path)
