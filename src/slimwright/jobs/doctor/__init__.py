"""A network tried in every runtime: what converts, what is slow, what to change in the model."""

from slimwright.jobs.doctor.examining import Diagnosis, Visit, examine
from slimwright.jobs.doctor.symptoms import Finding, findings

__all__ = ["Diagnosis", "Finding", "Visit", "examine", "findings"]
