"""Fine-tuning a candidate that loses too much, with the original as teacher: once, or on and on while it helps.

Given minutes, rounds follow one another, each twice as long as the one before or as there is time left for. Each goes
on from the best one so far, and is a candidate of its own: its recipe gives its net again, and a job that was killed
keeps it. After a round that does not help the rate is halved; after two of those, or where no time is left for a round
as long as the first, tuning ends. The first round is always run.
"""

from collections.abc import Iterator
from dataclasses import replace
from time import monotonic

from slimwright.search.journal import Journal, key_of
from slimwright.search.space import Candidate, Evaluate, Evaluation, Space
from slimwright.techniques import Tune

PATIENCE = 2  # rounds in a row that do not help
LEAST_S = 1e-3  # that an epoch takes


def tuned(space: Space, evaluate: Evaluate, journal: Journal, best: Evaluation) -> Iterator[Evaluation]:
    """Yield the best candidate fine-tuned, if it loses too much; where there are minutes, each round of it."""
    tune = space.tune
    if space.drop(best) <= space.budget.max_drop or not tune.epochs:
        return
    if tune.minutes is not None:
        yield from _rounds(space, evaluate, journal, best, tune.minutes)
        return
    step = Tune(epochs=tune.epochs, rate=tune.rate, seed=tune.seed)
    made = evaluate(_further(best, f"{_base(best)}, tuned", step))
    kept = space.best([space.original, best, made]) is made
    _note(space, f"{tune.epochs} epochs", best, made, kept)
    yield made


def _rounds(
    space: Space, evaluate: Evaluate, journal: Journal, first: Evaluation, minutes: float
) -> Iterator[Evaluation]:
    """Tune in rounds; what each took is journaled, so that a job that goes on gets no more time."""
    best, rate, made, left_s, failed = first, space.tune.rate, first, 60 * minutes, 0
    epochs, lengths = space.tune.epochs, list[int]()
    while epochs >= space.tune.epochs and failed < PATIENCE and (space.drop(best) > 0 or not lengths):
        lengths.append(epochs)
        name = f"{_base(first)}, tuned for {sum(lengths)} epochs"
        began = monotonic()
        step = Tune(epochs=epochs, rate=rate, seed=space.tune.seed + len(lengths) - 1)
        made = evaluate(_further(best, name, step))
        took_s = float(_taken(journal, made.key, began))
        left_s -= took_s
        yield made
        if space.ships(made) and space.drop(made) < space.drop(best):
            best, failed = made, 0
        else:
            failed, rate = failed + 1, rate / 2
        epochs = min(2 * epochs, int(max(left_s, 0.0) / max(took_s / epochs, LEAST_S)))
    length = f"{sum(lengths)} epochs in {len(lengths)} rounds"
    _note(space, length, first, best if best is not first else made, best is not first)


def _taken(journal: Journal, key: str, began: float) -> float:
    """Seconds of a round: as journaled, or since it began."""
    found: float = journal.once(key_of("seconds", key), lambda: {"seconds": monotonic() - began})["seconds"]
    return found


def _further(best: Evaluation, name: str, step: Tune) -> Candidate:
    return replace(best.candidate, name=name, recipe=best.candidate.recipe.with_steps(step))


def _base(best: Evaluation) -> str:
    return best.name.removesuffix(", solved in full")


def _note(space: Space, length: str, before: Evaluation, after: Evaluation, kept: bool) -> None:
    lost, left = (space.metric.number(space.drop(one)) for one in (before, after))
    why = f"{length} with the original as teacher: {lost} {space.metric.step} lost before, {left} after, on the "
    why += "validation part"
    space.note("fine-tuning", "kept" if kept else "taken back", why)
