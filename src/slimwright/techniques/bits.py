"""What few bits are predicted to damage: layers' bits as knobs, and the layers that INT8 damages most.

An error of a weight is counted by what the layer's other weights cannot make up for (`solver/columns.py`), and an error
of an output by its Fisher information, in nats. An activation in eight bits is off by a step's twelfth, squared, in
each element that a layer reads; its range is told from its mean and deviation. All this orders choices. It neglects how
errors of layers combine.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from slimwright.evidence import Evidence
from slimwright.graph import Net
from slimwright.techniques.knobs import BITS, Knob, Observed
from slimwright.techniques.solver.columns import Columns
from slimwright.techniques.solver.levels import WeightLevels
from slimwright.techniques.solver.ridge import ridged_factor

STEPS = 255  # of an activation in eight bits
DEVIATIONS = 4.0  # on both sides of the mean, that the range of an activation is taken to reach


def bits_knobs(observed: Observed) -> list[Knob]:
    """A knob for the bits of each layer that has a choice of them."""
    found = []
    for key, settings in observed.settings.items():
        if isinstance(key, str) and key.startswith(BITS):
            damages = bits_damages(observed.net, observed.evidence, key.removeprefix(BITS), settings[1:])
            found.append(Knob(key, settings, partial(_damage, damages)))
    return found


def _damage(damages: Mapping[int, float], bits: int) -> float:
    return damages.get(bits, 0.0)


def bits_damages(net: Net, seen: Evidence, name: str, bits: Sequence[int]) -> dict[int, float]:
    """Return what weights of so many bits are predicted to damage in one layer, in nats.

    The error of each weight is counted by what the other columns cannot make up for, so this is a lower bound of the
    error of one layer. The sum over layers neglects how errors combine.
    """
    weight = net.tensors[net[name].tensors["weight"]].flatten(1)
    factor = ridged_factor(seen.covariance(name))
    columns = Columns.of(weight, factor @ factor.mT)
    importance = seen.importance(name).double()
    return {of: float(WeightLevels(of).errors(columns) @ importance) for of in bits}


def int8_damages(net: Net, seen: Evidence) -> dict[str, float]:
    """Return what INT8 weights and activations are predicted to damage in each layer that was seen, in nats."""
    found = {}
    for name in net.layers:
        if name in seen.layers:
            sums = seen.layers[name]
            mean = sums.total[0] / sums.count[0]  # [G, D]
            deviation = seen.covariance(name).diagonal(dim1=1, dim2=2).clamp_min(0).sqrt()
            reach = float((mean + DEVIATIONS * deviation).max() - (mean - DEVIATIONS * deviation).min().clamp_max(0))
            weight = net.tensors[net[name].tensors["weight"]].flatten(1).double()
            noise = weight.square().sum(1) * (reach / STEPS) ** 2 / 12
            found[name] = float(noise @ seen.importance(name).double()) + bits_damages(net, seen, name, (8,))[8]
    return found


def most_damaged(net: Net, seen: Evidence, costs: Mapping[str, float], share: float) -> tuple[str, ...]:
    """Return the layers that bear `share` of what INT8 damages, in execution order; at least one is not among them.

    `costs` says what each layer costs in float: those come first that damage the most for it.
    """
    damages = int8_damages(net, seen)
    order = sorted(damages, key=lambda name: damages[name] / max(costs[name], 1e-12), reverse=True)
    chosen, borne = set[str](), 0.0
    for name in order[: len(net.layers) - 1]:
        if borne >= share * sum(damages.values()):
            break
        chosen.add(name)
        borne += damages[name]
    return tuple(name for name in net.layers if name in chosen)
