"""What slimwright does for people: one file a job."""

from slimwright.jobs.inspect import Subject, inspect
from slimwright.jobs.shrink import Settings, shrink

__all__ = ["Settings", "Subject", "inspect", "shrink"]
