"""Cut channels that nothing reads: exact, and more of them with every zero that `sparsify` and `tune` made.

A channel whose every reader has nothing but zeros for it may hold what it will. Without it, what went into it is read
less, too, so channels go layer by layer towards the front, until none is left to go. The network computes what it did.
Sums over channels, products and other layers without weights read every channel. What is made for its costs alone stays
whole: its weights mean nothing.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from slimwright.coupling import couple
from slimwright.coupling.channels import Coupling
from slimwright.coupling.views import Ids
from slimwright.evidence import groups_of
from slimwright.graph import Net
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.technique import Step, Technique, Work


class Trim(Step):
    """Cut the channels that nothing reads."""

    step: Literal["trim"] = "trim"


def read_channels(net: Net, coupling: Coupling) -> dict[str, Ids]:
    """Return the channels [kept], ascending, that something reads, of each group that has others too.

    A group keeps one at least. Groups of which parts must be equal, or norms take statistics, are left whole.
    """
    read, found = _read(net, coupling), {}
    for group in coupling.groups:
        if group.name not in coupling.balanced and not group.flag:
            kept = np.flatnonzero(read[group.components])
            kept = kept if kept.size else np.zeros(1, np.int64)
            if len(kept) < group.size:
                found[group.name] = kept
    return found


def _read(net: Net, coupling: Coupling) -> NDArray[np.bool_]:
    """Whether each component is read: by a weight, or by a layer that does not hand it on as it is."""
    read, by_weights = np.zeros(coupling.components, bool), {node.name for node in net.weighted()}
    for node in net.nodes:
        place = coupling.places.get((node.name, "in"))
        if node.name in by_weights and place is not None and groups_of(node) == 1:
            columns = net.tensors[node.tensors["weight"]].transpose(0, 1).flatten(1).any(1).numpy()
            read[place[columns]] = True
        else:
            taken = [coupling.values[name].reshape(-1) for name in node.reads]
            read[np.setdiff1d(np.concatenate(taken or [np.empty(0, np.int64)]), coupling.values[node.name])] = True
    for name in net.outputs:
        read[coupling.values[name].reshape(-1)] = True
    return read


def trimmed(draft: Draft) -> Draft:
    """Return the draft without channels that nothing reads; the same one where there are none."""
    while True:
        coupling = couple(draft.net)
        keep = read_channels(draft.net, coupling)
        if not keep:
            return draft
        draft = draft.cut(keep, coupling)


def _apply(_: Trim, work: Work) -> Work:
    return work if work.cost_only else replace(work, draft=trimmed(work.draft))


TRIM = Technique(Trim, _apply, lambda _: "Cut the channels that nothing reads.")
