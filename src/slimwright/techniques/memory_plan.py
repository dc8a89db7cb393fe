"""How much memory planning and solving take, and less of both where there is less: narrower layers, fewer images.

Planning holds the sums of all classes together and prices one group of channels, or one layer's ranks, at a time: some
matrices as large as the covariances of what is read. Solving holds values of the reference and of the draft for all
images, and for one layer what it reads, what its outputs shall become, and its normal equations.

Counts are of shapes alone. Which layers differ is not known before, so all count; a forecast is 1.01 to 2.2 times what
was taken, on seven networks (our measurement of 2026-11-30).
"""

import math
from collections.abc import Collection

from slimwright.cost import AIM, check_memory
from slimwright.coupling import Coupling
from slimwright.data import Dataset
from slimwright.evidence import MOST_TAPS, groups_of, narrowest, sums_bytes, taps
from slimwright.graph import Net, Node, plan_memory, weight_bytes
from slimwright.graph.liveness import value_bytes
from slimwright.progress import Event, Tell, silent
from slimwright.techniques.decompose import SOLVED_TAPS
from slimwright.techniques.solver.activations import HELD_BYTES, chunk_images
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.solver.positions import of_layer
from slimwright.techniques.technique import Work

LIBRARIES, SCIPY = 5e7, 4e7  # bytes of code and buffers that come with the first use; of SciPy's (measured 2026-11-30)
UNRETURNED = 2.5e8  # of memory that was freed in pieces and that the allocator keeps: as much as the sums, at most this
BESIDE = 2  # covariances beside the inverses of a group's readers: the one that an inverse comes from, or goes on as
RANKED, WIDE_RANKED, PAIR = 6, 4, 2  # covariances of a layer whose ranks are priced: k x k, above SOLVED_TAPS, 1 x 1
NORMAL, ROUNDED = 5, 9  # covariances of a layer that is solved, and of one that is rounded besides
SPECTRUM, PRODUCTS = 4, 3  # of columns and of their products in float64, where there are no more positions than weights
OUTPUTS = 8  # values of an output at each position: wished, of the sum's other side, made, lacking, and on the way
LEAST_IMAGES = 16  # that are solved on
SHOWN, LARGE = 10, 0.1  # positions for each input of a layer with such a share of the weights, to round by
MOST_IMAGES = 8192  # for that
DOUBLE, FLOAT = 8, 4  # bytes


def planning_bytes(net: Net, coupling: Coupling, layers: Collection[str]) -> float:
    """Return about how many bytes it takes to price channels and ranks by the sums of these layers."""
    sums = sum(size for name, size in sums_bytes(net).items() if name in layers)
    readers = ({cut.node for cut in group.of("in")} & {*layers} for group in coupling.groups)
    pieces = [*(_group_bytes(net, nodes) for nodes in readers), *(_ranks_bytes(net, net[name]) for name in layers)]
    return sums + max(pieces, default=0) + min(sums, UNRETURNED) + LIBRARIES + SCIPY


def factorising_bytes(net: Net, layers: Collection[str]) -> float:
    """Return about how many bytes it takes to factorise layers by the sums of all classes together."""
    sums = sum(sums_bytes(net).values())
    ranks = max((_ranks_bytes(net, net[name]) for name in layers), default=0)
    return sums + ranks + min(sums, UNRETURNED) + LIBRARIES + SCIPY


def sums_within(net: Net, coupling: Coupling, *, classes: int, sums: float, there: float) -> float:
    """Return how many of the bytes `sums` observing may spend, so that what it shows can be planned with.

    All, or as many as leave room to add up the classes. Where planning does not fit, as many as the classes together
    take in all layers but the widest, which then stay as they are. Raises RequestError where it fits with no layer.
    """
    every = sums_bytes(net)
    left = narrowest(every, lambda names: planning_bytes(net, coupling, names) <= AIM * there)
    left = left or narrowest(every, lambda names: len(names) == 1)
    check_memory("planning", planning_bytes(net, coupling, left), there, "give a smaller network")
    one = sum(left.values())
    if len(left) < len(every):
        return one
    added_up = one if classes > 1 else 0
    return sums if min(sums, classes * one) + added_up <= AIM * there else min(sums, max(AIM * there - one, one))


def solving_bytes(draft: Draft, images: int, *, rounded: bool = False) -> float:
    """Return about how many bytes it takes to solve a draft on so many images; its weights may be `rounded` besides."""
    nets = draft.reference, draft.net
    live = [dict(zip((node.name for node in net.nodes), plan_memory(net).live_bytes, strict=True)) for net in nets]
    peaks = [max(of.values()) for of in live]
    at_once = chunk_images(max(value_bytes(net, node.name) for net in nets for node in net.nodes) or 1)
    needed = [0.0]
    for name in draft.net.layers:
        if taps(draft.net, draft.net[name]) <= MOST_TAPS:
            origin = draft.origins.get(name)
            beside = peaks[0] if origin is None else max(live[0][value] for value in origin.values)
            held = min(HELD_BYTES, images * (live[1][name] + beside))
            needed.append(held + _solved_bytes(draft.net, name, images, at_once, rounded=rounded))
    weights = weight_bytes(nets[0]) + 2 * weight_bytes(nets[1])
    inputs = images * sum(value_bytes(nets[0], node.name) for node in nets[0].inputs)
    return weights + inputs + min(at_once, images) * sum(peaks) + max(needed) + LIBRARIES


def images_within(draft: Draft, images: int, *, there: float, rounded: bool = False, tell: Tell = silent) -> int:
    """Return on how many of so many images a draft can be solved within the bytes there; it tells where on fewer.

    Raises RequestError where even a few images do not fit.
    """
    some = images
    while solving_bytes(draft, some, rounded=rounded) > AIM * there and some // 2 >= LEAST_IMAGES:
        some //= 2
    check_memory("solving the weights", solving_bytes(draft, some, rounded=rounded), there, "give smaller inputs")
    if some < images:
        tell(Event("memory", 1, 1, f"memory is short: weights are solved on {some} images instead of {images}"))
    return some


def images_for(work: Work, images: int | None, *, rounded: bool = False) -> int:
    """Return on how many calibration images a step solves that asks for the first so many, or for all.

    Raises RequestError as `images_within` does.
    """
    there, every = work.there, max(work.given.size("calibration"), 1)
    return images_within(work.draft, min(images or every, every), there=there, rounded=rounded, tell=work.tell)


def images_to_round(net: Net, data: Dataset) -> int:
    """Return how many images show enough to round weights by: all calibration images, and some training images.

    Weights of few bits fit the images that they are rounded by more closely than others. A LeNet-300-100 at 50x loses
    0.25 points by 2,000 images and 0.1 by 8,000 or 16,000 (our measurement of 2026-11-30), so each input of a large
    layer is shown at ten positions at least.
    """
    every = weight_bytes(net)
    wanted = 0
    for name in net.layers:
        weight = net.tensors[net[name].tensors["weight"]]
        if FLOAT * weight.numel() >= LARGE * every:
            positions = len(net.layers[name]) * math.prod(net[name].shape) / len(weight)
            wanted = max(wanted, math.ceil(SHOWN * taps(net, net[name]) / positions))
    have = data.size("calibration")
    return max(have, min(wanted, MOST_IMAGES, have + data.size("train")))


def _covariance_bytes(net: Net, node: Node) -> int:
    return DOUBLE * groups_of(node) * taps(net, node) ** 2


def _group_bytes(net: Net, readers: Collection[str]) -> int:
    """What pricing a group of channels takes: of each reader the inverse covariance, and its weights twice."""
    nodes = [net[name] for name in readers]
    weights = sum(2 * DOUBLE * net.tensors[node.tensors["weight"]].numel() for node in nodes)
    widest = max((taps(net, node) for node in nodes), default=0)
    return sum(_covariance_bytes(net, node) for node in nodes) + BESIDE * DOUBLE * widest**2 + weights


def _ranks_bytes(net: Net, node: Node) -> int:
    size, kernel = taps(net, node), net.tensors[node.tensors["weight"]].shape[2:]
    copies = PAIR if kernel.numel() == 1 else RANKED if size <= SOLVED_TAPS else WIDE_RANKED
    return copies * _covariance_bytes(net, node)


def _solved_bytes(net: Net, name: str, images: int, at_once: int, *, rounded: bool) -> float:
    """What one layer's problem takes: columns, outputs, and normal equations or the columns' spectrum."""
    node, calls = net[name], len(net.layers[name])
    size, groups, outputs = taps(net, node), groups_of(node), len(net.tensors[node.tensors["weight"]])
    dealt = of_layer(net, node, images, at_once, calls=calls)
    positions = calls * dealt.images * dealt.per_image
    columns = FLOAT * groups * size * positions
    given = OUTPUTS * FLOAT * outputs * positions
    if rounded or positions > size:
        normal = (ROUNDED if rounded else NORMAL) * _covariance_bytes(net, node)
    else:
        normal = groups * DOUBLE * (SPECTRUM * size * positions + PRODUCTS * positions**2)
    return columns * (1 if calls == 1 else 2) + given + normal
