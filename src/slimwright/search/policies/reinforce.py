"""REINFORCE over layers: which of them to keep, and then how many channels.

First stage (Pahwa et al. 2019, arXiv 1911.12740): a bidirectional LSTM reads the layers and gives each a probability to
be removed; a walk in execution order samples. Second stage (Ashok et al. 2018, N2N, ICLR): an LSTM that reads what it
chose before gives each group of channels a share to keep, in one net of the first stage. Both learn by REINFORCE with a
moving average as baseline. Between them, the cheapest nets of the first stage that score well enough, and the original,
are each cut to the limits by a plan; the second stage goes on from what is measured to be the best.

Layers that must stay where the walk has come to, and shares with which the limits could not be met any more, are
masked: they are neither sampled nor learned from.

Different from the papers: a child's weights are solved from the original's, not trained; each rollout's own advantage
is used; a decision is asked only of what saves work (convolutions, sums, products); a first guess keeps most layers,
since a net without half of its layers is no better than chance before it is trained; a policy that repeats itself, as
one soon does that was learned elsewhere, draws at a higher temperature until it proposes something new.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from slimwright.search.knapsack import solve
from slimwright.search.planning import CHANNELS
from slimwright.search.policies.features import WIDTH, group_features, layer_features
from slimwright.search.policies.ground import Descent, Ground, ground_of, ground_without, nearest
from slimwright.search.policies.parameters import Parameters, learned, start_from
from slimwright.search.policies.reward import Reward, cost_share, score_share
from slimwright.search.policies.tries import Tries
from slimwright.search.space import Evaluation, Space
from slimwright.techniques import Remove
from slimwright.techniques.knobs import Choice
from slimwright.techniques.remove import removable, removed
from slimwright.techniques.solver.draft import Draft

HIDDEN, LAYERS = 30, 2  # of the LSTM; the paper's code
RATE, CHILDREN = 0.003, 500  # of Adam, for so many children; the paper and its code. For fewer, as much faster:
FASTER = 10.0  # times at most; ours
ROLLOUTS = 5  # between two updates; the paper
DECAY = 0.8  # of the baseline's moving average; ours
KEPT = 0.85  # how likely a layer is kept before anything is learned; ours
REMOVING = 0.5  # of all tries: the first stage; ours
BASES = 3  # children of the first stage that are cut to the limits; ours
HEAT = 0.5  # of the temperature, with each proposal that was known; ours
MISSED = 1e9  # points, by which a net beyond the limits is behind all others
SHARES = (0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of a group's channels; N2N's code
SAVES_WORK = ("conv2d", "add", "mul")


class Remover(nn.Module):
    """Layers [T, WIDTH] -> logits [T, 2] of keeping each, and of removing it."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(WIDTH, HIDDEN, LAYERS, bidirectional=True)
        self.head = nn.Linear(2 * HIDDEN, 2)
        with torch.no_grad():
            self.head.bias.copy_(torch.tensor([math.log(KEPT / (1 - KEPT)), 0.0]))

    def forward(self, layers: Tensor) -> Tensor:
        """Return the logits [T, 2]."""
        logits: Tensor = self.head(self.lstm(layers)[0])
        return logits


class Shrinker(nn.Module):
    """One group after the other: its features and the share chosen before -> logits over shares."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(WIDTH + 2, HIDDEN)
        self.head = nn.Linear(HIDDEN, len(SHARES))

    def step(self, seen: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the logits [len(SHARES)] and the next state."""
        state = self.cell(seen[None], state)
        return self.head(state[0])[0], state


@dataclass
class Learner:
    """Updates parameters after every few rollouts, each by how much better it was than the average so far."""

    module: nn.Module
    tries: int  # that it learns from
    gains: list[Tensor] = field(default_factory=list)  # log-probability times advantage
    baseline: float | None = None

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.Adam(self.module.parameters(), RATE * min(max(CHILDREN / self.tries, 1.0), FASTER))

    def saw(self, log_probability: Tensor, reward: float) -> None:
        """Take in a rollout."""
        before = reward if self.baseline is None else self.baseline
        self.gains.append(log_probability * (reward - before))
        self.baseline = DECAY * before + (1 - DECAY) * reward
        if len(self.gains) == ROLLOUTS:
            loss = -torch.stack(self.gains).mean()
            self.gains.clear()
            if loss.requires_grad:
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()


def reinforce(tries: Tries, reward: Reward, start: Parameters | None) -> dict[str, Tensor]:
    """Try children of the original until no try is left, and return what was learned.

    Where parameters are given, the first child of each stage is the likeliest.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(tries.seed)
        remover, shrinker = Remover(), Shrinker()
    start_from(start, remover=remover, shrinker=shrinker)
    space, every = tries.space, tries.most
    worth = partial(reward, space)
    tries.most = max(round(REMOVING * every), 1)
    children = _first_stage(tries, remover, worth, likeliest=start is not None)
    tries.most = every
    ground = _best_ground(tries, children, reward.score)
    if ground is not None and ground.keys:
        _second_stage(tries, ground, shrinker, worth, likeliest=start is not None)
    return learned(remover=remover, shrinker=shrinker)


def _first_stage(
    tries: Tries, remover: Remover, worth: Callable[[Evaluation], float], *, likeliest: bool
) -> dict[tuple[str, ...], Evaluation]:
    """Remove layers, and return the children by the layers that they lack."""
    space, found = tries.space, dict[tuple[str, ...], Evaluation]()
    names = decisions(space)
    if not names:
        return found
    seen, learner = layer_features(space.net, names), Learner(remover, tries.left)
    while not tries.over:
        logs = (remover(seen) / _heat(tries)).log_softmax(1)
        layers, log_probability = walked(space, names, logs, None if likeliest else tries.random())
        likeliest = False
        one = tries([Remove(layers=layers)] if layers else [])
        learner.saw(log_probability, worth(one))
        if layers:
            found[layers] = one
    return found


def _best_ground(tries: Tries, children: Mapping[tuple[str, ...], Evaluation], least: float) -> Ground | None:
    """The net that the second stage shrinks: of a few, and the original, the best once a plan has cut it to the limits.

    The few are the cheapest children whose score is at least a share of the original's. None where no try is left.
    """
    space = tries.space
    good = [each for each in children.items() if each[1].proven and score_share(space, each[1]) >= least]
    good.sort(key=lambda each: cost_share(space, each[1]))
    best: tuple[float, Ground, tuple[str, ...]] | None = None
    for layers, seen in [((), tries.whole.seen), *good[:BASES]]:
        if tries.over:
            break
        ground = ground_without(space, tries.whole, layers, seen) if layers else ground_of(space, tries.whole, CHANNELS)
        one = tries.choice(ground, solve(ground.problem, tries.aims()).counts)
        lost = (space.drop(one) if one.proven else math.inf) + (0 if space.fits(one) else MISSED)
        if best is None or lost < best[0]:
            best = lost, ground, layers
    if best is not None and best[2]:
        why = "of the first stage's nets it lost the least once it was cut to the limits; the second stage shrinks it"
        space.note(f"removal of {', '.join(space.net.paths[name] for name in best[2])}", "kept", why)
    return best[1] if best else None


def decisions(space: Space) -> list[str]:
    """Return the layers that a walk decides on: those that can go, and save work."""
    return [name for name in removable(space.net) if space.net[name].op in SAVES_WORK]


def walked(
    space: Space, names: Sequence[str], log_probabilities: Tensor, random: torch.Generator | None
) -> tuple[tuple[str, ...], Tensor]:
    """Return the layers that a walk removes, and its log-probability; without `random`, the likeliest walk.

    A layer that can not go any more, given what went before, is kept, and its decision does not count.
    """
    draft, gone, total = Draft.of(space.net), list[str](), log_probabilities.new_zeros(())
    draws = torch.rand(len(names), generator=random) if random is not None else torch.full((len(names),), 0.5)
    for name, logs, draw in zip(names, log_probabilities, draws, strict=True):
        if name not in draft.net.readers or name not in removable(draft.net):
            continue
        goes = bool(logs[1].exp() > draw)
        total = total + logs[int(goes)]
        if goes:
            gone.append(name)
            draft = removed(draft, name)
    return tuple(gone), total


def _second_stage(
    tries: Tries, ground: Ground, shrinker: Shrinker, worth: Callable[[Evaluation], float], *, likeliest: bool
) -> None:
    """Shrink groups of channels."""
    seen, learner = group_features(ground), Learner(shrinker, max(tries.left, 1))
    while not tries.over:
        random = None if likeliest else tries.random()
        likeliest = False
        choice, log_probability = shrunk(ground, tries.aims(), shrinker, seen, random, heat=_heat(tries))
        learner.saw(log_probability, worth(tries.choice(ground, choice)))


def _heat(tries: Tries) -> float:
    """The temperature at which the next proposal is drawn: it grows with every one that was known already."""
    return 1.0 + HEAT * tries.repeated


def shrunk(
    ground: Ground,
    aims: dict[str, float],
    shrinker: Shrinker,
    seen: Tensor,
    random: torch.Generator | None,
    *,
    heat: float = 1.0,
) -> tuple[Choice, Tensor]:
    """Return a choice of channels that can meet the aims, drawn at a temperature, and its log-probability.

    Where no share can, the largest setting that can is taken, and does not count.
    """
    descent, total = Descent(ground, aims), seen.new_zeros(())
    state, before = (seen.new_zeros(1, HIDDEN), seen.new_zeros(1, HIDDEN)), 1.0
    for key, features in zip(ground.keys, seen, strict=True):
        logits, state = shrinker.step(torch.cat([features, seen.new_tensor([before])]), state)
        allowed, whole = descent.allowed(key), ground.problem.sizes[key][0]
        settings = [nearest(ground.problem.sizes[key], share * whole) for share in SHARES]
        mask = torch.tensor([setting in allowed for setting in settings])
        if mask.any():
            logs = (logits / heat).masked_fill(~mask, -math.inf).log_softmax(0)
            drawn = logs.exp().detach()
            at = int(drawn.max(0).indices if random is None else torch.multinomial(drawn, 1, generator=random))
            total, setting = total + logs[at], settings[at]
        else:
            setting = allowed[0]
        descent.choose(key, setting)
        before = setting / whole
    return descent.choice, total
