"""`slimwright search`: the main job, by a policy that tries candidates."""

from pathlib import Path
from typing import Annotated

import typer

from slimwright.cli.arguments import (
    DEFAULT_CACHE,
    ActivationsOption,
    CacheOption,
    ChoicesSeedOption,
    ClassesOption,
    ComputeOption,
    DataOption,
    DropOption,
    EmbedOption,
    EnergyOption,
    EpochsOption,
    ExpectOption,
    ForceOption,
    FreshOption,
    JsonOption,
    LatencyOption,
    LicenceOption,
    MacsOption,
    MemoryOption,
    MinutesOption,
    ModelArgument,
    OnlyOption,
    OutOption,
    PreprocessingOption,
    QuietOption,
    RuntimeOption,
    SizeOption,
    TargetOption,
    TaskOption,
    WeightsOption,
)
from slimwright.cli.shrinking import Named, shrunk
from slimwright.errors import RequestError

SEARCH = (
    "Examples:\n\n"
    "  slimwright search resnet8-wide --data digits --latency 0.5x --policy nsga2 --evaluations 100 --out bundle/\n\n"
    "  slimwright search model.onnx --data images.safetensors --macs 0.4x --policy reinforce --out b/ "
    "--save-policy learned.safetensors\n\n"
    "  slimwright search model.onnx --data mydata:animals --classes names.txt --macs 0.4x --policy reinforce "
    "--policy-weights learned.safetensors --evaluations 20 --out animals/"
)
PLAN = "plan"


def search(
    model: ModelArgument,
    data: DataOption,
    out: OutOption,
    policy: Annotated[
        str,
        typer.Option(
            help="reinforce (layers, then channels), ddpg (channels), nsga2 or tpe (channels and ranks; need Optuna), "
            "netadapt (one knob a round), random, or plan (what shrink does)"
        ),
    ],
    evaluations: Annotated[int, typer.Option(min=1, help="most candidates that are tried")] = 200,
    policy_weights: Annotated[
        Path | None, typer.Option(help="start from what a policy has learned: a file of --save-policy")
    ] = None,
    save_policy: Annotated[Path | None, typer.Option(help="write what reinforce or ddpg has learned here")] = None,
    latency: LatencyOption = None,
    size: SizeOption = None,
    memory: ActivationsOption = None,
    macs: MacsOption = None,
    energy: EnergyOption = None,
    max_drop: DropOption = 1.0,
    preprocessing: PreprocessingOption = None,
    task: TaskOption = None,
    classes: ClassesOption = None,
    only: OnlyOption = None,
    embed: EmbedOption = False,
    expect: ExpectOption = None,
    runtime: RuntimeOption = "onnxruntime",
    target: TargetOption = "local",
    weights: WeightsOption = None,
    licence: LicenceOption = "",
    tune_epochs: EpochsOption = 3,
    minutes: MinutesOption = None,
    compute: ComputeOption = "cpu",
    seed: ChoicesSeedOption = 0,
    memory_limit: MemoryOption = None,
    cache: CacheOption = DEFAULT_CACHE,
    fresh: FreshOption = False,
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Try candidates by a policy that learns, evolves or descends, and prove the best within the budget."""
    from slimwright import jobs
    from slimwright.cost import Budget
    from slimwright.search import LEARNING, Search, load_parameters, measured_plan
    from slimwright.targets import target as named

    for option, path in (("--policy-weights", policy_weights), ("--save-policy", save_policy)):
        if path is not None and policy not in LEARNING:
            raise RequestError(f"{option} is for policies that learn: {' and '.join(LEARNING)}, not {policy!r}")
    start = load_parameters(policy_weights, policy) if policy_weights is not None else None
    budget = Budget(
        latency_ms=latency,
        size_bytes=size,
        peak_activation_bytes=memory,
        macs=macs,
        energy_mj=energy,
        max_drop=max_drop,
    )
    settings = jobs.Settings(
        runtime=runtime,
        target=named(target, memory_bytes=memory_limit),
        seed=seed,
        tune_epochs=tune_epochs,
        tune_minutes=minutes,
        device=compute,
        cache=cache,
        name=model,
        licence=licence,
        policy=measured_plan if policy == PLAN else Search(policy, evaluations, seed, start),
        save_policy=save_policy,
        expect=expect,
        embed=embed,
        fresh=fresh,
        force=force,
        memory_bytes=memory_limit,
    )
    subject = Named(model, data, preprocessing, task, classes, only, weights)
    shrunk(subject, budget, settings, out, quiet=quiet, as_json=as_json)
