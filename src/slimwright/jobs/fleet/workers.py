"""Who does the work of a fleet: this process, or workers of Ray (`on_ray.py`). Both give the same results.

Work is a function of a site (the process's own converters and disk), of something that all work of a kind shares, and
of what is its own. Shared things are computed once. Work that fails is an outcome like any other.
"""

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from slimwright.errors import RequestError, SlimwrightError
from slimwright.jobs.fleet.stock import Site, working
from slimwright.runtimes import Workshop

Work: TypeAlias = Callable[..., Any]


@dataclass(frozen=True)
class Crew:
    """How many workers, and where: 0 is this process; an `address` is that of a cluster of Ray."""

    count: int = 0
    address: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of some work: a value, or why there is none."""

    value: Any = None
    why: str = ""


class Workers(Protocol):
    """Does work, some of it at a time."""

    @property
    def most(self) -> int:
        """How much work to have begun at a time."""

    def share(self, work: Work, given: Any, *own: Any) -> Any:
        """Return something shared that `work` makes of another shared thing, or of a value, once it is needed."""

    def begin(self, work: Work, shared: Any, *own: Any) -> Any:
        """Begin some work; return its ticket."""

    def ended(self, tickets: Sequence[Any]) -> tuple[Any, Outcome]:
        """Wait for the first of some work to end; return its ticket and what came of it."""


def done(work: Work, site: Site, shared: Outcome, own: Sequence[Any]) -> Outcome:
    """Do some work, and return what came of it."""
    if shared.why:
        return shared
    try:
        return Outcome(work(site, shared.value, *own))
    except SlimwrightError as error:
        return Outcome(why=str(error))
    except Exception as error:  # a fault in one deployment stops no other; the record says where it was
        where = traceback.extract_tb(error.__traceback__)[-1]
        return Outcome(why=f"{type(error).__name__}: {error} (in {Path(where.filename).name}, line {where.lineno})")


@dataclass(frozen=True, eq=False)
class _Later:
    """Work that is done when it is asked for, once."""

    work: Work
    given: "_Later | Outcome"
    own: tuple[Any, ...]
    came: list[Outcome] = field(default_factory=list)

    def outcome(self, site: Site) -> Outcome:
        if not self.came:
            shared = self.given.outcome(site) if isinstance(self.given, _Later) else self.given
            self.came.append(done(self.work, site, shared, self.own))
        return self.came[0]


@dataclass(frozen=True)
class Here:
    """This process, one work after the other."""

    site: Site
    most: int = 1

    def share(self, work: Work, given: Any, *own: Any) -> _Later:
        """Return something shared."""
        return _Later(work, given if isinstance(given, _Later) else Outcome(given), own)

    def begin(self, work: Work, shared: _Later, *own: Any) -> _Later:
        """Note some work; it is done when its end is waited for."""
        return _Later(work, shared, own)

    def ended(self, tickets: Sequence[_Later]) -> tuple[_Later, Outcome]:
        """Do the first of some work."""
        return tickets[0], tickets[0].outcome(self.site)


@contextmanager
def workers(crew: Crew, workshop: Workshop | None = None) -> Iterator[Workers]:
    """Give the workers of a crew. Raises RequestError where there are none such."""
    if crew.count < 0:
        raise RequestError(f"a fleet has 0 workers (this process) or more, not {crew.count}")
    if crew.count == 0:
        with working(workshop) as site:
            yield Here(site)
        return
    from slimwright.jobs.fleet.on_ray import on_ray

    with on_ray(crew) as hands:
        yield hands
