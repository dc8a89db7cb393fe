"""Who does the work of a fleet: this process, or workers of Ray, here or on a cluster. Both give the same results.

Work is a function of a site (the process's own converters and disk), of something that all work of a kind shares, and
of what is its own. Shared things are computed once. Work that fails is an outcome like any other; work whose process
dies is begun again by Ray.
"""

import functools
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import torch

from slimwright.atomic import stamped, swept
from slimwright.errors import RequestError, SlimwrightError, check_extra
from slimwright.jobs.fleet.stock import Site, working
from slimwright.runtimes import Workshop

RETRIES = 3  # of work whose worker died
AHEAD = 1  # works that wait at the workers beside those under way
QUIET = {  # of Ray and its workers: nothing is reported to its makers
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
LOOPBACK = "127.0.0.1"
SHORT = Path("/tmp")  # the names of Ray's sockets may have 107 letters, of which it needs 70  # noqa: S108
STORE_BYTES = 1_000_000_000  # of shared things, on this machine

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


@dataclass(frozen=True)
class OnRay:
    """Workers of Ray."""

    count: int

    @property
    def most(self) -> int:
        """Work for every worker, and a little more, so that none waits."""
        return self.count + AHEAD

    def share(self, work: Work, given: Any, *own: Any) -> "_Shared":
        """Begin to make something shared; where the node that holds it is lost, Ray makes it again."""
        import ray

        known = given if isinstance(given, _Shared) else _Shared(True, ray.put(Outcome(given)))
        options = {"max_retries": RETRIES, "num_cpus": 1, "num_returns": 2}
        return _Shared(*ray.remote(**options)(_shared_by).remote(work, known.there, [known.reference], own))

    def begin(self, work: Work, shared: "_Shared", *own: Any) -> Any:
        """Begin some work once what it shares is there; where its worker dies, it is begun again."""
        import ray

        options = {"max_retries": RETRIES, "num_cpus": 1, "scheduling_strategy": "SPREAD"}
        return ray.remote(**options)(_on_worker).remote(work, shared.there, [shared.reference], own)

    def ended(self, tickets: Sequence[Any]) -> tuple[Any, Outcome]:
        """Wait for the first of some work."""
        import ray

        (first, *_), _ = ray.wait([*tickets], num_returns=1)
        try:
            outcome: Outcome = ray.get(first)
        except ray.exceptions.RayError as error:
            outcome = Outcome(why=f"its worker died {RETRIES + 1} times: {str(error).splitlines()[0]}")
        return first, outcome


@contextmanager
def workers(count: int, address: str | None, workshop: Workshop | None = None) -> Iterator[Workers]:
    """Give so many workers: none is this process itself. `address` is that of a cluster of Ray; None starts one here.

    Raises RequestError where there is no such cluster, and MissingExtra where Ray is not installed.
    """
    if count < 0:
        raise RequestError(f"a fleet has 0 workers (this process) or more, not {count}")
    if count == 0:
        with working(workshop) as site:
            yield Here(site)
        return
    check_extra("fleet", "workers need", "ray")
    with ExitStack() as stack:
        _started(stack, count, address)
        yield OnRay(count)


def _started(stack: ExitStack, count: int, address: str | None) -> None:
    """Start Ray, or go to a cluster that runs; at the end of the stack all of it is gone."""
    import ray

    own = not ray.is_initialized()
    if not own:  # whoever started it goes on with it
        return
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
    if address is None:
        root = SHORT if SHORT.is_dir() else Path(tempfile.gettempdir())
        swept(root, "ray")
        folder = stamped(root, "ray")
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.enter_context(_environment({**QUIET, "TMPDIR": str(folder)}))
        stack.callback(ray.shutdown)
        ray.init(
            "local",
            num_cpus=count,
            object_store_memory=STORE_BYTES,
            _node_ip_address=LOOPBACK,
            _temp_dir=str(folder),
            **quiet,
        )
        return
    stack.enter_context(_environment(QUIET))
    stack.callback(ray.shutdown)
    try:
        ray.init(address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise RequestError(f"there is no cluster of Ray at {address}: {str(error).splitlines()[0]}") from error


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables that Ray and its workers read while they start; nothing else of slimwright reads any."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@dataclass(frozen=True)
class _Shared:
    """Something shared: work waits until it is `there`, and fetches it itself."""

    there: Any
    reference: Any


def _on_worker(work: Work, there: bool, shared: Sequence[Any], own: Sequence[Any]) -> Outcome:
    """Do some work in a process of Ray; what it shares with other work is fetched once for a process."""
    return done(work, _site(), _fetched(shared[0]), own)


def _shared_by(work: Work, there: bool, shared: Sequence[Any], own: Sequence[Any]) -> tuple[bool, Outcome]:
    """Make something shared in a process of Ray: that it is there, and what it is."""
    return True, _on_worker(work, there, shared, own)


@functools.lru_cache(maxsize=4)
def _fetched(reference: Any) -> Outcome:
    import ray

    found: Outcome = ray.get(reference)
    return found


@functools.cache
def _site() -> Site:
    """The site of a worker's process; its files lie in a folder that goes with Ray's."""
    torch.set_num_threads(1)
    return Site(Workshop(), Path(tempfile.mkdtemp(prefix="slimwright-")))
