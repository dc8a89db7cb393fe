"""Fit the parameters to the one picture: contexts that expect what it has, and a filter for its own errors.

Both are fitted by gradients, with a price on each difference from the shared parameters, since that travels with the
picture; what no gradient moves by half a unit is not sent. Coefficients are then chosen again, under the picture's own
net. The best of all rounds is kept, the shared parameters alone among them.
Source: the idea is that of COOL-CHIC (Ladune et al. 2023); here it starts from what all pictures share.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from slimwright.codec.adapting import Differences, adaptable, applied, unit_of
from slimwright.codec.band_bits import flat, known
from slimwright.codec.context_net import ContextNet, Known
from slimwright.codec.dequantizing import FILTERED_FROM, correction, step_of
from slimwright.codec.encoding import TRADES, Aim, Encoded, Options, at, encoded
from slimwright.codec.parameters import Parameters, context_tensors
from slimwright.codec.picturing import Source, coefficients
from slimwright.codec.rates import bits_of
from slimwright.codec.tiles import Numbers, Place
from slimwright.codec.wavelet import FRACTION_BITS, MULTIPLE, synthesised
from slimwright.progress import Event, Tell

CONTEXT_RATE, FILTER_RATE = 0.01, 0.004
PRICE_BITS = 5.0  # of a unit that a parameter differs by
ROWS = 40_000  # of coefficients, in one iteration
MOST_SIDE = 1024 // MULTIPLE  # of what the contexts are fitted to
SIDE = 192  # of the crop that the filter sees in one iteration


@dataclass(frozen=True)
class Effort:
    """Rounds, and iterations of both fits in each."""

    rounds: int = 1
    iterations: int = 250
    seed: int = 0


def overfitted_to(
    source: Source, shared: Parameters, aim: Aim, options: Options, effort: Effort, tell: Tell
) -> Encoded:
    """Return the file of a picture with parameters of its own, as good or as small as `encoded` is asked for.

    Parameters are fitted at the setting that meets the aim without them; with them the aim is met anew. Raises
    CodecError as `encoded` does.
    """
    start = encoded(source, shared, aim, options, tell)
    own = overfitted(source, shared, start.setting, options, effort, tell)
    if not own.own:
        return start
    found = encoded(source, own, aim, options, tell)
    return min((start, found), key=lambda it: _cost(it, source, start.setting))


def overfitted(
    source: Source, shared: Parameters, setting: int, options: Options, effort: Effort, tell: Tell
) -> Parameters:
    """Return the best parameters of a picture's own for a setting of `encoding.at`; the shared ones at worst."""
    step = setting // len(TRADES)
    found, best = at(source, shared, setting, options), shared
    numbers, least, total = found.numbers, _cost(found, source, setting), 2 * effort.rounds
    differences = {name: torch.zeros_like(shared.tensors[name]) for name in adaptable(shared)}
    for number in range(effort.rounds):
        chance = torch.Generator().manual_seed(effort.seed + number)
        tell(Event("fitting", 2 * number, total, f"{len(found.data):,} bytes, {found.psnr:.2f} dB"))
        differences |= _fitted_contexts(numbers, differences, shared, step, effort, chance)
        own = applied(differences, shared)
        numbers = at(source, own, setting, options).numbers
        tell(Event("fitting", 2 * number + 1, total))
        if step >= FILTERED_FROM:
            differences |= _fitted_filter(source, numbers, differences, shared, setting, effort, chance)
            own = applied(differences, shared)
        found = at(source, own, setting, options)
        if _cost(found, source, setting) < least:
            best, least = own, _cost(found, source, setting)
    tell(Event("fitting", total, total, f"{len(found.data):,} bytes, {found.psnr:.2f} dB"))
    return best


def _cost(one: Encoded, source: Source, setting: int) -> float:
    """Return the bits of a file and of its errors, which count as much as in choosing."""
    step, part = divmod(setting, len(TRADES))
    errors = (one.picture.double() - source.picture.double()).square().sum(0)
    if source.weights:
        errors = errors * source.weights[0][0, 0, : errors.shape[0], : errors.shape[1]]
    return 8 * len(one.data) + float(errors.sum()) / step_of(step) ** 2 / TRADES[part]


def _fitted_contexts(
    numbers: Numbers, start: Differences, shared: Parameters, step: int, effort: Effort, chance: torch.Generator
) -> dict[str, Tensor]:
    net = ContextNet()
    high = _middle(*numbers.bands.low.shape[-2:]).of(numbers.bands).high
    values, seen = flat(high).float(), known(high, step)
    share = len(values) / sum(one.numel() for one in numbers.bands.high)

    def bits(own: dict[str, Tensor]) -> Tensor:
        total = torch.zeros(())
        for part in seen:
            some = torch.randint(len(part.bands), (ROWS * len(part.bands) // len(values) + 1,), generator=chance)
            few = Known(part.role, part.phase, part.features[some], part.bands[some], part.places[some])
            odds, scale = torch.func.functional_call(net, own, (few.features, few.role, few.phase, few.bands))
            total = total + bits_of(values[few.places], odds, scale).mean() * len(part.bands)
        return total / share

    names = list(context_tensors(shared.tensors))
    return _fitted({name: start[name] for name in names}, shared, bits, CONTEXT_RATE, effort)


def _middle(height: int, width: int) -> Place:
    """Return a large picture's middle, which stands for it, in units of the lowest band."""
    tall, wide = min(height, MOST_SIDE), min(width, MOST_SIDE)
    return Place((height - tall) // 2, (width - wide) // 2, tall, wide)


def _fitted_filter(
    source: Source,
    numbers: Numbers,
    start: Differences,
    shared: Parameters,
    setting: int,
    effort: Effort,
    chance: torch.Generator,
) -> dict[str, Tensor]:
    step, part = divmod(setting, len(TRADES))
    picture = synthesised(coefficients(numbers, shared))
    exact = source.channels.float() / (step_of(step) * (1 << FRACTION_BITS))
    weights = source.weights[0].float() if source.weights else torch.ones(1, 1, *exact.shape[-2:])
    height, width = exact.shape[-2:]
    tall, wide = min(SIDE, height), min(SIDE, width)
    scale = height * width / (tall * wide * TRADES[part])

    def cost(own: dict[str, Tensor]) -> Tensor:
        top = int(torch.randint(height - tall + 1, (1,), generator=chance))
        left = int(torch.randint(width - wide + 1, (1,), generator=chance))
        crop = (..., slice(top, top + tall), slice(left, left + wide))
        errors = picture[crop] + correction(picture[crop], own) - exact[crop]
        return (errors.square() * weights[crop]).sum() * scale

    names = [name for name in adaptable(shared) if name.startswith("filter_")]
    return _fitted({name: start[name] for name in names}, shared, cost, FILTER_RATE, effort)


def _fitted(
    start: Differences, shared: Parameters, cost: Callable[[dict[str, Tensor]], Tensor], rate: float, effort: Effort
) -> dict[str, Tensor]:
    """Return the differences in units, whole numbers, that lower a cost in bits by more than they take."""
    free = {name: (value * unit_of(name)).clone().requires_grad_() for name, value in start.items()}
    optimizer = torch.optim.Adam(free.values(), rate)
    for number in range(effort.iterations):
        for group in optimizer.param_groups:
            group["lr"] = rate * (0.02 + 0.98 * (1 + math.cos(math.pi * number / effort.iterations)) / 2)
        own = {name: shared.tensors[name] + value for name, value in free.items()}
        price = torch.stack([value.abs().sum() / unit_of(name) for name, value in free.items()]).sum()
        optimizer.zero_grad()
        (cost(own) + PRICE_BITS * price).backward()
        optimizer.step()
    return {name: torch.round(value.detach() / unit_of(name)) for name, value in free.items()}
