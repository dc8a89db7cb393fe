"""The same net, converted twice in other processes, gives the same bytes, or the runtime's row says what differs."""

import uuid
from collections.abc import Iterator

import pytest
import torch

from exact import small_net
from slimwright.runtimes import RUNTIMES, Workshop
from slimwright.runtimes.known import installed
from slimwright.techniques.fold import fold_batch_norm


@pytest.fixture(scope="module")
def other() -> Iterator[Workshop]:
    """A workshop whose processes hash otherwise than those of `workshop`."""
    with Workshop() as opened:
        yield opened


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_another_conversion_gives_the_same_bytes(
    runtime: str, workshop: Workshop, other: Workshop, tmp_path_factory: pytest.TempPathFactory
) -> None:
    known = RUNTIMES[runtime]
    if not installed(runtime):
        pytest.skip(f"{known.title} or its converter is not installed")
    net, precision = fold_batch_norm(small_net("Residual")), known.precisions[-1]
    images = torch.randn(8, *net.input.shape[1:], generator=torch.Generator().manual_seed(1))
    given = [images] if precision == "int8" else None
    made = [
        each.convert(net, runtime, precision, tmp_path_factory.mktemp("made") / "made", calibration=given)
        for each in (workshop, other)
    ]
    one, two = ({path.name: path.read_bytes() for path in each.files} for each in made)
    assert {name: len(held) for name, held in one.items()} == {name: len(held) for name, held in two.items()}
    if not known.varies:
        assert one == two


@pytest.mark.skipif(not installed("mnn"), reason="MNN is not installed")
def test_the_number_of_an_mnn_file_is_that_of_its_content() -> None:
    from slimwright.runtimes.mnn import with_number_of_content

    chance = str(uuid.uuid4()).encode()
    text = len(chance).to_bytes(4, "little") + chance + b"\0"
    fields = (28).to_bytes(2, "little") + (8).to_bytes(2, "little") + bytes(2 * 11) + (4).to_bytes(2, "little")
    table = (28).to_bytes(4, "little") + (4).to_bytes(4, "little")
    file = (32).to_bytes(4, "little") + fields + table + text
    made = with_number_of_content(file + b"content")
    assert chance not in made and len(made) == len(file) + 7
    assert made == with_number_of_content(made) and made.replace(made[44:80], chance) == file + b"content"
    assert with_number_of_content(file + b"another")[44:80] != made[44:80]
    without = (32).to_bytes(4, "little") + fields[:-2] + bytes(2) + table + text
    assert with_number_of_content(without) == without
