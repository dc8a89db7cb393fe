"""`slimwright fleet`: many budgets and subsets of classes of one model, on several workers."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slimwright.cli.arguments import (
    DEFAULT_CACHE,
    CacheOption,
    ComputeOption,
    ForceOption,
    FreshOption,
    JsonOption,
    MemoryOption,
    QuietOption,
)
from slimwright.cli.consoles import out_console, progress
from slimwright.errors import RequestError

if TYPE_CHECKING:
    from slimwright.jobs import Settings
    from slimwright.jobs.fleet import FleetPlan

FLEET = (
    "Examples:\n\n"
    "  slimwright fleet plan.yaml --out fleet/\n\n"
    "  slimwright fleet plan.yaml --out fleet/ --workers 8\n\n"
    "  slimwright fleet plan.yaml --out s3://bucket/fleet --address ray-head:6379 --workers 64\n\n"
    "  slimwright fleet plan.yaml --dry-run --json\n\n"
    "A plan, plan.yaml:\n\n"
    "  model: model.onnx\n\n"
    "  data: images.safetensors\n\n"
    "  budgets: {phone: {latency: 0.5x}, board: {latency: 0.3x, size: 200kB, max_drop: 2}}\n\n"
    "  subsets: {every: all, pets: [cat, dog]}"
)


def fleet(
    plan: Annotated[Path, typer.Argument(help="a YAML file: model, data, budgets and subsets of classes by name")],
    out: Annotated[
        str | None,
        typer.Option(help="folder for the fleet, or an address that fsspec knows, such as s3://bucket/fleet"),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="processes that work at a time, by Ray; 0: this one alone; by default one a core"),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="a cluster of Ray that runs, such as host:6379; by default one is started here")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="only plan: what is predicted of every deployment; nothing is built")
    ] = False,
    compute: ComputeOption = "cpu",
    memory_limit: MemoryOption = None,
    cache: CacheOption = DEFAULT_CACHE,
    fresh: FreshOption = False,
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Deploy one model for many budgets and subsets of its classes: observed once, each planned, solved and proven."""
    from slimwright import jobs
    from slimwright.cli import fleet_tables
    from slimwright.cli.sources import load_data, load_original, load_task
    from slimwright.cli.trained import Training
    from slimwright.jobs.fleet import Crew, fleet_plans, load_plan
    from slimwright.jobs.fleet import fleet as deployed
    from slimwright.measure import as_json as record_text

    if out is None and not dry_run:
        raise RequestError("a fleet is written to a folder or an address: name it with --out, or plan with --dry-run")
    asked = load_plan(plan)
    settings = _settings(asked, jobs.Settings(device=compute, cache=cache, fresh=fresh, force=force), memory_limit)
    crew = Crew((os.cpu_count() or 1) if workers is None else workers, address)
    with progress(quiet) as tell:
        data = load_data(asked.data, asked.seed, asked.preprocessing, tell=tell)
        training = Training(cache=cache, device=compute, memory_bytes=memory_limit)
        model = str(Path(asked.model).absolute()) if Path(asked.model).exists() else asked.model  # workers read it, too
        original = load_original(model, data, weights=asked.weights, training=training, tell=tell)
        task = load_task(asked.task) if asked.task and ":" in asked.task else asked.task
        if out is None or dry_run:
            plans = fleet_plans(original, asked, data=data, task=task, settings=settings, crew=crew, tell=tell)
            if as_json:
                print(json.dumps({name: one.model_dump(mode="json") for name, one in plans.items()}, indent=1))
            else:
                out_console.print(fleet_tables.plans(plans), soft_wrap=True)
            raise typer.Exit(0 if all(one.feasible for one in plans.values()) else 1)
        found = deployed(original, asked, data=data, out=out, task=task, settings=settings, crew=crew, tell=tell)
    if as_json:
        print(record_text(found))
    else:
        out_console.print(fleet_tables.fleet(found, out), soft_wrap=True)
    raise typer.Exit(0 if found.within_budget else 1)


def _settings(plan: "FleetPlan", base: "Settings", memory_limit: int | None) -> "Settings":
    from dataclasses import replace

    from slimwright.targets import Local

    return replace(
        base,
        runtime=plan.runtime,
        target=Local(memory_limit),
        seed=plan.seed,
        name=plan.model,
        licence=plan.license,
        expect=plan.expect,
        memory_bytes=memory_limit,
    )
