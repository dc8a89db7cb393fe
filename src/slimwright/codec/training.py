"""Train what all pictures share: the context net, the offsets of coefficients, and the filter behind them.

First the context net learns, from crops that are quantized with a threshold; then from crops that are quantized as the
encoder does, under the net itself. The offsets are means over such crops, and the filter is fitted last. A training
that was stopped goes on where its last checkpoint stands.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from slimwright.codec.band_bits import bits_by_place, known
from slimwright.codec.choosing import chosen, first_choice
from slimwright.codec.colour import rotated, rotation_of
from slimwright.codec.context_net import ContextNet, in_whole_numbers
from slimwright.codec.contexts import CHANNELS
from slimwright.codec.dequantizing import FILTERED_FROM, correction, fresh_filter, step_of, values_of
from slimwright.codec.sampling import Sample, sample
from slimwright.codec.symbols import LEAST_SCALE, MOST_SCALE
from slimwright.codec.wavelet import FRACTION_BITS, Bands, analysed, synthesised
from slimwright.kept import kept_at, kept_tensors, write_tensors
from slimwright.progress import Event, Tell

SCALES = MOST_SCALE - LEAST_SCALE + 1
ROUNDS = 2  # of choosing
CHECKPOINT = 50  # iterations
START_OFFSETS = (0.05, 0.02)
PRIOR = 200.0  # numbers that an offset's start counts for


@dataclass(frozen=True)
class Plan:
    """How long to train: iterations with a threshold, as the encoder chooses, and of the filter; crops for the offsets."""

    rough: int = 1200
    exact: int = 400
    filter: int = 250
    measured: int = 48
    rate: float = 8e-3
    seed: int = 0


def plan_of(iterations: int, seed: int) -> Plan:
    """Return a plan of so many iterations in all, divided as the default's are."""
    usual = Plan()
    share = iterations / (usual.rough + usual.exact + usual.filter)
    rough, exact = max(round(usual.rough * share), 2), max(round(usual.exact * share), 1)
    return Plan(rough, exact, max(iterations - rough - exact, 1), seed=seed)


def trained(pictures: Sequence[Tensor], plan: Plan, cache: Path, tell: Tell) -> dict[str, Tensor]:
    """Return the shared parameters for pictures [3, H, W] to learn from; checkpoints are kept in `cache`."""
    hasher = hashlib.sha256(repr(asdict(plan)).encode())
    for one in pictures:
        hasher.update(one.numpy().tobytes())
    checkpoint = kept_at(cache, "codec", hasher.hexdigest())
    net = ContextNet(plan.seed)
    offsets = torch.tensor(START_OFFSETS)[:, None].repeat(1, SCALES)
    _fit_context(net, pictures, plan, offsets, checkpoint, tell)
    offsets = _offsets(net, pictures, plan, offsets, tell)
    filter_ = _fitted_filter(net, pictures, plan, offsets, tell)
    checkpoint.unlink(missing_ok=True)
    return {**{name: value.detach() for name, value in net.named_parameters()}, "offsets": offsets, **filter_}


def _fit_context(
    net: ContextNet, pictures: Sequence[Tensor], plan: Plan, offsets: Tensor, checkpoint: Path, tell: Tell
) -> None:
    total = plan.rough + plan.exact
    optimizer = torch.optim.Adam(net.parameters(), plan.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.rate, total_steps=total, pct_start=0.1)
    begun = _resumed(net, optimizer, checkpoint)
    for _ in range(begun):
        schedule.step()
    for number in range(begun, total):
        one = sample(pictures, number, plan.seed)
        levels, _ = _in_steps(one)
        numbers = first_choice(levels)
        if number >= plan.rough:
            numbers = chosen(levels, numbers, in_whole_numbers(dict(net.named_parameters())), offsets, step=one.step)
        flat = torch.cat([level.flatten() for level in numbers]).float()
        bits = torch.stack([part.sum() for _, part in bits_by_place(net, flat, known(numbers, one.step))]).sum()
        per_pixel = bits / one.crop[0, 0].numel()
        loss = per_pixel / (0.05 + per_pixel.detach()) ** 0.5  # low rates count, too
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (number + 1) % CHECKPOINT == 0:
            _save(net, optimizer, number + 1, checkpoint)
        tell(Event("contexts", number + 1, total, f"{per_pixel.item():.3f} bits a pixel"))


def _in_steps(one: Sample) -> tuple[list[Tensor], Bands]:
    """Return a crop's high bands in steps, and its bands as they are, in levels."""
    bands = analysed(rotated(one.crop, rotation_of(one.crop[0]), FRACTION_BITS))
    unit = 1 / (step_of(one.step) * (1 << FRACTION_BITS))
    return [level.double() * unit for level in bands.high], bands


def _quantized(net: ContextNet, one: Sample, offsets: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Return a crop's high bands in steps, and the whole numbers that the encoder chooses."""
    whole = in_whole_numbers(dict(net.named_parameters()))
    levels, _ = _in_steps(one)
    numbers = first_choice(levels)
    for _ in range(ROUNDS):
        numbers = chosen(levels, numbers, whole, offsets, step=one.step)
    return levels, numbers


def _scales(net: ContextNet, numbers: Sequence[Tensor], step: int) -> Tensor:
    """Return the index of the scale of each coefficient, flat."""
    whole, found = in_whole_numbers(dict(net.named_parameters())), torch.zeros(sum(n.numel() for n in numbers)).long()
    for part in known(numbers, step):
        for band in part.bands.unique().tolist():
            some = part.bands == band
            found[part.places[some]] = whole.indices(part.features[some], part.role, part.phase, band)[1]
    return found


def _offsets(net: ContextNet, pictures: Sequence[Tensor], plan: Plan, start: Tensor, tell: Tell) -> Tensor:
    """Return the mean of what sizes exceed exact coefficients by, of ones and of larger ones, by scale."""
    sums, counts = start.double() * PRIOR, torch.full_like(start, PRIOR).double()
    for number in range(plan.measured):
        one = sample(pictures, number, plan.seed + 1)
        levels, numbers = _quantized(net, one, start)
        scales = _scales(net, numbers, one.step)
        exact, sizes = (torch.cat([v.flatten() for v in values]).abs() for values in (levels, numbers))
        for row, some in enumerate((sizes == 1, sizes > 1)):
            sums[row].index_add_(0, scales[some], (sizes - exact)[some])
            counts[row].index_add_(0, scales[some], torch.ones(int(some.sum())).double())
        tell(Event("offsets", number + 1, plan.measured))
    return (sums / counts).float()


def _fitted_filter(
    net: ContextNet, pictures: Sequence[Tensor], plan: Plan, offsets: Tensor, tell: Tell
) -> dict[str, Tensor]:
    """Return the filter that brings pictures nearest to what they were, in squared steps."""
    filter_ = {name: nn.Parameter(value) for name, value in fresh_filter(CHANNELS, plan.seed).items()}
    optimizer = torch.optim.Adam(filter_.values(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=max(plan.filter, 2), pct_start=0.1)
    for number in range(plan.filter):
        one = sample(pictures, number, plan.seed + 2, FILTERED_FROM)
        step = step_of(one.step)
        levels, numbers = _quantized(net, one, offsets)
        del levels
        channels = rotated(one.crop, rotation_of(one.crop[0]), FRACTION_BITS).float() / (1 << FRACTION_BITS) / step
        flat = values_of(torch.cat([n.flatten() for n in numbers]).float(), _scales(net, numbers, one.step), offsets)
        high = [part.view(n.shape) for part, n in zip(flat.split([n.numel() for n in numbers]), numbers, strict=True)]
        low = _in_steps(one)[1].low.float() / (step * (1 << FRACTION_BITS))
        picture = synthesised(Bands(low.round(), tuple(high)))
        before = (picture - channels).square().mean()
        loss = (picture + correction(picture, filter_) - channels).square().mean() / before
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(filter_.values(), 1.0)
        optimizer.step()
        schedule.step()
        tell(Event("filter", number + 1, plan.filter, f"{loss.item():.3f} of the error"))
    return {name: value.detach() for name, value in filter_.items()}


def _save(net: ContextNet, optimizer: torch.optim.Adam, number: int, checkpoint: Path) -> None:
    tensors = {name: value.detach() for name, value in net.named_parameters()}
    for name, value in net.named_parameters():
        state = optimizer.state[value]
        tensors |= {f"mean.{name}": state["exp_avg"], f"square.{name}": state["exp_avg_sq"]}
    write_tensors(checkpoint, tensors, {"key": checkpoint.stem, "number": str(number)})


def _resumed(net: ContextNet, optimizer: torch.optim.Adam, checkpoint: Path) -> int:
    """Load a checkpoint, if there is one, and return how many iterations it has behind it."""
    kept = kept_tensors(checkpoint, checkpoint.stem)
    if kept is None:
        return 0
    tensors, notes = kept
    number = int(notes["number"])
    with torch.no_grad():
        for name, value in net.named_parameters():
            value.copy_(tensors[name])
            moments = {"exp_avg": tensors[f"mean.{name}"], "exp_avg_sq": tensors[f"square.{name}"]}
            optimizer.state[value] = {"step": torch.tensor(float(number)), **moments}
    return number
