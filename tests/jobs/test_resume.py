"""A job that was killed goes on where it was; one that has ended proves its result again, and nothing else."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest

from killed_jobs import BUDGET, board, journal_lines
from scripted_jobs import Done, done
from slimwright.graph import load_net, save_net
from slimwright.kept import from_line
from slow import slow
from small_digits import SIZES, small_digit_net

Power: TypeAlias = Callable[[Path, int], int]
TORN = b'{"key": "half a li'


@dataclass(frozen=True)
class Home:
    """Where a job runs: its cache, and what it hands back."""

    path: Path

    @property
    def cache(self) -> Path:
        """For what is not to be computed again."""
        return self.path / "cache"

    def lines(self) -> list[bytes]:
        """The journal."""
        return journal_lines(self.cache)

    def parts(self) -> list[Path]:
        """What was being written."""
        return list(self.path.rglob("*.part"))

    def done(self, *, fresh: bool = False) -> Done:
        """Run the job in this process."""
        return done(board(), BUDGET, self.path / "b", cache=self.cache, fresh=fresh)

    def killed(self, power: Power, lines: int) -> None:
        """Run the job in a process that is killed once the journal has so many lines."""
        save_net(small_digit_net(), self.path / "net")
        (self.path / "tmp").mkdir()
        assert power(self.path, lines) == -signal.SIGKILL


@pytest.fixture(scope="module")
def power() -> Iterator[Power]:
    """Runs the job in a folder until it is killed, and returns its exit status."""
    here = Path(__file__).parent.parent
    paths = os.pathsep.join([str(here), str(here.parent / "src"), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        [sys.executable, "-c", "from killed_jobs import serve; serve()"],
        env=os.environ | {"PYTHONPATH": paths}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip
        assert server.stdin is not None and server.stdout is not None
        told, said = server.stdin, server.stdout

        def ended(home: Path, lines: int) -> int:
            print(home, lines, file=told, flush=True)
            return int(said.readline())

        yield ended


def judged(lines: Sequence[bytes]) -> int:
    """How many results of a journal are of candidates that were run over the validation part."""
    results = [from_line(line)["result"] for line in lines]
    return sum(1 for result in results if "cost" in result and (result["proven"] or result["why"]))


def judgements(job: Done) -> int:
    """How often a job had a model run over the validation part."""
    return sum(turn.images == SIZES["validation"] for turn in job.board.told)


def same(job: Done, other: Done) -> bool:
    """True where two jobs hand back the same."""
    nets = [load_net(each.bundle.path / "net").digest for each in (job, other)]
    manifests = [each.bundle.manifest for each in (job, other)]
    told = [(each.candidates, each.decisions, each.summary, each.limits) for each in manifests]
    return nets[0] == nets[1] and told[0] == told[1] and job.bundle.recipe == other.bundle.recipe


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Where a job ran that nobody disturbed."""
    return Home(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def undisturbed(home: Home) -> Done:
    return home.done()


@pytest.fixture(scope="module")
def journal(home: Home, undisturbed: Done) -> list[bytes]:
    """Its journal, every line of it."""
    lines = home.lines()
    assert undisturbed.bundle.summary.within_budget and len(lines) > 4
    assert judgements(undisturbed) == judged(lines) > 2
    return lines


@pytest.mark.parametrize(
    "moment", [slow("at the first measurement"), slow("after one"), "in the middle", "in the final proof"]
)
def test_a_job_that_was_killed_goes_on_and_ends_as_if_it_had_not_been(
    moment: str, undisturbed: Done, journal: list[bytes], power: Power, tmp_path: Path
) -> None:
    assert from_line(journal[0])["result"] == {"right": True}  # of the set-up, before anything is measured
    moments = {"at the first measurement": 1, "after one": 2, "in the middle": len(journal) // 2}
    count, here = moments.get(moment, len(journal)), Home(tmp_path)
    here.killed(power, count)
    assert not (tmp_path / "b").exists() and here.parts()
    before = here.lines()
    assert before == journal[:count]
    again = here.done()
    assert here.lines() == journal  # to the last bit; what was there is the beginning of it
    assert judgements(again) == judged(journal[count:])
    assert same(again, undisturbed)
    assert not here.parts()


def test_a_line_that_was_being_written_is_not_missed(
    undisturbed: Done, journal: list[bytes], power: Power, tmp_path: Path
) -> None:
    here = Home(tmp_path)
    here.killed(power, 2)
    (path,) = here.cache.glob("jobs/*/journal.jsonl")
    with path.open("ab") as file:
        file.write(TORN)
    assert same(here.done(), undisturbed)
    assert here.lines() == journal


def test_a_job_that_has_ended_proves_its_result_and_evaluates_nothing(
    home: Home, undisturbed: Done, journal: list[bytes]
) -> None:
    again = home.done()
    assert home.lines() == journal and same(again, undisturbed)
    assert [turn.images for turn in again.board.told] == [SIZES["test"], SIZES["test"], 0, 0]
    assert not again.board.layer_jobs and not home.parts()
    assert {event.stage for event in again.told} == {"prove"}


def test_what_is_left_of_a_job_is_its_journal_and_two_models(home: Home, journal: list[bytes]) -> None:
    (folder,) = (home.cache / "jobs").iterdir()
    models = [path for path in folder.iterdir() if path.is_dir()]
    assert len(models) == 2 and {path.name for path in folder.iterdir()} - {path.name for path in models} == {
        "journal.jsonl"
    }
    assert {path.name for path in models} <= {from_line(line)["key"] for line in journal}


def test_a_job_that_shall_start_over_does(home: Home, undisturbed: Done, journal: list[bytes]) -> None:
    again = home.done(fresh=True)
    assert judgements(again) == judgements(undisturbed) == judged(journal)
    assert home.lines() == journal and same(again, undisturbed)


def test_another_budget_is_another_job(home: Home, undisturbed: Done, tmp_path: Path) -> None:
    """Even where everything else is kept."""
    from slimwright import Budget

    other = done(board(), Budget(latency_ms="0.6x", max_drop=100), tmp_path / "b", cache=home.cache)
    assert judgements(other) > 1 and not same(other, undisturbed)
    assert len([*(home.cache / "jobs").iterdir()]) == 2
