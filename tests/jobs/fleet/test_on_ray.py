"""Work of a fleet on nodes that are lost. The nodes are processes of this machine."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from slimwright.jobs.fleet.fleet import as_it_is
from slimwright.jobs.fleet.on_ray import on_ray
from slimwright.jobs.fleet.workers import Crew, Workers

STORE = {"object_store_memory": 100_000_000}
MOST_S = 120.0


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A cluster whose head does no work."""
    from ray.cluster_utils import Cluster

    found: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **STORE})
    yield found
    found.shutdown()


@pytest.mark.slow
def test_what_a_lost_node_held_is_made_again_by_the_only_processor_that_is_left(cluster: Any) -> None:
    import ray

    large = torch.arange(1_000_000.0)  # so large that it lies on the node where it was made
    node = cluster.add_node(num_cpus=1, **STORE)
    with on_ray(Crew(1, cluster.address)) as hands:
        shared = hands.share(as_it_is, large)
        assert torch.equal(value_of(hands, hands.begin(as_it_is, shared)), large)
        cluster.add_node(num_cpus=1, **STORE)
        cluster.remove_node(node, allow_graceful=False)
        ticket = hands.begin(as_it_is, shared)
        done, _ = ray.wait([ticket], timeout=MOST_S)
        assert done, "it waits for ever"
        assert torch.equal(value_of(hands, ticket), large)


@pytest.mark.slow
def test_one_process_may_start_one_ray_after_the_other_here_and_on_a_cluster(cluster: Any) -> None:
    cluster.add_node(num_cpus=1, **STORE)
    reached = [reached_by(Crew(1, address)) for address in (None, None, cluster.address, None)]
    assert reached[0] == reached[1] == reached[3] == {"127.0.0.1"}
    assert reached[2] == {cluster.head_node.node_ip_address}


def reached_by(crew: Crew) -> set[str]:
    """At which addresses the nodes of a Ray that does its work listen."""
    import ray

    nodes: Any = ray.nodes
    with on_ray(crew) as hands:
        assert value_of(hands, hands.begin(as_it_is, hands.share(as_it_is, "some work"))) == "some work"
        return {node["NodeManagerAddress"] for node in nodes()}


def value_of(hands: Workers, ticket: Any) -> Any:
    """What came of some work."""
    _, outcome = hands.ended([ticket])
    assert not outcome.why
    return outcome.value
