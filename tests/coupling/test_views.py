"""An array of identities must move as the elements do: every operator is compared with torch's own."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from slimwright.coupling.views import Ids, collapsed, moved, reshaped
from slimwright.graph.ops import call_aten

SOURCE = (2, 3, 4, 6)


def numbered(shape: tuple[int, ...], tracked: set[int]) -> Ids:
    """A number per position along the tracked dimensions, size 1 along the others."""
    sizes = [n if axis in tracked else 1 for axis, n in enumerate(shape)]
    return np.arange(math.prod(sizes), dtype=np.int64).reshape(sizes)


def in_full(ids: Ids, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(np.broadcast_to(ids, shape).copy())


@st.composite
def reshapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two shapes of as many elements: factors put together in two ways, and sizes of 1 between."""
    factors = draw(st.lists(st.integers(2, 3), min_size=1, max_size=5))

    def grouped() -> tuple[int, ...]:
        sizes = [1]
        for factor in factors:
            if draw(st.booleans()):
                sizes.append(factor)
            else:
                sizes[-1] *= factor
        return tuple(sizes) if draw(st.booleans()) else tuple(n for n in sizes if n > 1)

    return grouped(), grouped()


@given(shapes=reshapes(), tracked=st.sets(st.integers(0, 5)))
def test_a_reshape_moves_identities_as_it_moves_elements(
    shapes: tuple[tuple[int, ...], tuple[int, ...]], tracked: set[int]
) -> None:
    source, result = shapes
    ids = numbered(source, tracked)
    found = reshaped(ids, source, result)
    assert found.ndim == len(result)
    assert torch.equal(in_full(found, result), in_full(ids, source).reshape(result))
    assert all(n == 1 or bool((found != found.take([0], axis)).any()) for axis, n in enumerate(found.shape))


MOVES: dict[str, tuple[str, Mapping[str, Any]]] = {
    "squeeze": ("squeeze.dims", {"dim": ()}),
    "unsqueeze": ("unsqueeze.default", {"dim": 2}),
    "permute": ("permute.default", {"dims": (3, 0, 2, 1)}),
    "transpose": ("transpose.int", {"dim0": 1, "dim1": 3}),
    "expand": ("expand.default", {"size": (5, 2, 3, 4, 6), "implicit": False}),
    "slice": ("slice.Tensor", {"dim": 3, "start": 1, "end": 6, "step": 2}),
    "select": ("select.int", {"dim": 1, "index": 2}),
    "flatten": ("flatten.using_ints", {"start_dim": 1, "end_dim": 2}),
    "reshape": ("reshape.default", {"shape": (6, 2, 12)}),
    "roll": ("roll.default", {"shifts": (1, -2), "dims": (1, 3)}),
    "flip": ("flip.default", {"dims": (0, 2)}),
    "clone": ("clone.default", {"memory_format": None}),
    "unfold": ("unfold.default", {"dimension": 2, "size": 2, "step": 1}),
}


@pytest.mark.parametrize("what", MOVES)
@pytest.mark.parametrize("tracked", [set(), {0}, {1}, {2}, {3}, {1, 3}, {0, 1, 2, 3}], ids=str)
def test_every_move_of_identities_is_that_of_elements(what: str, tracked: set[int]) -> None:
    overload, arguments = MOVES[what]
    ids = numbered(SOURCE, tracked)
    result = call_aten(overload, {"self": in_full(ids, SOURCE), **arguments})
    found = moved(what, arguments, ids, SOURCE, tuple(result.shape))
    if found is None:
        assert what == "unfold" and 2 in tracked  # windows along the tracked dimension are not followed
    else:
        assert torch.equal(in_full(found, tuple(result.shape)), result)


@pytest.mark.parametrize("indices", [(None, [2, 0, 0]), ([1, 0], None, [3, 3]), (None, None, [[0, 1], [2, 3]])])
def test_an_index_by_constants_picks_identities(indices: tuple[Any, ...]) -> None:
    ids = numbered(SOURCE, {1, 2})
    chosen = [None if i is None else torch.tensor(i) for i in indices]
    result = torch.ops.aten.index.Tensor(in_full(ids, SOURCE), chosen)
    arrays = tuple(None if i is None else np.array(i) for i in indices)
    found = moved("index", {"indices": arrays}, ids, SOURCE, tuple(result.shape))
    assert found is not None and torch.equal(in_full(found, tuple(result.shape)), result)


def test_an_index_by_what_is_computed_is_not_followed() -> None:
    assert moved("index", {"indices": (None, "computed")}, numbered(SOURCE, {1}), SOURCE, SOURCE) is None


def test_a_gather_picks_along_its_dimension_only_where_that_is_tracked() -> None:
    arguments = {"dim": 1, "index": np.array([2, 2, 0])}
    ids = numbered(SOURCE, {1})
    found = moved("gather", arguments, ids, SOURCE, SOURCE)
    assert found is not None and found.reshape(-1).tolist() == [2, 2, 0]
    other = numbered(SOURCE, {3})
    assert moved("gather", arguments, other, SOURCE, SOURCE) is other


def test_an_unknown_move_is_not_followed() -> None:
    assert moved("aten.tril.default", {}, numbered(SOURCE, {1}), SOURCE, SOURCE) is None


def test_dimensions_in_which_nothing_changes_collapse() -> None:
    ids = np.array([[[1, 1], [2, 2]], [[1, 1], [2, 2]]])
    assert collapsed(ids).tolist() == [[[1], [2]]]
    assert collapsed(np.array([[1, 2], [2, 1]])).shape == (2, 2)
