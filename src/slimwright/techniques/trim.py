"""Cut channels that no weight reads: exact, and more of them with every zero that `sparsify` and `tune` made.

A channel whose every reader has nothing but zeros for it may hold what it will. Without it, what went into it is read
less, too, so channels go layer by layer towards the front, until none is left to go. The network computes what it did.
What is made for its costs alone stays whole: its weights mean nothing.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from slimwright.coupling import couple
from slimwright.coupling.channels import ChannelGroup, Coupling
from slimwright.coupling.views import Ids
from slimwright.evidence import groups_of
from slimwright.graph import Net
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.technique import Step, Technique, Work

BY_COLUMN = ("linear", "conv1d", "conv2d", "conv3d")  # whose weights have input channels on their second axis


class Trim(Step):
    """Cut the channels that no weight reads."""

    step: Literal["trim"] = "trim"


def read_channels(net: Net, coupling: Coupling) -> dict[str, Ids]:
    """Return the channels [kept], ascending, that some weight reads, of each group that has others too.

    A group keeps one at least. Groups of which parts must be equal, or norms take statistics, are left whole.
    """
    found = {}
    for group in coupling.groups:
        if group.name not in coupling.balanced and not group.flag:
            read = _read(net, group)
            kept = np.flatnonzero(read) if read.any() else np.zeros(1, np.int64)
            if len(kept) < group.size:
                found[group.name] = kept
    return found


def _read(net: Net, group: ChannelGroup) -> NDArray[np.bool_]:
    """Whether some weight reads each channel [size] of a group; all are where not every reader is looked into."""
    read = np.zeros(group.size, bool)
    readers = [*group.of("in")]
    for place in readers:
        node = net[place.node]
        if node.op not in BY_COLUMN or groups_of(node) != 1:
            return np.ones(group.size, bool)
        columns = net.tensors[node.tensors["weight"]].transpose(0, 1).flatten(1).any(1).numpy()
        read |= columns[place.positions].any(1)
    return read if readers else np.ones(group.size, bool)


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


TRIM = Technique(Trim, _apply, lambda _: "Cut the channels that no weight reads.")
