"""DDPG over the channels of groups, as AMC has it (He et al. 2018, arXiv 1802.03494; Lillicrap et al. 2015).

A state is what is known of a group, the limited cost so far and the share kept of the group before; an action is the
share of channels to keep, in (0, 1]. Actions are bounded, so that the limits can be met. The reward comes at the end
of a net: its score as a share of the original's, less one, less a moving average. Exploration is by truncated normal
noise, which decays once the first tries are over.

Nothing is discounted, so what is to come of each action is that reward. The critic learns it as it is, and not by what
slow copies of both networks foresee, as DDPG has it: there are hundreds of tries here, and not thousands.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimwright.search.planning import CHANNELS
from slimwright.search.policies.features import WIDTH, group_features
from slimwright.search.policies.ground import Descent, Ground, ground_of
from slimwright.search.policies.parameters import Parameters, learned, start_from
from slimwright.search.policies.reward import INVALID, score_share
from slimwright.search.policies.tries import Tries
from slimwright.techniques.knobs import Choice

HIDDEN = 300  # of both layers of both networks; AMC
ACTOR_RATE, CRITIC_RATE = 1e-3, 3e-3  # of Adam; ours, for few tries
BATCH, MEMORY = 64, 2000  # transitions; AMC
NOISE = 0.5  # the standard deviation at first; AMC
WARM_UP = 0.25  # of all tries, before the noise decays; AMC has 100 of 400
LAST_NOISE = 0.05  # the standard deviation at the end; ours
AVERAGE = 0.8  # of the moving average of rewards; ours
STATE = WIDTH + 1 + 2  # a group's features, the cost so far, the share kept before
LEAST = 1e-3  # of the channels of a group

Transition: TypeAlias = tuple[Tensor, float, float]  # state, action, and what came of the net


class Actor(nn.Module):
    """States [N, STATE] -> shares to keep [N, 1] in (0, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(STATE, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1)
        )

    def forward(self, states: Tensor) -> Tensor:
        """Return the actions."""
        return torch.sigmoid(self.layers(states))


class Critic(nn.Module):
    """States [N, STATE] and actions [N, 1] -> what is to come of them [N, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(STATE + 1, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1)
        )

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        """Return the values."""
        values: Tensor = self.layers(torch.cat([states, actions], 1))
        return values


@dataclass
class Agent:
    """An actor and a critic, and what was seen."""

    actor: Actor
    critic: Critic
    seen: list[Transition] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.optimizers = [
            torch.optim.Adam(self.actor.parameters(), ACTOR_RATE),
            torch.optim.Adam(self.critic.parameters(), CRITIC_RATE),
        ]

    def learn(self, random: torch.Generator) -> None:
        """Do one update from a batch of what was seen."""
        places = torch.randint(len(self.seen), (min(BATCH, len(self.seen)),), generator=random).tolist()
        batch = [self.seen[place] for place in places]
        states = torch.stack([state for state, _, _ in batch])
        actions = torch.tensor([[action] for _, action, _ in batch])
        returns = torch.tensor([[reward] for *_, reward in batch])
        losses = (
            lambda: -self.critic(states, self.actor(states)).mean(),
            lambda: F.mse_loss(self.critic(states, actions), returns),
        )
        for optimizer, loss in reversed([*zip(self.optimizers, losses, strict=True)]):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()


def ddpg(tries: Tries, start: Parameters | None) -> dict[str, Tensor]:
    """Try choices of channels until no try is left, and return what was learned."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(tries.seed)
        actor, critic = Actor(), Critic()
    start_from(start, actor=actor, critic=critic)
    agent = Agent(actor, critic)
    ground = ground_of(tries.space, tries.whole, CHANNELS)
    if not ground.keys:
        return learned(actor=actor, critic=critic)
    features, average = group_features(ground), None
    while not tries.over:
        random, noise = tries.random(), noise_of(tries, starts=start is None)
        choice, states, actions = walked(ground, tries.aims(), actor, features, (noise, random))
        one = tries.choice(ground, choice)
        reward = score_share(tries.space, one) - 1 if one.proven else INVALID
        before = reward if average is None else average
        agent.seen += [(*step, reward - before) for step in zip(states, actions, strict=True)]
        del agent.seen[:-MEMORY]
        average = AVERAGE * before + (1 - AVERAGE) * reward
        for _ in states:
            agent.learn(random)
    return learned(actor=actor, critic=critic)


def noise_of(tries: Tries, *, starts: bool) -> float:
    """Return the standard deviation of the next try's noise; an agent that has learned before has no warm-up."""
    warm_up = WARM_UP * tries.most if starts else 0.0
    done = max(len(tries.made) - warm_up, 0.0) / max(tries.most - warm_up, 1.0)
    first = NOISE if starts else NOISE / 2
    return float(first * (LAST_NOISE / first) ** done)


def walked(
    ground: Ground, aims: dict[str, float], actor: Actor, features: Tensor, by: tuple[float, torch.Generator]
) -> tuple[Choice, list[Tensor], list[float]]:
    """Return a choice of channels that can meet the aims, and the state and the action of each group."""
    descent, (noise, random) = Descent(ground, aims), by
    states, actions, before = list[Tensor](), list[float](), 1.0
    for key, row in zip(ground.keys, features, strict=True):
        state = torch.cat([row, row.new_tensor([min(descent.share(), 2.0), before])])
        with torch.no_grad():
            wanted = truncated(float(actor(state[None])), noise, random)
        setting = descent.nearest(key, wanted)
        descent.choose(key, setting)
        before = ground.share(key, setting)
        states.append(state)
        actions.append(before)
    return descent.choice, states, actions


def truncated(mean: float, deviation: float, random: torch.Generator) -> float:
    """Return a number of the normal distribution that is cut off to (0, 1], by its inverse distribution function."""
    unit = torch.distributions.Normal(0.0, 1.0)
    ends = unit.cdf(torch.tensor([(LEAST - mean) / deviation, (1 - mean) / deviation], dtype=torch.float64))
    at = ends[0] + (ends[1] - ends[0]) * torch.rand((), generator=random, dtype=torch.float64)
    return min(max(mean + deviation * float(unit.icdf(at)), LEAST), 1.0)
