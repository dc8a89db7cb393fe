"""What slimwright does for people: one file a job."""

from slimwright.jobs.compare import Comparison, compare
from slimwright.jobs.front import front
from slimwright.jobs.inspect import Subject, inspect
from slimwright.jobs.opened import Settings
from slimwright.jobs.shrink import shrink

__all__ = ["Comparison", "Settings", "Subject", "compare", "front", "inspect", "shrink"]
