"""What a candidate is worth to a policy that learns.

Pahwa et al. 2019 (arXiv 1911.12740): sigma(15 (A/A_t - 0.9)) sigma(-15 (T/T_t - 0.3)) sigma(-15 (C/C_t - 0.6)), where A
is the accuracy, T the time, C the number of parameters, and t the original. The thresholds are the user's to set; these
values hold in all of the paper's experiments.
"""

import math
from dataclasses import dataclass

from slimwright.errors import RequestError
from slimwright.search.space import Evaluation, Space

INVALID = -1.0  # of what cannot be converted, or fails its proof; the paper's, of children that are not valid


@dataclass(frozen=True)
class Reward:
    """Thresholds, as shares of the original's, and how steep the steps at them are. Raises RequestError for others."""

    score: float = 0.9
    cost: float = 0.3  # of the limited cost: the paper's is the time
    params: float = 0.6
    steepness: float = 15.0

    def __post_init__(self) -> None:
        if not all(0 < value < math.inf for value in (self.score, self.cost, self.params, self.steepness)):
            raise RequestError(f"a reward's thresholds and its steepness must be numbers above 0, not {self}")

    def of(self, score: float, cost: float, params: float) -> float:
        """Return the reward of shares of the original's score, limited cost and parameters."""
        over = ((score - self.score), (self.cost - cost), (self.params - params))
        return math.prod(_sigma(self.steepness * much) for much in over)

    def __call__(self, space: Space, one: Evaluation) -> float:
        """Return the reward of what was measured."""
        if not one.proven:
            return INVALID
        params = one.cost.params / space.original.cost.params
        return self.of(score_share(space, one), cost_share(space, one), params)


def score_share(space: Space, one: Evaluation) -> float:
    """Return how good a candidate is as a share of the original, whichever way the metric goes; at least 0."""
    pair = (one.score, space.original.score)
    part, whole = pair if space.metric.higher_is_better else pair[::-1]
    return max(part / whole, 0.0) if whole > 0 else 0.0


def cost_share(space: Space, one: Evaluation) -> float:
    """Return the limited cost as a share of the original's; of several, the one that is furthest from its limit."""
    shares = {name: float(getattr(one.cost, name)) / limit for name, limit in space.limits.items()}
    name = max(shares, key=lambda each: shares[each])
    return shares[name] * space.limits[name] / float(getattr(space.original.cost, name))


def limit_share(space: Space) -> float:
    """Return the tightest limit as a share of the original's cost."""
    return min(limit / float(getattr(space.original.cost, name)) for name, limit in space.limits.items())


def _sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0
