"""A network tried in every runtime: what converts, what is slow, what to change in the model."""

from slimwright.doctor.examining import Diagnosis, Visit, examine
from slimwright.doctor.symptoms import Finding, findings

__all__ = ["Diagnosis", "Finding", "Visit", "examine", "findings"]
