"""Which candidates to try, and which of them to ship."""

from slimwright.search.journal import Journal, key_of, open_journal
from slimwright.search.knapsack import Plan, Problem, problem, solve
from slimwright.search.measured import MeasuredPlan, plan_by_measuring, room
from slimwright.search.measured_plan import measured_plan, plan_once
from slimwright.search.menu import Menu
from slimwright.search.predictor import Predictor, factorisable
from slimwright.search.rounded import PACKED
from slimwright.search.space import Candidate, Evaluate, Evaluation, Goal, Policy, Space, Tuning

__all__ = [
    "PACKED",
    "Candidate",
    "Evaluate",
    "Evaluation",
    "Goal",
    "Journal",
    "MeasuredPlan",
    "Menu",
    "Plan",
    "Policy",
    "Predictor",
    "Problem",
    "Space",
    "Tuning",
    "factorisable",
    "key_of",
    "measured_plan",
    "open_journal",
    "plan_by_measuring",
    "plan_once",
    "problem",
    "room",
    "solve",
]
