"""Random search, which others must beat: shares are drawn evenly, and the nearest settings within limits taken."""

import torch

from slimwright.search.policies.ground import followed, ground_of
from slimwright.search.policies.tries import Tries


def uniform(tries: Tries) -> None:
    """Try random choices of every knob until no try is left."""
    ground = ground_of(tries.space, tries.whole)
    while not tries.over and ground.keys:
        shares = torch.rand(len(ground.keys), generator=tries.random()).tolist()
        tries.choice(ground, followed(ground, tries.aims(), dict(zip(ground.keys, shares, strict=True))))
