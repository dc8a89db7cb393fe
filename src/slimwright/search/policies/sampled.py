"""NSGA-II and TPE over every knob of the menu, by Optuna: less of the limited cost, and less lost.

A candidate is a share for each knob; knob by knob, the nearest setting is taken with which the limits can still be met,
so every candidate meets what is predicted. The first ones are what a plan chooses for the limits, and for
a little less. Sources: Deb et al. 2002 (NSGA-II); Bergstra et al. 2011 and Ozaki et al. 2020 (TPE, of several aims).
"""

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from slimwright.errors import check_extra
from slimwright.search.knapsack import solve
from slimwright.search.planning import problem_for, weights_for
from slimwright.search.policies.ground import Ground, followed, ground_of
from slimwright.search.policies.reward import cost_share
from slimwright.search.policies.tries import Tries
from slimwright.techniques.knobs import Key

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

NSGA2, TPE = "nsga2", "tpe"
PLANNED = (1.0, 0.85, 0.7, 0.55)  # of the limits: the plans that are tried first
MOST_PLANNED = 0.2  # of all tries
LARGEST, GENERATIONS = 50, 8  # of a population; and at least so many of them


def sampled(tries: Tries) -> None:
    """Try choices of every knob until no try is left. Raises MissingExtra where Optuna is not installed."""
    check_extra("search", f"the policy {tries.name} needs", "optuna")
    import optuna
    from optuna.distributions import BaseDistribution, FloatDistribution

    logging.getLogger("optuna").setLevel(logging.WARNING)
    space, ground = tries.space, ground_of(tries.space, tries.whole)
    if not ground.keys:
        return
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=_sampler(tries))
    for planned in _planned(tries, ground):
        study.enqueue_trial({_name(number): share for number, share in enumerate(planned.values())})
    shares: dict[str, BaseDistribution] = {
        _name(number): FloatDistribution(0.0, 1.0) for number in range(len(ground.keys))
    }
    while not tries.over:
        trial = study.ask(shares)
        taken = {key: float(trial.params[_name(number)]) for number, key in enumerate(ground.keys)}
        one = tries.choice(ground, followed(ground, tries.aims(), taken))
        if one.proven:
            study.tell(trial, (cost_share(space, one), space.drop(one)))
        else:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)


def _sampler(tries: Tries) -> "BaseSampler":
    from optuna.samplers import NSGAIISampler, TPESampler

    if tries.name == TPE:
        return TPESampler(seed=tries.seed, n_startup_trials=max(min(10, tries.most // 4), 1))
    return NSGAIISampler(seed=tries.seed, population_size=min(max(tries.most // GENERATIONS, 4), LARGEST))


def _planned(tries: Tries, ground: Ground) -> list[dict[Key, float]]:
    """What greedy plans choose for the limits, as shares."""
    limited = tuple(tries.space.limits)
    task = problem_for(tries.space, ground.whole, limited, weights=weights_for())
    found = []
    for share in PLANNED[: max(int(MOST_PLANNED * tries.most), 1)]:
        counts = solve(replace(task, dual=None), {name: share * aim for name, aim in tries.aims().items()}).counts
        found.append({key: ground.share(key, counts[key]) for key in ground.keys})
    return found


def _name(number: int) -> str:
    return f"knob {number}"
