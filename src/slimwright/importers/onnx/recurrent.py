"""ONNX's recurrent layers as ATen calls: LSTM, GRU and RNN, in one direction, backwards, or in both.

Gates lie in another order: of an LSTM ONNX stores input, output, forget, cell and torch input, forget, cell, output; of
a GRU ONNX stores update, reset, new and torch reset, update, new.

Source: the ONNX operator specifications of LSTM, GRU and RNN, opsets 7 to 25.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from slimwright.errors import ModelError, UnsupportedOp
from slimwright.importers.onnx.picking import for_every_image
from slimwright.importers.onnx.step import Step
from slimwright.importers.onnx.values import Flow, Known, Operand, constant

DIRECTIONS = ("forward", "reverse", "bidirectional")


@dataclass(frozen=True)
class _Kind:
    """A recurrent layer: its overload, the order of its gates, and the activations that torch computes with."""

    overload: str
    gates: tuple[int, ...]  # of ONNX's, for each of torch's
    activations: tuple[str, ...]


LSTM = _Kind("lstm.input", (0, 2, 3, 1), ("sigmoid", "tanh", "tanh"))
GRU = _Kind("gru.input", (1, 0, 2), ("sigmoid", "tanh"))
RNNS = {name: _Kind(f"rnn_{name}.input", (0,), (name,)) for name in ("tanh", "relu")}


def lstm(step: Step) -> tuple[Operand, ...]:
    """A layer of long short-term memory cells."""
    if step.attr_int("input_forget", 0) or step.optional(7) is not None:
        raise UnsupportedOp("its gates are coupled, or look at the cell (peepholes); torch has no such layer")
    return _recurrent(step, LSTM)


def gru(step: Step) -> tuple[Operand, ...]:
    """A layer of gated recurrent units."""
    if not step.attr_int("linear_before_reset", 0):
        raise UnsupportedOp("it resets before it multiplies (linear_before_reset=0); torch has no such layer")
    return _recurrent(step, GRU)


def rnn(step: Step) -> tuple[Operand, ...]:
    """A plain recurrent layer."""
    named = step.node.attributes.get("activations", ("Tanh",))
    kind = RNNS.get(str(named[0]).lower()) if isinstance(named, tuple) and named else None
    if kind is None:
        raise UnsupportedOp(f"its activations are {named}; supported are Tanh and Relu")
    return _recurrent(step, kind)


def _recurrent(step: Step, kind: _Kind) -> tuple[Operand, ...]:
    """The outputs Y [T, directions, N, H] and the last states [directions, N, H], each N first with layout=1."""
    direction = step.choice("direction", DIRECTIONS)
    ways = 2 if direction == "bidirectional" else 1
    _check(step, kind, ways)
    batch_first = step.attr_int("layout", 0) == 1
    weights, hidden = _weights(step, kind, ways)
    x = step.flow()
    if direction == "reverse":
        x = step.flow_call("flip.default", x, (int(batch_first),))
    starts = [_start(step, place, ways, hidden, x, batch_first) for place in (5, 6)[: 1 + (kind is LSTM)]]
    first: Operand | tuple[Operand, ...] = tuple(starts) if kind is LSTM else starts[0]
    made = step.flow_call(kind.overload, x, first, weights, True, 1, 0.0, False, ways == 2, batch_first)
    results = [step.trace.part(made, place) for place in range(1 + len(starts))]
    return (_outputs(step, results[0], ways, hidden, direction, batch_first), *(
        step.flow_call("transpose.int", last, 0, 1) if batch_first else last for last in results[1:]
    ))  # fmt: skip


def _check(step: Step, kind: _Kind, ways: int) -> None:
    """Raise UnsupportedOp where torch has no such layer."""
    named = step.node.attributes.get("activations", ())
    wanted = kind.activations * ways
    if isinstance(named, tuple) and named and tuple(str(name).lower() for name in named) != wanted:
        raise UnsupportedOp(f"its activations are {', '.join(map(str, named))}; supported are {', '.join(wanted)}")
    if "clip" in step.node.attributes:
        raise UnsupportedOp("it clips what goes into its activations; torch has no such layer")
    lengths, time = step.optional(4), step.flow().shape[step.attr_int("layout", 0) == 1]
    if lengths is not None and not (isinstance(lengths, Known) and bool((lengths.at[0] == time).all())):
        raise UnsupportedOp("it is given the length of each sequence; export it for sequences of one length")


def _weights(step: Step, kind: _Kind, ways: int) -> tuple[tuple[Known, ...], int]:
    """What torch calls w_ih, w_hh, b_ih and b_hh, for each direction, and the number of hidden units."""
    inward, across, bias = (step.weight(place, what) for place, what in enumerate(("W", "R", "B"), 1))
    if inward is None or across is None or len(inward.shape) != 3 or len(across.shape) != 3:
        raise ModelError("its weights W and R must be there, with three dimensions each")
    rows, hidden = across.shape[1:]
    gates = len(kind.gates)
    fits = rows == gates * hidden and inward.shape[:2] == (ways, rows) and across.shape[0] == ways
    if not fits or hidden != step.attr_int("hidden_size", hidden):
        raise ModelError(f"its weights W {list(inward.shape)} and R {list(across.shape)} do not fit one another")
    if bias is not None and bias.shape != (ways, 2 * rows):
        raise ModelError(f"its bias B has shape {list(bias.shape)}, not {[ways, 2 * rows]}")

    def part(stored: Known, way: int, start: int, role: str) -> Known:
        """Some rows of what is stored for one direction, its gates in torch's order."""

        def made() -> Tensor:
            chunks = stored.at[0][way][start : start + rows].chunk(gates)
            return torch.cat([chunks[gate] for gate in kind.gates])

        count = stored.at[0][way][start : start + rows].numel()
        return step.trace.derived(stored, f"{role} {way}", made, wish=f"{stored.wish}.{role}", count=count)

    found: list[Known] = []
    for way in range(ways):
        found += [part(inward, way, 0, f"weight_ih_{way}"), part(across, way, 0, f"weight_hh_{way}")]
        if bias is not None:
            found += [part(bias, way, 0, f"bias_ih_{way}"), part(bias, way, rows, f"bias_hh_{way}")]
        else:
            found += [constant(torch.zeros(rows), f"{inward.wish}.bias") for _ in range(2)]
    return tuple(found), hidden


def _start(step: Step, place: int, ways: int, hidden: int, x: Flow, batch_first: bool) -> Operand:
    """A first state [directions, N, H]: zeros, unless one is given."""
    given = step.optional(place)
    if isinstance(given, Known):
        given = for_every_image(step, given, int(not batch_first))
    if given is not None:
        return step.call("transpose.int", given, 0, 1) if batch_first else given
    if x.batch_axis != int(not batch_first):
        raise UnsupportedOp("its batch is not where its layout says; export the model with a dynamic batch")
    return step.trace.repeated(constant(torch.zeros(ways, 1, hidden, dtype=x.at[0].dtype)), 1)


def _outputs(step: Step, made: Flow, ways: int, hidden: int, direction: str, batch_first: bool) -> Flow:
    """Torch's outputs [T, N, directions H], or N first, in ONNX's order."""
    if direction == "reverse":
        made = step.flow_call("flip.default", made, (int(batch_first),))
    apart = step.flow_call("unflatten.int", made, 2, (ways, hidden))
    return apart if batch_first else step.flow_call("transpose.int", apart, 1, 2)
