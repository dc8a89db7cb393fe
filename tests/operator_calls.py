"""Random calls of the operators that a file may name, legal and illegal ones, made in a process that may die of them.

Each call is made as reading a net makes it: checked, then on tensors without elements, then for real. Its tensors lie
in the middle of larger buffers. The real call is made twice, with other values in what lies around the tensors: a
result that differs was read there. Run as `python operator_calls.py LOG FIRST COUNT`; LOG holds the number of the call
under way, so that a process that has died names it.
"""

import json
import math
import random
import resource
import sys
import warnings
from collections import Counter
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from operator_examples import EXAMPLES, T
from slimwright.errors import UnsupportedOp
from slimwright.graph.allowed import ALLOWED, ELEMENTWISE, REDUCTIONS
from slimwright.graph.ops import FAILURES, aten, call_aten, check_quiet, on_meta

EVERY = sorted(ALLOWED)
MOST_BYTES = 4 * 2**30  # of the process
MOST_MADE = 2**22  # elements that a call may make here
MARGIN = 40  # elements before and behind each tensor
AROUND = (7.5e29, -3.0)  # what they hold
SMALL_RESULTS = frozenset((*ELEMENTWISE, *REDUCTIONS))  # no larger than what they read: theirs are not foreseen
DTYPES = (
    *[torch.float32] * 12, *[torch.int64] * 4, torch.int32, torch.bool, torch.float64, torch.float16, torch.bfloat16,
    torch.uint8, torch.int8, torch.int16,
)  # fmt: skip
SMALL = (*[1] * 6, *[2] * 4, *[0] * 4, -1, -1, 3, 4, 5, -2, 7)
INTEGERS = (
    *SMALL * 4,
    -7,
    31,
    63,
    64,
    100,
    2**16,
    2**31 - 1,
    2**31,
    -(2**31),
    2**32 + 1,
    2**40,
    2**62,
    2**63 - 1,
    -(2**63),
    2**64,
)
NUMBERS = (0.0, 1.0, 0.5, -1.0, 1e-5, 2.0, 1e30, float("inf"), float("-inf"), float("nan"), -0.0, 1e-320)
STRINGS = ("none", "sum", "mean", "zeros", "constant", "reflect", "floor", "trunc", "tanh", "same", "valid", "ij",
           "fro", "ab,bc->ac", "...a,ab", "", "a->aaa", "nuc")  # fmt: skip
DTYPE_NAMES = ("torch.float32", "torch.int64", "torch.float16", "torch.bool", "torch.float64", "torch.complex64",
               "torch.uint8", "torch.float8_e4m3fn", "torch.qint8", "torch.strided", "torch.load")  # fmt: skip


@dataclass(frozen=True)
class Numbers:
    """What a tensor of a call holds, apart from what lies around it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    values: tuple[float, ...]  # repeated as often as it takes
    transposed: bool
    expanded: bool

    @cached_property
    def held(self) -> tuple[int, ...]:
        """The shape in memory."""
        shape = (*self.shape[:-2], *reversed(self.shape[-2:])) if self.transposed else self.shape
        return (1, *shape[1:]) if self.expanded and shape else shape

    @cached_property
    def inner(self) -> Tensor:
        """The numbers in memory."""
        count = math.prod(self.held)
        return torch.tensor((self.values * (count // len(self.values) + 1))[:count]).to(self.dtype)

    def tensor(self, around: float) -> Tensor:
        """The tensor, in a buffer that holds `around` before and behind it."""
        margin = margin_of(self.dtype, around)
        found = torch.cat((margin, self.inner, margin))[MARGIN:-MARGIN].view(self.held)
        if self.expanded and self.shape:
            found = found.expand(
                self.shape[-1] if self.transposed and len(self.shape) == 2 else self.shape[0], *self.held[1:]
            )
        return found.transpose(-1, -2) if self.transposed else found


@cache
def margin_of(dtype: torch.dtype, around: float) -> Tensor:
    """What lies before and behind a tensor."""
    return torch.full((MARGIN,), around).to(dtype)


class Drawn:
    """Draws arguments; one seed gives one call."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.rank = self.random.choice((0, 1, 2, 2, 3, 3, 4, 4, 4, 5))
        self.shape = tuple(self.random.choice((1, 2, 3, 4, 4, 5, 0)) for _ in range(self.rank))
        self.integral = self.random.random() < 0.15

    def call(self) -> tuple[str, dict[str, Any]]:
        """An operator, and arguments for it by name."""
        overload = EVERY[self.random.randrange(len(EVERY))]
        schema = aten(overload)._schema.arguments
        examples = EXAMPLES.get(overload)
        if examples is None or self.random.random() < 0.15:
            return overload, {argument.name: self.value(argument) for argument in schema}
        example = self.random.choice(examples)
        arguments = {a.name: self.filled(example.get(a.name, a.default_value)) for a in schema}
        for argument in self.random.sample(schema, min(len(schema), self.random.choice((0, 1, 1, 1, 2)))):
            arguments[argument.name] = self.altered(argument, arguments[argument.name])
        return overload, arguments

    def filled(self, value: Any) -> Any:
        """An example's argument, with numbers in its tensors."""
        if isinstance(value, T):
            return self.numbers(value.shape, value.dtype, value.below)
        if isinstance(value, list | tuple):
            return [self.filled(item) for item in value]
        return str(value) if isinstance(value, torch.dtype) else value

    def altered(self, argument: Any, value: Any) -> Any:
        """Another value in an argument's place: a small step from it, or any."""
        if isinstance(value, Numbers) and self.random.random() < 0.6:
            shape = list(value.shape)
            if shape and self.random.random() < 0.7:
                shape[self.random.randrange(len(shape))] = self.random.choice((0, 1, 2, 3, 6))
            return self.numbers(tuple(shape), self.random.choice(DTYPES))
        if isinstance(value, list) and value and self.random.random() < 0.6:
            items = list(value)
            place = self.random.randrange(len(items))
            items[place] = self.altered(argument, items[place]) if isinstance(items[place], Numbers) else self.integer()
            return items
        return self.value(argument)

    def value(self, argument: Any) -> Any:
        """Any value of an argument's type, and now and then one of another."""
        if self.random.random() < 0.25 and argument.has_default_value():
            return self.filled(argument.default_value)
        if self.random.random() < 0.02:
            return self.random.choice((None, "mean", 3, [1, [2]], self.any_tensor(), 2**70, [], 1e300))
        return self.typed(str(argument.real_type if hasattr(argument, "real_type") else argument.type), argument.name)

    def typed(self, kind: str, name: str) -> Any:
        """Any value of a type as schemas write it."""
        if kind.startswith("Optional["):
            return None if self.random.random() < 0.4 else self.typed(kind[9:-1], name)
        if kind.startswith("List["):
            count = self.rank if self.random.random() < 0.5 else self.random.randrange(5)
            return [self.typed(kind[5:-1], name) for _ in range(count)]
        match kind:
            case "Tensor":
                return self.any_tensor()
            case "int" | "SymInt":
                is_type = name.endswith("dtype") or name in ("layout", "memory_format")
                return self.random.choice(DTYPE_NAMES) if is_type else self.integer()
            case "float":
                return self.random.choice(NUMBERS)
            case "bool":
                return self.random.random() < 0.5
            case "str":
                return self.random.choice(STRINGS)
            case "number" | "Scalar":
                return self.random.choice((self.integer(), self.random.choice(NUMBERS), True))
        return self.random.choice(DTYPE_NAMES) if "dtype" in name else None

    def integer(self) -> int:
        """A small number, now and then a large one."""
        return self.random.choice(INTEGERS if self.random.random() < 0.3 else SMALL)

    def any_tensor(self) -> Numbers:
        """A tensor like the others of the call, one that broadcasts with them, or another."""
        kind, shape = self.random.random(), self.shape
        if kind < 0.15:
            shape = tuple(self.random.choice((1, n)) for n in shape)
        elif kind < 0.3:
            shape = tuple(self.random.randrange(5) for _ in range(self.random.randrange(6)))
        elif kind < 0.4:
            shape = shape[self.random.randrange(len(shape) + 1) :]
        dtype = torch.int64 if self.integral and self.random.random() < 0.7 else self.random.choice(DTYPES)
        return self.numbers(shape, dtype)

    def numbers(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32, below: int = 0) -> Numbers:
        """Numbers for a tensor; integers `below` a number, or any."""
        if dtype.is_floating_point:
            values = [self.random.uniform(-2, 2) for _ in range(7)]
            if self.random.random() < 0.1:
                values[0] = self.random.choice(NUMBERS)
        elif below and self.random.random() < 0.8:
            values = [self.random.randrange(below) for _ in range(7)]
        else:
            values = [self.random.choice((0, 1, 0, 1, 2, -1, 3)) for _ in range(7)]
            if self.random.random() < 0.3:
                low, high = (0, 1) if dtype is torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
                values[self.random.randrange(7)] = self.random.choice((low, high))
        transposed = len(shape) > 1 and self.random.random() < 0.15
        return Numbers(shape, dtype, tuple(values), transposed, self.random.random() < 0.05)


def placed(value: Any, around: float) -> Any:
    """An argument with tensors in place of their numbers."""
    if isinstance(value, Numbers):
        return value.tensor(around)
    return [placed(item, around) for item in value] if isinstance(value, list) else value


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors of a result, in order."""
    if isinstance(value, Tensor):
        return [value]
    return [t for item in value for t in tensors_in(item)] if isinstance(value, list | tuple) else []


def without_elements(value: Any) -> Any:
    """An argument on the meta device."""
    if isinstance(value, Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    return [without_elements(item) for item in value] if isinstance(value, list) else value


def made(overload: str, arguments: dict[str, Any]) -> str:
    """Make one call; say how it ended. Raises AssertionError where the result depends on what lies around."""
    try:
        check_quiet(f"aten.{overload}", arguments)
        given = [{key: placed(value, around) for key, value in arguments.items()} for around in AROUND]
        expected = foreseen(overload, given[0])
    except (*FAILURES, UnsupportedOp):
        return "refused"
    if sum(tensor.numel() for tensor in expected or ()) > MOST_MADE:
        return "too large"
    try:
        first, second = (tensors_in(call_aten(overload, one)) for one in given)
    except FAILURES:
        return "failed"
    for one, two in zip(first, second, strict=True):
        same = torch.equal(one, two) or torch.allclose(one, two, equal_nan=True)
        assert same, "its result depends on what lies around its tensors"
    for one, shape in zip(first, first if expected is None else expected, strict=False):
        assert one.numel() <= shape.numel(), f"it makes {list(one.shape)}, not {list(shape.shape)} as was foreseen"
    return "made"


def foreseen(overload: str, arguments: dict[str, Any]) -> list[Tensor] | None:
    """What a call would make, without elements, as it is found when a net is read; None where it can be little only."""
    if overload in SMALL_RESULTS:
        return None
    return tensors_in(call_aten(overload, on_meta({key: without_elements(v) for key, v in arguments.items()})))


def main(log: Path, first: int, count: int) -> None:
    """Make calls, one seed each; print how many ended in each way."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    ended: Counter[str] = Counter()
    named: set[str] = set()
    with log.open("w") as file, torch.no_grad():
        for seed in range(first, first + count):
            overload, arguments = Drawn(seed).call()
            file.seek(0)
            file.write(f"call {seed} of {overload}".ljust(80))
            file.flush()
            how = made(overload, arguments)
            ended[how] += 1
            named |= {overload} if how == "made" else set()
    print(json.dumps({"ended": ended, "never made": sorted(ALLOWED - named)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
