"""slimwright: a trained CNN and a device budget in, a smaller, faster model out, proven on the runtime that runs it."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slimwright.cost import Budget, Cost, count
    from slimwright.errors import SlimwrightError
    from slimwright.graph import Net
    from slimwright.importers import capture
    from slimwright.jobs.opened import Settings
    from slimwright.jobs.shrink import shrink
    from slimwright.measure import Bundle, load_bundle
    from slimwright.techniques import Recipe

_HOME = {  # loaded when asked for, so that `slimwright --help` does not wait for torch
    "Budget": "cost",
    "Bundle": "measure",
    "Cost": "cost",
    "Net": "graph",
    "Recipe": "techniques",
    "Settings": "jobs",
    "SlimwrightError": "errors",
    "capture": "importers",
    "count": "cost",
    "load_bundle": "measure",
    "shrink": "jobs",
}

__all__ = [
    "Budget",
    "Bundle",
    "Cost",
    "Net",
    "Recipe",
    "Settings",
    "SlimwrightError",
    "capture",
    "count",
    "load_bundle",
    "shrink",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'slimwright' has no attribute '{name}'")
    return getattr(importlib.import_module(f"slimwright.{_HOME[name]}"), name)
