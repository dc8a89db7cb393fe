"""REINFORCE over layers: which of them to keep, and then how many channels.

First stage (Pahwa et al. 2019, arXiv 1911.12740): a bidirectional LSTM reads the layers and gives each a probability to
be removed; a walk in execution order samples. Second stage (Ashok et al. 2018, N2N, ICLR): an LSTM that reads what it
chose before gives each group of channels a share to keep, in the best net of the first stage. Both learn by REINFORCE
with a moving average as baseline. Layers that must stay where the walk has come to, and shares with which the limits
could not be met any more, are masked: they are neither sampled nor learned from.

Different from the papers: a child's weights are solved from the original's, not trained; each rollout's own advantage
is used; a decision is asked only of what saves work (convolutions, sums, products); a first guess keeps most layers,
since a net without half of its layers is no better than chance before it is trained.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from slimwright.search.planning import CHANNELS
from slimwright.search.policies.features import WIDTH, group_features, layer_features
from slimwright.search.policies.ground import Descent, Ground, ground_of, ground_without, nearest
from slimwright.search.policies.parameters import Parameters, learned, start_from
from slimwright.search.policies.reward import Reward
from slimwright.search.policies.tries import Tries
from slimwright.search.space import Evaluation, Space
from slimwright.techniques import Remove
from slimwright.techniques.knobs import Choice
from slimwright.techniques.remove import removable, removed
from slimwright.techniques.solver.draft import Draft

HIDDEN, LAYERS = 30, 2  # of the LSTM; the paper's code
RATE = 0.003  # of Adam; the paper's code
ROLLOUTS = 5  # between two updates; the paper
DECAY = 0.8  # of the baseline's moving average; ours
KEPT = 0.85  # how likely a layer is kept before anything is learned; ours
REMOVING = 0.5  # of all tries: the first stage; ours
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
    gains: list[Tensor] = field(default_factory=list)  # log-probability times advantage
    baseline: float | None = None

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.Adam(self.module.parameters(), RATE)

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
    layers, best = _first_stage(tries, remover, worth, likeliest=start is not None)
    tries.most = every
    whole = tries.whole
    ground = ground_without(space, whole, layers, best) if layers else ground_of(space, whole, CHANNELS)
    if layers:
        space.note(f"removal of {', '.join(space.net.paths[name] for name in layers)}", "kept", _why(best))
    if ground.keys:
        _second_stage(tries, ground, shrinker, worth, likeliest=start is not None)
    return learned(remover=remover, shrinker=shrinker)


def _why(best: Evaluation) -> str:
    return f"of the first stage's nets '{best.name}' has the highest reward; the second stage shrinks it"


def _first_stage(
    tries: Tries, remover: Remover, worth: Callable[[Evaluation], float], *, likeliest: bool
) -> tuple[tuple[str, ...], Evaluation]:
    """Remove layers; return those of the child with the highest reward, and the child."""
    space = tries.space
    best: tuple[str, ...] = ()
    made = tries.whole.seen
    names = decisions(space)
    if not names:
        return best, made
    seen, learner = layer_features(space.net, names), Learner(remover)
    while not tries.over:
        layers, log_probability = walked(
            space, names, remover(seen).log_softmax(1), None if likeliest else tries.random()
        )
        likeliest = False
        one = tries([Remove(layers=layers)] if layers else [])
        learner.saw(log_probability, worth(one))
        if worth(one) > worth(made):
            best, made = layers, one
    return best, made


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
    seen, learner = group_features(ground), Learner(shrinker)
    while not tries.over:
        random = None if likeliest else tries.random()
        likeliest = False
        choice, log_probability = shrunk(ground, tries.aims(), shrinker, seen, random)
        learner.saw(log_probability, worth(tries.choice(ground, choice)))


def shrunk(
    ground: Ground, aims: dict[str, float], shrinker: Shrinker, seen: Tensor, random: torch.Generator | None
) -> tuple[Choice, Tensor]:
    """Return a choice of channels that can meet the aims, and its log-probability.

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
            logs = logits.masked_fill(~mask, -math.inf).log_softmax(0)
            drawn = logs.exp().detach()
            at = int(drawn.argmax() if random is None else torch.multinomial(drawn, 1, generator=random))
            total, setting = total + logs[at], settings[at]
        else:
            setting = allowed[0]
        descent.choose(key, setting)
        before = setting / whole
    return descent.choice, total
