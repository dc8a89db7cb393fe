"""The candidates of one job: each is built, run on the runtime, compared with its net, and timed against the original.

A candidate's accuracy here is that on the validation part; the test part is for the final proof.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slimwright.cost import Budget, Cost, count
from slimwright.data import Dataset, whole
from slimwright.graph import Net
from slimwright.measure.bundle import Candidate
from slimwright.measure.proof import net_scores, parity, share_right
from slimwright.runtimes import Artefact, Precision, Workshop
from slimwright.search import MOST, Plan
from slimwright.targets import Effort, Target, measure
from slimwright.techniques.fold import fold_batch_norm
from slimwright.techniques.recipe import Recipe

RUNS, SECONDS, PROFILE_RUNS = 200, 1.0, 20
PAYS = 0.97  # a candidate must take less than this share of the time of what it replaces, or it is taken back


@dataclass(frozen=True)
class Bench:
    """Where candidates are made and measured."""

    runtime: str
    target: Target
    workshop: Workshop


@dataclass(frozen=True)
class Trial:
    """A candidate: how it was made and what it was measured to cost; `plan` and `predicted_ms` are predictions."""

    name: str
    recipe: Recipe
    net: Net
    artefact: Artefact
    cost: Cost
    accuracy: float  # 0..1, validation part, in the runtime
    proven: bool  # the runtime's scores are those of the net
    plan: Plan | None = None
    predicted_ms: float | None = None
    tensor_share: float = 1.0  # of the kernels' time, in kernels that multiply by weights

    @property
    def precision(self) -> Precision:
        """Either "fp32" or "int8"."""
        return self.recipe.precision()

    def record(self, *, chosen: bool) -> Candidate:
        """What a bundle keeps of a candidate."""
        assert self.cost.latency_ms is not None and self.cost.size_bytes is not None
        return Candidate(
            name=self.name,
            precision=self.precision,
            predicted_latency_ms=self.predicted_ms,
            predicted_damage=self.plan.damage if self.plan else None,
            latency_ms=self.cost.latency_ms,
            size_bytes=self.cost.size_bytes,
            macs=self.cost.macs,
            validation_accuracy=self.accuracy,
            proven=self.proven,
            chosen=chosen,
        )


class Trials:
    """Builds and measures candidates in `folder`, the original first; every latency is in terms of its median."""

    def __init__(self, net: Net, bench: Bench, *, budget: Budget, data: Dataset, folder: Path) -> None:
        self.bench, self.budget, self.folder = bench, budget, folder
        self.calibration, self.validation = whole(data, "calibration"), whole(data, "validation")
        self.made: list[Trial] = []
        folded = fold_batch_norm(net)
        self._original = self.artefact(folded, "original", precision="fp32")
        self._original_ms = self._times({"original": self._original})["original"]
        self.original = self.add("original", Recipe.of(net), folded, self._original)
        self.limits = budget.absolute(self.original.cost)

    def artefact(self, net: Net, name: str, *, precision: Precision, images: int | None = None) -> Artefact:
        """Export a net, batch norms folded; INT8 is calibrated on the first `images` calibration images, or on all."""
        some = self.calibration[0][:images] if precision == "int8" else None
        folder = self.folder / f"{name}-{precision}"
        return self.bench.workshop.convert(fold_batch_norm(net), self.bench.runtime, precision, folder, images=some)

    def add(
        self,
        name: str,
        recipe: Recipe,
        net: Net,
        artefact: Artefact,
        *,
        plan: Plan | None = None,
        predicted_ms: float | None = None,
    ) -> Trial:
        """Run a candidate over the validation part, time it, and keep it."""
        images, labels = self.validation
        effort = Effort(profile_runs=PROFILE_RUNS)
        seen = measure(self.bench.target, {name: artefact}, effort, images=images)[name]
        assert seen.scores is not None
        proof = parity(seen.scores, net_scores(net, images), recipe.precision())
        trial = Trial(
            name=name,
            recipe=recipe,
            net=net,
            artefact=artefact,
            cost=self.cost(net, artefact),
            accuracy=share_right(seen.scores, labels),
            proven=proof.passed,
            plan=plan,
            predicted_ms=predicted_ms,
            tensor_share=seen.tensor_share,
        )
        self.made.append(trial)
        return trial

    def cost(self, net: Net, artefact: Artefact) -> Cost:
        """Count a net and measure its artefact, interleaved with the original."""
        ratio = 1.0
        if artefact != self._original:
            ms = self._times({"original": self._original, "this": artefact})
            ratio = ms["this"] / ms["original"]
        counted = count(net)
        return Cost(
            counted.macs,
            counted.params,
            counted.weight_bytes,
            counted.peak_activation_bytes,
            latency_ms=ratio * self._original_ms,
            size_bytes=artefact.size_bytes,
        )

    def _times(self, artefacts: Mapping[str, Artefact]) -> dict[str, float]:
        """Median milliseconds of each."""
        seen = measure(self.bench.target, artefacts, Effort(runs=RUNS, least_s=SECONDS))
        return {name: one.latency.median_ms for name, one in seen.items() if one.latency}

    def drop(self, trial: Trial) -> float:
        """Accuracy lost on the validation part, in points."""
        return 100 * (self.original.accuracy - trial.accuracy)

    def time_share(self, trial: Trial, other: Trial | None = None) -> float:
        """A trial's latency as a share of another's, or of the original's."""
        mine, base = trial.cost.latency_ms, (other or self.original).cost.latency_ms
        assert mine is not None and base is not None
        return mine / base

    def best(self) -> Trial:
        """The candidate to ship."""
        return most_accurate(self.made, self.limits, self.budget.max_accuracy_drop)

    def why_not(self, trial: Trial, best: Trial) -> str:
        """Say why a candidate was not chosen."""
        if not trial.proven:
            return "its scores leave those of its net: it failed its proof"
        if not pays(trial, self.original):
            return f"it takes {self.time_share(trial):.2f}x the original's time: slower is never shipped"
        over = [f"{n} is {s:.2f}x its limit" for n, s in _shares(trial, self.limits).items() if s > 1]
        if over:
            return "; ".join(over)
        behind = 100 * (best.accuracy - trial.accuracy)
        if behind > 0:
            return f"{behind:.2f} points less accurate on the validation part than '{best.name}'"
        return f"no more accurate than '{best.name}', at {self.time_share(trial, best):.2f}x its time"


def most_accurate(trials: Sequence[Trial], limits: Mapping[str, float], max_drop: float) -> Trial:
    """Return the most accurate trial that fits the limits; if none does, the one that misses by least.

    The first trial is the original. What is slower than it, or does not compute what its net computes, is out.
    """
    original = trials[0]

    def rank(trial: Trial) -> tuple[float, float, float, float]:
        over = sum(max(share - MOST, 0.0) for share in _shares(trial, limits).values())
        too_low = max(100 * (original.accuracy - trial.accuracy) - max_drop, 0.0)
        return over, too_low, -trial.accuracy, trial.cost.latency_ms or 0.0

    return min((t for t in trials if t is original or (t.proven and pays(t, original))), key=rank)


def pays(trial: Trial, original: Trial) -> bool:
    """True unless a trial was measured to be slower than the original, noise apart."""
    return (trial.cost.latency_ms or 0.0) <= (original.cost.latency_ms or 0.0) / PAYS


def _shares(trial: Trial, limits: Mapping[str, float]) -> dict[str, float]:
    """Each limited cost as a share of its limit."""
    return {name: getattr(trial.cost, name) / limit for name, limit in limits.items()}
