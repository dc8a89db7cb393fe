"""Prove an artefact: convert, run, compare, score, time; and the records of what was measured."""

from slimwright.measure.bundle import Bundle, load_bundle

__all__ = ["Bundle", "load_bundle"]
