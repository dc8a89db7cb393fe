"""Policies that try candidates, at equal numbers of evaluations, beside the planner; and what a policy transfers.

One trained net, a limit on its multiply-accumulates. A candidate's weights are solved on few images, its score is that
of some validation images; nothing is trained or timed. The front of all that a policy tried is measured by the
area that it dominates, below the original's cost and above 0 %, 1 being all of it. The planner's is that of as many
plans, for ever smaller limits.
Then REINFORCE on super-classes, as in Pahwa et al. 2019: the policy of all classes as it is, one that is learned on the
super-class, one that goes on from that of all classes for a fifth of the evaluations, and one from scratch for a fifth.
Each chooses by its validation images. What it chose is scored on test images, too, which no search sees: the best of a
hundred is better on the images that chose it by chance.
Rows are kept as they come, and evaluations are journaled: a run that was stopped goes on.
"""

import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from lib.counted_search import Counted, Subject, first, menu_of
from lib.results import Column, Row, environment, keep, kept, parser, publish, rows_file, show
from lib.structured_networks import DATA, SEED, trained
from slimwright.data import Dataset, Part, glyphs, of_classes
from slimwright.graph import Net
from slimwright.search import (
    LEARNED,
    LEARNED_FILE,
    METHODS,
    Candidate,
    Evaluation,
    Parameters,
    Search,
    hypervolume,
    load_parameters,
)
from slimwright.search.knapsack import solve
from slimwright.search.planning import Whole, problem_for, weights_for
from slimwright.search.policies.ground import ground_of
from slimwright.search.policies.tries import Tries
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.subset import subset

OUT = Path(__file__).resolve().parents[1] / "out" / "search"
LIMIT = "0.4x"
NETWORK = "resnet20"
PLANNER = "planner"
SMALLEST = 0.25  # of the limit: the planner's last
FIFTH = 5
COLUMNS = (
    Column("policy", "policy"),
    Column("evaluations", "evaluations"),
    Column("hypervolume", "hypervolume", "{:.4f}"),
    Column("best", "best within the limit", "{:.2%}"),
    Column("seconds", "took", "{:.0f} s"),
)
SUBSETS = (
    Column("classes", "classes"),
    Column("way", "policy"),
    Column("evaluations", "evaluations"),
    Column("best", "best within the limit", "{:.2%}"),
    Column("test", "on test images", "{:.2%}"),
    Column("reached_at", "reached at"),
)


@dataclass(frozen=True)
class Extent:
    """How much is done."""

    data: str
    evaluations: int
    learning: int  # evaluations of a policy that learns on all classes, or on a super-class
    sizes: dict[Part, int]
    supers: int  # super-classes
    tested: int  # test images of each


FULL = Extent("glyphs", 32, 100, {"train": 1, "calibration": 64, "validation": 1000, "test": 1}, 3, 800)
QUICK = Extent("digits", 4, 5, {"train": 1, "calibration": 32, "validation": 100, "test": 1}, 1, 100)
HALF_OF_DIGITS: dict[str, tuple[int, ...]] = {"even digits": (0, 2, 4, 6, 8)}


def main() -> None:
    asked = parser(__doc__ or "").parse_args()
    torch.set_num_threads(1)
    extent = QUICK if asked.quick else FULL
    rows_at = rows_file(asked, OUT)
    say = Console(stderr=True, soft_wrap=True, highlight=False).print
    for row in every_row(extent, kept(rows_at)):
        keep(row, rows_at)
        say(str(row))
    rows = kept(rows_at)
    policies = [row for row in rows if "policy" in row]
    subsets = [row for row in rows if "way" in row]
    show(f"{NETWORK} on {extent.data}, {LIMIT} of the multiply-accumulates", COLUMNS, policies)
    show("REINFORCE on super-classes", SUBSETS, subsets, sections=("classes",))
    publish(asked, headline=headline(policies, subsets), rows=rows, environment=environment("optuna", seed=SEED))


def every_row(extent: Extent, have: list[dict[str, str | int | float]]) -> Iterator[Row]:
    """The rows that are missing."""
    done = {row["policy"] for row in have if "policy" in row}
    data = functools.cache(DATA[extent.data])
    whole = functools.cache(lambda: _subject("all classes", _net(extent), data(), extent))
    for policy in (PLANNER, *METHODS):
        if policy not in done:
            yield policy_row(policy, whole(), extent)
    supers = superclasses(extent)
    judged = {row["classes"] for row in have if "way" in row and row["way"] == WAYS[-1]}
    for name, classes in supers.items():
        if name not in judged:
            known = {row["way"] for row in have if "way" in row and row["classes"] == name}
            net = subset(Draft.of(_net(extent)), classes).net
            sizes: dict[Part, int] = {**extent.sizes, "test": extent.tested}
            part = _subject(name, net, of_classes(data(), classes), replace(extent, sizes=sizes))
            yield from (row for row in subset_rows(part, whole(), extent) if row["way"] not in known)


def superclasses(extent: Extent) -> dict[str, tuple[int, ...]]:
    """Classes by the name of what they have in common."""
    if extent.data == "digits":
        return HALF_OF_DIGITS
    found = glyphs(seed=SEED).superclasses
    return {name: found[name] for name in [*found][: extent.supers]}


def _net(extent: Extent) -> Net:
    return trained(NETWORK, extent.data, DATA[extent.data]())


def _subject(name: str, net: Net, data: Dataset, extent: Extent) -> Subject:
    few = first(data, extent.sizes)
    return Subject(name, net, few, functools.cache(lambda: menu_of(net, few)))


def policy_row(policy: str, subject: Subject, extent: Extent) -> Row:
    """What one policy finds with so many evaluations."""
    began = time.perf_counter()
    made, _ = (
        planned(subject, extent) if policy == PLANNER else tried(Search(policy, extent.evaluations, SEED), subject)
    )
    space = subject.space(subject.counted(OUT), LIMIT)
    original, limit = space.original.cost.macs, float(LIMIT.rstrip("x"))
    points = [(one.cost.macs / original, one.score / 100) for one in made if one.proven]
    return {
        "policy": policy,
        "evaluations": len(made),
        "hypervolume": hypervolume(points, 1.0, 0.0),
        "best": max((score for cost, score in points if cost <= limit), default=0.0),
        "seconds": time.perf_counter() - began,
    }


def tried(policy: Search, subject: Subject) -> tuple[list[Evaluation], Parameters | None]:
    """What a policy had evaluated, in order, the original apart; and what it learned."""
    evaluate = subject.counted(OUT)
    space = subject.space(evaluate, LIMIT)
    evaluate.asked.clear()
    policy(space, evaluate, evaluate.journal)
    made = [one for one in evaluate.asked.values() if one.key != space.original.key][: policy.evaluations]
    file = evaluate.journal.files(LEARNED) / LEARNED_FILE
    return made, load_parameters(file, policy.method) if policy.method == "reinforce" else None


def planned(subject: Subject, extent: Extent) -> tuple[list[Evaluation], None]:
    """As many plans, for limits from the one asked for down to a share of it."""
    evaluate = subject.counted(OUT)
    space = subject.space(evaluate, LIMIT)
    ground = ground_of(space, Whole("fp32", space.original))
    task = problem_for(space, ground.whole, tuple(space.limits), weights=weights_for())
    task = replace(task, dual=None)  # greedy plans
    tries = Tries(space, evaluate, ground.whole, PLANNER, extent.evaluations, SEED)
    for number in range(extent.evaluations):
        share = SMALLEST ** (number / max(extent.evaluations - 1, 1))
        tries.choice(ground, solve(task, {name: share * limit for name, limit in space.limits.items()}).counts)
    return [*tries.made.values()], None


WAYS = ("all classes, as it is", "learned on these", "from scratch, a fifth", "transferred, a fifth", "transferred")


def subset_rows(part: Subject, whole: Subject, extent: Extent) -> Iterator[Row]:
    """The paper's columns for one super-class, and how many evaluations a transferred policy takes for its result."""
    many, few = extent.learning, max(extent.learning // FIFTH, 1)
    of_all, learned = tried(Search("reinforce", many, SEED), whole)
    space = whole.space(whole.counted(OUT), LIMIT)
    evaluate = part.counted(OUT)
    part.space(evaluate, LIMIT)
    child = space.best(of_all).candidate
    same = evaluate(_for(part, child))
    yield _row(part, WAYS[0], [same], evaluate)
    scratch, _ = tried(Search("reinforce", many, SEED), part)
    yield _row(part, WAYS[1], scratch, evaluate)
    short, _ = tried(Search("reinforce", few, SEED), part)
    yield _row(part, WAYS[2], short, evaluate)
    moved, _ = tried(Search("reinforce", few, SEED, learned), part)
    yield _row(part, WAYS[3], moved, evaluate)
    wanted = _scores(part, scratch, evaluate)[-1]
    if _scores(part, moved, evaluate)[-1] < wanted:
        moved, _ = tried(Search("reinforce", many, SEED, learned), part)
    reached, as_learned = (_reached(_scores(part, one, evaluate), wanted, of=many) for one in (moved, scratch))
    yield dict(_row(part, WAYS[4], moved, evaluate)) | {"reached_at": reached, "ratio": reached / as_learned}


def _for(part: Subject, candidate: Candidate) -> Candidate:
    """The same steps for the net of a super-class."""
    return replace(candidate, recipe=candidate.recipe.model_copy(update={"original": part.net.digest}))


def _chosen(part: Subject, made: Sequence[Evaluation], evaluate: Counted) -> list[Evaluation | None]:
    """What would be chosen after each evaluation: the best on the validation images within the limit, the first one."""
    limits, best, found = part.space(evaluate, LIMIT).limits, None, list[Evaluation | None]()
    for one in made:
        if one.proven and one.cost.macs <= limits["macs"] and (best is None or one.score > best.score):
            best = one
        found.append(best)
    return found


def _scores(part: Subject, made: Sequence[Evaluation], evaluate: Counted) -> list[float]:
    """The scores, 0..1, of what would be chosen after each evaluation, on the images that choose it."""
    return [0.0 if one is None else one.score / 100 for one in _chosen(part, made, evaluate)]


def _reached(scores: Sequence[float], wanted: float, *, of: int = 0) -> int:
    """How many evaluations it took; one more than there might have been, of so many, where it was not reached."""
    return next((number for number, score in enumerate(scores, 1) if score >= wanted), max(of, len(scores)) + 1)


def _row(part: Subject, way: str, made: Sequence[Evaluation], evaluate: Counted) -> Row:
    scores, last = _scores(part, made, evaluate), _chosen(part, made, evaluate)[-1]
    return {
        "classes": part.name,
        "way": way,
        "evaluations": len(made),
        "best": scores[-1],
        "test": 0.0 if last is None else part.tested[last.key] / 100,
        "reached_at": _reached(scores, scores[-1]),
    }


def headline(policies: Sequence[Row], subsets: Sequence[Row]) -> dict[str, float]:
    """The area of the best policy and of the planner, and the mean ratio of evaluations that a transfer takes."""
    areas = {row["policy"]: float(row["hypervolume"]) for row in policies}
    ratios = [float(row["ratio"]) for row in subsets if row["way"] == WAYS[-1]]
    return {
        "best_policy_hypervolume": max(area for name, area in areas.items() if name != PLANNER),
        "planner_hypervolume": areas[PLANNER],
        "transfer_evaluations_ratio": sum(ratios) / len(ratios),
    }


if __name__ == "__main__":
    main()
