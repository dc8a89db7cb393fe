"""Candidates whose packed file takes a size: fewer weights with more bits each, or more weights with fewer bits.

Which is better cannot be told from what each is predicted to damage, since errors of rounding, of lost ranks and of
lost channels add up differently. So a few shares of the weights are tried, from the whole net on. Each is planned by
all knobs, solved, and rounded to the size (`Round`). The search ends once fewer weights are measured to be worse.
"""

import math
from collections.abc import Iterator, Sequence

from slimwright.search.menu import predicted_ms
from slimwright.search.planning import Whole, fewer_images, on_images, planned_for
from slimwright.search.space import Candidate, Evaluate, Evaluation, Space
from slimwright.techniques import Round, Solve, Step

PACKED = "packed_bytes"  # the cost
SHARES = (1.0, 0.5, 0.35, 0.25, 0.18, 0.12)  # of the bytes of all weights
FEW_SHARES = (0.5, 1.0)  # where many sizes are tried
WITHIN = 0.05  # of the size, where candidates are ranked
PATIENCE = 2  # shares in a row that are worse than the best
ROUNDS, LEAST = 5, 0.005  # of the search for the least size, as a share of the original's


def is_packed(space: Space) -> bool:
    """True where the size of a packed file is limited, or shall be least."""
    return space.budget.concerns(PACKED)


def rounded(space: Space, evaluate: Evaluate, shares: Sequence[float] = SHARES) -> Iterator[Evaluation]:
    """Candidates rounded to the size that is asked for, or to ever smaller ones as long as the drop allows.

    `shares` of the weights' bytes are tried for a size that is asked for.
    """
    if space.budget.objective != PACKED:
        yield from _rounded_to(space, evaluate, int(space.limits[PACKED]), shares)
        return
    most = space.original.cost.packed_bytes
    assert most is not None
    low, high = LEAST, min(1.0, space.limits.get(PACKED, most) / most)
    for _ in range(ROUNDS):
        share = (low * high) ** 0.5
        made = list(_rounded_to(space, evaluate, int(share * most), FEW_SHARES))
        yield from made
        holds = any(space.ships(one) and space.drop(one) <= space.budget.max_drop for one in made)
        low, high = (low, share) if holds else (share, high)


def _rounded_to(space: Space, evaluate: Evaluate, size_bytes: int, shares: Sequence[float]) -> Iterator[Evaluation]:
    images, least, worse = fewer_images(space), math.inf, 0
    step = Round(size_bytes=size_bytes, within=WITHIN, images=images if images < space.images else None)
    whole = Whole("fp32", space.original)
    for share in shares:
        limits = {name: limit for name, limit in space.limits.items() if name != PACKED}
        if share < 1:
            limits["weight_bytes"] = share * space.original.cost.weight_bytes
            limits.setdefault("latency_ms", space.original.latency_ms)  # what is slower does not ship
        found = planned_for(space, evaluate, whole, None, limits) if limits else None
        steps: Sequence[Step] = ()
        name, plan = "rounded", None
        if found is not None:
            plan, menu = found[0].plan, found[1]
            steps = on_images([*menu.steps(plan.counts), Solve()], images, of=space.images)
            name = f"{' and '.join(menu.used(plan.counts).values())} to {share:g}x of the weights, rounded"
        elif share < 1:
            return  # nothing can be cut
        recipe = space.recipe.of(space.net, *steps, step)
        one = evaluate(Candidate(f"{name} to {size_bytes:,} bytes", recipe, plan, predicted_ms(plan)))
        yield one
        lost = space.drop(one) if space.ships(one) else math.inf
        worse = worse + 1 if lost >= least else 0
        least = min(least, lost)
        if worse == PATIENCE:
            return
