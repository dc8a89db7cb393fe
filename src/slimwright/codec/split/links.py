"""Links from a phone to a server: what they carry upwards and how long a round trip takes, each with its source.

Named links are averages of surveys, and no promise for any place: give numbers that were measured there instead. What
comes back is a few numbers in most tasks, and is taken to be within the round trip.
"""

import math
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from slimwright.cost.device import Fact
from slimwright.errors import ProfileError, RequestError
from slimwright.reading import reading, text_of

FILE = Path(__file__).with_name("links.toml")
RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMG])(?:bps|bit/s)", re.ASCII)
DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s)", re.ASCII)
MBPS = {"k": 1e-3, "M": 1.0, "G": 1e3}


class _Profile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    uplink_mbps: Fact
    rtt_ms: Fact


@dataclass(frozen=True)
class Link:
    """A link by name; `source` says where its numbers are from."""

    name: str
    uplink_mbps: float
    rtt_ms: float
    source: str = "given"

    def transfer_ms(self, size_bytes: float) -> float:
        """Return the milliseconds of a round trip that sends so many bytes."""
        return self.rtt_ms + 8e-3 * size_bytes / self.uplink_mbps


def links() -> dict[str, Link]:
    """Return the links that come with slimwright, by name."""
    with reading(FILE, "a file of links", ProfileError):
        found = tomllib.loads(text_of(FILE, "a file of links", ProfileError))
        profiles = {name: _Profile.model_validate(said) for name, said in found.items()}
    return {
        name: Link(name, one.uplink_mbps.value, one.rtt_ms.value, f"{one.uplink_mbps.source}; {one.rtt_ms.source}")
        for name, one in profiles.items()
    }


def link_of(name: str | None, uplink: str | None, rtt: str | None) -> Link:
    """Return the link of a name, or of a rate and a round trip such as "12Mbps" and "40ms".

    Raises RequestError unless one of both is given.
    """
    known = links()
    if name is not None:
        if uplink is not None or rtt is not None:
            raise RequestError("give a link by its name, or --uplink and --rtt, not both")
        if name not in known:
            raise RequestError(f"there is no link '{name}'; there is {', '.join(known)}, or --uplink 12Mbps --rtt 40ms")
        return known[name]
    if uplink is None or rtt is None:
        raise RequestError(f"name a link with --link ({', '.join(known)}), or give --uplink 12Mbps and --rtt 40ms")
    rate, trip = RATE.fullmatch(uplink.strip()), DURATION.fullmatch(rtt.strip())
    if rate is None or not float(rate[1]) > 0:
        raise RequestError(f"'{uplink}' is not a rate; write --uplink 12Mbps, 800kbps or 1Gbps")
    if trip is None or not math.isfinite(float(trip[1])):
        raise RequestError(f"'{rtt}' is not a time; write --rtt 40ms")
    return Link("given", float(rate[1]) * MBPS[rate[2]], float(trip[1]) * (1000 if trip[2] == "s" else 1))
