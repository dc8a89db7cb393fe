"""Cases of a test that take long for what they find beside the others: `make test-slow` runs them."""

from typing import Any

import pytest


def slow(*values: Any) -> Any:
    """Return a case for `pytest.mark.parametrize`."""
    return pytest.param(*values, marks=pytest.mark.slow)
