"""Nets in few bytes beside NNCodec: the smallest files that lose as little, and the same integers by both coders."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lib.nncodec_side import coded
from lib.priced import Priced
from lib.results import Row
from slimwright.cost import count
from slimwright.data import Dataset, unlabelled_inputs, whole
from slimwright.graph import Net
from slimwright.search import solve
from slimwright.search.planning import weights_for
from slimwright.storage import packed_bytes, plain_bytes
from slimwright.swz.grid import multiples
from slimwright.tasks import Classification
from slimwright.techniques import (
    Recipe,
    Solve,
    apply,
    fold_batch_norm,
    importances,
    observed,
    rounded_net,
    usual_price,
)
from slimwright.techniques.memory_plan import images_to_round

IMAGES = 512  # of the calibration part, where that shows large layers enough
ALLOWED = 0.5  # points lost on the validation part
SHARES = (1.0, 0.7, 0.5, 0.35)  # of the bytes of all weights
FACTOR, HALVINGS = 3.0, 3  # between prices that are tried, and how often the last gap is halved
QUANTIZERS = range(-44, -3)  # quantization parameters: a step doubles every four
BIAS_QUANTIZER, BIGGEST = -75, 2**20  # NNCodec's own for what is no matrix; of an integer
STEP_BYTES = 4


@dataclass(frozen=True)
class Made:
    """A net in few bytes, and the points of accuracy that it loses on the validation part."""

    net: Net
    size_bytes: int
    lost: float


def rows(name: str, trained: Net, data: Dataset, home: Path) -> Iterator[Row]:
    """Yield the smallest files of both that lose at most `ALLOWED` points, and ours coded by DeepCABAC.

    Choices are made on the validation part, errors are those of the test part.
    """
    net, task = fold_batch_norm(trained), Classification(data.labels)

    def error(small: Net, part: Any) -> float:
        images, labels = whole(data, part)
        return 100 - task.score(small.run((torch.as_tensor(images),)), labels)

    before = {part: error(net, part) for part in ("validation", "test")}

    def judged(small: Net, size_bytes: int) -> Made:
        return Made(small, size_bytes, error(small, "validation") - before["validation"])

    ours, theirs = _ours(net, data, task, judged), _theirs(net, home, judged)
    facts: dict[str, str | int | float] = {"network": name, "original_error": round(before["test"], 2)}
    for method, made in (("slimwright, untrained", ours), ("NNCodec", theirs)):
        yield {
            **facts,
            "method": method,
            "size_bytes": made.size_bytes,
            "times": plain_bytes(net) / made.size_bytes,
            "error": round(error(made.net, "test"), 2),
            "seconds": 0.0,
        }
    size = _cabac_bytes(ours.net, home)
    yield {
        **facts,
        "method": "DeepCABAC, slimwright's integers",
        "size_bytes": size,
        "times": plain_bytes(net) / size,
        "error": round(error(ours.net, "test"), 2),
        "seconds": 0.0,
    }


def _ours(net: Net, data: Dataset, task: Classification, judged: Callable[[Net, int], Made]) -> Made:
    """The smallest of nets with shares of their weights, each at the largest price at which it loses little enough.

    Fewer weights are planned by channels and ranks together, and solved, as `shrink --packed` does.
    """
    priced, limit = Priced.of(net, observed(net, data, task), IMAGES), count(net).weight_bytes
    found: list[Made] = []
    for share in SHARES:
        fewer = net
        if share < 1:
            problem = priced.problem("weight_bytes", weights_for())
            plan = solve(problem, {"weight_bytes": share * limit})
            fewer = apply(Recipe.of(net, *priced.menu.steps(plan.counts), Solve(images=IMAGES)), net, data, task=task)
            if judged(fewer, plain_bytes(fewer)).lost > ALLOWED:
                break
        found.append(_dearest(fewer, data, task, judged))
        if found[-1].size_bytes > min(one.size_bytes for one in found):
            break
    return min(found, key=lambda one: one.size_bytes)


def _dearest(net: Net, data: Dataset, task: Classification, judged: Callable[[Net, int], Made]) -> Made:
    """A net at the largest price of a bit at which it loses little enough."""
    seen, inputs = observed(net, data, task), unlabelled_inputs(data, _images(net, data))

    @cache
    def at(log_price: float) -> Made:
        small = rounded_net(net, inputs, importances(seen), math.exp(log_price))
        return judged(small, packed_bytes(small))

    log_price, step = math.log(usual_price(net, seen)), math.log(FACTOR)
    way = 1 if at(log_price).lost <= ALLOWED else -1
    while (at(log_price + way * step).lost <= ALLOWED) == (way > 0):
        log_price += way * step
    good = log_price if way > 0 else log_price - step
    for _ in range(HALVINGS):
        step /= 2
        if at(good + step).lost <= ALLOWED:
            good += step
    return at(good)


def _images(net: Net, data: Dataset) -> int:
    """How many images weights are rounded by: more than usual where large layers need more than all for calibration."""
    wanted = images_to_round(net, data)
    return wanted if wanted > data.size("calibration") else IMAGES


def _theirs(net: Net, home: Path, judged: Callable[[Net, int], Made]) -> Made:
    """The net by the largest quantization parameter with which it loses little enough: a step halved at a time."""
    tensors = {name: tensor.numpy() for name, tensor in net.tensors.items()}

    @cache
    def at(quantizer: int) -> Made:
        made = coded(tensors, home, qp=quantizer, nonweight_qp=BIAS_QUANTIZER)
        found = {name: torch.from_numpy(value.astype(np.float32)) for name, value in made.tensors.items()}
        return judged(net.edited(tensors=found), made.size_bytes)

    low, high = QUANTIZERS.start, QUANTIZERS.stop - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if at(middle).lost <= ALLOWED else (low, middle - 1)
    return at(low)


def _cabac_bytes(net: Net, home: Path) -> int:
    """The bytes of a net's integers by DeepCABAC, and of a step for each tensor."""
    whole_numbers: dict[str, NDArray[np.int32]] = {}
    for name, tensor in net.tensors.items():
        found = multiples(tensor.numpy().reshape(-1), BIGGEST)
        if found is None:
            raise ValueError(f"the values of '{name}' stand on no grid")
        whole_numbers[name] = found[0].reshape(tensor.shape).astype(np.int32)
    return coded(whole_numbers, home).size_bytes + STEP_BYTES * len(whole_numbers)
