"""The network as data: a list of nodes in execution order, and the tensors they own.

A `Net` is a value. Editing one gives a new one whose shapes have been inferred and checked again, so
a `Net` that exists is consistent. Shapes are those for one image: the first dimension of every input and
output is a batch of 1, although the graph runs at any batch size.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from math import prod

import torch
from torch import Tensor, fx, nn

from slimwright.errors import ModelError
from slimwright.graph.editing import edited, in_order
from slimwright.graph.encoding import ENCODED, ENCODINGS, FLOAT32, Encoding, Precision, precision_of
from slimwright.graph.ends import Ends
from slimwright.graph.inference import INPUT_DTYPES, inferred, result_of
from slimwright.graph.modules import graph_module, layer_of, paths_of
from slimwright.graph.node import Node, Ref, Value, plain
from slimwright.graph.ops import FAILURES, detail_of, op_of

__all__ = [
    "Net",
    "Node",
    "Ref",
    "Value",
    "called",
    "checked",
    "compute",
    "images_at_once",
    "random_inputs",
    "structure",
    "without_dead_ends",
    "zero_inputs",
]

MOST_AT_ONCE = 64  # images that are computed at once
CHUNK_BYTES = 3.2e7  # of the largest value of as many images: what fits into caches. A MobileNetV2 at 224x224 takes two
# fifths of the time that it takes for 64 images at once (our measurement of 2026-11-28)


@dataclass(frozen=True)
class Net:
    """A network: nodes in execution order, their tensors and how those are stored, and the names of the outputs."""

    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    encodings: Mapping[str, Encoding] = field(default_factory=dict)  # of tensors that are not stored as they are
    ends: Ends | None = None  # how the file that it was read from holds its inputs and outputs

    def __getitem__(self, name: str) -> Node:
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def inputs(self) -> tuple[Node, ...]:
        """The nodes through which values come in, in the order in which `to_module()` takes them."""
        return tuple(node for node in self.nodes if node.op == "input")

    @property
    def input(self) -> Node:
        """The one node through which the images come in. Raises ModelError where there are several inputs."""
        if len(self.inputs) != 1:
            names = ", ".join(f"'{node.name}' {list(node.shape)}" for node in self.inputs)
            raise ModelError(f"the net takes {len(self.inputs)} inputs ({names}); this works for nets with one input")
        return self.inputs[0]

    @cached_property
    def readers(self) -> dict[str, tuple[str, ...]]:
        """For each value, the nodes that read it, in execution order."""
        readers: dict[str, list[str]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in dict.fromkeys(node.reads):
                readers[name].append(node.name)
        return {name: tuple(names) for name, names in readers.items()}

    @cached_property
    def paths(self) -> dict[str, str]:
        """Where each layer sits in `to_module()`: where its weights were, so that state dicts keep their keys."""
        return paths_of(self.nodes)

    def weighted(self) -> Iterator[Node]:
        """The layers with a weight matrix: convolutions and linear layers."""
        return (node for node in self.nodes if op_of(node.op).channels == "mix")

    @cached_property
    def layers(self) -> dict[str, tuple[str, ...]]:
        """The layers with a weight matrix by their first call, and all calls: nodes that own the same weights."""
        return _calls(self.weighted())

    @cached_property
    def layer_called(self) -> dict[str, str]:
        """For each node with a weight matrix, the first call of its layer."""
        return {call: first for first, calls in self.layers.items() for call in calls}

    def tensor(self, node: Node, role: str) -> Tensor | None:
        """The tensor that `node` owns in this role ("weight", "bias", ...), or None."""
        return self.tensors[node.tensors[role]] if role in node.tensors else None

    def size_bytes(self, tensor: str) -> int:
        """Return the bytes of a tensor as it is stored: in its encoding, else as it lies in memory."""
        held = self.tensors[tensor]
        encoding = self.encodings.get(tensor)
        return encoding.size_bytes(held.shape) if encoding else held.numel() * held.element_size()

    @property
    def float_layers(self) -> tuple[str, ...]:
        """The layers whose weights stay in float32, in execution order, where others are encoded; () where none is."""
        known = self.encodings
        return tuple(node.name for node in self.weighted() if known and node.tensors["weight"] not in known)

    @property
    def precision(self) -> Precision:
        """What runtimes call a network with weights in these encodings."""
        return precision_of(self.encodings.values())

    def encoded(self, encodings: Mapping[str, Encoding]) -> "Net":
        """Return the net with tensors in other encodings; float32 is how they are. The values stay.

        Raises ModelError for a tensor that the net does not have.
        """
        if unknown := encodings.keys() - self.tensors.keys():
            raise ModelError(f"the net has no tensor '{min(unknown)}' to be encoded")
        every = {**self.encodings, **encodings}
        return replace(self, encodings={name: one for name, one in every.items() if one != FLOAT32})

    def in_precision(self, precision: Precision) -> "Net":
        """Return the net with the weights of all its layers in what a runtime calls a precision."""
        encoding = ENCODINGS[ENCODED[precision]]
        return self.encoded({node.tensors["weight"]: encoding for node in self.weighted()})

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the structure and every weight: two nets of one digest compute the same."""
        hasher = hashlib.sha256(json.dumps(structure(self), sort_keys=True).encode())
        for name in sorted(self.tensors):
            tensor = self.tensors[name].detach().contiguous().cpu()
            hasher.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        return hasher.hexdigest()

    def run(self, inputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Run the net without gradients, some images at once: one tensor [N, ...] for each input and each output.

        Raises ModelError where the inputs are not as many, or not of the shapes, that the net takes, or where a node
        cannot take their values, such as an index that is too large.
        """
        inputs = (inputs,) if isinstance(inputs, Tensor) else inputs
        _check_inputs(self, inputs)
        module = self.to_module()
        found: list[tuple[Tensor, ...]] = []
        with torch.no_grad():
            for batch in zip(*(given.split(images_at_once(self)) for given in inputs), strict=True):
                found.append(_made(self, module, batch))
                _check_rows(self, found[-1], len(batch[0]))
        return tuple(torch.cat(parts) for parts in zip(*found, strict=True))

    def edited(
        self,
        changed: Mapping[str, Node] | None = None,
        *,
        removed: Mapping[str, str] | None = None,
        added: Sequence[Node] = (),
        tensors: Mapping[str, Tensor] | None = None,
    ) -> "Net":
        """Return the net with nodes changed, removed and added, and tensors replaced; shapes are checked.

        `changed` maps a node's name to what stands in its place. `removed` maps a node's name to the value
        that its readers shall read instead. `added` nodes may stand in any order: each comes before its readers.
        Raises ModelError, naming the node, where shapes do not fit or a value is missing.
        """
        nodes, outputs = edited(self.nodes, self.outputs, changed or {}, removed or {}, added)
        owned = {name for node in nodes for name in node.tensors.values()}
        kept = {k: v for k, v in {**self.tensors, **(tensors or {})}.items() if k in owned}
        encodings = {k: v for k, v in self.encodings.items() if k in owned}
        return checked(Net(nodes, kept, outputs, encodings, self.ends))

    def replaced(
        self, region: Iterable[str], by: Sequence[Node], *, tensors: Mapping[str, Tensor] | None = None
    ) -> "Net":
        """Return the net with the nodes of `region` gone and `by` in their place; the last of `by` gives the result.

        One value of the region is read outside of it, and the new result must have its shape. Where nothing takes the
        region's place (`by` is empty), its readers read what its first node read. Raises ModelError, naming the
        node and both shapes.
        """
        gone = [node for node in self.nodes if node.name in set(region)]
        inside = {node.name for node in gone}
        results = [n.name for n in gone if n.name in self.outputs or not inside.issuperset(self.readers[n.name])]
        if len(results) != 1:
            raise ModelError(
                f"the region {', '.join(sorted(inside)) or '(empty)'} gives {len(results)} values to the rest of the "
                f"net ({', '.join(results)}); a region that can be replaced gives exactly one"
            )
        result = by[-1].name if by else gone[0].source
        old = self[results[0]]
        try:
            net = self.edited(removed=dict.fromkeys(inside, result), added=by, tensors=tensors)
        except ModelError as error:  # perhaps because a reader far behind cannot take the new shape
            new = _result_of(self, by, {**self.tensors, **(tensors or {})}) if by else None
            if new is not None and new.shape != old.shape:
                raise ModelError(_misfit(old, new)) from error
            raise
        if old.shape != net[result].shape:
            raise ModelError(_misfit(old, net[result]))
        return net

    def to_module(self) -> fx.GraphModule:
        """Return a plain `nn.Module` in eval mode, with its own copy of the weights under their own names.

        It takes a tensor for each input, and gives one tensor for one output, a tuple for several.
        """
        return graph_module(self.nodes, self.tensors, self.outputs, self.paths)

    def module_of(self, node: Node) -> nn.Module:
        """Return the layer of one node as a module in eval mode, with its own copy of the weights."""
        return layer_of(node, self.tensors)

    @property
    def device(self) -> str:
        """Where the tensors lie: on the processor, but while something else computes."""
        return str(next((tensor.device for tensor in self.tensors.values()), "cpu"))

    def on(self, device: str) -> "Net":
        """Return this net with its tensors on a device, without gradients."""
        moved = {name: (t.detach() if t.requires_grad else t).to(device) for name, t in self.tensors.items()}
        return replace(self, tensors=moved)

    def key(self, node: Node, role: str) -> str:
        """Name of a node's tensor in the state dict of `to_module()`."""
        return node.tensors[role] if op_of(node.op).channels == "parameter" else f"{self.paths[node.name]}.{role}"

    def trained(self, module: nn.Module) -> "Net":
        """Return this net with the weights of `module`, which came from `to_module()` and was trained somewhere."""
        state = module.state_dict()
        tensors = {n.tensors[role]: state[self.key(n, role)] for n in self.nodes for role in n.tensors}
        return self.edited(tensors={name: t.detach().to("cpu", copy=True) for name, t in tensors.items()})


def images_at_once(net: Net) -> int:
    """Return how many images are computed at once, where a value for each waits for the next."""
    largest = max((4 * prod(node.shape) for node in net.nodes if node.dtype != "tuple"), default=1)
    return min(max(int(CHUNK_BYTES // max(largest, 1)), 1), MOST_AT_ONCE)


def random_inputs(net: Net, count: int, *, seed: int) -> tuple[Tensor, ...]:
    """Return a tensor [count, ...] for each input: normal numbers, and zeros where integers are wanted.

    Integers are mostly indices; zero is one of any table.
    """
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(count, *node.shape[1:], generator=generator)
        if node.dtype == "float32"
        else torch.zeros(count, *node.shape[1:], dtype=INPUT_DTYPES[node.dtype])
        for node in net.inputs
    )


def zero_inputs(net: Net) -> tuple[Tensor, ...]:
    """Return zeros for each input, of one image: what exporters trace a net with."""
    return tuple(torch.zeros(node.shape, dtype=INPUT_DTYPES[node.dtype]) for node in net.inputs)


def compute(net: Net, node: Node, module: nn.Module | None, value: Callable[[str], Tensor]) -> Tensor:
    """Return what `node` produces; `module` is its layer if it has one, `value` gives what it reads."""
    return result_of(node, net.tensors, module, value)


def called(net: Net, node: Node, values: Mapping[str, Tensor]) -> Tensor:
    """Return what `node` makes of the values that it reads. Raises ModelError, naming it, where its kernel refuses."""
    try:
        module = net.module_of(node) if op_of(node.op).module is not None else None
        return compute(net, node, module, values.__getitem__)
    except FAILURES as error:
        raise ModelError(f"node '{node.name}' ({node.op}) cannot be computed: {detail_of(error)}") from error


def checked(net: Net) -> Net:
    """Return the net with every node's shape and dtype inferred anew; raise ModelError where they do not fit."""
    nodes = inferred(net.nodes, net.tensors)
    names = {node.name for node in nodes}
    for name in net.outputs:
        if name not in names:
            raise ModelError(f"the net returns '{name}', which no node produces")
    return replace(net, nodes=nodes)


def without_dead_ends(net: Net) -> Net:
    """Return the net without what no output depends on, but with every input; shapes are not inferred again."""
    wanted = set(net.outputs)
    for node in reversed(net.nodes):
        if node.name in wanted:
            wanted.update(node.reads)
    nodes = tuple(n for n in net.nodes if n.name in wanted or n.op == "input")
    owned = {name for n in nodes for name in n.tensors.values()}
    tensors = {k: v for k, v in net.tensors.items() if k in owned}
    encodings = {k: v for k, v in net.encodings.items() if k in owned}
    return Net(nodes, tensors, net.outputs, encodings, net.ends)


def structure(net: Net) -> dict[str, object]:
    """Return the net without its tensors as JSON-ready data: the inverse of `store.net_of`."""
    return {
        "nodes": [
            {
                "name": n.name,
                "op": n.op,
                "arguments": {k: plain(v) for k, v in n.arguments.items()},
                "tensors": dict(n.tensors),
                "shape": list(n.shape),
                "dtype": n.dtype,
                "fixed": list(n.fixed),
            }
            for n in net.nodes
        ],
        "outputs": list(net.outputs),
        **({"encodings": {name: one.name for name, one in sorted(net.encodings.items())}} if net.encodings else {}),
        **({"ends": _plain_ends(net.ends)} if net.ends else {}),
    }


def _plain_ends(ends: Ends) -> dict[str, object]:
    """Ends as JSON-ready data; where nothing is free they are what older versions wrote, with the same digest."""
    return {key: value for key, value in asdict(ends).items() if key != "sizes" or value}


def _made(net: Net, module: nn.Module, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """What the module of a net gives. Where it fails, each node is called by itself, more slowly, to name the one."""
    try:
        made = module(*inputs)
    except FAILURES as error:
        values = dict(zip((node.name for node in net.inputs), inputs, strict=True))
        for node in net.nodes:
            values[node.name] = values[node.name] if node.op == "input" else called(net, node, values)
        raise ModelError(f"the net cannot compute what it was given: {detail_of(error)}") from error
    return (made,) if isinstance(made, Tensor) else tuple(made)


def _check_inputs(net: Net, inputs: Sequence[Tensor]) -> None:
    """Raise ModelError unless there is a tensor [N, ...] for each input, with one N and the input's own sizes."""
    wanted = ", ".join(f"'{node.name}' [{', '.join(('N', *map(str, node.shape[1:])))}]" for node in net.inputs)
    given = " and ".join(str(list(tensor.shape)) for tensor in inputs) or "nothing"
    fits = len(inputs) == len(net.inputs) and all(
        tensor.ndim == len(node.shape) and tensor.shape[1:] == node.shape[1:]
        for tensor, node in zip(inputs, net.inputs, strict=True)
    )
    if not fits or len({len(tensor) for tensor in inputs}) != 1:
        raise ModelError(f"the net takes {wanted}, with one N; it was given {given}")


def _check_rows(net: Net, outputs: Sequence[Tensor], count: int) -> None:
    """Raise ModelError unless each output has a row for each image."""
    for name, output in zip(net.outputs, outputs, strict=True):
        if output.shape[:1] != (count,):
            raise ModelError(
                f"output '{name}' of the net has the shape {list(output.shape)} for {count} images; the first "
                "dimension of an output must be the batch"
            )


def _calls(nodes: Iterable[Node]) -> dict[str, tuple[str, ...]]:
    """Nodes by the first that owns the same weights; they may slide in different ways, but in the same groups."""
    calls: dict[tuple[object, ...], list[str]] = {}
    for node in nodes:
        calls.setdefault((node.op, node.tensors["weight"], node.arguments.get("groups")), []).append(node.name)
    return {names[0]: tuple(names) for names in calls.values()}


def _result_of(net: Net, by: Sequence[Node], tensors: Mapping[str, Tensor]) -> Node | None:
    """The last of `by`, with its shape, if the nodes of a net that it depends on and `by` itself fit."""
    names = {node.name for node in by}
    try:
        nodes = in_order((*(node for node in net.nodes if node.name not in names), *by))
        return checked(without_dead_ends(Net(nodes, tensors, (by[-1].name,))))[by[-1].name]
    except ModelError:
        return None


def _misfit(old: Node, new: Node) -> str:
    return f"node '{old.name}' gave {list(old.shape)}; what replaces it, '{new.name}', gives {list(new.shape)}"
