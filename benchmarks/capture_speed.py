"""Seconds from an `nn.Module` to a net with its channel groups and counts, stage by stage, for networks of the zoo.

`export` is torch.export's own time, `build` what it takes to make a net of its program, `couple` the channel analysis,
`count` all counts and the memory plan. CPU seconds of one thread, the median of three rounds over all networks; the
first round also warms torch.export up and is shown as it is.
"""

import statistics
import time

import torch

from lib.results import Column, Row, environment, options, publish, show
from slimwright.cost import count
from slimwright.coupling import couple
from slimwright.importers.build import net_of_program
from slimwright.importers.capture import exported_model, program_of_export
from slimwright.zoo import build, network

NETWORKS = ("mobilenet-v2", "resnet50", "shufflenet-g3", "googlenet", "densenet121")
QUICK = ("mobilenet-v2",)
ROUNDS = 3
STAGES = ("export", "build", "couple", "count")
COLUMNS = (
    Column("network", "network"),
    *(Column(stage, stage, "{:.2f} s") for stage in STAGES),
    Column("all", "all", "{:.2f} s"),
    Column("all_but_export", "all but export", "{:.2f} s"),
    Column("first", "first round", "{:.2f} s"),
)


def main() -> None:
    asked = options(__doc__ or "")
    torch.set_num_threads(1)
    names = QUICK if asked.quick else NETWORKS
    rounds = [{name: seconds(name) for name in names} for _ in range(ROUNDS)]
    rows: list[Row] = []
    for name in names:
        medians = {stage: statistics.median(r[name][stage] for r in rounds) for stage in STAGES}
        rows.append(
            {
                "network": name,
                **medians,
                "all": sum(medians.values()),
                "all_but_export": sum(medians.values()) - medians["export"],
                "first": sum(rounds[0][name].values()),
            }
        )
    show("From a module to a net that is counted and coupled, CPU seconds", COLUMNS, rows)
    headline = {f"mobilenet_v2_{key}_s": float(rows[0][key]) for key in ("all", "all_but_export", "first")}
    publish(asked, headline=headline, rows=rows, environment=environment(seed=0))


def seconds(name: str) -> dict[str, float]:
    """CPU seconds of each stage for one network."""
    model = build(name).eval()
    times = [time.process_time()]

    def lap() -> None:
        times.append(time.process_time())

    exported = exported_model(model, (torch.zeros(2, *network(name).image_shape),))
    lap()
    net = net_of_program(program_of_export(exported))
    lap()
    couple(net)
    lap()
    count(net)
    lap()
    return {stage: after - before for stage, before, after in zip(STAGES, times[:-1], times[1:], strict=True)}


if __name__ == "__main__":
    main()
