"""Greedy NetAdapt (Yang et al. 2018, arXiv 1804.03230): one knob a round, whichever was measured to lose the least.

A round lowers each knob alone as little as brings the wanted reduction of the limited cost, judges each of these nets,
and goes on from the best. Knobs that cannot bring it are not tried. The reductions are equal factors, as many as there
are tries for. NetAdapt trains each net for a short time before it judges it; here weights are solved. Where there are
fewer tries than knobs, those are judged whose damage is predicted to be the least.
"""

import math
from collections.abc import Mapping

from slimwright.search.policies.ground import Ground, ground_of, share_of
from slimwright.search.policies.tries import Tries
from slimwright.search.space import Evaluation
from slimwright.techniques.knobs import Choice, Key


def netadapt(tries: Tries) -> None:
    """Try reductions until the limits are met or no try is left."""
    ground = ground_of(tries.space, tries.whole)
    choice: Choice = {key: settings[0] for key, settings in ground.problem.sizes.items()}
    while not tries.over and (over := share_of(ground, choice, tries.aims())) > 1:
        factor = reduction(over, tries.left, len(ground.keys))
        found = lowered(ground, choice, max(over * factor, 1.0), tries.aims())
        if not found:
            return
        some = sorted(found.items(), key=lambda step: ground.problem.damage[step[0]](step[1]))
        width = tries.left if len(ground.keys) > tries.left else max(tries.left // rounds(over, factor), 1)
        judged = [(tries.choice(ground, {**choice, key: setting}), key, setting) for key, setting in some[:width]]
        best = min(judged, key=lambda each: _loss(tries, each[0]))
        choice = {**choice, best[1]: best[2]}


def reduction(over: float, left: int, knobs: int) -> float:
    """Return the factor of a round, so that as many rounds as there are tries for bring the cost down to the aim."""
    return float(over ** (-1 / max(left // max(knobs, 1), 1)))


def rounds(over: float, factor: float) -> int:
    """Return how many rounds of a factor bring a cost down to the aim."""
    return max(math.ceil(math.log(over) / -math.log(factor) - 1e-9), 1)


def lowered(ground: Ground, choice: Choice, wanted: float, aims: Mapping[str, float]) -> dict[Key, int]:
    """Return, of each knob that alone brings the cost down to `wanted` of the aims, the largest setting that does.

    Where none does, the least setting of each that lowers the cost at all.
    """
    found, least, now = dict[Key, int](), dict[Key, int](), share_of(ground, choice, aims)
    for key in ground.keys:
        smaller = [setting for setting in ground.problem.sizes[key] if setting < choice[key]]
        shares = {setting: share_of(ground, {**choice, key: setting}, aims) for setting in smaller}
        fitting = [setting for setting, share in shares.items() if share <= wanted]
        if fitting:
            found[key] = fitting[0]
        elif shares and min(shares.values()) < now:
            least[key] = min(shares, key=lambda setting: shares[setting])
    return found or least


def _loss(tries: Tries, one: Evaluation) -> float:
    return tries.space.drop(one) if one.proven else math.inf
