"""Prove artefacts: run, compare, score, time; and the records of what was measured."""

from slimwright.measure.bundle import Bundle, Manifest, load_bundle
from slimwright.measure.prove import EFFORTS, Exam, ProofEffort, Proven, outputs_of, parity, prove, times
from slimwright.measure.records import Decision, Outcome, Parity, Record, Timing

__all__ = [
    "EFFORTS",
    "Bundle",
    "Decision",
    "Exam",
    "Manifest",
    "Outcome",
    "Parity",
    "ProofEffort",
    "Proven",
    "Record",
    "Timing",
    "load_bundle",
    "outputs_of",
    "parity",
    "prove",
    "times",
]
