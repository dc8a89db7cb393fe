"""DropNet: which units a network can be trained without, found by training it again and again.

A round resets the net to its first weights, leaves out the units dropped so far, trains, and drops a share of those
that are left: the ones with the least mean |activation|, say. Round after round, until few are left or the validation
metric has fallen too far; what is dropped then is left out of one last training (Tan and Motani 2020, arXiv
2207.06646, algorithm 1).

Units are cut out rather than masked, which makes each round cheaper than the one before. For plain SGD it is the same
training up to float32 rounding (see the test): a unit that is masked behind its activation sends zeros to its readers
and gets no gradient, so nothing that matters to the others changes. It is another where something that maps zero
elsewhere, such as a batch norm, stands behind the mask; and units that a sum ties together go together.

No layer loses its last unit, where the paper's nets fall to chance.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from slimwright.coupling.channels import ChannelGroup, Coupling, couple
from slimwright.data import Dataset
from slimwright.errors import RequestError
from slimwright.graph.net import Net
from slimwright.progress import Event, Tell, silent
from slimwright.tasks import Task
from slimwright.techniques.dropnet.dropping import Loop, counts_per_round, filters_of, without
from slimwright.techniques.dropnet.rounds import Keep, Round, Rounds, Training
from slimwright.train import Schedule


def dropnet(
    net: Net,
    data: Dataset,
    loop: Loop,
    *,
    task: Task,
    units: Sequence[str] | None = None,
    folder: Path | None = None,
    tell: Tell = silent,
) -> list[Round]:
    """Return every round, the first with all units; `net` has the weights that each round starts from.

    `units` names the groups whose channels may be dropped (default: `filters_of`). Rounds are kept in `folder`, and
    taken from there when the same training is asked for again. Raises RequestError for a group that is not there or
    that the rule cannot drop from, and DataError where the loss is no number from a round's first epoch on.
    """
    coupling = couple(net)
    groups = _chosen(coupling, filters_of(net, coupling) if units is None else units, loop)
    plan = counts_per_round([group.size for group in groups], loop)
    todo = Rounds(net, coupling, Training(data, task, loop.training), folder)
    keep: Keep = {group.name: np.arange(group.size) for group in groups}
    done: list[Round] = []
    for number, counts in enumerate(plan, 1):
        if done:
            keep = without(done[-1], coupling, counts, data, loop, task=task)
        done.append(todo.trained(keep))
        tell(Event("dropnet", number, len(plan), f"{loop.rule}: {_said(done[-1], task)}"))
        if number > 1 and loop.fallen(done[-2], done[0], task.metric):
            break
    return done


def retrained(
    net: Net,
    rounds: Sequence[Round],
    data: Dataset,
    training: Schedule,
    *,
    task: Task,
    folder: Path | None = None,
    tell: Tell = silent,
) -> list[Round]:
    """Return what comes of the same units in `net`, which has other first weights: the paper's "randominit"."""
    todo = Rounds(net, couple(net), Training(data, task, training), folder)
    done: list[Round] = []
    for number, like in enumerate(rounds, 1):
        done.append(todo.trained(like.keep))
        tell(Event("dropnet", number, len(rounds), f"other first weights: {_said(done[-1], task)}"))
    return done


def _said(of: Round, task: Task) -> str:
    return f"{of.units} units left, validation {task.metric.name} {task.metric.shown(of.validation_score)}"


def _chosen(coupling: Coupling, names: Sequence[str], loop: Loop) -> list[ChannelGroup]:
    """The groups of these names, in the coupling's order."""
    known = {group.name: group for group in coupling.groups}
    for name in names:
        if name not in known:
            raise RequestError(f"there is no channel group '{name}'; the groups are {', '.join(known)}")
        if loop.rule == "oracle" and name in coupling.balanced:
            raise RequestError(f"a layer needs equal parts of group '{name}', so the oracle cannot drop single units")
    if not names:
        raise RequestError("the net has no channels that may be dropped")
    return [group for name, group in known.items() if name in names]
