"""Keep the scores of some classes alone.

Exact: the scores of those classes are what they were. Where the scores come straight from a linear layer or a pointwise
convolution its other rows go; elsewhere the scores are picked from what the net returns.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch

from slimwright.data import of_classes
from slimwright.errors import RequestError
from slimwright.graph.net import Net, Node, Ref
from slimwright.graph.ops import op_of
from slimwright.tasks import Classification
from slimwright.techniques.solver.draft import Draft, Origin
from slimwright.techniques.technique import Step, Technique, Work


class Subset(Step):
    """Score these classes only."""

    step: Literal["subset"] = "subset"
    classes: tuple[int, ...]


def _apply(step: Subset, work: Work) -> Work:
    if not isinstance(work.task, Classification):
        raise RequestError(f"the task is {work.task.name}; only a classification can be kept to some of its classes")
    draft, teacher = (subset(each, step.classes) for each in (work.draft, work.teacher))
    data = of_classes(work.given, step.classes)
    return replace(work, draft=draft, teacher=teacher, given=data, asked=replace(work.task, classes=data.labels))


def _sentence(step: Subset) -> str:
    return f"Score the classes {', '.join(map(str, step.classes))} only."


SUBSET = Technique(Subset, _apply, _sentence)


def subset(draft: Draft, classes: Sequence[int]) -> Draft:
    """Return the draft that gives the scores of `classes` only, in that order.

    Raises RequestError for a class that is not there or named twice.
    """
    net = draft.net
    (scores,) = net.outputs
    size = net[scores].shape[-1]
    if not classes or len(set(classes)) < len(classes) or min(classes) < 0 or max(classes) >= size:
        raise RequestError(f"{list(classes)} are no distinct classes of the {size} that '{scores}' scores")
    if list(classes) == list(range(size)):
        return draft
    rows = torch.tensor(list(classes))
    chain = _chain(net, scores)
    if not chain:
        name = f"{scores}_subset"
        pick = Node(
            name, "gather", {"self": Ref(scores), "dim": len(net[scores].shape) - 1}, {"index": f"{name}.index"}
        )
        picked = replace(net, nodes=(*net.nodes, pick), tensors={**net.tensors, f"{name}.index": rows}, outputs=(name,))
        return draft.changed(picked.edited(), {name: _some(draft, scores, rows, len(net[scores].shape) - 1)})
    layer = net[chain[-1]]
    small = net.edited(tensors={name: net.tensors[name][rows] for name in layer.tensors.values()})
    origins = {name: _some(draft, name, rows, 1 if len(net[name].shape) > 1 else 0) for name in chain}
    return draft.changed(small, origins)


def _chain(net: Net, scores: str) -> list[str]:
    """From the scores back to the layer whose rows are the classes, through what keeps them apart; [] if none is."""
    chain = [scores]
    size = net[scores].shape[-1]
    while True:
        node = net[chain[-1]]
        alone = len(net.readers[node.name]) == (0 if node.name == scores else 1)
        if not alone:
            return []
        if op_of(node.op).channels == "mix":
            owners = [n for n in net.nodes if set(n.tensors.values()) & set(node.tensors.values())]
            fits = node.arguments.get("groups", 1) == 1 and len(net.tensors[node.tensors["weight"]]) == size
            return chain if fits and len(owners) == 1 else []
        source = net[node.source] if len(node.reads) == 1 else None
        same_channels = source is not None and len(source.shape) > 1 and source.shape[1] == size == node.shape[1]
        plain = op_of(node.op).module is not None and not node.tensors
        if source is None or not same_channels or not (plain or node.op in ("flatten", "mean", "squeeze")):
            return []
        chain.append(source.name)


def _some(draft: Draft, name: str, rows: torch.Tensor, axis: int) -> Origin | None:
    origin = draft.origins.get(name)
    return None if origin is None else origin.among(axis, rows)
