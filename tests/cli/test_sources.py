from pathlib import Path

import pytest

from slimwright.cli.sources import read_original
from slimwright.errors import ModelError


@pytest.mark.parametrize("spec", ["models/resnet20", "resnet20.onnx", "net.pt2", "checkpoint.pth"])
def test_a_path_that_leads_nowhere_is_no_name_of_the_zoo(spec: str) -> None:
    with pytest.raises(ModelError, match=r"no file and no folder of that name; check the path$"):
        read_original(Path(spec))


@pytest.mark.parametrize(("spec", "nearest"), [("resnet2", "resnet20"), ("squeezenet1.2", "squeezenet1.0")])
def test_a_name_that_the_zoo_does_not_hold_is_told_with_the_nearest(spec: str, nearest: str) -> None:
    with pytest.raises(ModelError, match=f"there is no network '{spec}' in the zoo; the nearest names are .*{nearest}"):
        read_original(Path(spec))
