"""What slimwright does for people: one file a job."""

from slimwright.jobs.shrink import Settings, shrink

__all__ = ["Settings", "shrink"]
