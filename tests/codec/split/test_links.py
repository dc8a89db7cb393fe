import pytest

from slimwright.codec.split.links import Link, link_of, links
from slimwright.cost.device import SOURCES
from slimwright.errors import RequestError


def test_every_link_says_where_its_numbers_are_from() -> None:
    assert set(links()) == {"3g", "4g", "5g", "wifi"}
    for link in links().values():
        assert all(part.partition(":")[0] in SOURCES for part in link.source.split("; ")[:1])
        assert link.uplink_mbps > 0 and link.rtt_ms > 0


def test_a_transfer_is_a_round_trip_and_the_bytes() -> None:
    assert Link("given", uplink_mbps=8.0, rtt_ms=40.0).transfer_ms(1000) == 41.0


def test_a_link_is_named_or_given() -> None:
    assert link_of("4g", None, None).name == "4g"
    assert link_of(None, "12Mbps", "40ms") == Link("given", 12.0, 40.0)
    assert link_of(None, "800 kbit/s", "0.1s") == Link("given", 0.8, 100.0)


@pytest.mark.parametrize(
    ("name", "uplink", "rtt", "said"),
    [
        (None, None, None, "--uplink 12Mbps"),
        (None, "12Mbps", None, "--rtt 40ms"),
        ("6g", None, None, "there is no link '6g'"),
        ("4g", "12Mbps", "40ms", "not both"),
        (None, "fast", "40ms", "'fast' is not a rate"),
        (None, "0Mbps", "40ms", "is not a rate"),
        (None, "12Mbps", "40", "'40' is not a time"),
    ],
)
def test_what_is_no_link_is_refused(name: str | None, uplink: str | None, rtt: str | None, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        link_of(name, uplink, rtt)
