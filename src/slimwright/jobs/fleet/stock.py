"""What a worker takes a deployment from: a ground, with the whole networks that it may ship as they are.

A stock is made once for all deployments of a ground and sent to the workers. Each of them lays the files down on its
own disk, and remembers the models that it made.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from slimwright.atomic import removed
from slimwright.cost import Budget
from slimwright.jobs.fleet.base import Base
from slimwright.jobs.fleet.ground import Ground, ground_of
from slimwright.jobs.fleet.making import Boxed, Maker
from slimwright.jobs.fleet.plan_file import Deployment
from slimwright.jobs.proposed import kind_of
from slimwright.runtimes import Workshop
from slimwright.search import Whole, quantized_wholes

MOST_GROUNDS = 4  # that a process remembers


@dataclass(frozen=True)
class Stock:
    """A ground, its whole networks, and their files by key."""

    ground: Ground
    wholes: tuple[Whole, ...]
    boxes: Mapping[str, Boxed]


@dataclass(frozen=True)
class Site:
    """Where a process works: its converters, its disk, and a maker for each of the grounds that it met last."""

    workshop: Workshop
    folder: Path
    makers: dict[str, Maker] = field(default_factory=dict)

    def maker(self, stock: Stock) -> Maker:
        """Return what builds for a ground; the files of its stock are laid down where it is met first."""
        key = stock.ground.key
        if key not in self.makers:
            maker = self.empty_maker(stock.ground)
            for name, box in stock.boxes.items():
                maker.made[name] = box.laid_down(maker.folder / name)
                maker.lasting.add(name)
            for first in [*self.makers][: 1 - MOST_GROUNDS]:
                removed(self.makers.pop(first).folder)
            self.makers[key] = maker
        return self.makers[key]

    def empty_maker(self, ground: Ground) -> Maker:
        """Return what builds for a ground and has built nothing."""
        folder = self.folder / ground.key
        folder.mkdir(exist_ok=True)
        return Maker(ground, self.workshop, folder)


@contextmanager
def working(workshop: Workshop | None = None) -> Iterator[Site]:
    """Give a site that is removed at the end of the block."""
    with TemporaryDirectory(prefix="slimwright-") as folder, Workshop() as own:
        yield Site(workshop or own, Path(folder))


def planning_ground(base: Base, deployments: Sequence[Deployment]) -> Ground:
    """Return the ground of deployments that share one: enough to plan on."""
    classes, runtime = deployments[0].ground
    return ground_of(base, classes, runtime, [kind_of(one.budget) for one in deployments])


def stock_of(site: Site, base: Base, deployments: Sequence[Deployment]) -> Stock:
    """Return the stock of deployments that share a ground: the original, and what else pays as a whole."""
    ground = planning_ground(base, deployments)
    maker = site.empty_maker(ground)
    original = maker.original().evaluation
    asked = Budget(size_bytes="1x", max_drop=min(one.asked.max_drop for one in deployments))
    space = replace(ground.space(asked, original), menu=lambda: next(iter(ground.menus.values())))
    wholes = [Whole("fp32", original), *quantized_wholes(space, maker.evaluate)]
    boxes = {one.seen.key: Boxed.of(maker.made[one.seen.key]) for one in wholes}
    return Stock(ground, tuple(wholes), {key: box for key, box in boxes.items() if box is not None})
