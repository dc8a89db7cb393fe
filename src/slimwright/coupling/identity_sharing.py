"""Channel identities of weights that several nodes own: a layer that is called again, or tensors in common.

A tensor has one set of rows and columns, whichever node computes with it. So channels that sit at one place of it are
one channel, at every call. Where nodes use a tensor in different ways it stays whole.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from slimwright.coupling.identities import Identities
from slimwright.coupling.views import Ids
from slimwright.graph.net import Net
from slimwright.graph.node import Node, Ref, Value
from slimwright.graph.ops import op_of

Places = Mapping[str, Ids]  # by role
BARE = ("parameter", "constant")


def parameter_of(net: Net, node: Node, role: str) -> Node | None:
    """Return the parameter or constant that a carried node is given in some role."""
    given = node.arguments.get(role)
    found = net[given.name] if isinstance(given, Ref) else None
    return found if found is not None and found.op in BARE else None


def tensors_of(net: Net, node: Node) -> dict[str, str]:
    """Return the tensors of a layer by role; one that is carried has them in parameters beside it.

    Those of a recurrent layer are the weights of its first layer by which it reads steps: one for each direction.
    """
    match op_of(node.op).channels:
        case "convolve":
            beside = ((role, parameter_of(net, node, role)) for role in ("weight", "bias"))
            return {role: own.tensors["value"] for role, own in beside if own is not None}
        case "recurrent":
            inward = [net[name] for name in _inward(node)]
            return {f"weight {way}": own.tensors["value"] for way, own in enumerate(inward) if own.op in BARE}
    return dict(node.tensors)


def _inward(node: Node) -> list[str]:
    """The values by which a recurrent layer multiplies a step: first of all weights in each direction."""
    params = node.arguments.get("params")
    names = [ref.name for ref in params if isinstance(ref, Ref)] if isinstance(params, tuple) else []
    each = 4 if node.arguments.get("has_biases") else 2
    return names[: each * (1 + bool(node.arguments.get("bidirectional"))) : each]


def belongs_to_a_layer(net: Net, parameter: Node) -> bool:
    """True for a parameter that carried layers alone read, which say where it is cut."""
    readers = [net[name] for name in net.readers[parameter.name]]
    return bool(readers) and all(
        op_of(reader.op).channels in ("convolve", "recurrent")
        and parameter.tensors["value"] in tensors_of(net, reader).values()
        for reader in readers
    )


def unite_shared(said: Identities) -> None:
    """Say of all nodes that own one tensor that their channels are one, place by place, or that they stay whole."""
    places: dict[str, dict[str, Ids]] = defaultdict(dict)
    for place in said.claims.places:
        places[place.node][place.role] = place.ids
    for owners in _owners(said.net).values():
        if len(owners) > 1:
            _unite(said, owners, [places[node.name] for node, _ in owners])


def _owners(net: Net) -> dict[str, list[tuple[Node, str]]]:
    """For each tensor, the nodes that compute with it, and in which role."""
    owners: dict[str, list[tuple[Node, str]]] = defaultdict(list)
    for node in net.nodes:
        if node.op not in BARE or not belongs_to_a_layer(net, node):
            for role, tensor in tensors_of(net, node).items():
                owners[tensor].append((node, role))
    return owners


def _unite(said: Identities, owners: Sequence[tuple[Node, str]], places: Sequence[Places]) -> None:
    uses = [_use(node, role, own) for (node, role), own in zip(owners, places, strict=True)]
    if len(set(uses)) == 1:
        for own in places[1:]:
            for role, _ in uses[0][-1]:
                said.claims.unite(places[0][role], own[role])
        return
    for (node, _), own in zip(owners, places, strict=True):
        bare = [said.values[node.name]] if op_of(node.op).channels == "parameter" else []
        for ids in (*own.values(), *bare):
            said.claims.freeze(ids, f"'{node.name}' shares its weights with what uses them in another way")


def _use(node: Node, role: str, own: Places) -> tuple[str, str, Value, tuple[tuple[str, int], ...]]:
    """How a node uses a tensor; a bias lies along what is made, whatever is read."""
    along = tuple((place, len(ids)) for place, ids in sorted(own.items()) if place != "in" or role.startswith("weight"))
    return node.op, role, node.arguments.get("groups", 1), along
