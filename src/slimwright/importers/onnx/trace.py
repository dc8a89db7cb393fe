"""The calls of a program, recorded while the nodes of an ONNX graph are gone through in order.

Every value is followed at two batch sizes. What differs between them depends on the batch, so the arithmetic on shapes
that exporters write into their files (Shape, Gather, Mul, Concat, Reshape) is simply carried out, twice, and a size
that comes out differently becomes -1. What depends on weights and numbers alone is computed; a file can only make so
many bytes out of nothing. Everything else is run on meta tensors for its shape and recorded as a `Call`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from slimwright.errors import ModelError, UnsupportedOp
from slimwright.graph.allowed import check_size, work
from slimwright.graph.inference import empty_input
from slimwright.graph.ops import FAILURES, call_aten, detail_of
from slimwright.importers.onnx.names import Names, identifier
from slimwright.importers.onnx.store import Store
from slimwright.importers.onnx.values import Flow, Known, Made, Operand, constant, operands_in, resolved, varies
from slimwright.importers.program import Call, Input, Program, bound

FACTOR = 7  # the second batch is this many times the first: no accident of small numbers hides the batch
MOST_MADE_BYTES = 2**29  # of constants that a file computes; the fully connected layer of VGG takes 0.4e9
MOST_WORK = 10**10  # operations for one constant: some seconds
VIEWS = ("permute", "slice", "select", "unsqueeze", "squeeze", "expand")  # share memory with what they read


@dataclass
class Trace:
    """The calls so far."""

    batch: int  # of the file; 1 where it leaves that open
    open_batch: bool
    most_bytes: int
    keeps_grids: bool = False  # whether quantized values are rounded as the file rounds them
    open_sizes: bool = False  # whether the file leaves sizes besides the batch open
    must_be_exact: bool = False  # whether what may round sizes in another way at some of them is refused
    names: Names = field(default_factory=Names)
    calls: dict[str, Made] = field(default_factory=dict)  # by the name of the result, in order
    about: str = "constant"  # what the next constant is for: the value that is being made
    made_bytes: int = 0
    _derived: dict[tuple[int, str], tuple[Known, Known]] = field(default_factory=dict)  # -> source, what came of it
    _inputs: list[Flow] = field(default_factory=list)
    _count: Flow | None = None

    def input(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Flow:
        """Note an input, such as images, of `shape`, which is without the batch."""
        one, two = (empty_input(name, (n, *shape), dtype) for n in (self.batch, FACTOR * self.batch))
        self._inputs.append(Flow(self.names.value(name), (one, two)))
        return self._inputs[-1]

    def call(self, overload: str, *args: Any, keywords: Mapping[str, Any] | None = None) -> Operand:
        """Record one ATen call, or compute it where it reads constants alone. Arguments may be operands in tuples.

        Raises ModelError where its arguments do not fit, or fit at one batch size only.
        """
        arguments = bound(overload, args, keywords or {})
        operands = list(operands_in(tuple(arguments.values())))
        if any(isinstance(operand, Flow) for operand in operands):
            arguments = {key: self._spread(value) for key, value in arguments.items()}
        results = self._on_meta(overload, arguments)
        if any(isinstance(operand, Flow) for operand in operands):
            return self._recorded(overload, arguments, results)
        return self._computed(overload, arguments, operands, results)

    def part(self, flow: Flow, place: int) -> Flow:
        """Return one of the results of a call that has several."""
        return self._flow("getitem", {"value": flow, "index": place}, (flow.at[0][place], flow.at[1][place]))

    def layer(self, op: str, x: Flow, options: Mapping[str, Any]) -> Flow:
        """Record a row of `ops.OPS` that has no overload and keeps the shape of what it reads."""
        return self._flow(op, {"input": x, **options}, x.at)

    def made(self, value: Operand | None) -> Made | None:
        """How a flow came about; None for a constant and for an input."""
        return self.calls.get(value.name) if isinstance(value, Flow) else None

    def renamed(self, flow: Flow, wish: str, since: int) -> Flow:
        """Give a flow the name it shall have, if its call is the `since`-th or later and no call reads it yet."""
        latest = dict(islice(reversed(self.calls.items()), len(self.calls) - since))
        read = {source.name for made in latest.values() for source in made.reads}
        if flow.name not in latest or flow.name in read:
            return flow
        name = self.names.value(wish)
        self.calls[name] = self.calls.pop(flow.name)
        return replace(flow, name=name)

    def afford(self, count: int, dtype: torch.dtype) -> None:
        """Raise ModelError where another constant of `count` elements would be too much."""
        self.made_bytes += count * dtype.itemsize
        if self.made_bytes > self.most_bytes:
            raise ModelError(
                f"its constants, worked out, take more than {self.most_bytes / 1e9:.1f} GB, which is far more than the "
                "file holds; this is no model that a device can run"
            )

    def derived(
        self, source: Known, how: str, make: Callable[[], Tensor], *, wish: str = "", count: int | None = None
    ) -> Known:
        """Return a weight made of another; the same one for the same source, made in the same way.

        It is named like its source unless there is another `wish`; `count` says how many elements it has, if not as
        many as its source.
        """
        key = (id(source.at[0]), how)
        if key not in self._derived:
            self.afford(source.at[0].numel() if count is None else count, source.at[0].dtype)
            tensor = make()
            if tensor is source.at[0]:
                tensor = tensor.view_as(tensor)  # the same numbers, known by another name
            self._derived[key] = source, constant(tensor, wish or source.wish, learned=source.learned)
        return self._derived[key][1]

    def batch_size(self) -> Flow:
        """The number of images."""
        if self._count is None:
            count = self.call("sym_size.int", self._inputs[0], 0)
            assert isinstance(count, Flow)
            self._count = count
        return self._count

    def program(self, outputs: Sequence[Flow], output_names: Sequence[str]) -> Program:
        """Return the whole, for a batch of one; the outputs are called so in the file."""
        store = Store(self.names, self.afford)
        calls = [Call(name, self.calls[name].overload, store.plain(self.calls[name])) for name in self._live(outputs)]
        return Program(
            inputs=tuple(
                Input(given.name, (1, *given.shape[1:]), str(given.at[0].dtype).removeprefix("torch."))
                for given in self._inputs
            ),
            calls=calls,
            tensors=store.tensors,
            owner=store.owner,
            outputs=tuple(output.name for output in outputs),
            parameters=frozenset(store.parameters),
            output_names=tuple(map(identifier, output_names)) if len(outputs) > 1 else (),
        )

    def _live(self, outputs: Sequence[Flow]) -> list[str]:
        """The calls that an output depends on, in order."""
        wanted, live = {output.name for output in outputs}, []
        for name, made in reversed(self.calls.items()):
            if name in wanted:
                wanted.update(source.name for source in made.reads)
                live.append(name)
        return live[::-1]

    def _on_meta(self, overload: str, arguments: Mapping[str, Any]) -> tuple[Any, Any]:
        results = []
        for world in (0, 1):
            given = {key: resolved(value, world, meta=True) for key, value in arguments.items()}
            try:
                results.append(call_aten(overload, given))
                check_size(results[-1], images=self.batch * FACTOR)
            except FAILURES as error:
                if world:
                    raise ModelError(
                        f"it fits a batch of {self.batch} only ({detail_of(error)}); export the model with a "
                        "dynamic batch: torch.onnx.export(..., dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))"
                    ) from error
                raise ModelError(detail_of(error)) from error
        return results[0], results[1]

    @torch.no_grad()
    def _computed(
        self, overload: str, arguments: Mapping[str, Any], operands: list[Operand], results: tuple[Any, Any]
    ) -> Known:
        known = [operand for operand in operands if isinstance(operand, Known)]
        same = all(k.at[0] is k.at[1] for k in known) and not varies(tuple(arguments.values()))
        found: list[Tensor] = []
        for world in (0,) if same else (0, 1):
            if overload.partition(".")[0] not in VIEWS:
                self.afford(results[world].numel(), results[world].dtype)
            given = {key: resolved(value, world, meta=False) for key, value in arguments.items()}
            _check_work(overload, given, results[world])
            found.append(call_aten(overload, given))
        learned = [k for k in known if k.learned] if found[0].is_floating_point() else []
        wish = learned[0].wish if len(learned) == 1 else self.about
        return Known((found[0], found[-1]), wish, bool(learned))

    def _recorded(self, overload: str, arguments: Mapping[str, Any], results: tuple[Any, Any]) -> Flow:
        if isinstance(results[0], Tensor) and results[0].ndim != results[1].ndim:
            raise ModelError(
                f"it takes a batch of {self.batch} for a dimension to be dropped; export the model with a dynamic batch"
            )
        return self._flow(overload, arguments, results)

    def _flow(self, overload: str, arguments: Mapping[str, Any], results: tuple[Any, Any]) -> Flow:
        if varies(tuple(arguments.values())):
            raise UnsupportedOp("one of its arguments is computed from the number of images; that is not supported")
        name = self.names.value(f"{self.about}_{overload.partition('.')[0]}")
        self.calls[name] = Made(overload, arguments)
        flow = Flow(name, results)
        return replace(flow, outer=self._outer(flow, arguments)) if isinstance(results[0], Tensor) else flow

    def _outer(self, flow: Flow, arguments: Mapping[str, Any]) -> int:
        """What stands outside of the batch in its dimension is what stood there before, unless a reshape says so."""
        axis = flow.batch_axis
        for source in operands_in(tuple(arguments.values())):
            if axis is not None and isinstance(source, Flow) and isinstance(source.at[0], Tensor):
                before = source.batch_axis
                if before is not None and source.shape[before] == flow.shape[axis]:
                    return source.outer
        return 1

    def _spread(self, value: Any) -> Any:
        """Turn a constant that is repeated once for every image into one that is stored once and expanded."""
        if isinstance(value, tuple | list):
            return tuple(self._spread(item) for item in value)
        if not isinstance(value, Known) or value.fixed:
            return value
        one, two = value.at
        axes = [axis for axis, (a, b) in enumerate(zip(one.shape, two.shape, strict=False)) if a != b]
        if one.ndim == two.ndim and len(axes) == 1 and one.shape[axes[0]] == self.batch:
            row = one.narrow(axes[0], 0, 1)
            if torch.equal(row.expand_as(two), two):
                return self.repeated(Known((row, row), value.wish, value.learned), axes[0])
        raise UnsupportedOp(
            "it computes with the number of images, or with their place in the batch; that is not supported"
        )

    def repeated(self, row: Known, axis: int) -> Flow:
        """Return a constant with one entry along `axis`, expanded to the number of images."""
        sizes: list[Any] = [-1] * row.at[0].ndim
        sizes[axis] = self.batch_size()
        result = self.call("expand.default", row, tuple(sizes))
        assert isinstance(result, Flow)
        return result


def _check_work(overload: str, arguments: Mapping[str, Any], result: Tensor) -> None:
    if work(overload, arguments, result) > MOST_WORK:
        raise ModelError("it would compute for minutes from constants alone; store its result in the model instead")
