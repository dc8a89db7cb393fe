"""Fine-tuning on and on: scripted rounds in, what is tried and when it ends out."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from test_space import LIMITS, ORIGINAL, space, trial

from slimwright.errors import RequestError
from slimwright.jobs.verdicts import reachable
from slimwright.search import Candidate, Evaluation, Space, Tuning, open_journal, tuning
from slimwright.search.tuning import tuned
from slimwright.techniques import Tune

BEST = trial("pruned, solved in full", 4.0, 0.80)  # 15 points are lost


@dataclass
class Board:
    """Rounds come to these scores, and each epoch takes so many seconds of a clock that a test moves."""

    scores: Sequence[float]
    seconds: float = 30.0
    now: float = 0.0
    tried: list[Candidate] = field(default_factory=list)

    def evaluate(self, candidate: Candidate) -> Evaluation:
        """Train for a round."""
        self.now += self.seconds * steps(candidate)[-1].epochs
        self.tried.append(candidate)
        score = self.scores[len(self.tried) - 1]
        return replace(BEST, candidate=candidate, key=f"round {len(self.tried)}", score=score)


def notes_of(board: Board, minutes: float, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    monkeypatch.setattr(tuning, "monotonic", lambda: board.now)
    notes: list[tuple[str, str, str]] = []
    asked = space(LIMITS, max_drop=1.0)
    where = replace(asked, tune=Tuning(2, 0.04, 7, minutes), note=lambda *note: notes.append(note))
    list(tuned(where, board.evaluate, open_journal(folder), BEST))
    return notes


def steps(candidate: Candidate) -> list[Tune]:
    return [step for step in candidate.recipe.steps if isinstance(step, Tune)]


def test_rounds_go_on_from_the_best_until_they_do_not_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board([85.0, 84.0, 90.0, 89.0, 88.0])
    ((what, outcome, why),) = notes_of(board, 100, tmp_path, monkeypatch)
    first, second = Tune(epochs=2, rate=0.04, seed=7), Tune(epochs=4, rate=0.04, seed=8)
    third = Tune(epochs=8, rate=0.02, seed=9)
    assert [steps(candidate) for candidate in board.tried] == [
        [first], [first, second], [first, third],
        [first, third, Tune(epochs=16, rate=0.02, seed=10)], [first, third, Tune(epochs=32, rate=0.01, seed=11)],
    ]  # fmt: skip
    assert board.tried[2].name == "pruned, tuned for 14 epochs"
    assert (what, outcome) == ("fine-tuning", "kept")
    assert why.startswith("62 epochs in 5 rounds") and "15.00 points lost before, 5.00 after" in why


AFFORDED: list[tuple[float, list[int]]] = [
    (0.5, [2]), (1.0, [2]), (1.9, [2]), (2.0, [2, 2]), (2.5, [2, 3]), (3.9, [2, 4]), (5.0, [2, 4, 4]),
]  # fmt: skip


@pytest.mark.parametrize(("minutes", "epochs"), AFFORDED)
def test_a_round_is_twice_as_long_as_the_one_before_or_as_there_is_time_left_for(
    minutes: float, epochs: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = Board([81.0, 82.0, 83.0, 84.0, 85.0])
    notes_of(board, minutes, tmp_path, monkeypatch)
    assert [steps(candidate)[-1].epochs for candidate in board.tried] == epochs


def test_a_job_that_goes_on_gets_no_more_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the rounds took is journaled: those that are known cost nothing when it goes on."""
    board = Board([81.0, 82.0])
    notes_of(board, 2.0, tmp_path, monkeypatch)
    again = Board([81.0, 82.0, 83.0], seconds=0.0)
    notes_of(again, 2.0, tmp_path, monkeypatch)
    assert again.tried == board.tried and len(again.tried) == 2


def test_what_has_nothing_left_to_lose_ends_tuning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board([95.5, 96.0])
    notes_of(board, 100, tmp_path, monkeypatch)
    assert len(board.tried) == 1


def test_rounds_that_never_help_are_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board([70.0, 75.0])
    ((_, outcome, why),) = notes_of(board, 100, tmp_path, monkeypatch)
    assert outcome == "taken back" and "15.00 points lost before, 20.00 after" in why


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan"), float("inf")])
def test_minutes_that_mean_nothing_are_refused(minutes: float) -> None:
    with pytest.raises(RequestError, match="more than 0 minutes"):
        Tuning(minutes=minutes)


def asked(made: Sequence[Evaluation]) -> list[str]:
    where: Space = space(LIMITS, max_drop=1.0)
    return reachable(where, made)


def test_what_can_be_had_in_place_of_a_budget_is_told() -> None:
    made = [ORIGINAL, trial("thin", 4.0, 0.80), trial("thinner", 3.0, 0.70), trial("mild", 7.0, 0.945)]
    assert asked(made) == [
        "within the limits 15.00 points of accuracy are lost, by 'thin'",
        "with at most 1 points lost there are 0.70x of latency, by 'mild'",
    ]


def test_limits_that_nothing_meets_are_not_told_of() -> None:
    slower = trial("slower", 11.0, 0.99)
    assert asked([ORIGINAL, slower]) == ["with at most 1 points lost there are 1.00x of latency, by 'original'"]
