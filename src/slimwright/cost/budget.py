"""What the user is willing to spend: limits, absolute or relative to the original, and what shall be least."""

import math
import re
from dataclasses import dataclass, fields
from typing import TypeAlias

from slimwright.cost.count import Cost
from slimwright.errors import BudgetError

Limit: TypeAlias = float | str  # 12.5, "12.5ms", "2MB", or "0.5x": relative to the original

UNITS = {
    "latency_ms": {"ms": 1.0, "us": 1e-3, "s": 1e3},
    "size_bytes": {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9},
    "peak_activation_bytes": {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9},
    "packed_bytes": {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9},
    "macs": {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9},
    "energy_mj": {"mj": 1.0, "uj": 1e-3, "j": 1e3},
}
OPTIONS = {  # what the command line calls each cost
    "latency": "latency_ms",
    "size": "size_bytes",
    "packed": "packed_bytes",
    "memory": "peak_activation_bytes",
    "macs": "macs",
    "energy": "energy_mj",
}


def called(cost: str) -> str:
    """Return what the command line calls a cost: "latency_ms" -> "latency"."""
    return next(option for option, name in OPTIONS.items() if name == cost)


@dataclass(frozen=True)
class Budget:
    """Limits on the result. None means no limit; strings may carry a unit, or "x" for a share of the original.

    `max_drop` is how much worse the task's metric may get, in the metric's own steps (percentage points of accuracy),
    on data that no choice has seen. `packed_bytes` are those of the network as a packed file, for which weights are
    rounded. MB = 10^6 bytes. The result is the most accurate model within the limits, or, where `minimise` names a
    cost ("latency", "size", "packed", "memory", "macs", "energy"), the model with the least of that cost within
    `max_drop` and the limits. Raises BudgetError, naming the field, for anything that is not a positive limit.
    """

    latency_ms: Limit | None = None
    size_bytes: Limit | None = None
    packed_bytes: Limit | None = None
    peak_activation_bytes: Limit | None = None
    macs: Limit | None = None
    energy_mj: Limit | None = None
    max_drop: float = 1.0
    minimise: str | None = None

    def __post_init__(self) -> None:
        for name in UNITS:
            if (limit := getattr(self, name)) is not None:
                _parsed(name, limit)
        if not 0 <= self.max_drop < math.inf:
            raise BudgetError(f"max_drop is {self.max_drop}; it must be a number of the metric's steps, at least 0")
        if self.minimise is not None and self.minimise not in OPTIONS:
            raise BudgetError(f"minimise is {self.minimise!r}; it must be one of {', '.join(OPTIONS)}")
        if not self.limited() and self.minimise is None:
            raise BudgetError(
                "a budget needs at least one limit on latency, size, packed size, memory, macs or energy, such as "
                "latency 0.5x, or a cost to minimise"
            )

    @property
    def objective(self) -> str | None:
        """The cost that shall be least, by its field's name; None: the metric shall be best."""
        return None if self.minimise is None else OPTIONS[self.minimise]

    def limited(self) -> tuple[str, ...]:
        """Names of the costs that have a limit."""
        return tuple(f.name for f in fields(self) if f.name in UNITS and getattr(self, f.name) is not None)

    def concerns(self, cost: str) -> bool:
        """True for a cost, by its field's name, that has a limit or shall be least."""
        return cost in (*self.limited(), self.objective)

    def absolute(self, original: Cost) -> dict[str, float]:
        """Return each limit as a number in the unit of its name, shares resolved against the original's cost."""
        limits = {}
        for name in self.limited():
            value, relative = _parsed(name, getattr(self, name))
            base = getattr(original, name)
            if base is None and (relative or name == "energy_mj"):
                raise BudgetError(
                    f"{name} has the limit '{getattr(self, name)}', but the original's {name} was not measured: "
                    "leave that limit out, or choose a target that can measure it"
                )
            limits[name] = value * base if relative else value
        return limits


def bytes_of(text: str) -> int:
    """Return a size in bytes: "4GB" -> 4_000_000_000. Raises BudgetError for what is not a size above zero."""
    try:
        value, relative = _parsed("size_bytes", text)
    except BudgetError:
        value, relative = 0.0, False
    if relative or value < 1:
        raise BudgetError(f"'{text}' is not a size; give a number of bytes, such as 500MB or 4GB")
    return int(value)


def size_asked(text: str, original_bytes: int) -> float:
    """Return a size in bytes: "200kB", or of an original "0.02x", or "50x" for fifty times smaller.

    Raises BudgetError for what is none.
    """
    value, relative = _parsed("size_bytes", text)
    if not relative:
        return value
    return original_bytes * value if value < 1 else original_bytes / value


def _parsed(name: str, limit: Limit) -> tuple[float, bool]:
    """Return the value and whether it is a share of the original."""
    text = str(limit).strip().lower()
    found = re.fullmatch(r"([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([a-z]*)", text)
    units = UNITS[name]
    if found is None or (found[2] not in units and found[2] not in ("x", "")):
        known = ", ".join([*(u for u in units if u), "x"])
        raise BudgetError(f"{name} is {limit!r}; give a positive number with one of the units {known}, such as 0.5x")
    value = float(found[1])
    if not 0 < value < float("inf"):
        raise BudgetError(f"{name} is {limit!r}; it must be greater than zero")
    return (value, True) if found[2] == "x" else (value * units.get(found[2], 1.0), False)
