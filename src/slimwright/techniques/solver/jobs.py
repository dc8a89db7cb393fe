"""What is to be solved of a draft, and in which order: each layer behind all that shape what it reads.

A layer that is called several times has one set of weights, which is solved at all its calls at once. Where a call
reads what the layer itself, or one that is still to be solved, has made (a block that is gone through several times),
it is solved as if that were right already: fed with the reference's values.
"""

import functools
import operator
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace

from slimwright.evidence import MOST_TAPS, taps
from slimwright.graph.net import Net, Node
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.solver.drift import is_part, shared
from slimwright.techniques.solver.layer_targets import LayerTarget, pointwise_behind, target_of


@dataclass(frozen=True)
class Call:
    """One call of a layer, and what it shall reproduce; `foreseen` where it is fed with the reference's values."""

    node: Node
    target: LayerTarget
    foreseen: bool = False


@dataclass(frozen=True)
class Job:
    """A layer to solve at its `calls`, perhaps with the one `behind`; without calls, a batch norm to state anew."""

    node: Node
    calls: tuple[Call, ...] = ()
    behind: Node | None = None

    def states(self, norm: Node) -> bool:
        """True where solving the layer shows the statistics of a batch norm: it reads the layer, called once."""
        stated = self.calls[0].target.norm if len(self.calls) == 1 else None
        return stated is not None and stated.name == norm.name and norm.source == self.node.name


def jobs_of(draft: Draft, drifted: Set[str], also: Set[str] = frozenset()) -> tuple[list[Job], dict[str, str]]:
    """Return what is to be done, in order, and of layers that cannot be solved, why.

    Layers `also` are to be solved even where nothing that they read or own is another.
    """
    net, tied = draft.net, shared(draft.net)
    jobs: list[Job] = []
    unsolved: dict[str, str] = {}
    for node in net.nodes:
        if node.name not in drifted:
            continue
        if can_be_stated(node, tied) and not any(job.states(node) for job in jobs):
            jobs.append(Job(node))
        calls = [net[name] for name in net.layers.get(node.name, ())]
        if any(call.name in also or call.source in drifted or not is_part(draft, call) for call in calls):
            found = _job(draft, node, calls, tied)
            if isinstance(found, Job):
                jobs.append(found)
            else:
                unsolved[node.name] = found
    return _in_order(draft, jobs), unsolved


def can_be_stated(norm: Node, tied: Set[str]) -> bool:
    """True for a batch norm whose statistics are its own and whose function can be kept with others."""
    is_norm = norm.op in ("batch_norm", "batch_norm1d")
    return is_norm and norm.name not in tied and {"weight", "bias"} <= norm.tensors.keys()


def _job(draft: Draft, node: Node, calls: Sequence[Node], tied: Set[str]) -> Job | str:
    """What is to be done about a layer; or why nothing can be."""
    targets, behind = [target_of(draft, call) for call in calls], None
    if targets == [None]:
        behind = pointwise_behind(draft, node)
        targets = [target_of(draft, behind) if behind is not None else None]
    known = [target for target in targets if target is not None]
    if len(known) < len(calls):
        return "nothing in the original stands for what it gives"
    if not {node.name, *([behind.name] if behind is not None else [])}.isdisjoint(_apart(draft.net, tied)):
        return "other layers own its weights too"
    if "weight" in node.fixed:
        return "its weights are fixed"
    if (size := taps(draft.net, node)) > MOST_TAPS:
        return f"each output has {size} weights, more than the {MOST_TAPS} that are solved for"
    return Job(node, tuple(map(Call, calls, known)), behind)


def _apart(net: Net, tied: Set[str]) -> set[str]:
    """The nodes that own a tensor together with one that is not a call of the same layer."""
    owners: dict[str, set[str]] = {}
    for node in net.nodes:
        for tensor in node.tensors.values():
            owners.setdefault(tensor, set()).add(net.layer_called.get(node.name, node.name))
    return {name for name in tied if any(len(owners[tensor]) > 1 for tensor in net[name].tensors.values())}


def _in_order(draft: Draft, jobs: Sequence[Job]) -> list[Job]:
    """Each job behind those that shape what it reads; in a circle the first one goes first.

    A call that reads what is still to be solved is foreseen, if the reference has what it reads; else it is let go.
    """
    reads = _shaped_by(draft.net, jobs)
    waiting, done = list(range(len(jobs))), 0
    ordered: list[Job] = []
    while waiting:
        needs = {number: _all(reads[number]) & ~done & ~(1 << number) for number in waiting}
        number = next((number for number in waiting if not needs[number]), waiting[0])
        calls = []
        for call, needed in zip(jobs[number].calls, reads[number], strict=False):
            foreseen = bool(needed & ~done)
            if not foreseen or all(name in draft.origins for name in looked_at(call)):
                calls.append(replace(call, foreseen=foreseen))
        if calls or not jobs[number].calls:
            ordered.append(replace(jobs[number], calls=tuple(calls)))
        waiting.remove(number)
        done |= 1 << number
    return ordered


def looked_at(call: Call) -> list[str]:
    """The values of the draft that a call is solved from: what it reads, and the other side of a sum."""
    return [call.node.source, *([call.target.other] if call.target.other is not None else [])]


def _shaped_by(net: Net, jobs: Sequence[Job]) -> list[list[int]]:
    """For each call of each job, which jobs (bits) change what it looks at; for a norm, what it reads."""
    makers = {call.node.name: 1 << number for number, job in enumerate(jobs) for call in job.calls}
    makers |= {job.behind.name: 1 << number for number, job in enumerate(jobs) if job.behind is not None}
    shaped: dict[str, int] = {}
    for node in net.nodes:
        shaped[node.name] = _all([makers.get(node.name, 0), *(shaped[name] for name in node.reads)])
    return [
        [_all(shaped[name] for name in looked_at(call)) for call in job.calls] or [shaped[job.node.source]]
        for job in jobs
    ]


def _all(bits: Iterable[int]) -> int:
    return functools.reduce(operator.or_, bits, 0)
