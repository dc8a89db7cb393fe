"""Train what all pictures share: the context net, and the offsets of coefficients.

First the context net learns, from crops that are quantized with a threshold; then from crops that are quantized as the
encoder does, under the net itself. The offsets are means over such crops. The filter starts as one that adds nothing:
none was found that helps all pictures (1.00 of the error, November 2026). A training that was stopped goes on where its
last checkpoint stands.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from slimwright.codec.band_bits import bits_by_place, flat, known
from slimwright.codec.choosing import chosen, first_choice
from slimwright.codec.colour import rotated, rotation_of
from slimwright.codec.context_net import ContextNet, in_whole_numbers
from slimwright.codec.contexts import CHANNELS
from slimwright.codec.dequantizing import fresh_filter, step_of
from slimwright.codec.sampling import Sample, sample
from slimwright.codec.symbols import LEAST_SCALE, MOST_SCALE
from slimwright.codec.wavelet import FRACTION_BITS, analysed
from slimwright.kept import kept_at, kept_tensors, write_tensors
from slimwright.progress import Event, Tell

SCALES = MOST_SCALE - LEAST_SCALE + 1
ROUNDS = 2  # of choosing
START_OFFSETS = (0.05, 0.02)
PRIOR = 200.0  # numbers that an offset's start counts for


@dataclass(frozen=True)
class Plan:
    """How long to train: iterations with a threshold, and as the encoder chooses; crops for the offsets.

    A checkpoint is kept every so many iterations.
    """

    rough: int = 1200
    exact: int = 400
    measured: int = 48
    checkpoint: int = 50
    rate: float = 8e-3
    seed: int = 0


def plan_of(iterations: int, seed: int) -> Plan:
    """Return a plan of so many iterations in all, divided as the default's are."""
    usual = Plan()
    rough = round(iterations * usual.rough / (usual.rough + usual.exact))
    return Plan(rough, iterations - rough, seed=seed)


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
    checkpoint.unlink(missing_ok=True)
    return {
        **{name: value.detach() for name, value in net.named_parameters()},
        "offsets": offsets,
        **fresh_filter(CHANNELS, plan.seed),
    }


def _fit_context(
    net: ContextNet, pictures: Sequence[Tensor], plan: Plan, offsets: Tensor, checkpoint: Path, tell: Tell
) -> None:
    total = plan.rough + plan.exact
    optimizer = torch.optim.Adam(net.parameters(), plan.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.rate, total_steps=total, pct_start=0.1)
    begun = _resumed(net, optimizer, checkpoint)
    for _ in range(begun):
        optimizer.step()  # moves nothing: there are no gradients yet
        schedule.step()
    for number in range(begun, total):
        one = sample(pictures, number, plan.seed)
        levels = _in_steps(one)
        numbers = first_choice(levels)
        if number >= plan.rough:
            numbers = chosen(levels, numbers, in_whole_numbers(dict(net.named_parameters())), offsets, step=one.step)
        seen = bits_by_place(net, flat(numbers).float(), known(numbers, one.step))
        bits = torch.stack([part.sum() for _, part in seen]).sum()
        per_pixel = bits / one.crop[0, 0].numel()
        loss = per_pixel / (0.05 + per_pixel.detach()) ** 0.5  # low rates count, too
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (number + 1) % plan.checkpoint == 0:
            _save(net, optimizer, number + 1, checkpoint)
        tell(Event("contexts", number + 1, total, f"{per_pixel.item():.3f} bits a pixel"))


def _in_steps(one: Sample) -> list[Tensor]:
    """Return a crop's high bands in steps."""
    bands = analysed(rotated(one.crop, rotation_of(one.crop[0]), FRACTION_BITS))
    unit = 1 / (step_of(one.step) * (1 << FRACTION_BITS))
    return [level.double() * unit for level in bands.high]


def _quantized(net: ContextNet, one: Sample, offsets: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Return a crop's high bands in steps, and the whole numbers that the encoder chooses."""
    whole = in_whole_numbers(dict(net.named_parameters()))
    levels = _in_steps(one)
    numbers = first_choice(levels)
    for _ in range(ROUNDS):
        numbers = chosen(levels, numbers, whole, offsets, step=one.step)
    return levels, numbers


def _scales(net: ContextNet, numbers: Sequence[Tensor], step: int) -> Tensor:
    """Return the index of the scale of each coefficient in a row."""
    whole = in_whole_numbers(dict(net.named_parameters()))
    return whole.by_place(known(numbers, step), sum(level.numel() for level in numbers))[1]


def _offsets(net: ContextNet, pictures: Sequence[Tensor], plan: Plan, start: Tensor, tell: Tell) -> Tensor:
    """Return the mean of what sizes exceed exact coefficients by, of ones and of larger ones, by scale."""
    sums, counts = start.double() * PRIOR, torch.full_like(start, PRIOR).double()
    for number in range(plan.measured):
        one = sample(pictures, number, plan.seed + 1)
        levels, numbers = _quantized(net, one, start)
        exact, sizes = flat(levels).abs(), flat(numbers).abs()
        scales = _scales(net, numbers, one.step)
        for row, some in enumerate((sizes == 1, sizes > 1)):
            sums[row].index_add_(0, scales[some], (sizes - exact)[some])
            counts[row].index_add_(0, scales[some], torch.ones(int(some.sum())).double())
        tell(Event("offsets", number + 1, plan.measured))
    return (sums / counts).float()


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
