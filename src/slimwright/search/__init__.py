"""Which candidates to try, and which of them to ship."""

from slimwright.search.direct import Direct, direct_plan, planned
from slimwright.search.journal import Journal, key_of, open_journal
from slimwright.search.knapsack import Plan, Problem, problem, solve
from slimwright.search.measured import Correction, MeasuredPlan, plan_by_measuring, room
from slimwright.search.measured_plan import measured_plan, plan_once, quantized_wholes
from slimwright.search.menu import Menu
from slimwright.search.planning import Whole
from slimwright.search.policies import (
    LEARNED,
    LEARNED_FILE,
    LEARNING,
    METHODS,
    Parameters,
    Reward,
    Search,
    hypervolume,
    load_parameters,
)
from slimwright.search.predictor import Predictor, factorisable
from slimwright.search.rounded import PACKED
from slimwright.search.space import PAYS, Candidate, Evaluate, Evaluation, Goal, Policy, Space, Tuning, said_of_policy

__all__ = [
    "LEARNED",
    "LEARNED_FILE",
    "LEARNING",
    "METHODS",
    "PACKED",
    "PAYS",
    "Candidate",
    "Correction",
    "Direct",
    "Evaluate",
    "Evaluation",
    "Goal",
    "Journal",
    "MeasuredPlan",
    "Menu",
    "Parameters",
    "Plan",
    "Policy",
    "Predictor",
    "Problem",
    "Reward",
    "Search",
    "Space",
    "Tuning",
    "Whole",
    "direct_plan",
    "factorisable",
    "hypervolume",
    "key_of",
    "load_parameters",
    "measured_plan",
    "open_journal",
    "plan_by_measuring",
    "plan_once",
    "planned",
    "problem",
    "quantized_wholes",
    "room",
    "said_of_policy",
    "solve",
]
