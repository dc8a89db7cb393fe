"""The kit's reader in C++: the same bits as Python's in every form, runtimes' files rebuilt, damaged files refused."""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from kits import bundled, written
from mutating import numbered, with_other_bytes
from packed_files import resealed
from shared_workshop import shared_workshop
from slimwright.errors import ModelError, RequestError
from slimwright.graph import Net
from slimwright.graph.encoding import Precision
from slimwright.jobs.kit import Language, kit
from slimwright.measure import Bundle
from slimwright.swz.bytes_of import varints
from slimwright.swz.forms import DTYPES, FORMS, Like, Stored, bits, candidates
from slimwright.swz.grid import from_grid
from slimwright.swz.hashed import Hashed
from slimwright.swz.planes import Words
from slimwright.swz.skeleton import AS_INT8, START, skeleton, unpacked
from slimwright.tasks import Classification
from small_digits import few_digits, small_digit_net
from swz_reader import CRASHED, file_of, run_reader

SHAPES = ((), (7,), (40, 60), (1, 300), (16, 9, 3, 3), (30, 1, 5, 5), (5, 4, 3), (300, 40), (0, 4), (3, 0))
WORDS = {4: np.uint32, 2: np.uint16, 8: np.uint64, 1: np.uint8}
MUTANTS = 300


def few(chance: np.random.Generator, shape: tuple[int, ...], most: int, density: float) -> NDArray[np.int32]:
    """Whole numbers [shape] of a share, others zero; rows have scales of their own."""
    scales = chance.integers(1, most + 1, (*shape[:1], *[1] * (len(shape) - 1)))
    numbers = np.rint(chance.laplace(size=shape) * scales / 4).clip(-most, most)
    return np.asarray(numbers * (chance.random(shape) < density)).astype(np.int32)


def tensors(seed: int) -> Iterator[tuple[Like, Words]]:
    """Tensors of all kinds: their dtypes and shapes, and their bits [n]."""
    chance = np.random.default_rng(seed)
    for shape in SHAPES:
        for density in (0.02, 0.3, 1.0):
            for most in (1, 7, 127, 70_000):
                numbers = few(chance, shape, most, density)
                yield singles(from_grid(numbers, np.float32(chance.uniform(0.001, 1))))
                steps = chance.uniform(0.001, 1, (*shape[:1], *[1] * (len(shape) - 1))).astype(np.float32)
                yield singles(np.asarray(from_grid(numbers, steps)))
            table = np.append(chance.normal(size=14), (0, np.nan, np.inf)).astype(np.float32)
            yield singles(table[chance.integers(0, 3 if density < 1 else 17, shape)])
            yield singles(np.asarray(chance.normal(size=shape) * (chance.random(shape) < density), np.float32))
        for dtype, size in DTYPES.items():
            octets = chance.integers(0, 2 if dtype == "bool" else 256, size * Like(dtype, shape).count, np.uint8)
            yield Like(dtype, shape), octets.view(WORDS[size])
            if "float" in dtype:
                yield Like(dtype, shape), octets.view(WORDS[size]) * (chance.random(len(octets) // size) < 0.5)


def by_hash(seed: int) -> Iterator[tuple[Like, Words, Stored]]:
    """Tensors of values that a hash of their places chooses: their bits [n], and as they are stored by that."""
    chance = np.random.default_rng(seed)
    for shape in SHAPES:
        count = Like("float32", shape).count
        for values in {min(1, count), count // 3, count}:
            hashed = Hashed(values, int(chance.integers(2**31)))
            table = chance.normal(size=max(values, 1)).astype(np.float32)
            like, words = singles(table[hashed.codes(count)].reshape(shape))
            if count and values:
                found = [one for one in candidates(words, like, by_hash=hashed) if one.form == "hashed"]
                yield like, words, found[0]


def singles(values: NDArray[np.float32]) -> tuple[Like, Words]:
    return Like("float32", values.shape), np.ascontiguousarray(values).reshape(-1).view(np.uint32)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:invalid value")
def test_every_form_is_read_to_the_bit(tmp_path: Path) -> None:
    made: list[tuple[Like, Stored]] = []
    wanted = b""
    for like, words in tensors(0):
        for one in candidates(words, like):
            made.append((like, one))
            wanted += words.tobytes()
    for like, words, one in by_hash(0):
        made.append((like, one))
        wanted += words.tobytes()
    assert {one.form for _, one in made} == set(FORMS) - {"same", "difference"}
    assert read(made, tmp_path) == wanted


@pytest.mark.parametrize("shape", [(800, 700), (300, 200, 3, 3)])
def test_large_tensors_whose_rows_are_alike_are_read_to_the_bit(shape: tuple[int, ...], tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    alike = np.tile(chance.random((20, *shape[1:])) < 0.1, (shape[0] // 20, *[1] * (len(shape) - 1)))
    numbers = few(chance, shape, 30, 1.0) * (alike ^ (chance.random(shape) < 0.02))
    numbers[3:9] = 0
    like, words = singles(from_grid(numbers.astype(np.int32), np.float32(0.25)))
    made = list(candidates(words, like))
    assert read([(like, one) for one in made], tmp_path) == words.tobytes() * len(made)


def test_bytes_of_millions_of_numbers_are_read_to_the_bit(tmp_path: Path) -> None:
    octets = (np.random.default_rng(0).random(5_000_000) < 0.1).astype(np.uint8)
    like = Like("uint8", octets.shape)
    made = min(candidates(octets, like), key=lambda one: len(one.data))
    assert made.form == "bytes" and len(made.data) < len(octets) / 8
    assert read([(like, made)], tmp_path) == octets.tobytes()


def read(made: list[tuple[Like, Stored]], folder: Path) -> bytes:
    (folder / "some.swz").write_bytes(file_of(made))
    done = run_reader(folder / "some.swz", folder / "numbers.bin")
    assert (done.returncode, done.stderr) == (0, "")
    return (folder / "numbers.bin").read_bytes()


def spread(seed: int) -> tuple[bytes, bytes]:
    """A runtime's file that has weights in several ways among other bytes, and the packed file that has them."""
    chance = np.random.default_rng(seed)
    numbers = few(chance, (12, 5, 3, 3), 100, 0.5)
    made = [
        singles(chance.normal(size=(20, 30)).astype(np.float32)),
        singles(np.asarray(np.exp2(chance.uniform(-30, 20, (9, 40))), np.float32)),
        singles(from_grid(numbers, np.float32(0.37))),
        singles(from_grid(few(chance, (8, 6), 7, 1.0), np.float32(0.5))),
    ]
    arrays = [words.view(np.float32).reshape(like.shape) for like, words in made]
    with np.errstate(over="ignore"):
        half = arrays[1].astype("<f2")
    parts = [arrays[0].T, half, numbers.transpose(0, 2, 3, 1).astype(np.int8), arrays[3]]
    data = b"head" + b"between".join(np.ascontiguousarray(part).tobytes() for part in parts) + b"end"
    stored = [min(candidates(words, like), key=lambda one: len(one.data)) for like, words in made]
    return data, file_of([(like, one) for (like, _), one in zip(made, stored, strict=True)])


@pytest.mark.parametrize("seed", range(5))
def test_a_file_is_rebuilt_with_weights_turned_rounded_and_whole(seed: int, tmp_path: Path) -> None:
    data, packed = spread(seed)
    made, left_out = skeleton(data, packed)
    assert left_out == len(data) - len(b"head" + 3 * b"between" + b"end")
    (tmp_path / "a.skeleton").write_bytes(made)
    (tmp_path / "a.swz").write_bytes(packed)
    done = run_reader(tmp_path / "a.skeleton", tmp_path / "a.swz", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out").read_bytes() == data


def test_every_float32_is_rounded_to_float16_as_numpy_does(tmp_path: Path) -> None:
    """All exponents, with mantissas beside and on the middle between two float16."""
    low = np.array(
        [0, 1, 0xFFF, 0x1000, 0x1001, 0x1FFF, 0x2FFF, 0x3000, 0x3001, 0x7FFFFF, 0x7FF000, 0x400000], np.uint32
    )
    bits = (np.arange(512, dtype=np.uint32)[:, None] << 23 | low).reshape(-1)
    bits = bits[np.isfinite(bits.view(np.float32))]
    packed = file_of([(Like("float32", bits.shape), Stored("raw", bits.astype("<u4").tobytes()))])
    with np.errstate(over="ignore"):
        data = bits.view(np.float32).astype("<f2").tobytes()
    made, left_out = skeleton(data, packed)
    assert left_out == len(data)
    (tmp_path / "a.skeleton").write_bytes(made)
    (tmp_path / "a.swz").write_bytes(packed)
    assert run_reader(tmp_path / "a.skeleton", tmp_path / "a.swz", tmp_path / "out").returncode == 0
    assert (tmp_path / "out").read_bytes() == data


def test_what_needs_a_base_is_refused(tmp_path: Path) -> None:
    for form in ("same", "difference"):
        (tmp_path / "some.swz").write_bytes(file_of([(Like("float32", (3,)), Stored(form, b""))]))
        done = run_reader(tmp_path / "some.swz", tmp_path / "out")
        assert done.returncode == 1 and "base" in done.stderr and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "said",
    [
        varints((0, 5)),  # no values
        varints((13, 5)) + bytes([1, 0] * 4),  # more values than numbers
        varints((5, 2**31)) + bytes([1, 0] * 4),  # a seed that is too large
        varints((5, 5)),  # no table
        b"",
    ],
)
def test_hashed_numbers_that_tell_nonsense_are_refused(said: bytes, tmp_path: Path) -> None:
    like = Like("float32", (3, 4))
    (tmp_path / "some.swz").write_bytes(file_of([(like, Stored("hashed", said))]))
    done = run_reader(tmp_path / "some.swz", tmp_path / "out")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and not (tmp_path / "out").exists()
    with pytest.raises(ModelError):
        bits("hashed", said, like)
    with pytest.raises(ModelError, match="is for float32"):
        bits("hashed", varints((1, 5)) + bytes([1, 0] * 4), Like("int32", (3, 4)))


def test_weights_of_another_net_are_refused(tmp_path: Path) -> None:
    (data, packed), (_, other) = spread(0), spread(1)
    (tmp_path / "a.skeleton").write_bytes(skeleton(data, packed)[0])
    (tmp_path / "a.swz").write_bytes(other)
    done = run_reader(tmp_path / "a.skeleton", tmp_path / "a.swz", tmp_path / "out")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and not (tmp_path / "out").exists()
    with pytest.raises(ModelError, match="SHA-256"):
        unpacked((tmp_path / "a.skeleton").read_bytes(), other)


@pytest.mark.parametrize(
    "told",
    [
        (1, 0, 9, 0, 0),  # a tensor that is not there
        (2, 0, 0, 0, 0, 0, 0, 0, 0),  # one twice
        (1, 0, 0, 7, 0),  # an unknown way
        (1, 0, 0, 0, 2, 1, 1),  # an axis twice
        (1, 0, 0, 0, 3, 0, 1, 2),  # too many axes
        (1, 0, 0, AS_INT8, 0),  # whole numbers that there are none
        (1, 9**9, 0, 0, 0),  # bytes that are not there
        (2**40,),  # spans that are not there
    ],
)
def test_a_skeleton_that_tells_nonsense_is_refused(told: tuple[int, ...], tmp_path: Path) -> None:
    one = singles(np.full((4, 4), 1 / 3, np.float32))
    (tmp_path / "a.swz").write_bytes(file_of([(one[0], Stored("raw", one[1].tobytes()))]))
    (tmp_path / "a.skeleton").write_bytes(START + hashlib.sha256().digest() + varints(told))
    done = run_reader(tmp_path / "a.skeleton", tmp_path / "a.swz", tmp_path / "out")
    assert done.returncode == 1 and done.stderr.startswith("swz_unpack: ") and done.stderr.count("\n") == 1
    with pytest.raises(ModelError):
        unpacked((tmp_path / "a.skeleton").read_bytes(), (tmp_path / "a.swz").read_bytes())


def test_files_that_were_damaged_end_with_a_message(tmp_path: Path) -> None:
    """Many with checksums that are right again; no read beside a file's bytes, no arithmetic without a result."""
    data, packed = spread(0)
    small = [(like, one) for like, words in tensors(0) if like.count < 400 for one in candidates(words, like)]
    small += [(like, one) for like, _, one in by_hash(0) if like.count < 400]
    whole = tmp_path / "whole.swz"
    refused = 0
    for number, chance in enumerate(numbered(MUTANTS)):
        name, given = tmp_path / "a.swz", [tmp_path / "a.swz"]
        if number % 3 == 0:
            whole.write_bytes(skeleton(data, packed)[0])
            given = [tmp_path / "a.skeleton", tmp_path / "a.swz"]
            name.write_bytes(packed)
            given[0].write_bytes(with_other_bytes(whole.read_bytes(), chance))
        else:
            some = file_of(chance.sample(small, 3))
            name.write_bytes(with_other_bytes(some, chance))
            if number % 3 == 1:
                resealed(name)
        done = run_reader(*given, tmp_path / "out")
        assert done.returncode in (0, 1) and done.returncode != CRASHED, done.stderr
        assert done.returncode == 0 or (done.stderr.startswith("swz_unpack: ") and done.stderr.count("\n") == 1)
        refused += done.returncode
    assert refused > MUTANTS / 2


def digit_bundle(net: Net, folder: Path, precision: Precision = "fp32") -> Bundle:
    """A bundle of a net for digits, in ONNX Runtime."""
    made = shared_workshop().convert(net, "onnxruntime", precision, folder / "made").copied(folder, "model")
    bundle = bundled(made, few_digits(), Classification(few_digits().labels))
    written(bundle, net)
    return bundle


def on_a_grid(net: Net) -> Net:
    """The net with its weights as multiples of a step."""
    step = 2.0**-6
    return net.edited(tensors={k: (v / step).round() * step + 0.0 for k, v in net.tensors.items()})


@pytest.mark.parametrize("language", ["python", "cpp"])
def test_a_kit_rebuilds_its_model_bit_by_bit(language: Language, tmp_path: Path) -> None:
    """The Python reader without torch and without slimwright."""
    bundle = digit_bundle(on_a_grid(small_digit_net()), tmp_path / "b")
    found = kit(bundle, language, few_digits(), tmp_path / "kit", packed=True)
    home, model = tmp_path / "kit" / "packed", (tmp_path / "kit" / "model.onnx").read_bytes()
    sizes = [(home / name).stat().st_size for name in ("weights.swz", "model.onnx.skeleton")]
    assert found.download is not None
    assert found.download.size_bytes == sum(sizes) < found.download.artefact_bytes / 2 == len(model) / 2
    assert "model.onnx.skeleton" in (tmp_path / "kit" / "README.md").read_text()
    if language == "cpp":
        done = run_reader(home / "model.onnx.skeleton", home / "weights.swz", tmp_path / "model.onnx")
    else:
        blocked = (
            "import runpy, sys; sys.modules.update(torch=None, slimwright=None, onnx=None); sys.argv = sys.argv[1:]"
        )
        code = f"{blocked}; runpy.run_path(sys.argv[0], run_name='__main__')"
        command = [sys.executable, "-c", code, str(home / "unpack.py"), str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "model.onnx").read_bytes() == model


def test_a_model_that_would_not_be_smaller_is_not_packed(tmp_path: Path) -> None:
    bundle = digit_bundle(small_digit_net(), tmp_path / "b", "fp16")
    with pytest.raises(RequestError, match="packed, the model would take"):
        kit(bundle, "android", few_digits(), tmp_path / "kit", packed=True)
    assert not (tmp_path / "kit").exists()
