"""Policies for tests that need less than all of a search."""

from dataclasses import replace

from slimwright.search import Evaluate, Evaluation, Journal, Space, measured_plan


def in_float(space: Space, evaluate: Evaluate, journal: Journal) -> Evaluation:
    """The usual policy where nothing is converted for eight bits, which takes half of the time."""
    return measured_plan(replace(space, encodings=[]), evaluate, journal)
