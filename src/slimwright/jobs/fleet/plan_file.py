"""The plan of a fleet, as a YAML file: a model, budgets by name, subsets of its classes by name.

    model: model.onnx
    data: images.safetensors
    budgets:
      phone: {latency: 0.5x, max_drop: 1}
      board: {latency: 0.3x, size: 200kB, runtime: ncnn}
    subsets:
      every: all
      pets: [cat, dog]

Every budget is deployed with every subset, or those pairs alone that stand under `deployments`. A file is untrusted: it
is read as plain values, without YAML's tags and aliases.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from slimwright.cost import Budget
from slimwright.errors import RequestError, check_extra
from slimwright.reading import reading, text_of

WHAT = "the plan of a fleet"
PLAN_BYTES = 4 * 2**20
MOST = 100_000  # deployments
ALL: Literal["all"] = "all"
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]  # it becomes a file's
Ground: TypeAlias = tuple[tuple[str, ...], str]  # classes and runtime
Text = Annotated[str, Field(min_length=1, coerce_numbers_to_str=True)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(_Part):
    """One budget: limits as `shrink` takes them, and the runtime that they are for."""

    latency: Text | None = None
    size: Text | None = None
    memory: Text | None = None
    macs: Text | None = None
    max_drop: float = Field(1.0, ge=0, allow_inf_nan=False)
    runtime: str | None = None

    @property
    def budget(self) -> Budget:
        """The same for a search. Raises BudgetError for what is not a limit."""
        return Budget(self.latency, self.size, None, self.memory, self.macs, max_drop=self.max_drop)

    @property
    def said(self) -> dict[str, str]:
        """The limits as they were written."""
        return {name: found for name in ("latency", "size", "memory", "macs") if (found := getattr(self, name))}


class Pair(_Part):
    """A subset and a budget to be deployed together."""

    subset: Name
    budget: Name


class FleetPlan(_Part):
    """What a plan file says."""

    model: str
    data: str
    weights: Path | None = None
    preprocessing: str | None = None
    task: str | None = None
    expect: str | None = None
    runtime: str = "onnxruntime"
    license: str = ""
    seed: int = Field(0, ge=0)
    budgets: dict[Name, Limits] = Field(min_length=1)
    subsets: dict[Name, Literal["all"] | list[Text]] = Field({"all": ALL}, min_length=1)
    deployments: list[Pair] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _fits_together(self) -> "FleetPlan":
        for name, limits in self.budgets.items():
            try:
                limits.budget  # noqa: B018 - it is looked at
            except RequestError as error:
                raise ValueError(f"budget '{name}': {error}") from error
        for name, classes in self.subsets.items():
            if classes != ALL and (len(classes) < 2 or len(set(classes)) < len(classes)):
                raise ValueError(f"subset '{name}' names {len(classes)} classes; it takes two or more, each once")
        pairs = [(pair.subset, pair.budget) for pair in self.deployments or ()]
        for subset, budget in pairs:
            if subset not in self.subsets or budget not in self.budgets:
                raise ValueError(f"deployment of '{subset}' and '{budget}': there is no such subset or budget")
        if len(set(pairs)) < len(pairs):
            raise ValueError("a deployment is listed twice")
        if (count := len(pairs) or len(self.budgets) * len(self.subsets)) > MOST:
            raise ValueError(f"there are {count:,} deployments; a fleet has at most {MOST:,}")
        return self

    @cached_property
    def every(self) -> tuple["Deployment", ...]:
        """The deployments, subset by subset."""
        product = [Pair(subset=subset, budget=budget) for subset in self.subsets for budget in self.budgets]
        return tuple(self._deployment(pair) for pair in self.deployments or product)

    def _deployment(self, pair: Pair) -> "Deployment":
        limits, classes = self.budgets[pair.budget], self.subsets[pair.subset]
        chosen = () if classes == ALL else tuple(classes)
        return Deployment(pair.subset, chosen, pair.budget, limits, limits.runtime or self.runtime)


@dataclass(frozen=True)
class Deployment:
    """One budget for one subset of the classes, by their names; () is all of them."""

    subset: str
    classes: tuple[str, ...]
    budget_name: str
    asked: Limits
    runtime: str

    @property
    def name(self) -> str:
        """What people and files call it."""
        return f"{self.subset}/{self.budget_name}"

    @property
    def budget(self) -> Budget:
        """Its limits."""
        return self.asked.budget

    @property
    def ground(self) -> Ground:
        """The classes and the runtime: deployments that have both in common share what is known of the network."""
        return self.classes, self.runtime


def load_plan(path: Path) -> FleetPlan:
    """Read a plan. Raises RequestError, naming the file and the field that is wrong."""
    check_extra("fleet", "the plan of a fleet is read by", "yaml")
    import yaml

    text = text_of(path, WHAT, most=PLAN_BYTES)
    with reading(path, WHAT, RequestError):
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise RequestError(f"{path} uses aliases (*name), which a plan does not take; write the values out")
        return FleetPlan.model_validate(yaml.safe_load(text))
