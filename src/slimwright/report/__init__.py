"""Show a bundle to people: one page that works offline, and its charts as images."""

from slimwright.report.inspected import write_inspection
from slimwright.report.write import write_report

__all__ = ["write_inspection", "write_report"]
