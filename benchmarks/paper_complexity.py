"""The papers' tables of parameters, multiply-accumulates and sizes beside what slimwright counts for the same networks.

Most figures are printed in their source; the others were counted by hand from the architecture it describes. Each
network is built by name, captured as any model would be, and counted; nothing is trained, and weights are random. A row
matches where ours is as near to the figure as that one's digits allow. Mismatches are listed with what we think is the
reason.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

from rich.console import Console

from lib.alexnet_ranks import FACTORISED, alexnet_factors
from lib.paper_figures import FIGURES, FILTERS, KB, MACS, MB, MIB, NUMBERS, PARAMS, PARAMS_0, PARAMS_3, PARAMS_M, Figure
from lib.results import Column, Row, environment, options, publish, show
from lib.untrained import SEED, captured
from slimwright.cost import Cost, count
from slimwright.graph import Net
from slimwright.techniques.low_rank import outline

QUICK_NETWORKS = 2  # of each source
COUNTED: Mapping[str, Callable[[Net, Cost], float]] = {
    MACS: lambda net, cost: cost.macs / 1e6,
    PARAMS: lambda net, cost: cost.params,
    PARAMS_M: lambda net, cost: cost.params / 1e6,
    PARAMS_0: lambda net, cost: (cost.params - statistics(cost)) / 1e6,  # two weights in each channel, two statistics
    PARAMS_3: lambda net, cost: (cost.params + statistics(cost) / 2) / 1e6,
    NUMBERS: lambda net, cost: cost.params + statistics(cost),
    FILTERS: lambda net, cost: sum(node.shape[1] for node in net.nodes if node.op == "conv2d"),
    KB: lambda net, cost: cost.weight_bytes / 1e3,
    MB: lambda net, cost: cost.weight_bytes / 1e6,
    MIB: lambda net, cost: cost.weight_bytes / 2**20,
}
TITLE = "What papers say of the size of their networks, and what slimwright counts"
COLUMNS = (
    Column("source", "source"),
    Column("network", "network"),
    Column("quantity", "quantity"),
    Column("origin", "figure"),
    Column("figure", "", "{:,}"),
    Column("within", "±", "{:g}"),
    Column("ours", "ours", "{:,}"),
    Column("match", "match"),
)


def main() -> None:
    chosen = options(__doc__ or "")
    figures = first_networks(FIGURES, QUICK_NETWORKS) if chosen.quick else FIGURES
    rows = rows_of(figures)
    show(TITLE, COLUMNS, rows, sections=("source",))
    say = Console().print
    for row in rows:
        if row["match"] == "no":
            say(
                f"{row['source']}, {row['network']}, {row['quantity']}: {row['note'] or 'we do not know why'}",
                soft_wrap=True,
            )
    publish(chosen, headline=headline(rows), rows=rows, environment=environment(seed=SEED))


def rows_of(figures: Sequence[Figure]) -> list[Row]:
    """Capture each network once for all its figures; the rows come in the figures' order."""
    found: dict[Figure, Row] = {}
    for key, group in groupby(sorted(figures, key=variant), variant):
        net = built(*key)
        cost = count(net)
        for figure in group:
            found[figure] = row(figure, COUNTED[figure.quantity](net, cost))
        Console(stderr=True).print(f"{key[0]}: counted")
    return [found[figure] for figure in figures]


def variant(figure: Figure) -> tuple[str, int, int]:
    """What tells two nets apart: the network, its classes and its pixels, 0 for its own."""
    return figure.network, figure.classes or 0, figure.size or 0


def built(name: str, classes: int, size: int) -> Net:
    """The network of a figure, factorised where its name says so."""
    original, kind = FACTORISED.get(name, (name, None))
    net = captured(original, classes=classes, size=size)
    return net if kind is None else outline(net, alexnet_factors(net, kind))


def row(figure: Figure, ours: float) -> Row:
    rounding = 1e-9 * figure.value  # of binary fractions
    return {
        "source": figure.source,
        "network": figure.network + (f", {figure.classes} classes" if figure.classes else ""),
        "quantity": figure.quantity,
        "origin": figure.origin,
        "figure": figure.value,
        "within": figure.within,
        "ours": round(ours, 3),
        "match": "yes" if abs(ours - figure.value) <= figure.within + rounding else "no",
        "note": figure.note,
    }


def statistics(cost: Cost) -> int:
    """Numbers of batch norm that are not trained: float32 weights that are no parameters."""
    return cost.weight_bytes // 4 - cost.params


def first_networks(figures: Sequence[Figure], networks: int) -> list[Figure]:
    """The figures of the first `networks` networks of each source."""
    of: dict[str, list[str]] = {}
    for figure in figures:
        names = of.setdefault(figure.source, [])
        if figure.network not in names and len(names) < networks:
            names.append(figure.network)
    return [figure for figure in figures if figure.network in of[figure.source]]


def headline(rows: Sequence[Row]) -> Mapping[str, float]:
    """Rows and mismatches: in all, among printed figures, and among those that are exact to the last digit."""
    kinds = {
        "": list(rows),
        "printed_": [row for row in rows if row["origin"] == "printed"],
        "exact_": [row for row in rows if row["within"] == 0],
    }
    return {f"{kind}rows": len(found) for kind, found in kinds.items()} | {
        f"{kind}mismatches": sum(row["match"] == "no" for row in found) for kind, found in kinds.items()
    }


if __name__ == "__main__":
    main()
