"""The main job: a trained CNN and a budget in, a proven smaller model out.

Observe, plan, solve and prove, once per precision; then the candidate with the best accuracy on the validation part
among those that were *measured* to fit the budget. What does not pay on the runtime is taken back. The test part is
read once, at the very end, by the proof.
"""

import json
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from torch import Tensor, nn

from slimwright.atomic import appearing, kept_at
from slimwright.compute import usable
from slimwright.cost import Budget
from slimwright.coupling import Coupling, couple
from slimwright.data import Dataset, fingerprint, whole
from slimwright.errors import DataError, ProofError, RequestError
from slimwright.evidence import Evidence, load_evidence, observe
from slimwright.evidence.sums import FORMAT as EVIDENCE
from slimwright.graph import Net, save_net
from slimwright.importers import capture
from slimwright.measure import bundle as bundles
from slimwright.measure.bundle import Bundle, Decision, Manifest, Outcome
from slimwright.measure.proof import card_of, layers_of, measured, memory_of, net_scores, parity, side_of, summed_up
from slimwright.progress import Event, Tell, silent
from slimwright.report import write_report
from slimwright.runner.machine import PACKAGES, loaded_by
from slimwright.runtimes import Workshop
from slimwright.runtimes.known import converter_python, of
from slimwright.runtimes.layers import TRANSFORMED, timed_by
from slimwright.search import MeasuredPlan, Plan, Predictor, factorisable, plan_by_measuring, rank_damages
from slimwright.search.choices import Choices
from slimwright.search.trials import PAYS, Bench, Trial, Trials, pays
from slimwright.targets import Local, Target
from slimwright.targets.layers import layer_table
from slimwright.techniques.prune import removals
from slimwright.techniques.recipe import Factorise, Prune, Recipe, Solve, Tune, apply

VERSIONED = ("slimwright", "torch", "onnx")
CHANNEL_WEIGHT = 10.0  # of a removed channel beside a lost rank; see `plan.problem`
PLAN_IMAGES = 8  # calibration images for an INT8 model that is only timed


@dataclass(frozen=True)
class Settings:
    """How to go about it; the defaults suit most."""

    runtime: str = "onnxruntime"
    target: Target = field(default_factory=Local)  # where candidates run, and are measured
    seed: int = 0
    tune_epochs: int = 3  # fine-tuning with distillation, only if the accuracy budget is missed without
    tune_rate: float = 0.02
    device: str = "cpu"  # of torch, that observes, solves and trains here
    cache: Path | None = None  # for evidence, latency tables and checkpoints; None keeps nothing
    name: str = "model"  # how reports call the model


def shrink(
    model: nn.Module | Net,
    *,
    data: Dataset,
    budget: Budget,
    out: Path | str,
    settings: Settings | None = None,
    tell: Tell = silent,
) -> Bundle:
    """Return a bundle in `out` with the most accurate model found within `budget`, proven on the runtime.

    If no model fits, the bundle holds the nearest one, and its summary says what was missed. `out` appears whole or
    not at all. Raises RequestError for what cannot be done and ProofError where the runtime disagrees with the net.
    """
    settings, out = settings or Settings(), Path(out)
    usable(settings.device)
    converter_python(settings.runtime)
    stands_in = timed_by(settings.runtime)
    if stands_in != loaded_by(settings.runtime) and stands_in not in settings.target.about()["runtimes"]:
        raise RequestError(
            f"{settings.runtime} does not tell what single layers take, so shrink times them in {stands_in}, which is "
            f"not installed on {settings.target.name}: python -m pip install {PACKAGES[stands_in]}"
        )
    net = model if isinstance(model, Net) else capture(model, data.image_shape)
    if net.input.shape[1:] != tuple(data.image_shape):
        raise DataError(
            f"the model takes images of {list(net.input.shape[1:])}, "
            f"data set '{data.name}' has {list(data.image_shape)}"
        )
    if net[net.outputs[0]].shape != (1, len(data.labels)):
        raise DataError(
            f"the model returns {list(net[net.outputs[0]].shape)} for an image, "
            f"data set '{data.name}' has {len(data.labels)} classes"
        )
    with appearing(out, bundles.MANIFEST) as folder, Workshop() as workshop:
        job = _Job(net, data, Bench(settings.runtime, settings.target, workshop), settings, tell)
        result = job.run(budget, folder)
        write_report(folder, result.manifest, result.recipe)
    return replace(result, path=out)


class _Job:
    """One run of `shrink`: what its stages share."""

    def __init__(self, net: Net, data: Dataset, bench: Bench, settings: Settings, tell: Tell) -> None:
        self.net, self.data, self.bench, self.settings, self.tell = net, data, bench, settings, tell
        self.seconds: dict[str, float] = {}
        self.decisions: list[Decision] = []
        self.coupling: Coupling = couple(net)

    def run(self, budget: Budget, folder: Path) -> Bundle:
        """Run all stages; the bundle's files are written into `folder`."""
        with tempfile.TemporaryDirectory() as scratch:
            with self._stage("measure the original"):
                trials = Trials(self.net, self.bench, budget=budget, data=self.data, folder=Path(scratch))
                unpruned = {"fp32": trials.original, **self._int8(trials)}
            with self._stage("observe"):
                evidence = self._observed(trials.calibration)
            with self._stage("plan"):
                choices = self._choices(evidence, timed="latency_ms" in trials.limits)
                plans = [
                    (whole_net, self._planned(trials, whole_net, choices, channel_weight))
                    for whole_net in unpruned.values()
                    for channel_weight in (None, CHANNEL_WEIGHT)
                ]
            with self._stage("solve"):
                for whole_net, found in plans:
                    if found is not None:
                        self._solve(trials, whole_net, choices, found)
            best = self._tuned(trials, trials.best())
            self._judge(trials, best, choices)
            return self._proven(trials, best, folder, choices.predictor.step)

    def _int8(self, trials: Trials) -> dict[str, Trial]:
        """INT8 of the whole original, if it is proven, and faster or (where size counts) as fast."""
        if "int8" not in of(self.bench.runtime).precisions:
            return {}
        self.tell(Event("measure", 1, 2, "INT8"))
        artefact = trials.artefact(self.net, "int8", precision="int8")
        recipe = Recipe.of(self.net, int8_images=len(trials.calibration[1]))
        trial = trials.add("int8", recipe, trials.original.net, artefact)
        share = trials.time_share(trial)
        smaller_will_do = "size_bytes" in trials.limits and pays(trial, trials.original)
        self.tell(Event("measure", 2, 2, f"INT8 takes {share:.2f}x the time"))
        return {"int8": trial} if trial.proven and (share < PAYS or smaller_will_do) else {}

    def _observed(self, calibration: tuple[Tensor, Tensor]) -> Evidence:
        """Evidence from the calibration part; kept under a key of the net's and the images' content."""
        said = [EVIDENCE, self.net.digest, fingerprint(calibration), len(self.data.labels), self.settings.seed]
        path = self._cached("evidence", json.dumps(said))
        if path and path.exists():
            return load_evidence(path)
        evidence = observe(
            self.net,
            self.data.batches("calibration", 64),
            classes=len(self.data.labels),
            seed=self.settings.seed,
            images=len(calibration[1]),
            device=self.settings.device,
            checkpoint=self._cached("observing", json.dumps(said)),
            tell=self.tell,
        )
        if path:
            evidence.save(path)
        return evidence

    def _choices(self, evidence: Evidence, *, timed: bool) -> Choices:
        """Price channels and ranks. The channel step and, if latency has a limit, layers are measured, or cached."""
        runtime, target = timed_by(self.bench.runtime), self.bench.target
        table = layer_table(target, runtime, self.settings.cache)
        self.tell(Event("plan", 0, 2, "find the channel step"))
        step = table.step()
        predictor = Predictor(
            self.net,
            self.coupling,
            table,
            step,
            ranks=factorisable(self.net, evidence, step),
            transformed=TRANSFORMED.get(runtime, 1.0),
        )
        if timed:
            self.tell(Event("plan", 0, 2, "measure layers"))
            predictor.measure()
        table.save()
        self.tell(Event("plan", 1, 2, f"{len(table)} layer shapes known, channels in steps of {step}"))
        orders = removals(self.net, evidence, self.coupling, predictor.ladders)
        damages = rank_damages(predictor, evidence, device=self.settings.device)
        return Choices(self.net, self.coupling, orders, damages, predictor)

    def _planned(
        self, trials: Trials, whole_net: Trial, choices: Choices, channel_weight: float | None
    ) -> MeasuredPlan | None:
        """Plan for one precision, channels alone or, with their weight, ranks too; None where that changes nothing.

        What the precision itself gains scales the predictions for FP32.
        """
        costs = choices.costs(trials.original.cost, whole_net.cost, whole_net.tensor_share, tuple(trials.limits))

        def measure(plan: Plan) -> Mapping[str, float]:
            small = choices.drawn(plan)
            artefact = trials.artefact(small, "plan", precision=whole_net.precision, images=PLAN_IMAGES)
            cost = trials.cost(small, artefact)
            self.tell(Event("plan", 1, 2, f"{whole_net.precision} measured {cost.latency_ms:.3g} ms"))
            return {"latency_ms": cost.latency_ms or 0.0, "size_bytes": float(cost.size_bytes or 0)}

        measurable = trials.limits.keys() & {"latency_ms", "size_bytes"}
        task = choices.problem(costs, channel_weight=channel_weight)
        found = plan_by_measuring(task, trials.limits, measure if measurable else lambda _: {})
        self.tell(Event("plan", 2, 2))
        return found if found is None or channel_weight is None or choices.factorises(found.plan) else None

    def _solve(self, trials: Trials, whole_net: Trial, choices: Choices, found: MeasuredPlan) -> None:
        """Build the candidate of one plan, unless it was measured not to pay."""
        precision, images = whole_net.precision, len(trials.calibration[1])
        name = "pruned and factorised" if choices.factorises(found.plan) else "pruned"
        name = name if precision == "fp32" else f"{name}, {precision}"
        share = found.measured.get("latency_ms", 0.0) / (whole_net.cost.latency_ms or 1.0)
        if share > PAYS and tuple(trials.limits) == ("latency_ms",):
            why = f"the smaller net takes {share:.2f}x the time of the whole one; measured"
            self.decisions.append(Decision(what=f"plan '{name}'", outcome="taken back", why=why))
            return
        steps = choices.steps(found.plan, images)
        recipe = Recipe.of(self.net, *steps, Solve(), int8_images=images if precision == "int8" else 0)
        self._build(trials, name, recipe, found.plan)

    def _build(self, trials: Trials, name: str, recipe: Recipe, plan: Plan | None) -> None:
        checkpoint = self._cached("tune", recipe.model_dump_json())
        net = apply(recipe, self.net, self.data, device=self.settings.device, checkpoint=checkpoint, tell=self.tell)
        artefact = trials.artefact(net, name.replace(", ", "-"), precision=recipe.precision())
        predicted = plan.predicted.get("latency_ms") if plan else None
        trials.add(name, recipe, net, artefact, plan=plan, predicted_ms=predicted)

    def _tuned(self, trials: Trials, best: Trial) -> Trial:
        """Fine-tune the best candidate if it loses too much accuracy, and choose again."""
        if trials.drop(best) <= trials.budget.max_accuracy_drop or not self.settings.tune_epochs:
            return best
        with self._stage("tune"):
            tune = Tune(epochs=self.settings.tune_epochs, rate=self.settings.tune_rate, seed=self.settings.seed)
            slimming = [step for step in best.recipe.steps if isinstance(step, Prune | Factorise | Solve)]
            images = len(trials.calibration[1]) if best.precision == "int8" else 0
            recipe = Recipe.of(self.net, *slimming, tune, int8_images=images)
            self._build(trials, f"{best.name}, tuned", recipe, best.plan)
        chosen = trials.best()
        why = f"{tune.epochs} epochs with the original as teacher: {trials.drop(best):.2f} points lost before, "
        why += f"{trials.drop(trials.made[-1]):.2f} after, on the validation part"
        self.decisions.append(Decision(what="fine-tuning", outcome="taken back" if chosen is best else "kept", why=why))
        return chosen

    def _judge(self, trials: Trials, best: Trial, choices: Choices) -> None:
        """Say of each candidate, channel group and factorised layer what became of it, and why."""
        why = f"{trials.time_share(best):.2f}x the original's time, measured; "
        why += f"{trials.drop(best):.2f} points of accuracy lost on the validation part"
        self.decisions.insert(0, Decision(what=f"candidate '{best.name}'", outcome="kept", why=why))
        for trial in trials.made:
            if trial is not best and trial is not trials.original:
                why = trials.why_not(trial, best)
                good = trial.proven and pays(trial, trials.original)
                outcome: Outcome = "not chosen" if good else "taken back"
                self.decisions.append(Decision(what=f"candidate '{trial.name}'", outcome=outcome, why=why))
        for group in self.coupling.groups:
            label = self.net.paths[group.name.partition("[")[0]]
            left = best.plan.counts[group.name] if best.plan else group.size
            why = "the plan leaves it whole" if best.plan else "the chosen candidate is not pruned"
            if group.name in self.coupling.balanced and len(choices.predictor.sizes[group.name]) == 1:
                why = "grouped layers need equal parts of it and of other channels at once, which planning does not do"
            elif group.name not in choices.orders:
                why = "its reader is too large to observe"
            elif left < group.size:
                why = f"predicted damage {choices.orders[group.name].damage[group.size - left]:.1e} nats"
            what = f"{label}: {group.size} -> {left} channels" if left < group.size else f"{label}: all {left} channels"
            outcome = "kept" if left < group.size else "left whole"
            self.decisions.append(Decision(what=what, outcome=outcome, why=why))
        for name, factors in choices.predictor.factors(best.plan.counts).items() if best.plan else ():
            ranks = " and ".join(map(str, factors.ranks))
            what, why = f"{self.net.paths[name]}: {factors.kind} at {ranks}", "the plan lowers its rank"
            self.decisions.append(Decision(what=what, outcome="kept", why=why))
        for node, reason in self.coupling.frozen.items():
            what = f"{self.net.paths[node]}: all channels"
            self.decisions.append(Decision(what=what, outcome="left whole", why=f"they must stay: {reason}"))

    def _proven(self, trials: Trials, best: Trial, folder: Path, channel_step: int) -> Bundle:
        """Write the bundle's files, and prove them on the test part, which nothing has seen so far."""
        self.tell(Event("prove", 0, 1, "on the test part"))
        sides = {
            "original": trials.original.artefact.copied(folder, bundles.STEMS["original"]),
            "result": best.artefact.copied(folder, bundles.STEMS["result"]),
        }
        save_net(best.net, folder / bundles.NET)
        (folder / bundles.RECIPE).write_text(bundles.as_json(best.recipe))
        images, labels = whole(self.data, "test")
        with self._stage("prove"):
            found = measured(self.bench.target, sides, images, labels)
        proof = parity(found["result"].scores, net_scores(best.net, images), best.precision)
        if not proof.passed:
            raise ProofError(
                f"the result does not compute what its net computes: relative error {proof.max_relative_error:.2g} "
                f"(limit {proof.tolerance:g}), {proof.agreement:.1%} of images named alike "
                f"(at least {proof.least_agreement:.1%})"
            )
        original, result = side_of(trials.original.net, found["original"]), side_of(best.net, found["result"])
        limits, summary = summed_up(trials.budget, original, result)
        about = self.bench.target.about()
        manifest = Manifest(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=self.seconds,
            model=self.settings.name,
            runtime=self.settings.runtime,
            seed=self.settings.seed,
            versions={name: version(name) for name in VERSIONED} | {"python": platform.python_version()},
            target=self.bench.target.name,
            machine=dict(about),
            budget={
                name: str(getattr(trials.budget, name)) for name in (*trials.budget.limited(), "max_accuracy_drop")
            },
            limits=limits,
            max_accuracy_drop=trials.budget.max_accuracy_drop,
            channel_step=channel_step,
            empty_runtime_rss_bytes=found["result"].alone.empty_rss_bytes,
            data=card_of(self.data),
            summary=summary,
            original=original,
            result=result,
            proof=proof,
            candidates=[trial.record(chosen=trial is best) for trial in trials.made],
            decisions=self.decisions,
            layers=layers_of(trials.original.net, best.net),
            memory={"original": memory_of(trials.original.net), "result": memory_of(best.net)},
            sha256={
                name: bundles.sha256_of(folder / name) for name in (*bundles.HASHED, *original.files, *result.files)
            },
        )
        (folder / bundles.MANIFEST).write_text(bundles.as_json(manifest))
        self.tell(Event("prove", 1, 1))
        return Bundle(folder, manifest, best.recipe)

    def _cached(self, kind: str, said: str) -> Path | None:
        if self.settings.cache is None:
            return None
        self.settings.cache.mkdir(parents=True, exist_ok=True)
        return kept_at(self.settings.cache, kind, said)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - began, 2)
