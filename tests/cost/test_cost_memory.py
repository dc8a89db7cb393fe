import pytest

from slimwright.cost import check_memory, memory_there
from slimwright.errors import RequestError
from slimwright.runner.memory import available_bytes


def test_what_is_given_goes_before_what_the_system_has() -> None:
    assert memory_there(10) == 10
    assert memory_there() > 0
    assert available_bytes() is None or memory_there() < 2**60


def test_too_little_memory_is_told_with_what_is_needed_and_what_to_do() -> None:
    check_memory("fine-tuning", 4e9, 4e9, "give smaller inputs")
    told = r"^fine-tuning needs about 4.00.GB of memory, and 3.00.GB are there: give smaller inputs, .* --memory-limit$"
    with pytest.raises(RequestError, match=told):
        check_memory("fine-tuning", 4e9, 3e9, "give smaller inputs")
