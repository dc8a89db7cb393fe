"""Policies that try candidates: they learn, or they evolve, or they go down greedily."""

from slimwright.search.policies.front import drawing, front, hypervolume
from slimwright.search.policies.parameters import LEARNED_FILE, Parameters, load_parameters
from slimwright.search.policies.reward import Reward, cost_share, score_share
from slimwright.search.policies.trying import LEARNED, LEARNING, METHODS, Search

__all__ = [
    "LEARNED",
    "LEARNED_FILE",
    "LEARNING",
    "METHODS",
    "Parameters",
    "Reward",
    "Search",
    "cost_share",
    "drawing",
    "front",
    "hypervolume",
    "load_parameters",
    "score_share",
]
