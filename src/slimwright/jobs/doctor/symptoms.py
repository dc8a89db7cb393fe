"""What a diagnosis comes to, in words: what is broken or slow and what to change, with the layers that it is about.

Every number in a finding was measured or counted in this diagnosis.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from slimwright.cost import count
from slimwright.cost.latency import LayerShape
from slimwright.graph import Net
from slimwright.graph.net import Node
from slimwright.graph.ops import op_of
from slimwright.jobs.doctor.examining import Diagnosis, Tried, Visit
from slimwright.jobs.doctor.widths import STEP, Kind, kinds, roundings
from slimwright.runtimes.half import HALF_MOST
from slimwright.runtimes.layers import is_tensor_kernel
from slimwright.units import GAP, megabytes, milliseconds

Grade = Literal["broken", "slow", "note"]
SHARE = 0.08  # of the time, from which on something is told
GAIN = 0.03  # of the time, from which on a swap has made a difference; less is noise
TIMES = 2.0  # a kind of layer is slow where its share of the time is this many times that of the work
HEAVY = 0.5  # of the weights in linear layers
UNEVEN = 16.0  # times that one side of a sum or concatenation is larger: of eight bits, four are left for the other
JOINS = ("concat", "add", "sub")


@dataclass(frozen=True)
class Finding:
    """One thing that was found: what, in which layers (their paths), and what to do; "" where nothing need be done."""

    grade: Grade
    what: str
    nodes: tuple[str, ...] = ()
    advice: str = ""


@dataclass(frozen=True)
class Family:
    """Kernels that do one kind of thing: parts of their names, the ops of a net that they come from, and what helps."""

    name: str
    words: tuple[str, ...]
    ops: tuple[str, ...]
    advice: str


FAMILIES = (  # the first that fits
    Family("quantizing", ("quantize", "requant"), (), "leave single layers in float less often"),
    Family("pooling", ("pool", "reduc"), ("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "mean"),
           "a stride in the convolution before a pooling does its work for nothing"),
    Family("softmax", ("softmax",), ("softmax", "log_softmax", "attention"), ""),
    Family("normalisation", ("norm", "lrn", "mvn"), ("layer_norm", "group_norm", "rms_norm", "lrn", "batch_norm"),
           "batch norm behind a convolution folds into it"),
    Family("moving data", ("transpose", "permute", "reorder", "raster", "reshape", "shuffle", "concat", "split",
                           "slice", "crop", "pad", "cast", "flatten", "squeeze", "gather"),
           ("concat", "permute", "transpose", "reshape", "slice", "gather", "index"),
           "a sum joins two branches without a copy; a 1x1 convolution without groups needs no shuffle"),
    Family("activations", ("swish", "sigmoid", "gelu", "silu", "erf", "tanh", "mish", "elu", "relu", "clip"),
           ("hardswish", "hardsigmoid", "sigmoid", "gelu", "silu", "tanh", "mish", "elu", "prelu", "leaky_relu",
            "relu", "relu6", "hardtanh"),
           "ReLU right behind a convolution is computed inside it"),
    Family("sums and products", ("add", "mul", "sub", "div", "sum", "binaryop", "unaryop", "eltwise", "sqrt", "pow",
                                 "reciproc", "exp", "log", "graph"),
           ("add", "mul", "sub", "sum", "aten.div.Tensor"), "fewer branches that are added or multiplied"),
)  # fmt: skip

FUSED = ("relu", "relu6", "hardtanh")  # behind a convolution or a linear layer
INSTEAD = {  # operators outside a fast path -> what is in it
    "native_layer_norm": "batch norm folds into the convolution before it; replace the norm and train",
    "native_group_norm": "batch norm folds into the convolution before it; replace the norm and train",
    "elu": "leaky ReLU is taken; replace it and train",
    "upsample_nearest2d.vec": "bilinear upsampling is taken; replace it and train",
    "_adaptive_avg_pool2d": "choose an image size that the pooling's size divides",
    "_softmax": "one softmax at the end costs little; inside a network it splits it in two",
}


def findings(found: Diagnosis) -> list[Finding]:
    """Return all that is to be said of a network, what is broken first."""
    every = [
        *_broken(found),
        *_left_over(found),
        *_trials(found),
        *_families(found),
        *_kinds(found),
        *_widths(found),
        *_of_the_model(found),
        *_rewritten(found),
    ]
    order: tuple[Grade, ...] = ("broken", "slow", "note")
    return sorted(every, key=lambda finding: order.index(finding.grade))


def _broken(found: Diagnosis) -> Iterator[Finding]:
    for visit in found.visits:
        if visit.missing or visit.well:
            continue
        where = f"{visit.runtime} {visit.precision}"
        if not visit.converted:
            yield Finding("broken", f"{where}: does not convert. {visit.why}", *_blame(found.net, visit))
        elif not visit.ran:
            yield Finding("broken", f"{where}: converts, but does not run. {visit.why}", *_blame(found.net, visit))
        else:
            yield Finding("broken", f"{where}: runs, but gives other scores. {_off(visit)}", *_worst(found))


def _off(visit: Visit) -> str:
    if visit.error is None:
        return visit.why
    if not math.isfinite(visit.error):
        return "They are no numbers"
    return f"The largest error is {visit.error:.2g} of the largest output; at most {visit.tolerance:g} is rounding"


def _blame(net: Net, visit: Visit) -> tuple[tuple[str, ...], str]:
    """The operators that the converter could not place."""
    names = tuple(net.paths.get(f.node, f"{f.op} ({f.node})" if f.node else f.op) for f in visit.fallbacks)
    return names, "replace these operators by some that the runtime has" if names else ""


def _worst(found: Diagnosis) -> tuple[tuple[str, ...], str]:
    """The layers whose values are too large for half precision, which is what most often goes wrong."""
    large = [name for name, most in found.largest.items() if most > HALF_MOST]
    advice = "train it, or put batch norms into it: values this large leave half precision" if large else ""
    return tuple(found.net.paths[name] for name in large), advice


def _left_over(found: Diagnosis) -> Iterator[Finding]:
    """Operators that run, but outside the runtime's fast path."""
    for visit in found.visits:
        if not visit.ran:
            continue
        for op, some in groupby(sorted(visit.fallbacks, key=lambda f: f.op), key=lambda f: f.op):
            nodes = [f.node for f in some]
            paths = tuple(dict.fromkeys(found.net.paths.get(node, node) for node in nodes if node))
            what = f"{visit.runtime} {visit.precision}: {op.removeprefix('dim_order_ops::')} runs outside XNNPACK"
            yield Finding(
                "slow", f"{what}, {_times(len(nodes))}", paths, INSTEAD.get(op.partition(".")[0], INSTEAD.get(op, ""))
            )


def _trials(found: Diagnosis) -> Iterator[Finding]:
    """What a swap saves, wherever it does."""
    for _, some in groupby(sorted(found.trials, key=lambda tried: tried.swap.name), key=lambda tried: tried.swap.name):
        useful = [tried for tried in some if tried.gain >= GAIN]
        if useful:
            swap = useful[0].swap
            saved = ", ".join(f"{_percent(tried.gain)} in {tried.runtime}" for tried in _best(useful))
            paths = tuple(found.net.paths[name] for name in swap.nodes)
            yield Finding("slow", f"{swap.name} it takes less time: {saved}", paths, swap.advice)


def _best(tried: Sequence[Tried]) -> list[Tried]:
    return sorted(tried, key=lambda one: -one.gain)


def _families(found: Diagnosis) -> Iterator[Finding]:
    """Kernels that multiply by no weights and take time all the same."""
    profiled = [visit for visit in found.visits if visit.kernels]
    for family in FAMILIES:
        shares = {f"{v.runtime} {v.precision}": _share(v, family) for v in profiled}
        told = sorted(((share, where) for where, share in shares.items() if share >= SHARE), reverse=True)
        if told:
            net = found.net
            paths = tuple(net.paths[node.name] for node in net.nodes if _belongs(net, node, family))
            where = ", ".join(f"{_percent(share)} in {name}" for share, name in told)
            yield Finding("slow", f"{family.name}: {where}, of the time", paths, family.advice if paths else "")


def _belongs(net: Net, node: Node, family: Family) -> bool:
    """True for what a family's kernels come from; convolutions in groups are taken apart, which moves data."""
    if node.op == "conv2d" and family.name == "moving data":
        return 1 < int(str(node.arguments["groups"])) < net[node.source].shape[1]
    return node.op in family.ops and not _fused(net, node)


def _fused(net: Net, node: Node) -> bool:
    """True for what every runtime computes inside the layer before it."""
    return node.op in FUSED and op_of(net[node.source].op).channels == "mix" and len(net.readers[node.source]) == 1


def _share(visit: Visit, family: Family) -> float:
    total = sum(kernel.ms for kernel in visit.kernels)
    spent = sum(kernel.ms for kernel in visit.kernels if _family(kernel.kind) is family)
    return spent / total if total else 0.0


def _family(kind: str) -> Family | None:
    if is_tensor_kernel(kind):
        return None
    return next((family for family in FAMILIES if any(word in kind.lower() for word in family.words)), None)


def _kinds(found: Diagnosis) -> Iterator[Finding]:
    """Layers that take much more of the time than of the work."""
    where: dict[str, list[str]] = {}
    seen: dict[str, Kind] = {}
    for runtime, times in found.layer_ms.items():
        for kind in kinds(found.net, times):
            if kind.time_share >= SHARE and kind.time_share >= TIMES * kind.mac_share:
                where.setdefault(kind.name, []).append(f"{_percent(kind.time_share)} in {runtime}")
                seen[kind.name] = kind
    for name, shares in where.items():
        kind = seen[name]
        work = f"{len(kind.nodes)} {name}: {_percent(kind.mac_share)} of the multiply-accumulates"
        paths = tuple(found.net.paths[node] for node in kind.nodes)
        yield Finding("slow", f"{work}, but of the layers' time {', '.join(shares)}", paths, _against(kind))


def _against(kind: Kind) -> str:
    if kind.name == "linear layers":
        return "they wait for their weights: fewer inputs, by averaging over the image first, or low rank"
    if kind.name.startswith("depthwise"):
        return "they wait for memory, so their width counts: fewer channels there save more than the work tells"
    if kind.name.endswith("in groups"):
        return "fewer groups use the kernels better"
    return ""


def _widths(found: Diagnosis) -> Iterator[Finding]:
    """Channels that could as well be more."""
    for runtime, times in found.layer_ms.items():
        every = roundings(found.net, times)
        free = [each for each in every if each.after_ms <= each.before_ms]
        odd = sum(len(each.nodes) for each in every)
        what = f"{runtime}: {odd} layers have channels that are no multiples of {STEP}; "
        if free:
            best = free[0]
            paths = tuple(found.net.paths[name] for each in free for name in each.nodes)
            as_is = f"{_channels(best.before)} takes {milliseconds(best.before_ms)}"
            such = f"such as the one with {as_is}, and would with {_channels(best.after)} {milliseconds(best.after_ms)}"
            advice = f"channels in multiples of {STEP}"
            yield Finding("slow", f"{what}{len(paths)} of them take no longer with more, {such}", paths, advice)
        elif every:
            yield Finding("note", f"{what}all take longer with more")


def _channels(shape: LayerShape) -> str:
    return f"{shape.in_channels}→{shape.out_channels}"


def _of_the_model(found: Diagnosis) -> Iterator[Finding]:
    """What shows without running it anywhere."""
    net, weights = found.net, count(found.net).weight_bytes
    linear = [node for node in net.weighted() if node.op == "linear"]
    held = sum(net.tensors[node.tensors["weight"]].nbytes for node in linear)
    if 0 < held >= HEAVY * weights:
        what = f"linear layers hold {_percent(held / weights)} of the weights, {megabytes(held)}"
        places = any(len(shape) == 4 and max(shape[2:]) > 1 for node in linear for shape in _flattened(net, node))
        advice = "average over the image before the first of them" if places else "factorise them (low rank)"
        yield Finding("note", what, tuple(net.paths[node.name] for node in linear), advice)
    sizes = tuple(net.paths[node.name] for node in net.nodes if op_of(node.op).channels == "scalar")
    if sizes:
        what = "sizes are computed while it runs, which runtimes without dynamic shapes refuse"
        yield Finding("note", what, sizes, "write sizes as numbers, with -1 for the batch")
    large = {name: most for name, most in found.largest.items() if most > HALF_MOST / 4}
    if large:
        name = max(large, key=lambda each: large[each])
        what = f"values reach {large[name]:,.0f}; half precision ends at {HALF_MOST:,.0f}"
        advice = "batch norm, or training, keeps values small; an fp16 export scales them down until then"
        yield Finding("note", what, tuple(net.paths[each] for each in large), advice)
    yield from _uneven(found)


def _uneven(found: Diagnosis) -> Iterator[Finding]:
    """Sums and concatenations of values of very different sizes, whose result has one scale in INT8."""
    uneven: dict[str, float] = {}
    for node in found.net.nodes:
        sizes = [found.largest.get(name, 0.0) for name in dict.fromkeys(node.reads)]
        if node.op in JOINS and len(sizes) > 1 and min(sizes) > 0 and max(sizes) >= UNEVEN * min(sizes):
            uneven[node.name] = max(sizes) / min(sizes)
    if uneven:
        most = max(uneven.values())
        what = (
            f"values that are up to {most:,.0f} times larger than others are joined with them, {_times(len(uneven))}: "
            f"in INT8 both have one scale, which leaves the smaller ones {max(8 - math.log2(most), 0):.0f} of 8 bits"
        )
        advice = (
            "leave the layers behind in float (`keep_float` of the step `quantize`), or put a batch norm on each side"
        )
        yield Finding("note", what, tuple(found.net.paths.get(name, name) for name in uneven), advice)


def _flattened(net: Net, node: Node) -> Iterator[tuple[int, ...]]:
    """The shape of what a layer reads, before it was flattened."""
    before = net[node.source]
    while before.op in ("flatten", "reshape", "dropout") and len(before.shape) == 2:
        before = net[before.source]
        yield before.shape


def _rewritten(found: Diagnosis) -> Iterator[Finding]:
    """What was put otherwise for a runtime, by itself."""
    where: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for visit in found.visits:
        for op, paths in visit.rewritten.items():
            where.setdefault((op, paths), []).append(visit.runtime)
    for (op, paths), names in where.items():
        runtimes = ", ".join(dict.fromkeys(names))
        yield Finding("note", f"{_plain(op)} is put in an equal form for {runtimes}, {_times(len(paths))}", paths)


def _plain(op: str) -> str:
    """The operator without what is particular to ATen: "aten.roll.default" -> "roll"."""
    return op.removeprefix("aten.").partition(".")[0]


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _percent(share: float) -> str:
    return f"{100 * share:.{0 if share >= 0.01 else 1}f}{GAP}%"
