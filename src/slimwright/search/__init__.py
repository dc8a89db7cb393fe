"""Which rewrites to apply."""

from slimwright.search.knapsack import Plan, Problem, problem, solve
from slimwright.search.measured import MOST, MeasuredPlan, plan_by_measuring
from slimwright.search.predictor import CP_RANK, IN_RANK, OUT_RANK, Predictor, factorisable, rank_damages

__all__ = [
    "CP_RANK",
    "IN_RANK",
    "MOST",
    "OUT_RANK",
    "MeasuredPlan",
    "Plan",
    "Predictor",
    "Problem",
    "factorisable",
    "plan_by_measuring",
    "problem",
    "rank_damages",
    "solve",
]
