from collections.abc import Sequence

import pytest
import torch

from slimwright.errors import UnsupportedOp
from slimwright.graph.net import Ref, Value
from slimwright.importers.program import Call, Input, Program, bound, functional, plain

X, Y = Ref("x"), Ref("y")


def call(name: str, overload: str, *args: Value) -> Call:
    return Call(name, overload, bound(overload, args, {}))


def program(*calls: Call, outputs: Sequence[str] = ()) -> Program:
    """A program of these calls on images "x"; it returns what its last call gives unless told otherwise."""
    return Program((Input("x", (1, 1, 2, 2)),), calls, {}, {}, tuple(outputs) or (calls[-1].name,))


def said(found: Program) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(c.name, c.overload, c.reads) for c in found.calls]


def test_arguments_are_bound_by_name_with_defaults() -> None:
    found = bound("add.Tensor", (X, Y), {"alpha": 2})
    assert found == {"self": X, "other": Y, "alpha": 2}
    assert bound("add.Tensor", (X, Y), {})["alpha"] == 1
    assert bound("sum.dim_IntList", (X, (1,)), {"dtype": "torch.float64"})["dtype"] == "torch.float64"


def test_literals_become_plain_values() -> None:
    assert plain([1, [2.5, None], True, "sum"]) == (1, (2.5, None), True, "sum")
    assert plain(torch.float32) == "torch.float32"


def test_a_call_lists_what_it_reads_in_order() -> None:
    assert call("z", "cat.default", (X, Y, X), 1).reads == ("x", "y", "x")


def test_in_place_operators_become_their_twins_and_readers_follow() -> None:
    found = functional(
        program(call("y", "sigmoid.default", X), call("z", "relu_.default", Y), call("w", "neg.default", Y))
    )
    assert said(found) == [
        ("y", "sigmoid.default", ("x",)),
        ("z", "relu.default", ("y",)),
        ("w", "neg.default", ("z",)),
    ]


def test_what_is_written_twice_is_read_as_it_is_in_the_end() -> None:
    writes = [call("y", "sigmoid.default", X), call("z", "relu_.default", Y), call("w", "neg_.default", Y)]
    assert functional(program(*writes, outputs=["y"])).outputs == ("w",)
    found = functional(program(*writes, call("end", "add.Tensor", Y, Ref("z"))))
    assert found.calls[-1].reads == ("w", "w")


def test_the_twin_may_call_its_arguments_otherwise() -> None:
    found = functional(program(call("y", "sigmoid.default", X), call("z", "clamp_.default", Y, 0, 1)))
    assert found.calls[-1].arguments == {"self": Y, "min": 0, "max": 1}


def test_aliases_checks_and_what_nothing_needs_are_gone() -> None:
    calls = [
        call("y", "detach.default", X),
        call("idle", "sin.default", Y),
        Call("check", "_assert_tensor_metadata.default", {"a": Y}),
        call("z", "relu.default", Y),
        call("end", "alias.default", Ref("z")),
    ]
    found = functional(program(*calls))
    assert said(found) == [("z", "relu.default", ("x",))] and found.outputs == ("z",)


VIEW = call("v", "view.default", Y, (4,))


@pytest.mark.parametrize(
    "view", [VIEW, call("v", "dropout.default", Y, 0.5, False), call("v", "contiguous.default", Y)]
)
def test_a_value_read_after_it_was_written_through_a_view_is_refused(view: Call) -> None:
    made, write, read = (
        call("y", "sigmoid.default", X),
        call("w", "relu_.default", Ref("v")),
        call("r", "sin.default", Y),
    )
    with pytest.raises(UnsupportedOp, match="'r' reads 'y', which 'w' changes in place through a view of it"):
        functional(program(made, view, write, read))
    with pytest.raises(UnsupportedOp, match="the output reads 'y'"):
        functional(program(made, view, write, outputs=["y"]))
    functional(program(made, view, write, outputs=["w"]))


def test_a_view_read_after_its_whole_was_written_is_refused() -> None:
    made, write = call("y", "sigmoid.default", X), call("w", "relu_.default", Y)
    with pytest.raises(UnsupportedOp, match="'r' reads 'v', which 'w' changes"):
        functional(program(made, VIEW, write, call("r", "sin.default", Ref("v"))))


def test_a_view_of_a_view_shares_the_memory_too_and_a_copy_does_not() -> None:
    made, write = call("y", "sigmoid.default", X), call("w", "relu_.default", Y)
    again = call("u", "view.default", Ref("v"), (2, 2))
    with pytest.raises(UnsupportedOp, match="'r' reads 'u'"):
        functional(program(made, VIEW, again, write, call("r", "sin.default", Ref("u"))))
    copy = call("u", "clone.default", Ref("v"))
    assert functional(program(made, VIEW, copy, write, call("r", "sin.default", Ref("u")))).outputs == ("r",)


def test_one_of_several_results_may_be_a_view() -> None:
    made, write = call("y", "sigmoid.default", X), call("w", "relu_.default", Ref("a"))
    parts = [call("p", "unbind.int", Y, 0), Call("a", "getitem", {"value": Ref("p"), "index": 0})]
    with pytest.raises(UnsupportedOp, match="reads 'y'"):
        functional(program(made, *parts, write, call("r", "sin.default", Y)))
