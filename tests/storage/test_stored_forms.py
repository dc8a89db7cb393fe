"""Tensors as bytes and back, in every form: equal to the bit."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from slimwright.errors import ModelError
from slimwright.storage.tensors import like_of, restored, stored, words_of
from slimwright.swz.forms import FORMS, Like
from slimwright.swz.grid import from_grid, step_of
from slimwright.swz.hashed import Hashed

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int8, torch.uint8, torch.bool)
SHAPES = st.lists(st.integers(1, 9), min_size=0, max_size=4).map(tuple)


def same_bits(one: Tensor, other: Tensor) -> bool:
    return (one.dtype, one.shape) == (other.dtype, other.shape) and bool((words_of(one) == words_of(other)).all())


def check(values: Tensor, base: Tensor | None = None) -> str:
    """Store a tensor and read it again; the form that it took."""
    made = stored(values, base)
    assert made.form in FORMS and len(made.data) <= words_of(values).nbytes
    assert same_bits(restored(made.form, made.data, like_of(values), base), values)
    return made.form


@given(SHAPES, st.integers(0, 2**32), st.sampled_from(DTYPES))
def test_bits_of_any_kind_come_back(shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> None:
    size = torch.empty(0, dtype=dtype).element_size()
    octets = np.random.default_rng(seed).integers(
        0, 2 if dtype == torch.bool else 256, math.prod(shape) * size, np.uint8
    )
    check(torch.from_numpy(octets).view(dtype).reshape(shape))


@given(SHAPES, st.integers(0, 2**32), st.sampled_from((0.0, 0.02, 0.3, 1.0)), st.sampled_from((1, 2, 40, 70_000)))
def test_grids_come_back(shape: tuple[int, ...], seed: int, density: float, most: int) -> None:
    chance = np.random.default_rng(seed)
    numbers = chance.integers(-most, most + 1, math.prod(shape)) * (chance.random(math.prod(shape)) < density)
    step = np.float32(chance.uniform(1e-4, 1))
    check(torch.from_numpy(from_grid(numbers.astype(np.int32), step)).reshape(shape))


@given(SHAPES, st.integers(0, 2**32), st.sampled_from((1, 7, 127)))
def test_grids_of_rows_come_back(shape: tuple[int, ...], seed: int, most: int) -> None:
    chance = np.random.default_rng(seed)
    numbers = chance.integers(-most, most + 1, shape).astype(np.int32)
    steps = chance.uniform(1e-4, 1, (*shape[:1], *[1] * (len(shape) - 1))).astype(np.float32)
    check(torch.from_numpy(np.asarray(from_grid(numbers, steps))))


def test_weights_of_few_bits_take_no_more_than_these() -> None:
    """The entropy of numbers that are equally often, a float32 for each row, and less than a hundredth beside."""
    chance = np.random.default_rng(0)
    steps = chance.uniform(0.01, 0.1, (64, 1)).astype(np.float32)
    values = torch.from_numpy(from_grid(chance.integers(-7, 8, (64, 576)).astype(np.int32), steps))
    found = stored(values)
    assert found.form == "row grids"
    assert len(found.data) <= 1.01 * 64 * 576 * math.log2(15) / 8 + 4 * 64 + 64
    values[5, 7] = -0.0
    assert check(values) != "row grids"


@given(SHAPES, st.integers(0, 2**31 - 1), st.floats(0.01, 1))
def test_values_that_a_hash_chooses_come_back(shape: tuple[int, ...], seed: int, share: float) -> None:
    count = math.prod(shape)
    hashed = Hashed(max(int(share * count), 1), seed)
    table = np.random.default_rng(seed).normal(size=hashed.values).astype(np.float32)
    values = torch.from_numpy(table[hashed.codes(count)].reshape(shape))
    made = stored(values, by_hash=hashed)
    assert same_bits(restored(made.form, made.data, like_of(values)), values)


def test_codes_of_a_hash_take_no_bytes() -> None:
    """The file holds what the values themselves take; where one place has another value, it is stored otherwise."""
    hashed = Hashed(1000, 7)
    values = torch.randn(1000)[torch.from_numpy(hashed.codes(64_000))].reshape(160, 400)
    made = stored(values, by_hash=hashed)
    assert made.form == "hashed" and len(made.data) <= 4000 + 8
    assert torch.equal(restored("hashed", made.data, like_of(values)), values)
    values[3, 4] += 1
    assert stored(values, by_hash=hashed).form != "hashed"


def test_the_codes_of_a_hash_are_those_that_the_format_says() -> None:
    """Worked out by Python's own whole numbers, and about equally many places for each value."""
    found = Hashed(1000, 12345).codes(50_000)
    for place in (0, 1, 49_999):
        z = (place + 12345 * 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        assert found[place] == (((z ^ z >> 31) >> 32) * 1000) >> 32
    counts = np.bincount(found, minlength=1000)
    assert counts.min() > 15 and counts.max() < 100 and abs(counts.std() - 50**0.5) < 1


@given(st.integers(0, 2**32), st.integers(1, 60), st.booleans())
def test_a_few_values_come_back_whatever_they_are(seed: int, count: int, strange: bool) -> None:
    chance = np.random.default_rng(seed)
    table = chance.normal(size=count).astype(np.float32)
    if strange:
        odd = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-45, 3.4e38], np.float32)
        table[: len(odd)] = odd[: len(table)]
    check(torch.from_numpy(table[chance.integers(0, count, (20, 30))]))


@pytest.mark.parametrize("shape", [(0,), (0, 5), (3, 0, 2), (1,), ()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_empty_and_scalar_tensors_come_back(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    check(torch.zeros(shape, dtype=dtype))
    check(torch.full(shape, 5, dtype=dtype))


@given(SHAPES, st.integers(0, 2**32), st.sampled_from(DTYPES[:4]), st.sampled_from((0.05, 0.5, 0.95)))
def test_sparse_floats_come_back(shape: tuple[int, ...], seed: int, dtype: torch.dtype, density: float) -> None:
    chance = np.random.default_rng(seed)
    numbers = chance.normal(size=shape) * (chance.random(shape) < density)
    numbers = np.where(chance.random(shape) < 0.05, -0.0, numbers)
    check(torch.from_numpy(np.asarray(numbers)).to(dtype))


@pytest.mark.parametrize("density", [0.5, 0.2, 0.1])
def test_a_mask_takes_the_entropy_of_where_zeros_are(density: float) -> None:
    """And each other float32 its sign and 24 bits: within three hundredths."""
    chance = np.random.default_rng(0)
    numbers = np.where(chance.random((256, 576)) < density, chance.normal(size=(256, 576)), 0.0)
    made = stored(torch.from_numpy(numbers.astype(np.float32)))
    entropy = -density * math.log2(density) - (1 - density) * math.log2(1 - density)
    exponents = 2.7  # bits, of normally distributed numbers
    assert made.form == "masked"
    assert len(made.data) == pytest.approx((entropy + density * (24 + exponents)) * numbers.size / 8, rel=0.03)


def test_the_form_follows_from_the_values() -> None:
    chance = np.random.default_rng(0)
    pruned = chance.integers(-8, 9, (60, 90)) * (chance.random((60, 90)) < 0.1)
    assert check(torch.from_numpy(from_grid(pruned.astype(np.int32), np.float32(0.013)))) == "grid"
    table = chance.normal(size=16).astype(np.float32)
    assert check(torch.from_numpy(table[chance.integers(0, 16, (60, 90))])) == "codebook"
    assert check(torch.randn(60, 90)) == "bytes"
    assert check(torch.randn(3)) == "raw"


def test_a_zero_with_a_sign_is_on_no_grid() -> None:
    values = torch.tensor([[0.5, 0.0, -0.5, 1.0]] * 40)
    assert step_of(np.unique(values.numpy())) == 0.5
    values[3, 1] = -0.0
    assert step_of(np.unique(values.numpy().view(np.uint32)).view(np.float32)) is None
    check(values)


@pytest.mark.parametrize("part", [1, 3, 7, 64])
def test_the_step_is_found_where_the_smallest_value_is_several(part: int) -> None:
    step = np.float32(0.0123)
    values = from_grid(np.array([-part - 1, part, part + 1, 3 * part + 1], np.int32), step)
    found = step_of(values)
    assert found is not None
    numbers = np.rint(values / found).astype(np.int32)
    assert (from_grid(numbers, found) == values).all() and abs(numbers).max() == 3 * part + 1


def test_trained_float32_weights_shrink_by_a_sixth() -> None:
    values = 0.05 * torch.randn(200, 300)
    assert 0.80 < len(stored(values).data) / (4 * values.numel()) < 0.84
    halves = values.to(torch.bfloat16)
    assert 0.62 < len(stored(halves).data) / (2 * values.numel()) < 0.69


def test_rows_and_columns_of_zeros_cost_next_to_nothing() -> None:
    chance = np.random.default_rng(0)
    few = (chance.integers(-3, 4, (30, 40)) * 0.25).astype(np.float32)
    wide = np.zeros((300, 784), np.float32)
    wide[np.ix_(range(5, 35), range(100, 140))] = few
    small, large = (len(stored(torch.from_numpy(values)).data) for values in (few, wide))
    assert large < small + 784 / 8 + 300 / 8


@given(st.integers(0, 2**32), st.sampled_from((torch.float32, torch.float16, torch.int64)))
def test_a_difference_comes_back(seed: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    base = (100 * torch.randn(9, 11, generator=generator)).to(dtype)
    values = (base + (0.01 * torch.randn(9, 11, generator=generator)).to(dtype)).to(dtype)
    check(values, base)
    assert check(base.clone(), base) == "same"
    check(values, base.reshape(11, 9))  # of another shape: not used


def test_a_difference_is_taken_where_it_is_smaller() -> None:
    base = torch.randn(60, 90)
    assert check(base * (1 + 1e-5 * torch.randn(60, 90)), base) == "difference"
    assert check(torch.randn(60, 90), base) == "bytes"


def test_what_builds_on_a_base_needs_one() -> None:
    for form in ("same", "difference"):
        with pytest.raises(ModelError, match="base"):
            restored(form, b"", like_of(torch.zeros(3)))


@given(st.sampled_from(FORMS), st.binary(max_size=200), SHAPES, st.sampled_from(DTYPES))
def test_bytes_that_nobody_wrote_are_read_or_refused(
    form: str, data: bytes, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    try:
        found = restored(form, data, Like(str(dtype).removeprefix("torch."), shape), torch.zeros(shape, dtype=dtype))
    except ModelError:
        return
    assert (found.shape, found.dtype) == (shape, dtype)


def test_rows_that_are_alike_at_a_distance_tell_of_each_other() -> None:
    chance = np.random.default_rng(0)
    period = chance.random((28, 300)) < 0.1
    alike = np.tile(period, (28, 1)) ^ (chance.random((784, 300)) < 0.01)
    mixed = chance.permuted(alike, axis=0)
    few, many = (len(stored(torch.from_numpy(plane.astype(np.float32))).data) for plane in (alike, mixed))
    assert few < 0.7 * many
    assert check(torch.from_numpy(alike.astype(np.float32))) in ("grid", "codebook")
