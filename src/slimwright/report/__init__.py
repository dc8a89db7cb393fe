"""Show a bundle to people: one page that works offline, and its charts as images."""

from slimwright.report.figures import (
    NONE,
    columns,
    compared,
    ends,
    figures_of,
    fixed,
    notes,
    op_name,
    reasons,
    shown,
    size,
)
from slimwright.report.fleet_page import fleet_page
from slimwright.report.inspected import check_page, write_inspection
from slimwright.report.write import check_drawing, missing_page, write_front, write_report

__all__ = [
    "NONE",
    "check_drawing",
    "check_page",
    "columns",
    "compared",
    "ends",
    "figures_of",
    "fixed",
    "fleet_page",
    "missing_page",
    "notes",
    "op_name",
    "reasons",
    "shown",
    "size",
    "write_front",
    "write_inspection",
    "write_report",
]
