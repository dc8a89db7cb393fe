"""Workers of Ray: on this machine, or on a cluster that runs. Work whose process dies is begun again.

A Ray that is started here listens on this machine alone, reports nothing to its makers, and leaves no file behind.
"""

import functools
import logging
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from slimwright.atomic import stamped, swept
from slimwright.errors import RequestError, check_extra
from slimwright.jobs.fleet.stock import MOST_GROUNDS, Site
from slimwright.jobs.fleet.workers import Crew, Outcome, Work, done
from slimwright.runtimes import Workshop

RETRIES = 3  # of work whose worker died
AHEAD = 1  # works that wait at the workers beside those under way
QUIET = {  # of Ray and its workers: nothing is reported to its makers, and each computes with one thread
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "ORT_DISABLE_TELEMETRY": "1",
}
ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # only then Ray listens on the loopback address
LOOPBACK = "127.0.0.1"
SHORT = Path("/tmp")  # noqa: S108 - the names of Ray's sockets may have 107 letters, of which it needs 70
STORE_BYTES = 1_000_000_000  # of shared things, on this machine


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

        known = given if isinstance(given, _Shared) else _Shared(_name(), ray.put(_packed(Outcome(given))))
        remote: Any = ray.remote(_shared_by)
        one = remote.options(max_retries=RETRIES, num_cpus=1)
        return _Shared(_name(), one.remote(work, known.name, known.packed, own))

    def begin(self, work: Work, shared: "_Shared", *own: Any) -> Any:
        """Begin some work once what it shares is there; where its worker dies, it is begun again."""
        import ray

        remote: Any = ray.remote(_on_worker)
        one = remote.options(max_retries=RETRIES, num_cpus=1, scheduling_strategy="SPREAD")
        return one.remote(work, shared.name, shared.packed, own)

    def ended(self, tickets: Sequence[Any]) -> tuple[Any, Outcome]:
        """Wait for the first of some work."""
        import ray

        (first, *_), _ = ray.wait([*tickets], num_returns=1)
        try:
            outcome: Outcome = ray.get(first)
        except ray.exceptions.RayTaskError as error:  # before the work itself began: something cannot be fetched
            outcome = Outcome(why=f"{type(error.cause).__name__}: {error.cause}")
        except ray.exceptions.RayError as error:
            outcome = Outcome(why=f"its worker died {RETRIES + 1} times: {str(error).strip().splitlines()[0]}")
        return first, outcome


@contextmanager
def on_ray(crew: Crew) -> Iterator[OnRay]:
    """Give workers of the cluster that a crew names, or of one that is started here and ends with the block.

    Raises RequestError where there is no such cluster, and MissingExtra where Ray is not installed.
    """
    check_extra("fleet", "workers need", "ray")
    with ExitStack() as stack:
        _started(stack, crew)
        yield OnRay(crew.count)


def _started(stack: ExitStack, crew: Crew) -> None:
    """Start Ray, or go to a cluster that runs; at the end of the stack all of it is gone."""
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():  # whoever started it goes on with it
        return
    if crew.address is None:
        root = SHORT if SHORT.is_dir() else Path(tempfile.gettempdir())
        swept(root, "ray")
        folder = stamped(root, "ray")
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # or anybody here could run code
        paths = {"TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        stack.enter_context(_environment({**QUIET, **ALONE, **secret, **paths}))
        import ray

        stack.callback(ray.shutdown)
        ray.init(
            "local",
            num_cpus=crew.count,
            object_store_memory=STORE_BYTES,
            _node_ip_address=LOOPBACK,
            _temp_dir=str(folder),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        return
    stack.enter_context(_environment(QUIET))
    import ray

    stack.callback(ray.shutdown)
    try:
        ray.init(crew.address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise RequestError(f"there is no cluster of Ray at {crew.address}: {str(error).splitlines()[0]}") from error


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables that Ray and its workers read while they start; nothing else of slimwright reads any."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    _read_anew()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _read_anew()


def _read_anew() -> None:
    """Have Ray read its variables, as it does at its import alone: a second would come with the secret of the first."""
    import ray

    python: Any = ray._private.ray_constants
    native: Any = ray._raylet
    python.ENABLE_RAY_CLUSTER = python.env_bool(python.ENABLE_RAY_CLUSTERS_ENV_VAR, not python.IS_WINDOWS_OR_OSX)
    native.Config.initialize("")  # before the secret is forgotten: a thread that still ends would ask for it
    native.AuthenticationTokenLoader.instance().reset_cache()


@dataclass(frozen=True)
class _Shared:
    """Something shared, and the reference of its bytes.

    Ray brings bytes to a node before work begins there, without a copy. Work that fetched what is shared itself would
    hold a processor while it waits, and where a node is lost none might be left to make it again.
    """

    name: str
    packed: Any


def _on_worker(work: Work, name: str, packed: NDArray[np.uint8], own: Sequence[Any]) -> Outcome:
    """Do some work in a process of Ray; what it shares with other work is unpacked once for a process."""
    from ray import cloudpickle

    known = _unpacked()
    if name not in known:
        for first in [*known][: 1 - MOST_GROUNDS]:
            del known[first]
        known[name] = cloudpickle.loads(packed.data)
    return done(work, _site(), known[name], own)


def _shared_by(work: Work, name: str, packed: NDArray[np.uint8], own: Sequence[Any]) -> NDArray[np.uint8]:
    """Make something shared in a process of Ray."""
    return _packed(_on_worker(work, name, packed, own))


def _packed(outcome: Outcome) -> NDArray[np.uint8]:
    from ray import cloudpickle

    dumps: Any = cloudpickle.dumps
    return np.frombuffer(dumps(outcome), np.uint8)


def _name() -> str:
    return secrets.token_hex(8)


@functools.cache
def _unpacked() -> dict[str, Outcome]:
    """What is shared, by name, as a process met it last."""
    return {}


@functools.cache
def _site() -> Site:
    """The site of a worker's process; a worker that begins removes what those that are gone left on its disk."""
    torch.set_num_threads(1)
    parent = Path(tempfile.gettempdir())
    swept(parent, "slimwright")
    return Site(Workshop(), stamped(parent, "slimwright"))
