"""The main job where accuracy is missed: fine-tuning keeps what the plan found, and is taken back where it harms."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from guarded_data import Guarded
from proofs import net_scores
from scripted_jobs import Done
from scripted_target import Runs, Scores, Scripted, Turn, in_blocks, with_wrong
from shared_workshop import shared_workshop
from slimwright import Budget, Settings, count, shrink
from slimwright.data import ArrayData, labelled
from slimwright.graph import load_net
from slimwright.measure.bundle import CandidateRecord
from slimwright.progress import Event
from slimwright.techniques import Fold, Prune, Quantize, Solve, Tune, apply
from small_digits import SIZES, few_digits, small_digit_net

EPOCHS, GENTLE, WILD = 3, 0.002, 5.0  # epochs, and two rates: one ruins any net
SEED, OTHER_SEED = 7, 8
UNTUNED = ("pruned, int8, solved in full", "pruned, int8")  # which is better hangs on the processor
TUNED = "pruned, int8, tuned"
RUNS = Runs()


class Stopped(Exception):
    """By whoever listens."""


def named_by_the_net() -> ArrayData:
    """Few digits, those that judge named as the original names them: any other net loses accuracy against it."""
    data = few_digits()
    parts = dict(data.parts)
    for part in ("validation", "test"):
        images, _ = labelled(data.parts[part])
        parts[part] = images, net_scores(small_digit_net(), images).argmax(1)
    return ArrayData(data.name, data.labels, parts, data.preprocessing, data.augment)


@dataclass
class Listener:
    """Keeps what a job tells, opens the test part at its end, and may stop it."""

    data: Guarded
    stop_at: Callable[[Event], bool]
    told: list[Event] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        self.told.append(event)
        self.data.proof_begins(event)
        if self.stop_at(event):
            raise Stopped


def tuned(
    folder: Path, name: str, rate: float, seed: int, stop_at: Callable[[Event], bool] = lambda event: False
) -> Done:
    """A job that allows no loss. INT8 alone pays, and until something trains it names three images more wrongly.

    What ships names one image of the test part more wrongly.
    """
    data = named_by_the_net()
    validated, tested = (labelled(data.parts[part])[1].numpy() for part in ("validation", "test"))
    guarded = Guarded(data, "test")
    listener = Listener(guarded, stop_at)

    def whole_ms(turn: Turn, _: float) -> float:
        if turn.model.quantized:
            return 0.5
        return 1.0 if turn.model.macs == count(small_digit_net()).macs else 1.5

    def scores(turn: Turn, scores: Scores) -> Scores:
        if turn.model.quantized and turn.images == SIZES["test"]:
            return with_wrong(scores, tested, 1)
        judged = turn.model.quantized and turn.images == SIZES["validation"]
        untrained = all(event.stage != "train" for event in listener.told)
        return with_wrong(scores, validated, 3) if judged and untrained else scores

    board = Scripted(RUNS, in_blocks(16, least=32), whole_ms, scores)
    settings = Settings(
        target=board, seed=seed, tune_epochs=EPOCHS, tune_rate=rate, cache=folder / "cache", workshop=shared_workshop()
    )
    budget = Budget(macs="0.3x", max_drop=0)
    bundle = shrink(small_digit_net(), data=guarded, budget=budget, out=folder / name, settings=settings, tell=listener)
    return Done(bundle, board, guarded, listener.told)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two jobs share: the gentle one is stopped in its second epoch, and goes on after the wild one is over."""
    folder = tmp_path_factory.mktemp("tuned")
    with pytest.raises(Stopped):
        tuned(folder, "gentle", GENTLE, SEED, lambda event: event.stage == "train" and event.done == 2)
    assert [path.name for path in folder.iterdir()] == ["cache"]
    return folder


@pytest.fixture(scope="module")
def wild(folder: Path) -> Done:
    return tuned(folder, "wild", WILD, OTHER_SEED)


@pytest.fixture(scope="module")
def gentle(folder: Path, wild: Done) -> Done:
    assert wild.bundle.path.exists()
    return tuned(folder, "gentle", GENTLE, SEED)


def untuned(job: Done) -> CandidateRecord:
    """The better of the candidates that nothing trained, the one that is solved in full where they tie."""
    return max(map(job.candidate, UNTUNED), key=lambda one: one.validation_score)


def test_tuning_that_helps_is_kept(gentle: Done) -> None:
    before, after = untuned(gentle), gentle.candidate(TUNED)
    assert after.chosen and after.validation_score > before.validation_score
    assert gentle.outcomes()["fine-tuning"] == "kept"
    assert gentle.outcomes()[f"candidate '{TUNED}'"] == "kept"
    lost = [100 - candidate.validation_score for candidate in (before, after)]
    said = (
        f"{EPOCHS} epochs with the original as teacher: {lost[0]:.2f} points lost before, {lost[1]:.2f} after, on the"
    )
    assert gentle.reason("fine-tuning") == f"{said} validation part"


def test_tuning_that_harms_is_taken_back(wild: Done) -> None:
    before, after = untuned(wild), wild.candidate(TUNED)
    assert before.chosen and after.validation_score < before.validation_score
    assert wild.outcomes()["fine-tuning"] == "taken back"
    assert wild.outcomes()[f"candidate '{before.name}'"] == "kept"
    assert wild.outcomes()[f"candidate '{TUNED}'"] == "not chosen"
    assert not [step for step in wild.bundle.recipe.steps if isinstance(step, Tune)]


def test_accuracy_lost_on_the_test_part_misses_a_budget_that_allows_none(wild: Done) -> None:
    summary = wild.bundle.summary
    assert summary.score < summary.score_original == 100
    assert summary.misses == [f"accuracy drops by {100 - summary.score:.2f} points, limit 0"]
    assert not summary.within_budget


def test_what_is_tuned_is_what_was_planned_in_its_precision_and_by_the_jobs_seed(gentle: Done) -> None:
    steps = gentle.bundle.recipe.steps
    assert [type(step) for step in steps] == [Prune, Solve, Tune, Fold, Quantize]
    assert steps[2] == Tune(epochs=EPOCHS, rate=GENTLE, seed=SEED)
    assert steps[4] == Quantize(images=SIZES["calibration"])
    before, after = untuned(gentle), gentle.candidate(TUNED)
    assert (after.macs, after.precision) == (before.macs, "int8")
    assert after.macs < 0.4 * gentle.candidate("original").macs
    assert after.predicted_damage == before.predicted_damage is not None
    assert gentle.board.told[-1].model.quantized


def test_the_recipe_of_a_tuned_net_gives_it_again(gentle: Done) -> None:
    """To the last bit, though its training was stopped and went on."""
    again = apply(gentle.bundle.recipe, small_digit_net(), named_by_the_net())
    assert again.digest == load_net(gentle.bundle.path / "net").digest


def test_training_goes_on_where_it_was_stopped_though_another_job_trained_between(wild: Done, gentle: Done) -> None:
    """The wild one may begin an epoch anew at half of its rate, which hangs on the processor."""
    epochs = [[event.done for event in job.told if event.stage == "train"] for job in (wild, gentle)]
    assert [*dict.fromkeys(epochs[0])] == [1, 2, 3] and epochs[1] == [2, 3]


def test_evidence_is_kept_for_the_images_and_the_seed(wild: Done, gentle: Done, folder: Path) -> None:
    observed = [[event.done for event in job.told if event.stage == "observe"] for job in (wild, gentle)]
    assert observed == [[64, 128, SIZES["calibration"]], []]
    kept = sorted(path.name.split("-")[0] for path in (folder / "cache").iterdir())
    assert kept == ["evidence", "evidence", "jobs", "latency"]  # and no checkpoint
    assert {path.name for path in (folder / "cache" / "jobs").glob("*/*") if path.is_file()} == {"journal.jsonl"}


def test_the_train_part_is_read_to_tune_alone(gentle: Done) -> None:
    assert gentle.data.read.count("train") == 2  # the epochs that were left
    assert "train" not in gentle.data.read[:3] and gentle.data.read[-1] == "test"
